package main

import (
	"fmt"
	"time"
)

// Names of contenders in rows of clusters.
const (
	bareGate  = "gate and room"
	plainNATS = "nats.go"
	plainGRPC = "grpc-go"
)

// roomRoute has the same handler in the library's cluster; the bare gate takes any route.
var roomRoute = []string{"-route", "room.room.echo"}

// p50 is what a frontend and a backend at rest add to a request's way.
var p50 = figure{"p50", "µs", func(s sample) float64 { return s.P50 }}

func clusterRows() []row {
	gate := ref{contender: bareGate}
	forwarded := func(name, title string, load []string, f figure, delay time.Duration, c check) row {
		return row{
			name: "nats-" + name, bound: 9, title: "forwarded over NATS, json 64 B, " + title, load: append(load, roomRoute...), figure: f,
			contenders: []contender{
				{name: bareGate, start: bareCluster(delay)},
				{name: tcp, start: ourCluster(nats, delay), checks: []check{c}},
			},
		}
	}
	var list []row
	for _, l := range []struct {
		conns, inFlight int
		factor          float64
	}{{50, 1, 1.6}, {50, 16, 2}, {1000, 16, 2}} {
		list = append(list, forwarded(fmt.Sprintf("json-%dx%d", l.conns, l.inFlight), fmt.Sprintf("%s × %d", grouped(l.conns), l.inFlight),
			closed(l.conns, l.inFlight), cpu, 0, times(cpu, l.factor, gate)))
	}
	return append(list,
		forwarded("latency", "1,000/s open load", []string{"-conns", "1000", "-rate", "1000"}, p50, 0, times(p50, 1.3, gate)),
		forwarded("slow", "1,000 × 1, a handler of 100 ms", closed(1000, 1), perSecond, 100*time.Millisecond, noLess(perSecond, 9000)),
		row{
			name: "rpc-nats", bound: 9, title: "calls between two servers over NATS, 50 at a time", figure: cpu,
			contenders: []contender{
				{name: plainNATS, measure: calls("plain", nats)},
				{name: tcp, measure: calls("pitaya", nats), checks: []check{times(cpu, 1.5, ref{contender: plainNATS})}},
			},
		},
		row{
			name: "grpc-json-50x1", bound: 10, title: "forwarded over gRPC, json 64 B, 50 × 1", load: append(closed(50, 1), roomRoute...), figure: cpu,
			needs: []string{echo50},
			contenders: []contender{
				{name: plainGRPC, measure: calls("plain", grpc)},
				{name: tcp, start: ourCluster(grpc, 0), checks: []check{times(cpu, 1.5, ref{contender: plainGRPC}, ref{echo50, tcp})}},
			},
		},
	)
}
