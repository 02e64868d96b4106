// Package load makes load for a server and measures what comes back: the engine of cmd/pitaya-load, whose documentation
// says what the scenarios do and what the figures mean.
package load

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/load/script"
)

// A Scenario says what the connections do.
type Scenario string

// The scenarios.
const (
	Echo      Scenario = "echo"      // requests
	Notify    Scenario = "notify"    // notifies
	Broadcast Scenario = "broadcast" // all join a group, one makes the server push to it
	Idle      Scenario = "idle"      // nothing but heartbeats
	Connect   Scenario = "connect"   // connect, handshake, ack, close
	Mixed     Scenario = "mixed"     // a script
)

// Scenarios returns all of them.
func Scenarios() []Scenario { return []Scenario{Echo, Notify, Broadcast, Idle, Connect, Mixed} }

// A Config says what load to make. Zero values mean what is said at each field; [Run] checks them.
type Config struct {
	URL    string      // tcp, tls, ws or wss, host and port; without a scheme tcp
	TLS    *tls.Config // for tls and wss; nil: the defaults
	Header http.Header // of the upgrade request of ws and wss

	// Dial connects instead, in place of what URL says; it is not told a source address. Such connections are no
	// sockets: limits of open files and precise timers of the system do not matter to them.
	Dial func(ctx context.Context) (net.Conn, error)

	Scenario Scenario // empty: Echo
	Conns    int      // connections; 0: 1. In Connect how many connect at the same time
	InFlight int      // closed load: requests of a connection that wait at the same time; 0: 1
	Rate     float64  // open load: how many requests, notifies, connects or blocks are to begin per second, in all; 0: closed load
	Poisson  bool     // open load: arrivals are independent of each other, and not evenly spaced

	Route string // of requests or notifies
	Body  []byte // their payload
	Sync  string // Notify: route of the request that shows that notifies were handled
	Check bool   // Echo: an answer that is not its request's body is an error

	Join      string // Broadcast: route of the request that joins the group
	PushRoute string // Broadcast: route of the pushes; empty: all pushes count
	// Pushes and broadcasts: Body is sent to Route, and the server then pushes AtOnce messages to each connection.
	AtOnce int // 0: 1

	Script *script.Script // Mixed

	Warmup   time.Duration // load before what is measured
	Duration time.Duration // what is measured; 0: until Requests are made
	Ramp     time.Duration // connections are opened evenly over this time, and begin at once; 0: as fast as possible, and all begin together
	Interval time.Duration // of the figures over time; 0: 1 s
	Requests int64         // how many requests (notifies, rounds, connects, blocks) are made at most, warm-up included; 0: no bound

	Timeout    time.Duration // of requests, handshakes, writes and rounds; 0: 10 s
	MaxPending int           // open load: requests of a connection that may wait; more are not sent, which is an error; 0: 4096
	Reconnect  bool          // connections that end are opened again
	Dialers    int           // how many connections are opened at the same time; 0: 64
	Sources    int           // how many loopback addresses to connect from; 0: as many as the connections need
	Inflate    bool          // announce that compressed payloads are understood
	Handshake  []byte        // body of the handshake request; nil: the generator's own

	Correct time.Duration // closed load: also give latencies as if each connection had meant to act at this interval

	PIDs    []int // the server's processes, for processor time and memory
	Collect bool  // send SIGUSR1 to them before memory is looked at, and give them time to collect garbage

	// Progress is called once per interval, from one goroutine; nil: nobody is told.
	Progress func(Point, Progress)
}

// Progress is what is known in the middle of a run.
type Progress struct {
	Phase  string // "connect", "warm-up" or "measure"
	Open   int    // connections that are open
	Errors int64  // so far
}

const (
	clientName     = "pitaya-load"
	collectPause   = 500 * time.Millisecond
	defaultTimeout = 10 * time.Second
	// sourcePorts is how many connections to one address the ports of one source address are enough for: Linux has
	// 28,232 by default, and other programs use some.
	sourcePorts = 25000
	maxInFlight = 1 << 16
	maxSources  = 250
)

// complete fills defaults in and finds mistakes, all of them.
func (c *Config) complete() (*url.URL, error) {
	c.Scenario = cmp.Or(c.Scenario, Echo)
	c.Conns, c.InFlight, c.AtOnce = cmp.Or(c.Conns, 1), cmp.Or(c.InFlight, 1), cmp.Or(c.AtOnce, 1)
	c.Interval = cmp.Or(c.Interval, time.Second)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.MaxPending, c.Dialers = cmp.Or(c.MaxPending, 4096), cmp.Or(c.Dialers, 64)
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(!slices.Contains(Scenarios(), c.Scenario), "there is no scenario %q", c.Scenario)
	bad(c.Conns < 1, "%d connections", c.Conns)
	bad(c.InFlight < 1 || c.InFlight > maxInFlight, "%d in flight: from 1 to %d are possible", c.InFlight, maxInFlight)
	bad(c.AtOnce < 1, "%d broadcasts at once", c.AtOnce)
	bad(!(c.Rate >= 0 && c.Rate <= 1e7), "a rate of %v per second: up to 10,000,000 are possible", c.Rate)
	bad(c.Rate > 0 && (c.Scenario == Idle || c.Scenario == Broadcast), "scenario %s has no rate", c.Scenario)
	bad(c.Warmup < 0 || c.Duration < 0 || c.Ramp < 0 || c.Interval < 0 || c.Timeout < 0 || c.Correct < 0, "negative times make no sense")
	bad(c.Interval < 10*time.Millisecond, "an interval of %v: at least 10ms are needed", c.Interval)
	bad(c.Requests < 0, "%d requests", c.Requests)
	bad(c.Duration == 0 && c.Requests == 0, "neither a duration nor a number of requests")
	bad(c.Duration == 0 && c.Scenario == Idle, "scenario idle needs a duration")
	bad(c.MaxPending < 1 || c.MaxPending > 1<<20, "%d requests that may wait: from 1 to %d are possible", c.MaxPending, 1<<20)
	bad(c.Dialers < 1, "%d dialers", c.Dialers)
	bad(c.Sources < 0 || c.Sources > maxSources, "%d source addresses: up to %d are possible", c.Sources, maxSources)
	bad(c.Scenario == Mixed && c.Script == nil, "scenario mixed needs a script")
	bad(c.Correct > 0 && c.Rate > 0, "an open load needs no correction: its latencies are counted from the schedule")
	bad(c.Collect && len(c.PIDs) == 0, "nobody to ask for a garbage collection: no process is given")
	if c.Scenario == Echo || c.Scenario == Notify || c.Scenario == Broadcast {
		_, err := pitaya.AppendMessage(nil, pitaya.Message{Type: pitaya.MessageNotify, Route: c.Route}, nil)
		bad(c.Route == "", "scenario %s needs a route", c.Scenario)
		bad(err != nil, "route: %w", err)
	}
	bad(c.Scenario == Notify && c.Sync == "", "scenario notify needs the route of a request too")
	bad(len(c.Body) > pitaya.MaxPacketSize-300, "a body of %d bytes fits into no packet", len(c.Body))
	u, err := c.target()
	if err != nil {
		errs = append(errs, err)
	}
	return u, errors.Join(errs...)
}

// target reads the URL, and chooses how many source addresses are used.
func (c *Config) target() (*url.URL, error) {
	if c.Dial != nil {
		return nil, nil
	}
	text := c.URL
	if text != "" && !strings.Contains(text, "://") {
		text = "tcp://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	u.Scheme = strings.ToLower(u.Scheme)
	switch u.Scheme {
	case "tcp", "tls", "ws", "wss":
	default:
		return nil, fmt.Errorf("address %q: it begins with tcp://, tls://, ws:// or wss://", c.URL)
	}
	if u.Hostname() == "" || u.Port() == "" {
		return nil, fmt.Errorf("address %q: host and port are needed", c.URL)
	}
	if u.Path == "" && (u.Scheme == "ws" || u.Scheme == "wss") {
		u.Path = "/"
	}
	loopback := u.Hostname() == "localhost"
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		loopback = a.IsLoopback() && a.Is4()
	}
	if c.Sources == 0 && loopback {
		c.Sources = (c.Conns + sourcePorts - 1) / sourcePorts
		if c.Scenario == Connect {
			c.Sources = max(c.Sources, 8) // ports rest for a while after each close
		}
	}
	if c.Sources > 1 && !loopback {
		return nil, fmt.Errorf("%d source addresses: the server must be on 127.0.0.1", c.Sources)
	}
	return u, nil
}
