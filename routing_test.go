package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// routeServers returns n servers r0, r1 and so on. Every second one is in the region "eu", the others in "us".
func routeServers(n int) map[string]*pitaya.ServerInfo {
	servers := make(map[string]*pitaya.ServerInfo, n)
	for i := range n {
		id := fmt.Sprint("r", i)
		region := []string{"eu", "us"}[i%2]
		servers[id] = &pitaya.ServerInfo{ID: id, Type: "room", Metadata: map[string]string{"region": region}}
	}
	return servers
}

// chosen calls a routing function with a copy of the servers, as the library does, and returns the id.
func chosen(t testing.TB, f pitaya.RoutingFunc, payload string, servers map[string]*pitaya.ServerInfo) string {
	t.Helper()
	s, err := f(t.Context(), pitaya.Route{ServerType: "room", Service: "r", Method: "m"}, []byte(payload), maps.Clone(servers))
	if err != nil || s == nil {
		t.Fatalf("chose %v, error %v", s, err)
	}
	return s.ID
}

// byPayload takes the payload for the key.
func byPayload(_ context.Context, _ pitaya.Route, payload []byte) string { return string(payload) }

// TestRouteSpread looks at how often each server is chosen. With 30,000 choices a fair share of 3 or 10 servers is
// missed by more than a tenth with a probability below 1e-7.
func TestRouteSpread(t *testing.T) {
	t.Parallel()
	alone, err := pitaya.NewServer(pitaya.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]pitaya.RoutingFunc{
		"random":           pitaya.RouteRandom,
		"round robin":      pitaya.RouteRoundRobin(),
		"least pending":    alone.RouteLeastPending(), // nothing is, so all are equal
		"uid, no session":  pitaya.RouteByUID,
		"hash":             pitaya.RouteHash(byPayload),
		"hash without key": pitaya.RouteHash(func(context.Context, pitaya.Route, []byte) string { return "" }),
		"sticky":           pitaya.RouteSticky(pitaya.RouteRandom), // no session
		"metadata":         pitaya.RouteByMetadata("", func(context.Context) string { return "" }, pitaya.RouteRandom),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, n := range []int{1, 3, 10} {
				servers, counts := routeServers(n), make(map[string]int)
				const choices = 30_000
				for i := range choices {
					counts[chosen(t, f, "key "+strconv.Itoa(i), servers)]++
				}
				for id := range servers {
					if share := float64(counts[id]) * float64(n) / choices; share < 0.9 || share > 1.1 {
						t.Errorf("of %d servers %s has %.2f times its share: %v", n, id, share, counts)
					}
				}
			}
		})
	}
}

func TestRouteRoundRobin(t *testing.T) {
	t.Parallel()
	f := pitaya.RouteRoundRobin()
	var got []string
	choose := func(times, servers int, without ...string) {
		list := routeServers(servers)
		for _, id := range without {
			delete(list, id)
		}
		for range times {
			got = append(got, chosen(t, f, "", list))
		}
	}
	choose(4, 3)             // in the order of ids, and from the start
	choose(2, 4)             // one more: it goes on
	choose(2, 4, "r0")       // the next one has gone
	choose(2, 4, "r2", "r3") // and the last one
	want := strings.Fields("r0 r1 r2 r0  r1 r2  r3 r1  r0 r1")
	if !slices.Equal(got, want) {
		t.Errorf("chose %v, want %v", got, want)
	}

	// Types do not disturb each other.
	other := map[string]*pitaya.ServerInfo{"a": {ID: "a", Type: "lobby"}, "z": {ID: "z", Type: "lobby"}}
	got = nil
	for range 3 {
		choose(1, 2)
		s, err := f(t.Context(), pitaya.Route{ServerType: "lobby"}, nil, other)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, s.ID)
	}
	if want := strings.Fields("r0 a r1 z r0 a"); !slices.Equal(got, want) {
		t.Errorf("two types: chose %v, want %v", got, want)
	}
}

// TestRouteHashMoves counts the keys that change their server when one comes or goes.
func TestRouteHashMoves(t *testing.T) {
	t.Parallel()
	const keys = 20_000
	f := pitaya.RouteHash(byPayload)
	places := func(servers map[string]*pitaya.ServerInfo) []string {
		list := make([]string, keys)
		for i := range list {
			list[i] = chosen(t, f, "room-"+strconv.Itoa(i), servers)
		}
		return list
	}
	for _, n := range []int{2, 9} {
		before, after := places(routeServers(n)), places(routeServers(n+1))
		came := fmt.Sprint("r", n)
		moved := 0
		for i := range before {
			if before[i] != after[i] {
				moved++
				if after[i] != came {
					t.Fatalf("with one more than %d servers a key moved from %s to %s", n, before[i], after[i])
				}
			}
		}
		if share := float64(moved) * float64(n+1) / keys; share < 0.9 || share > 1.1 {
			t.Errorf("one more than %d servers: %d of %d keys moved", n, moved, keys)
		}
		rest := routeServers(n + 1)
		delete(rest, "r0")
		gone := places(rest)
		spread := make(map[string]int)
		for i := range after {
			switch {
			case after[i] == "r0":
				spread[gone[i]]++
			case after[i] != gone[i]:
				t.Fatalf("r0 of %d servers went, and a key moved from %s to %s", n+1, after[i], gone[i])
			}
		}
		if len(spread) != n {
			t.Errorf("the keys of one of %d servers went to %v", n+1, spread)
		}
	}
}

// TestRouteHashGolden holds the choices to what they were when first released: in a deployment old and new versions of
// the library must agree on where a room is.
func TestRouteHashGolden(t *testing.T) {
	t.Parallel()
	servers := make(map[string]*pitaya.ServerInfo)
	for _, id := range []string{"aurora", "borealis", "corona", "6fd0a7c1-1f5e-4f0a-9c55-0f6a1ce3a111"} {
		servers[id] = &pitaya.ServerInfo{ID: id}
	}
	f := pitaya.RouteHash(byPayload)
	for key, want := range map[string]string{
		"lobby":         "corona",
		"arena":         "corona",
		"garden":        "aurora",
		"user-1":        "borealis",
		"user-2":        "aurora",
		"Ödland":        "corona",
		"hall 7":        "6fd0a7c1-1f5e-4f0a-9c55-0f6a1ce3a111",
		"a b c d e f g": "borealis",
	} {
		if got := chosen(t, f, key, servers); got != want {
			t.Errorf("%q: %s, want %s", key, got, want)
		}
	}
}

func TestRouteByMetadata(t *testing.T) {
	t.Parallel()
	region := "eu"
	f := pitaya.RouteByMetadata("region", func(context.Context) string { return region }, pitaya.RouteRoundRobin())
	var got []string
	for range 3 {
		got = append(got, chosen(t, f, "", routeServers(4)))
	}
	region = "us"
	got = append(got, chosen(t, f, "", routeServers(4)))
	if want := strings.Fields("r0 r2 r0 r1"); !slices.Equal(got, want) {
		t.Errorf("chose %v, want %v", got, want)
	}
	for _, region = range []string{"moon", ""} {
		_, err := f(t.Context(), pitaya.Route{ServerType: "room"}, nil, routeServers(4))
		if e, ok := errors.AsType[*pitaya.Error](err); !ok || e.Code != pitaya.CodeInternal || e.Metadata["region"] != region {
			t.Errorf("region %q: error %v", region, err)
		}
	}
	// "" is for servers that say nothing.
	silent := map[string]*pitaya.ServerInfo{"a": {ID: "a"}, "b": {ID: "b", Metadata: map[string]string{"region": "eu"}}}
	if got := chosen(t, f, "", silent); got != "a" {
		t.Errorf("no region: chose %s", got)
	}
}

// TestRouteNoFunction gives AddRoute routing functions that lack a part.
func TestRouteNoFunction(t *testing.T) {
	t.Parallel()
	s, err := pitaya.NewServer(pitaya.Config{})
	if err != nil {
		t.Fatal(err)
	}
	text := func(context.Context) string { return "" }
	for name, f := range map[string]pitaya.RoutingFunc{
		"hash":     pitaya.RouteHash(nil),
		"sticky":   pitaya.RouteSticky(pitaya.RouteHash(nil)),
		"metadata": pitaya.RouteByMetadata("k", nil, pitaya.RouteRandom),
		"next":     pitaya.RouteByMetadata("k", text, nil),
	} {
		if err := s.AddRoute(name, f); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Without servers the library asks nobody, but functions of the application may call those of the kit.
func TestRouteNoServers(t *testing.T) {
	t.Parallel()
	s, err := pitaya.NewServer(pitaya.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]pitaya.RoutingFunc{
		"random": pitaya.RouteRandom, "uid": pitaya.RouteByUID, "hash": pitaya.RouteHash(byPayload),
		"round robin": pitaya.RouteRoundRobin(), "least pending": s.RouteLeastPending(),
		"sticky": pitaya.RouteSticky(pitaya.RouteRandom),
	} {
		if got, err := f(t.Context(), pitaya.Route{}, []byte("k"), nil); got != nil || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestRouteAllocs holds the functions to what they allocate for a call.
func TestRouteAllocs(t *testing.T) {
	s, err := pitaya.NewServer(pitaya.Config{})
	if err != nil {
		t.Fatal(err)
	}
	key := func(context.Context, pitaya.Route, []byte) string { return "lobby" }
	region := func(context.Context) string { return "eu" }
	servers := routeServers(100)
	maps.DeleteFunc(servers, func(_ string, s *pitaya.ServerInfo) bool { return s.Metadata["region"] != "eu" })
	for name, f := range map[string]pitaya.RoutingFunc{
		"random": pitaya.RouteRandom, "uid": pitaya.RouteByUID, "hash": pitaya.RouteHash(key),
		"round robin": pitaya.RouteRoundRobin(), "least pending": s.RouteLeastPending(),
		"sticky":   pitaya.RouteSticky(pitaya.RouteRandom),
		"metadata": pitaya.RouteByMetadata("region", region, pitaya.RouteRandom),
	} {
		got := testing.AllocsPerRun(100, func() {
			f(t.Context(), pitaya.Route{ServerType: "room"}, nil, servers)
		})
		if got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}

// A RouteCluster is a gate g1 with a client, and rooms that say who they are.
type routeCluster struct {
	*pitayatest.Cluster
	t     *testing.T
	gate  *pitayatest.Server
	rooms map[string]*pitayatest.Server
}

// Rooms are asked by a client on gate, room and relay, where the relay asks by RPC what the client would ask itself.
type (
	RouteRoom  struct{ srv *pitaya.Server }
	RouteRelay struct{ srv *pitaya.Server }
)

// Who answers with the id of the server, after the time given.
func (r *RouteRoom) Who(ctx context.Context, wait *wrapperspb.Int64Value) (*wrapperspb.StringValue, error) {
	time.Sleep(time.Duration(wait.GetValue()))
	return wrapperspb.String(r.srv.ID()), nil
}

// Ask answers with what a room answers to an RPC of this backend.
func (r *RouteRelay) Ask(ctx context.Context) (*wrapperspb.StringValue, error) {
	return pitaya.Call[wrapperspb.StringValue](ctx, r.srv, "room.RouteRoom.Who", &wrapperspb.Int64Value{})
}

// Keep does the same, and sends the session's data to the gate.
func (r *RouteRelay) Keep(ctx context.Context) (*wrapperspb.StringValue, error) {
	out, err := r.Ask(ctx)
	return out, errors.Join(err, pitaya.SessionFromContext(ctx).PushToFront(ctx))
}

// Twice asks twice.
func (r *RouteRelay) Twice(ctx context.Context) (*wrapperspb.StringValue, error) {
	first, err := r.Ask(ctx)
	if err != nil {
		return nil, err
	}
	second, err := r.Ask(ctx)
	return wrapperspb.String(first.GetValue() + " " + second.GetValue()), err
}

// newRouteCluster starts the gate, and a relay if withRelay is set. Both choose rooms by what route returns for them.
func newRouteCluster(t *testing.T, route func(*pitaya.Server) pitaya.RoutingFunc, withRelay bool, rooms ...string) *routeCluster {
	t.Helper()
	c := &routeCluster{Cluster: pitayatest.NewCluster(t), t: t, rooms: make(map[string]*pitayatest.Server)}
	c.gate = c.NewServer(t, pitaya.Config{Type: "gate", ID: "g1", Frontend: true, Serializer: pitaya.Protobuf{}}, func(s *pitaya.Server) {
		s.AddRoute("room", route(s))
		pitaya.Handle(s, "own.bind", func(ctx context.Context, uid *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
			return uid, pitaya.SessionFromContext(ctx).Bind(ctx, uid.Value)
		})
		pitaya.Handle(s, "own.ask", func(ctx context.Context, in *wrapperspb.Int64Value) (*wrapperspb.StringValue, error) {
			return pitaya.Call[wrapperspb.StringValue](ctx, s, "room.RouteRoom.Who", in)
		})
	})
	for _, id := range rooms {
		c.add(id)
	}
	if withRelay {
		c.NewServer(t, pitaya.Config{Type: "relay", ID: "x1", Serializer: pitaya.Protobuf{}}, func(s *pitaya.Server) {
			s.AddRoute("room", route(s))
			s.Register(&RouteRelay{s})
		})
	}
	return c
}

// add starts a room.
func (c *routeCluster) add(id string) {
	c.t.Helper()
	c.rooms[id] = c.NewServer(c.t, pitaya.Config{Type: "room", ID: id, Serializer: pitaya.Protobuf{}}, func(s *pitaya.Server) {
		s.Register(&RouteRoom{s})
		s.RegisterRemote(&RouteRoom{s})
	})
}

// client connects a client, bound to a user if uid is not empty.
func (c *routeCluster) client(uid string) *pitayatest.Client {
	c.t.Helper()
	cl := c.gate.ClientWith(c.t, nil)
	if uid != "" {
		cl.Request("own.bind", wrapperspb.String(uid), new(wrapperspb.StringValue))
	}
	return cl
}

// ask makes a request without an argument and returns the text of the answer.
func ask(c *pitayatest.Client, route string) string {
	var out wrapperspb.StringValue
	c.Request(route, new(wrapperspb.Int64Value), &out)
	return out.Value
}

const askRoom = "room.RouteRoom.Who"

func TestRouteByUID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		byUID := func(*pitaya.Server) pitaya.RoutingFunc { return pitaya.RouteByUID }
		c := newRouteCluster(t, byUID, true, "r0", "r1", "r2", "r3", "r4")
		seen := make(map[string]bool)
		for i := range 20 {
			uid := ""
			if i%2 == 0 {
				uid = fmt.Sprint("u", i)
			}
			cl := c.client(uid)
			room := ask(cl, askRoom)
			seen[room] = true
			for _, route := range []string{askRoom, "own.ask", "relay.RouteRelay.Ask"} {
				if got := ask(cl, route); got != room {
					t.Errorf("client %d, user %q: %s leads to %s, the message to %s", i, uid, route, got, room)
				}
			}
			if uid == "" {
				continue
			}
			cl.Close()
			synctest.Wait()
			if got := ask(c.client(uid), askRoom); got != room {
				t.Errorf("user %q came back and got from %s to %s", uid, room, got)
			}
		}
		if len(seen) < 4 {
			t.Errorf("all sessions are on %v", seen)
		}
	})
}

func TestRouteSticky(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sticky := func(*pitaya.Server) pitaya.RoutingFunc { return pitaya.RouteSticky(pitaya.RouteRoundRobin()) }
		c := newRouteCluster(t, sticky, true, "r0", "r1")
		ann, bob := c.client("ann"), c.client("")
		stays := func(step string, cl *pitayatest.Client, want string) {
			t.Helper()
			for _, route := range []string{askRoom, "own.ask", "relay.RouteRelay.Ask"} {
				if got := ask(cl, route); got != want {
					t.Errorf("%s: %s leads to %s, want %s", step, route, got, want)
				}
			}
		}
		stays("first", ann, "r0")
		stays("first", bob, "r1")
		c.add("r2")
		c.add("r00") // would be next
		stays("others came", ann, "r0")
		stays("others came", bob, "r1")
		c.rooms["r1"].Stop()
		stays("another one went", ann, "r0")
		stays("the own one went", bob, "r2")
		c.add("r1")
		stays("it came back", bob, "r2")
		c.Cut(c.gate, c.rooms["r0"])
		stays("unreachable", ann, "r00")
		c.Heal(c.gate, c.rooms["r0"])
		stays("reachable again", ann, "r00")

		// A room that drains finishes what it has, and gets no more.
		carl := c.client("")
		stays("first", carl, "r1")
		c.gate.Client(t)
		done := make(chan string)
		slow := c.client("")
		if got := ask(slow, askRoom); got != "r2" {
			t.Fatalf("on %s", got)
		}
		go func() {
			var out wrapperspb.StringValue
			err := slow.Client.Request(t.Context(), askRoom, wrapperspb.Int64(int64(2*time.Second)), &out)
			done <- fmt.Sprint(out.Value, err)
		}()
		synctest.Wait()
		go c.rooms["r2"].Shutdown(context.Background())
		synctest.Wait()
		stays("drains", bob, "r0")
		if got := <-done; got != "r2<nil>" {
			t.Errorf("the last message of the room that drains: %s", got)
		}
		c.rooms["r2"].Stop()
	})
}

// What a backend chooses for a type that the frontend has sent nothing to.
func TestRouteStickyBackend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sticky := func(*pitaya.Server) pitaya.RoutingFunc { return pitaya.RouteSticky(pitaya.RouteRoundRobin()) }
		c := newRouteCluster(t, sticky, true, "r0", "r1", "r2", "r3")
		cl := c.client("ann")
		if got := ask(cl, "relay.RouteRelay.Twice"); got != "r0 r0" {
			t.Errorf("within a call: %s", got)
		}
		if got := ask(cl, "relay.RouteRelay.Ask"); got != "r1" {
			t.Errorf("the next call: %s", got)
		}
		if got := ask(cl, "relay.RouteRelay.Keep"); got != "r2" {
			t.Errorf("the call that keeps it: %s", got)
		}
		for _, route := range []string{"relay.RouteRelay.Ask", askRoom, "own.ask"} {
			if got := ask(cl, route); got != "r2" {
				t.Errorf("%s after it was kept: %s", route, got)
			}
		}
		// The application may forget it.
		if err := c.gate.SessionByUID("ann").SetData(nil); err != nil {
			t.Fatal(err)
		}
		if got := ask(cl, askRoom); got != "r0" {
			t.Errorf("forgotten: %s", got)
		}
	})
}

// Calls of one session at the same time agree on one server.
func TestRouteStickyRace(t *testing.T) {
	t.Parallel()
	for range 20 {
		c := newRouteCluster(t, func(*pitaya.Server) pitaya.RoutingFunc { return pitaya.RouteSticky(pitaya.RouteRoundRobin()) },
			false, "r0", "r1", "r2")
		got := make([]string, 8)
		ann := c.client("ann")
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() {
				var out wrapperspb.StringValue
				route := []string{askRoom, "own.ask"}[i%2]
				if err := ann.Client.Request(t.Context(), route, new(wrapperspb.Int64Value), &out); err != nil {
					t.Error(err)
				}
				got[i] = out.Value
			})
		}
		wg.Wait()
		if slices.Sort(got); got[0] != got[len(got)-1] {
			t.Fatalf("one session is on %v", got)
		}
	}
}

// A server that has become slow gets as many calls as it answers, and the others the rest.
func TestRouteLeastPending(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newRouteCluster(t, (*pitaya.Server).RouteLeastPending, false, "r0", "r1", "r2")
		hang := int64(10 * time.Second) // longer than the test goes on
		var mu sync.Mutex
		counts := make(map[string]int)
		var wg sync.WaitGroup
		request := func(cl *pitayatest.Client, route string, wait int64) {
			wg.Go(func() {
				var out wrapperspb.StringValue
				// Calls that hang are answered with an error in the end, or not.
				_ = cl.Client.Request(t.Context(), route, wrapperspb.Int64(wait), &out)
				mu.Lock()
				defer mu.Unlock()
				counts[out.Value]++
			})
			synctest.Wait()
		}
		// Two servers hang, one by a message and one by an RPC.
		request(c.client(""), askRoom, hang)
		request(c.client(""), "own.ask", hang)
		cl := c.client("")
		for range 100 {
			request(cl, askRoom, int64(time.Millisecond))
			time.Sleep(2 * time.Millisecond)
		}
		mu.Lock()
		if len(counts) != 1 || slices.Max(slices.Collect(maps.Values(counts))) != 100 {
			t.Errorf("with two servers that hang: %v", counts)
		}
		mu.Unlock()
		wg.Wait()
	})
}

// TestRouteErrors lets routing functions do what they should not, for messages and RPCs alike.
func TestRouteErrors(t *testing.T) {
	t.Parallel()
	coded := pitaya.NewError(errors.New("the gate says no"), "APP-7", map[string]string{"k": "v"})
	type servers = map[string]*pitaya.ServerInfo
	for _, tt := range []struct {
		name string
		f    func(servers) (*pitaya.ServerInfo, error)
		code string // of the error; "" for an answer
		text string // part of what the client is told, or the answer
	}{
		{"nobody", func(servers) (*pitaya.ServerInfo, error) { return nil, nil }, pitaya.CodeInternal, "no server was chosen"},
		{"panic", func(servers) (*pitaya.ServerInfo, error) { panic("secret") }, pitaya.CodeInternal, "internal error"},
		{"nil map entry", func(l servers) (*pitaya.ServerInfo, error) { return l["none"], nil }, pitaya.CodeInternal, "no server was chosen"},
		{"error", func(servers) (*pitaya.ServerInfo, error) { return nil, errors.New("full") }, pitaya.CodeInternal, "full"},
		{"coded", func(servers) (*pitaya.ServerInfo, error) { return nil, fmt.Errorf("wrapped: %w", coded) }, "APP-7", "the gate says no"},
		{"error and server", func(l servers) (*pitaya.ServerInfo, error) { return l["r0"], coded }, "APP-7", "the gate says no"},
		{"unknown server", func(servers) (*pitaya.ServerInfo, error) { return &pitaya.ServerInfo{ID: "r9", Type: "room"}, nil },
			pitaya.CodeInternal, "unreachable"},
		{"server of another type", func(servers) (*pitaya.ServerInfo, error) { return &pitaya.ServerInfo{ID: "x0"}, nil }, "", "x0"},
		{"emptied map", func(l servers) (*pitaya.ServerInfo, error) { s := l["r0"]; clear(l); return s, nil }, "", "r0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newRouteCluster(t, func(*pitaya.Server) pitaya.RoutingFunc {
					return func(_ context.Context, _ pitaya.Route, _ []byte, list servers) (*pitaya.ServerInfo, error) {
						return tt.f(list)
					}
				}, false, "r0")
				c.NewServer(t, pitaya.Config{Type: "other", ID: "x0", Serializer: pitaya.Protobuf{}}, func(s *pitaya.Server) {
					s.Register(&RouteRoom{s})
					s.RegisterRemote(&RouteRoom{s})
				})
				cl := c.client("")
				for _, route := range []string{askRoom, "own.ask"} {
					if tt.code == "" {
						if got := ask(cl, route); got != tt.text {
							t.Errorf("%s: %s", route, got)
						}
						continue
					}
					err := cl.ExpectError(route, new(wrapperspb.Int64Value), tt.code)
					if !strings.Contains(err.Message, tt.text) || strings.Contains(err.Error(), "secret") {
						t.Errorf("%s: %v", route, err)
					}
					if tt.code == "APP-7" && err.Metadata["k"] != "v" {
						t.Errorf("%s: metadata %v", route, err.Metadata)
					}
				}
			})
		})
	}
}

// A server that leaves while it is being chosen is one that cannot be reached: another one gets the call.
func TestRouteVanishes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c *routeCluster
		var sizes []int // servers to choose from, in each call
		c = newRouteCluster(t, func(*pitaya.Server) pitaya.RoutingFunc {
			return func(ctx context.Context, route pitaya.Route, p []byte, servers map[string]*pitaya.ServerInfo) (*pitaya.ServerInfo, error) {
				sizes = append(sizes, len(servers))
				first := servers[slices.Min(slices.Collect(maps.Keys(servers)))]
				if len(servers) == 2 {
					c.Kill(c.rooms[first.ID])
				}
				return first, nil
			}
		}, false, "r0", "r1")
		cl := c.client("")
		for i, route := range []string{askRoom, "own.ask"} {
			if got := ask(cl, route); got != "r1" {
				t.Errorf("%s: %s", route, got)
			}
			if want := []int{2, 1}; !slices.Equal(sizes, want) {
				t.Errorf("%s: the function got %v servers, want %v", route, sizes, want)
			}
			if sizes = nil; i == 0 {
				c.add("r0")
			}
		}
	})
}

// A function that insists on a server that cannot be reached is not asked for ever.
func TestRouteInsists(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := newRouteCluster(t, func(*pitaya.Server) pitaya.RoutingFunc {
			return func(context.Context, pitaya.Route, []byte, map[string]*pitaya.ServerInfo) (*pitaya.ServerInfo, error) {
				calls++
				return &pitaya.ServerInfo{ID: "r0"}, nil
			}
		}, false, "r0", "r1", "r2", "r3")
		c.Cut(c.gate, c.rooms["r0"])
		cl := c.client("")
		for _, route := range []string{askRoom, "own.ask"} {
			calls = 0
			cl.ExpectError(route, new(wrapperspb.Int64Value), pitaya.CodeInternal)
			if calls != 2 {
				t.Errorf("%s: asked %d times, want twice", route, calls)
			}
		}
	})
}

// What the function is told.
func TestRouteArguments(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []string
		c := newRouteCluster(t, func(srv *pitaya.Server) pitaya.RoutingFunc {
			return func(ctx context.Context, r pitaya.Route, payload []byte, servers map[string]*pitaya.ServerInfo) (*pitaya.ServerInfo, error) {
				var v wrapperspb.Int64Value
				if err := (pitaya.Protobuf{}).Unmarshal(payload, &v); err != nil {
					return nil, err
				}
				uid := ""
				if s := pitaya.SessionFromContext(ctx); s != nil {
					uid = s.UID()
				}
				told = append(told, fmt.Sprintf("%s %s %d %s", r, uid, v.Value, slices.Sorted(maps.Keys(servers))))
				return servers["r1"], nil
			}
		}, true, "r0", "r1")
		cl := c.client("ann")
		var out wrapperspb.StringValue
		cl.Request(askRoom, wrapperspb.Int64(7), &out)
		cl.Request("own.ask", wrapperspb.Int64(8), &out)
		ask(cl, "relay.RouteRelay.Ask")
		if _, err := pitaya.Call[wrapperspb.StringValue](t.Context(), c.gate.Server, askRoom, wrapperspb.Int64(9)); err != nil {
			t.Error(err)
		}
		want := []string{
			"room.RouteRoom.Who ann 7 [r0 r1]", "room.RouteRoom.Who ann 8 [r0 r1]", "room.RouteRoom.Who ann 0 [r0 r1]",
			"room.RouteRoom.Who  9 [r0 r1]",
		}
		if !slices.Equal(told, want) {
			t.Errorf("told\n%q, want\n%q", told, want)
		}
	})
}

// All functions of the kit at once, from many clients, while servers come and go. It is for the race detector, and no
// request may fail: rooms drain.
func TestRouteConcurrent(t *testing.T) {
	t.Parallel()
	key := func(ctx context.Context, _ pitaya.Route, _ []byte) string {
		return pitaya.SessionFromContext(ctx).UID()
	}
	none := func(context.Context) string { return "" }
	for name, route := range map[string]func(s *pitaya.Server) pitaya.RoutingFunc{
		"random":        func(*pitaya.Server) pitaya.RoutingFunc { return pitaya.RouteRandom },
		"round robin":   func(*pitaya.Server) pitaya.RoutingFunc { return pitaya.RouteRoundRobin() },
		"least pending": (*pitaya.Server).RouteLeastPending,
		"uid":           func(*pitaya.Server) pitaya.RoutingFunc { return pitaya.RouteByUID },
		"hash": func(*pitaya.Server) pitaya.RoutingFunc {
			return pitaya.RouteByMetadata("x", none, pitaya.RouteHash(key))
		},
		"sticky": func(s *pitaya.Server) pitaya.RoutingFunc { return pitaya.RouteSticky(s.RouteLeastPending()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newRouteCluster(t, route, false, "r0", "r1", "r2")
			stop := make(chan struct{})
			var wg sync.WaitGroup
			var clients []*pitayatest.Client
			for i := range 4 {
				clients = append(clients, c.client(fmt.Sprint("u", i)))
			}
			for i, cl := range clients {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						var out wrapperspb.StringValue
						route := []string{askRoom, "own.ask"}[i%2]
						if err := cl.Client.Request(t.Context(), route, new(wrapperspb.Int64Value), &out); err != nil {
							t.Errorf("%s: %v", route, err)
							return
						}
					}
				})
			}
			for _, id := range []string{"r0", "r1", "r2"} {
				c.rooms[id] = c.rooms[id].Restart()
			}
			close(stop)
			wg.Wait()
		})
	}
}

func BenchmarkRoute(b *testing.B) {
	srv, err := pitaya.NewServer(pitaya.Config{})
	if err != nil {
		b.Fatal(err)
	}
	key := func(context.Context, pitaya.Route, []byte) string { return "a room with a name" }
	eu := func(context.Context) string { return "eu" }
	for _, n := range []int{3, 100} {
		servers := routeServers(n)
		region := maps.Clone(servers)
		maps.DeleteFunc(region, func(_ string, s *pitaya.ServerInfo) bool { return s.Metadata["region"] != "eu" })
		for _, bm := range []struct {
			name    string
			f       pitaya.RoutingFunc
			servers map[string]*pitaya.ServerInfo
		}{
			{"random", pitaya.RouteRandom, servers},
			{"roundrobin", pitaya.RouteRoundRobin(), servers},
			{"leastpending", srv.RouteLeastPending(), servers},
			{"hash", pitaya.RouteHash(key), servers},
			{"sticky", pitaya.RouteSticky(pitaya.RouteRandom), servers},
			{"metadata", pitaya.RouteByMetadata("region", eu, pitaya.RouteRandom), region},
		} {
			b.Run(fmt.Sprintf("%s/%d", bm.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					bm.f(b.Context(), pitaya.Route{ServerType: "room"}, nil, bm.servers)
				}
			})
		}
	}
}
