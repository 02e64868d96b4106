package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Names that several rows use.
const (
	yardstick = "yardstick"
	tcp       = "pitaya"
	ws        = "pitaya WS"

	// echo50 is the case that others are scaled by: where its yardstick needs more than usualEcho microseconds, the
	// machine is a slower one than that for which absolute bounds were written.
	echo50    = "tcp-json-50x1"
	usualEcho = 7.2
)

// rows are all that can be measured, in the order of the table.
func rows() []row {
	return slices.Concat(echoRows(), jsonRows(), wsRows(), idleRows(), broadcastRows(), connectRows(), scaleRows(), latencyRows(), clusterRows(), binaryRows())
}

// echo is a row in which requests are echoed over TCP.
func echo(bound int, shape string, conns, inFlight int, c check) row {
	r := row{
		name:   fmt.Sprintf("tcp-%s-%dx%d", shape, conns, inFlight),
		bound:  bound,
		title:  fmt.Sprintf("TCP echo, %s 64 B, %s × %d", shape, grouped(conns), inFlight),
		load:   slices.Concat(closed(conns, inFlight), shapeFlags(shape)),
		figure: cpu,
		contenders: []contender{
			{name: yardstick, start: bareServer()},
			{name: tcp, start: ourServer("tcp", serializerFlags(shape)...), checks: []check{c}},
		},
	}
	if inFlight > 1 {
		r.needs = []string{echo50}
	} else if shape == "json" {
		// It has no bound, and none is relative to it. It tells how much of one encoding/json takes by itself.
		r.contenders = slices.Insert(r.contenders, 1, contender{name: yardstick + " with JSON", start: bareServer("-json")})
	}
	return r
}

func echoRows() []row {
	yard := ref{contender: yardstick}
	scale := &ref{echo50, yardstick}
	return []row{
		echo(1, "json", 50, 1, times(cpu, 1.35, yard)),
		echo(1, "json", 1000, 1, times(cpu, 1.35, yard)),
		echo(1, "protobuf", 50, 1, times(cpu, 1.2, yard)),
		echo(1, "raw", 50, 1, times(cpu, 1.2, yard)),
		echo(2, "json", 50, 16, beyond(cpu, 2.6, yard, scale, usualEcho)),
		echo(2, "json", 1000, 16, beyond(cpu, 2.6, yard, scale, usualEcho)),
		echo(2, "raw", 50, 16, beyond(cpu, 1.0, yard, scale, usualEcho)),
	}
}

func jsonRows() (list []row) {
	const size, codec = 1024, "encoding/json"
	for _, inFlight := range []int{1, 16} {
		list = append(list, row{
			name:   fmt.Sprintf("tcp-json1k-50x%d", inFlight),
			bound:  3,
			title:  fmt.Sprintf("TCP echo, json 1 KiB, 50 × %d", inFlight),
			load:   append(closed(50, inFlight), "-size", strconv.Itoa(size)),
			figure: cpu,
			contenders: []contender{
				{name: yardstick, start: bareServer()},
				{name: codec, measure: jsonCost(size)},
				{name: tcp, start: ourServer("tcp"), checks: []check{times(cpu, 1.2, ref{contender: yardstick}, ref{contender: codec})}},
			},
		})
	}
	return list
}

func wsRows() (list []row) {
	ours := ref{contender: tcp}
	for inFlight, c := range map[int]check{1: times(cpu, 1.15, ours), 16: beyond(cpu, 1.5, ours, nil, 0)} {
		list = append(list, row{
			name:   fmt.Sprintf("ws-json-50x%d", inFlight),
			bound:  4,
			title:  fmt.Sprintf("WS echo, json 64 B, 50 × %d", inFlight),
			load:   closed(50, inFlight),
			figure: cpu,
			contenders: []contender{
				{name: tcp, start: ourServer("tcp")},
				{name: ws, start: ourServer("ws"), checks: []check{c}},
			},
		})
	}
	slices.SortFunc(list, func(a, b row) int { return len(a.name) - len(b.name) })
	return list
}

func idleRows() []row {
	const conns = 18000
	load := []string{"-scenario", "idle", "-conns", strconv.Itoa(conns)}
	collect := []string{"-gc"}
	return []row{
		{
			name: "idle-memory", bound: 5, title: grouped(conns) + " idle connections, memory", load: load, figure: rss,
			contenders: []contender{
				{name: yardstick, start: bareServer()},
				{name: tcp, start: ourServer("tcp"), load: collect, checks: []check{atMost(rss, 4600), atMost(goroutines, 1)}},
				{name: ws, start: ourServer("ws"), load: collect, checks: []check{atMost(rss, 5200), atMost(goroutines, 1)}},
			},
		},
		{
			// Longer than two heartbeats.
			name: "idle-cpu", bound: 5, title: grouped(conns) + " idle connections, heartbeats", load: load, figure: cores,
			runs: 1, duration: 65 * time.Second,
			contenders: []contender{
				{name: yardstick, start: bareServer("-heartbeat")},
				{name: tcp, start: ourServer("tcp"), checks: []check{atMost(cores, 0.5)}},
			},
		},
	}
}

func broadcastRows() (list []row) {
	for _, b := range []struct {
		conns, atOnce int
		factor        float64
	}{{1000, 1, 1.1}, {10000, 1, 1.1}, {1000, 10, 0.3}, {1000, 100, 0.12}} {
		atOnce := []string{"-at-once", strconv.Itoa(b.atOnce)}
		list = append(list, row{
			name:   fmt.Sprintf("broadcast-%dx%d", b.conns, b.atOnce),
			bound:  6,
			title:  fmt.Sprintf("broadcast to %s, %d at once, per delivery", grouped(b.conns), b.atOnce),
			load:   append([]string{"-scenario", "broadcast", "-conns", strconv.Itoa(b.conns)}, atOnce...),
			figure: cpu,
			contenders: []contender{
				{name: yardstick, start: bareServer(append(atOnce, "-broadcast")...)},
				{name: tcp, start: ourServer("tcp"), checks: []check{times(cpu, b.factor, ref{contender: yardstick})}},
			},
		})
	}
	return list
}

func connectRows() []row {
	yard := ref{contender: yardstick}
	return []row{{
		name: "connect", bound: 7, title: "connect, handshake, close", load: []string{"-scenario", "connect", "-conns", "16"}, figure: cpu,
		contenders: []contender{
			{name: yardstick, start: bareServer()},
			{name: tcp, start: ourServer("tcp"), checks: []check{times(cpu, 1.15, yard)}},
			{name: ws, start: ourServer("ws"), checks: []check{times(cpu, 1.35, yard)}},
			{name: yardstick + " WS", start: bareServer("-ws")},
		},
	}}
}

func scaleRows() []row {
	few, many := closed(1000, 1), closed(10000, 1)
	return []row{{
		name: "scale-10000", bound: 11, title: "TCP echo, json 64 B, 10,000 busy connections", figure: cpu,
		contenders: []contender{
			{name: tcp + ", 1,000", start: ourServer("tcp"), load: few},
			{name: tcp + ", 10,000", start: ourServer("tcp"), load: many, checks: []check{times(cpu, 1.5, ref{contender: tcp + ", 1,000"})}},
			{name: yardstick + ", 1,000", start: bareServer(), load: few},
			{name: yardstick + ", 10,000", start: bareServer(), load: many},
		},
	}}
}

// latencyRows are at half of the yardstick's rate, for which the load generator needs all of its core, and at a quarter,
// where it has room, so that what is waited for is the server.
func latencyRows() []row {
	open := func(name, share string, factor float64) row {
		r := &rate{ref{echo50, yardstick}, factor}
		return row{
			name: name, title: "TCP echo, json 64 B, 50 connections, open load at " + share + " of the yardstick's " + echo50 + " rate", figure: p99,
			load: []string{"-conns", "50"}, needs: []string{echo50},
			contenders: []contender{
				{name: yardstick, start: bareServer(), rate: r},
				{name: yardstick + " with JSON", start: bareServer("-json"), rate: r},
				{name: tcp, start: ourServer("tcp"), rate: r, checks: []check{times(p99, 1.5, ref{contender: yardstick})}},
			},
		}
	}
	return []row{open("latency-json-50", "half", 0.5), open("latency-json-50-quarter", "a quarter", 0.25)}
}

// closed are the flags of a closed load.
func closed(conns, inFlight int) []string {
	return []string{"-conns", strconv.Itoa(conns), "-inflight", strconv.Itoa(inFlight)}
}

// shapeFlags are the load generator's flags for bodies of a shape, for which the server has a handler each.
func shapeFlags(shape string) []string {
	switch shape {
	case "raw":
		return []string{"-shape", shape, "-route", "connector.interopsvc.echoraw"}
	case "protobuf":
		return []string{"-shape", shape, "-route", "connector.interopsvc.echoproto"}
	}
	return nil
}

// serializerFlags are those of our server.
func serializerFlags(shape string) []string {
	if shape == "protobuf" {
		return []string{"-serializer", "protobuf"}
	}
	return nil
}
