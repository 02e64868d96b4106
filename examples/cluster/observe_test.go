package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/devtest"
)

// TestObserved lets clients play, and compares what they did with what is seen of it: in the metrics as they are scraped,
// in those that a statsd server is sent, and in the traces. All three are to show the same numbers, and those are the
// clients'. The servers are one process with a cluster in memory, or processes with a real etcd, and NATS or gRPC.
func TestObserved(t *testing.T) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		observe(t, callMemory, func(t *testing.T, out io.Writer, spans string, args ...string) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- run(ctx, append(args, "-quiet", "-listen=127.0.0.1:0", "-spans="+spans), nil, nil, out, t.Output())
			}()
			t.Cleanup(func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	})
	if testing.Short() {
		return // no real etcd and NATS
	}
	etcd, nats := devtest.Etcd(t).URL(), devtest.NATS(t).URL()
	binary := build(t)
	for call, more := range map[string][]string{
		callNATS: {"-nats=" + nats, "-pitaya.cluster.sd.etcd.prefix=nats/"},
		callGRPC: {"-grpc", "-pitaya.cluster.sd.etcd.prefix=grpc/", "-pitaya.modules.bindingstorage.etcd.prefix=grpc-users/"},
	} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			observe(t, call, func(t *testing.T, out io.Writer, spans string, args ...string) {
				args = slices.Concat([]string{"-etcd=" + etcd, "-listen=127.0.0.1:0"}, more, args)
				for _, role := range []string{typeScore, typeRoom, typeGate} {
					ready := newOutput()
					startProgram(t, io.MultiWriter(out, ready), nil, binary, append(args, "-role="+role, "-spans="+spans+role)...)
					ready.expect(t, "is ready")
				}
			})
		})
	}
}

// observe is the test with one cluster. start starts its servers, which end with the test that it is given; their traces go
// to files whose names begin with spans. call is what a call between them is named in a trace.
func observe(t *testing.T, call string, start func(t *testing.T, out io.Writer, spans string, args ...string)) {
	statsd := newStatsdServer(t)
	files := filepath.Join(t.TempDir(), "spans")
	done := newDeeds(call)
	t.Run("play", func(t *testing.T) {
		out := newOutput()
		start(t, out, files, "-pitaya.metrics.prometheus.enabled", "-pitaya.metrics.prometheus.port=0",
			"-pitaya.metrics.statsd.enabled", "-pitaya.metrics.statsd.host="+statsd.address())
		gate := out.expect(t, " is ready for clients at ")
		done.play(t, gate)
		done.scrape(t, out)
	})
	// The servers have ended, and have said all.
	done.compare(t, "statsd", statsd.end(t))
	var text strings.Builder
	names, err := filepath.Glob(files + "*")
	if err != nil || len(names) == 0 {
		t.Fatal("no spans", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(string(b))
	}
	done.compareSpans(t, readSpans(t, text.String()))
}

// Names of the spans of calls between servers.
const (
	callMemory = "RPC Call"
	callNATS   = "NATS RPC Call"
	callGRPC   = "GRPC RPC Call"
)

// deeds are what clients have done and seen, and what follows from it for the servers.
type deeds struct {
	call     string
	counters map[string]int // "gate requests" and so on
	times    map[string]int // "gate room.room.say handler CODE" and so on: how often response_time_ns was observed
	traces   map[string]int // trees, with what a span has led to in parentheses behind it
}

func newDeeds(call string) *deeds {
	return &deeds{call: call, counters: make(map[string]int), times: make(map[string]int), traces: make(map[string]int)}
}

// A watched client counts what it does.
type watched struct {
	*pitaya.Client
	t      *testing.T
	done   *deeds
	bound  bool
	pushes chan string // routes
}

func (d *deeds) dial(t *testing.T, gate string) *watched {
	t.Helper()
	c := &watched{t: t, done: d, pushes: make(chan string, 100)}
	var err error
	c.Client, err = pitaya.Dial(t.Context(), "tcp://"+gate, &pitaya.ClientConfig{
		OnAnyPush: func(route string, _ []byte) { c.pushes <- route },
	})
	if err != nil {
		t.Fatal(err)
	}
	d.counters["gate accepted_connections"]++
	return c
}

// ask sends a request, and wants an answer with a code, "" for success.
func (c *watched) ask(route string, v any, code string) {
	c.t.Helper()
	err := c.Request(c.t.Context(), route, v, nil)
	if pitaya.ErrorCode(err) != code {
		c.t.Errorf("%s: got %v, want code %q", route, err, code)
	}
	c.done.counters["gate requests"]++
	if err == nil {
		c.done.counters["gate answered"]++
	} else {
		c.done.counters["gate failed"]++
	}
	c.done.message(route, pitaya.ErrorCode(err), true)
}

func (c *watched) enter(name string) {
	c.t.Helper()
	c.ask("gate.player.enter", &EnterRequest{name}, "")
	c.bound = true
	c.done.event()
}

func (c *watched) tell(route string, v any) {
	c.t.Helper()
	if err := c.Notify(c.t.Context(), route, v); err != nil {
		c.t.Error(err)
	}
	c.done.counters["gate notifies"]++
	c.done.message(route, "", false)
}

// seen waits for a push to all of some clients.
func (d *deeds) seen(route string, by ...*watched) {
	for _, c := range by {
		c.t.Helper()
		select {
		case got := <-c.pushes:
			if got != route {
				c.t.Errorf("pushed %s, want %s", got, route)
			}
			d.counters["gate pushes"]++
		case <-time.After(time.Minute):
			c.t.Fatalf("%s was not pushed", route)
		}
	}
	if len(by) > 1 { // one message has it for all; what is for one only is no call
		d.counters["room multi_pushes"]++
		d.counters["gate calls"]++
		d.traces["sys.pushusers@gate"]++
	}
}

// event is what the servers do when a session is bound, and when such a session ends: the room server is told.
func (d *deeds) event() {
	d.counters["room calls"]++
	d.traces["sys.sessionevent@room"]++
	if d.call == callGRPC { // where the order is only certain if each is answered
		d.times["gate sys.sessionevent rpc"]++
	}
}

// leave ends the connection; there are no pushes that nobody has waited for.
func (c *watched) leave() {
	c.Close()
	<-c.Done()
	if n := len(c.pushes); n > 0 {
		c.t.Errorf("%d more pushes, the first is %s", n, <-c.pushes)
	}
	c.done.counters["gate closed_connections"]++
	if c.bound {
		c.done.event()
	}
}

// message adds what one message of a client is to the servers.
func (d *deeds) message(route, code string, answered bool) {
	serverType, _, _ := strings.Cut(route, ".")
	failure := ""
	if code != "" {
		failure = " " + code
	}
	write := ""
	if answered {
		write = " (conn write)"
	}
	if serverType == typeGate {
		if code == pitaya.CodeNotFound {
			d.times["gate unknown handler"+failure]++
		} else {
			d.times["gate "+route+" handler"+failure]++
		}
		d.traces[route+"@gate"+failure+write]++
		return
	}
	d.counters["gate forwards"]++
	d.counters[serverType+" calls"]++
	known := route
	if code == pitaya.CodeNotFound {
		known = "unknown"
	}
	if answered {
		d.times["gate "+known+" handler"+failure]++
	}
	d.times["gate "+known+" rpc"+failure]++
	if known == route { // else there is nothing that it could be reported of
		d.times[serverType+" "+route+" forwarded"+failure]++
	}
	next := ""
	switch {
	case code != "":
	case route == "room.room.say":
		d.counters["score calls"]++
		d.times["room score.board.add rpc"]++
		d.times["score score.board.add remote"]++
		next = " (" + d.call + "@room (score.board.add@score))"
	case route == "room.room.join":
		d.counters["gate calls"]++
		d.times["room sys.mergesession rpc"]++
		next = " (" + d.call + "@room (sys.mergesession@gate))"
	}
	d.traces[route+"@gate"+failure+" ("+d.call+"@gate"+failure+" ("+route+"@"+serverType+failure+next+"))"+write]++
}

// play is what the clients do.
func (d *deeds) play(t *testing.T, gate string) {
	ann, bob, stranger := d.dial(t, gate), d.dial(t, gate), d.dial(t, gate)
	ann.enter("ann")
	bob.enter("bob")
	stranger.ask("gate.player.enter", &EnterRequest{"a name that is far too long"}, pitaya.CodeBadRequest)
	stranger.ask("room.room.join", &JoinRequest{"lobby"}, pitaya.CodeUnbound)
	stranger.ask("gate.made.up", nil, pitaya.CodeNotFound)
	stranger.ask("score.board.add", nil, pitaya.CodeNotFound) // a remote is not for clients
	ann.ask("room.room.say", &SayRequest{"anybody?"}, CodeNotInRoom)
	ann.ask("room.room.join", &JoinRequest{"lobby"}, "")
	bob.ask("room.room.join", &JoinRequest{"lobby"}, "")
	d.seen("onJoin", ann)
	for range 3 {
		ann.ask("room.room.say", &SayRequest{"hello"}, "")
		d.seen("onSay", ann, bob)
	}
	bob.ask("room.room.say", &SayRequest{}, pitaya.CodeBadRequest)
	for i := range 5 {
		bob.tell("room.room.move", &MoveNotify{X: i})
		d.seen("onMove", ann, bob)
	}
	bob.ask("room.room.leave", nil, "")
	d.seen("onLeave", ann)
	bob.ask("room.room.say", &SayRequest{"still there?"}, CodeNotInRoom)
	for _, c := range []*watched{stranger, bob, ann} {
		c.leave()
	}
}

// seen are metrics as one of the ways shows them, with the keys of deeds.
type seen struct{ counters, times map[string]int }

func newSeen() *seen { return &seen{make(map[string]int), make(map[string]int)} }

// add adds a value of a metric. Those that tell of something else than messages and connections are left out.
func (s *seen) add(serverType, name string, labels map[string]string, n int) {
	switch name {
	case "response_time_ns":
		key := strings.TrimSpace(serverType + " " + labels["route"] + " " + labels["type"] + " " + labels["code"])
		if want := labels["code"] == ""; (labels["status"] == "ok") != want {
			key += " with status " + labels["status"]
		}
		s.times[key] += n
	case "accepted_connections", "closed_connections", "requests", "answered", "failed", "unanswerable", "lost", "notifies", "pushes",
		"dropped_pushes", "forwards", "calls", "multi_pushes", "panics", "violations", "slow_clients", "refused_connections", "refused_handshakes", "refused":
		s.counters[serverType+" "+name] += n
	}
}

// differs tells in what something seen is not what the clients have done, "" if in nothing.
func differs(got, want map[string]int) string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if got[key] != want[key] {
			lines = append(lines, fmt.Sprintf("%s: %d, want %d", key, got[key], want[key]))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if _, ok := got[key]; !ok {
			lines = append(lines, fmt.Sprintf("%s: none, want %d", key, want[key]))
		}
	}
	return strings.Join(lines, "\n")
}

func (d *deeds) differ(s *seen) string {
	return strings.TrimSpace(differs(s.counters, d.counters) + "\n" + differs(s.times, d.times))
}

func (d *deeds) compare(t *testing.T, name string, s *seen) {
	t.Helper()
	if text := d.differ(s); text != "" {
		t.Errorf("%s:\n%s", name, text)
	}
}

// scrape reads the metrics of all servers whose addresses are in the output, until what the clients have done is in them:
// what a server counts may be counted when the client has its answer.
func (d *deeds) scrape(t *testing.T, out *output) {
	out.mu.Lock()
	text := out.text.String()
	out.mu.Unlock()
	var urls []string
	for line := range strings.Lines(text) {
		if _, url, ok := strings.Cut(line, " has metrics at "); ok {
			urls = append(urls, strings.TrimSpace(url))
		}
	}
	if len(urls) != 3 {
		t.Fatalf("metrics are at %q, want three", urls)
	}
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	patience := time.After(20 * time.Second)
	for {
		s := newSeen()
		for _, url := range urls {
			s.scrape(t, client, url)
		}
		if d.differ(s) == "" {
			return
		}
		select {
		case <-tick.C:
		case <-patience:
			d.compare(t, "scrape", s)
			return
		}
	}
}

// scrape reads what one server has at a URL.
func (s *seen) scrape(t *testing.T, client *http.Client, url string) {
	t.Helper()
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		series, value, ok := strings.Cut(lines.Text(), "} ")
		name, text, labelled := strings.Cut(series, "{")
		if !ok || !labelled || strings.HasPrefix(name, "#") {
			continue
		}
		labels := make(map[string]string)
		for pair := range strings.SplitSeq(text, ",") {
			k, v, _ := strings.Cut(pair, "=")
			labels[k] = strings.Trim(v, `"`)
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue // not a count
		}
		name, handler := strings.CutPrefix(name, "pitaya_handler_")
		switch short, count := strings.CutSuffix(name, "_count"); {
		case handler && count:
			name = short
		case handler && name == "response_time_ns", handler && name == "response_time_ns_sum":
			continue
		}
		for _, subsystem := range []string{"acceptor", "cluster", "admission"} {
			name = strings.TrimPrefix(name, "pitaya_"+subsystem+"_")
		}
		if n != 0 {
			s.add(labels["serverType"], name, labels, int(n))
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

// A statsdServer collects what it is sent.
type statsdServer struct {
	conn net.PacketConn
	read chan *seen // gets what was seen when the last datagram has come
}

// lastDatagram is what the test sends when all else has been sent.
const lastDatagram = "the end"

func newStatsdServer(t *testing.T) *statsdServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &statsdServer{conn: conn, read: make(chan *seen, 1)}
	var reading sync.WaitGroup
	reading.Go(func() {
		seen, b := newSeen(), make([]byte, 1<<16)
		for {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if string(b[:n]) == lastDatagram {
				s.read <- seen
				continue
			}
			for line := range strings.SplitSeq(string(b[:n]), "\n") {
				seen.statsd(t, line)
			}
		}
	})
	t.Cleanup(func() {
		conn.Close()
		reading.Wait()
	})
	return s
}

func (s *statsdServer) address() string { return s.conn.LocalAddr().String() }

// end returns what was seen, once the servers have ended.
func (s *statsdServer) end(t *testing.T) *seen {
	t.Helper()
	if _, err := s.conn.WriteTo([]byte(lastDatagram), s.conn.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	select {
	case seen := <-s.read:
		return seen
	case <-time.After(time.Minute):
		t.Fatal("the last datagram has not come")
		return nil
	}
}

// statsd adds what a line of statsd says: pitaya.requests:3|c|#serverType:gate, or a time, which is one.
func (s *seen) statsd(t *testing.T, line string) {
	metric, tags, _ := strings.Cut(line, "|#")
	metric, kind, _ := strings.Cut(metric, "|")
	name, value, ok := strings.Cut(strings.TrimPrefix(metric, "pitaya."), ":")
	labels := make(map[string]string)
	for tag := range strings.SplitSeq(tags, ",") {
		k, v, _ := strings.Cut(tag, ":")
		labels[k] = v
	}
	n := 1
	if kind == "c" {
		var err error
		if n, err = strconv.Atoi(value); err != nil {
			ok = false
		}
	}
	if !ok {
		t.Errorf("statsd: %q", line)
	}
	if n != 0 {
		s.add(labels["serverType"], name, labels, n)
	}
}

// compareSpans compares the traces, of which there are no others: each message of a client is one, and the calls between
// servers that it leads to are in it where they belong; what servers do of themselves begins one as well.
func (d *deeds) compareSpans(t *testing.T, spans []spanLine) {
	children := make(map[string][]spanLine)
	for _, s := range spans {
		children[s.Parent] = append(children[s.Parent], s)
	}
	server := func(s spanLine) string {
		serverType, _, _ := strings.Cut(s.Attributes["local.id"], "-")
		return serverType
	}
	traces := make(map[string]bool)
	var describe func(s spanLine) string
	describe = func(s spanLine) string {
		var text strings.Builder
		text.WriteString(s.Name)
		if s.Kind != pitaya.SpanConnection {
			text.WriteString("@" + server(s))
		}
		if s.Code != "" {
			text.WriteString(" " + s.Code)
		}
		below := children[s.ID]
		slices.SortFunc(below, func(a, b spanLine) int { return a.Time.Compare(b.Time) })
		for _, c := range below {
			if c.Trace != s.Trace {
				t.Errorf("%s is in another trace than %s", c.Name, s.Name)
			}
			text.WriteString(" (" + describe(c) + ")")
		}
		return text.String()
	}
	got := make(map[string]int)
	for _, s := range children[""] {
		if traces[s.Trace] {
			t.Errorf("trace %s begins twice", s.Trace)
		}
		traces[s.Trace] = true
		got[describe(s)]++
	}
	if text := differs(got, d.traces); text != "" {
		t.Errorf("traces:\n%s", text)
	}
}
