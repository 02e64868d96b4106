package pitaya_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func e2eUserCases() []e2eCase {
	return []e2eCase{
		{"push/by uid", (*e2e).pushByUID},
		{"push/unknown users", (*e2e).unknownUsers},
		{"push/order", (*e2e).pushOrder},
		{"push/old frontends", (*e2e).pushOldFrontends},
		{"kick/by uid", (*e2e).kickByUID},
		{"group/large", (*e2e).largeGroup},
		{"group/shared", (*e2e).sharedGroup},
	}
}

// login connects a client and binds it.
func (e *e2e) login(gate *e2eNode, uid string) *pitayatest.Client {
	e.Helper()
	c := gate.Client(e)
	e.ask(c, gate.Type()+".h.bind", uid)
	return c
}

func (e *e2e) pushByUID() {
	g1, g2 := e.gate("g1", e.bindHandlers), e.gate("g2", e.bindHandlers)
	lobby := e.start(pitaya.Config{Type: "lobby", ID: "l", Frontend: true}, e.bindHandlers)
	back := e.room("r", nil)
	a, b := e.login(g1, "a"), e.login(g2, "b")
	both := e.login(lobby, "a") // one session for each type of frontends
	for _, from := range []*e2eNode{g1, g2, lobby, back} {
		text := "from " + from.ID()
		for _, uids := range [][]string{{"a"}, {"b"}, {"a", "b"}} {
			e.noError(from.Push(e.ctx(), "gate", uids, "onPush", []byte(text)))
		}
		for _, c := range []*pitayatest.Client{a, b} {
			e.push(c, "onPush", text)
			e.push(c, "onPush", text)
		}
		e.noError(from.Push(e.ctx(), "lobby", []string{"a"}, "onPush", map[string]int{"n": 1}))
		e.push(both, "onPush", `{"n":1}`)
	}
	// The empty type is the own one, which backends have no clients of.
	e.noError(g1.Push(e.ctx(), "", []string{"a", "b"}, "onPush", []byte("own type")))
	e.push(a, "onPush", "own type")
	e.push(b, "onPush", "own type")
	if err := back.Push(e.ctx(), "", []string{"a"}, "onPush", []byte("x")); err == nil {
		e.Error("a backend pushed to its own type")
	}
	if err := back.Kick(e.ctx(), "", []string{"a"}); err == nil {
		e.Error("a backend kicked on its own type")
	}
	if err := back.Push(e.ctx(), "gate", []string{"a"}, "onPush", func() {}); err == nil {
		e.Error("a value that cannot be serialized was pushed")
	}
	if err := back.Push(e.ctx(), "gate", []string{"a"}, strings.Repeat("r", 256), []byte("x")); err == nil {
		e.Error("a route that is too long was pushed on")
	}
	for _, c := range []*pitayatest.Client{a, b, both} {
		c.NoPush()
	}
}

func (e *e2e) unknownUsers() {
	g1, g2 := e.gate("g1", e.bindHandlers), e.gate("g2", e.bindHandlers)
	back := e.room("r", nil)
	a := e.login(g1, "a")
	for _, from := range []*e2eNode{g1, g2, back} {
		for what, err := range map[string]error{
			"one":  from.Push(e.ctx(), "gate", []string{"x"}, "onPush", []byte("hi")),
			"some": from.Push(e.ctx(), "gate", []string{"x", "a", "y"}, "onPush", []byte("hi")),
			"kick": from.Kick(e.ctx(), "gate", []string{"x"}),
		} {
			if e.kind != e2eGRPC { // nobody waits for those who would know
				if err != nil {
					e.Errorf("%s from %s: %v", what, from.ID(), err)
				}
				continue
			}
			u, ok := errors.AsType[*pitaya.UndeliveredError](err)
			want := []string{"x"}
			if what == "some" {
				want = []string{"x", "y"}
			}
			if !ok || !slices.Equal(u.UIDs, want) || !errors.Is(err, pitaya.ErrUserNotFound) {
				e.Errorf("%s from %s: got %v", what, from.ID(), err)
			}
		}
		e.push(a, "onPush", "hi")
		// Nobody is on servers of a type that does not exist, as far as is known here.
		for _, err := range []error{
			from.Push(e.ctx(), "shop", []string{"a"}, "onPush", []byte("hi")),
			from.Kick(e.ctx(), "shop", []string{"nobody"}),
		} {
			u, ok := errors.AsType[*pitaya.UndeliveredError](err)
			if known := e.kind == e2eGRPC; ok != known || ok && (len(u.UIDs) != 1 || !errors.Is(err, pitaya.ErrUserNotFound)) {
				e.Errorf("from %s: got %v", from.ID(), err)
			}
		}
	}
	a.NoPush()
}

// What a handler pushes in several ways comes in that order, before its answer.
func (e *e2e) pushOrder() {
	gate := e.gate("g", e.bindHandlers)
	gate2 := e.gate("g2", e.bindHandlers)
	e.room("r", func(s *pitaya.Server) {
		e.raw(s, "h.go", func(ctx context.Context, in string) (string, error) {
			session := pitaya.SessionFromContext(ctx)
			var errs []error
			for i := range 20 {
				errs = append(errs,
					session.Push(ctx, "p", fmt.Append(nil, 3*i)),
					s.Push(ctx, "gate", []string{"other", "u"}, "p", fmt.Append(nil, 3*i+1)),
					s.Push(ctx, "gate", []string{"u"}, "p", fmt.Append(nil, 3*i+2)))
			}
			return "answer", errors.Join(errs...)
		})
	})
	e.login(gate2, "other")
	c := e.pipeline(gate)
	c.request(1, "gate.h.bind", "u")
	c.message()
	for round := range 5 {
		c.request(uint64(round+2), "room.h.go", "")
		for i := range 60 {
			if m := c.message(); m.Type != pitaya.MessagePush || string(m.Payload) != fmt.Sprint(i) {
				e.Fatalf("round %d: got %v %q in place of push %d", round, m.Type, m.Payload, i)
			}
		}
		if m := c.message(); m.Type != pitaya.MessageResponse || string(m.Payload) != "answer" {
			e.Fatalf("got %v %q in place of the answer", m.Type, m.Payload)
		}
	}
}

// Frontends that cannot take pushes for many users get one for each.
func (e *e2e) pushOldFrontends() {
	back := e.room("r", nil)
	now := e.gate("new", e.bindHandlers)
	e.oldPeers = true
	old := e.gate("old", e.bindHandlers)
	a, b := e.login(now, "a"), e.login(old, "b")
	e.noError(back.Push(e.ctx(), "gate", []string{"a", "b"}, "onPush", []byte("hi")))
	e.push(a, "onPush", "hi")
	e.push(b, "onPush", "hi")
	e.noError(old.Push(e.ctx(), "gate", []string{"a", "b"}, "onPush", []byte("from the old")))
	e.push(a, "onPush", "from the old")
	e.push(b, "onPush", "from the old")
	if n := back.Stats().MultiPushes; n != 0 {
		e.Errorf("%d messages for many users", n)
	}
}

func (e *e2e) kickByUID() {
	g1, g2 := e.gate("g1", e.bindHandlers), e.gate("g2", e.bindHandlers)
	back := e.room("r", nil)
	for i, from := range []*e2eNode{g1, g2, back} {
		a, b := e.login(g1, fmt.Sprint("a", i)), e.login(g2, fmt.Sprint("b", i))
		e.noError(from.Kick(e.ctx(), "gate", []string{fmt.Sprint("a", i), fmt.Sprint("b", i)}))
		for _, c := range []*pitayatest.Client{a, b} {
			e.want("reason", c.ExpectKick(), "kicked")
		}
	}
	until(e, "all have left", func() bool { return g1.SessionCount()+g2.SessionCount() == 0 })
}

// countingJSON counts how often a value is encoded.
type countingJSON struct {
	pitaya.JSON
	marshals *atomic.Int64
}

func (c countingJSON) Marshal(v any) ([]byte, error) {
	c.marshals.Add(1)
	return c.JSON.Marshal(v)
}

// A group of 1,000 on four frontends costs four messages and one encoding.
func (e *e2e) largeGroup() {
	const members, frontends = 1000, 4
	var marshals atomic.Int64
	serializer := countingJSON{marshals: &marshals}
	var gates []*e2eNode
	for i := range frontends {
		gates = append(gates, e.start(pitaya.Config{
			Type: "gate", ID: fmt.Sprint("g", i), Frontend: true, Serializer: serializer, Heartbeat: -1, NoUniqueSession: true,
		}, e.bindHandlers))
	}
	back := e.start(pitaya.Config{Type: "room", ID: "r", Serializer: serializer}, nil)
	var published atomic.Int64
	if e.kind == e2eNATS {
		sub := natsClient(e, e.nats)
		_, err := sub.Subscribe(">", func(m *nats.Msg) {
			if bytes.Contains(m.Data, []byte("onGroup")) {
				published.Add(1)
			}
		})
		e.noError(err)
		e.noError(sub.Flush())
	}
	g := back.Group("all")
	e.noError(g.Create(e.ctx(), 0))
	uids := make([]string, members)
	received := make([]atomic.Int64, members)
	var wg sync.WaitGroup
	for i := range uids {
		uids[i] = fmt.Sprint("user-", i)
	}
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < members; i += 8 {
				conn, err := gates[i%frontends].Listener().DialContext(e.Context())
				if err != nil {
					e.Error(err)
					return
				}
				c, err := pitaya.NewClient(e.Context(), conn, &pitaya.ClientConfig{OnPush: map[string]func([]byte){
					"onGroup": func(b []byte) {
						if string(b) == `{"text":"hello"}` {
							received[i].Add(1)
						}
					},
				}})
				if err == nil {
					e.Cleanup(func() { c.Close() })
					_, err = c.RequestRaw(e.Context(), "gate.h.bind", []byte(uids[i]))
				}
				if err != nil {
					e.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	e.noError(g.Add(e.ctx(), uids...))
	if n, err := g.Count(e.ctx()); n != members || err != nil {
		e.Fatalf("got %d members, %v", n, err)
	}
	arrived := func(rounds int64) {
		e.Helper()
		until(e, "all have got it", func() bool {
			for i := range received {
				if received[i].Load() != rounds {
					return false
				}
			}
			return true
		})
	}
	marshals.Store(0)
	message := map[string]string{"text": "hello"}
	e.noError(g.Broadcast(e.ctx(), "gate", "onGroup", message))
	arrived(1)
	if n := back.Stats().MultiPushes; n != frontends {
		e.Errorf("a broadcast took %d messages", n)
	}
	if n := marshals.Load(); n != 1 {
		e.Errorf("it was encoded %d times", n)
	}
	if e.kind == e2eNATS {
		until(e, "the subscription has seen them", func() bool { return published.Load() >= frontends })
		if n := published.Load(); n != frontends {
			e.Errorf("%d messages were published", n)
		}
	}
	// From a frontend its own users take no message.
	marshals.Store(0)
	e.noError(gates[0].Push(e.ctx(), "gate", uids, "onGroup", message))
	arrived(2)
	if n := gates[0].Stats().MultiPushes; n != frontends-1 {
		e.Errorf("a push of a frontend took %d messages", n)
	}
	if n := marshals.Load(); n != 1 {
		e.Errorf("it was encoded %d times", n)
	}
	var pushes int64
	for _, gate := range gates {
		pushes += gate.Stats().Pushes
	}
	if pushes != 2*members {
		e.Errorf("%d pushes were queued", pushes)
	}
	e.noError(g.Multicast(e.ctx(), "gate", "onGroup", message, func(uid string) bool { return uid == "user-7" }))
	until(e, "one has got it", func() bool { return received[7].Load() == 3 })
}

// Groups in etcd are the same for all servers; in memory they are those of each server.
func (e *e2e) sharedGroup() {
	groups := func() pitaya.GroupStore {
		if e.inMemory() {
			return nil
		}
		return newEtcdGroups(e, pitaya.GroupsEtcdConfig{Endpoints: []string{e.etcd}, Prefix: e.prefix})
	}
	gate := e.start(pitaya.Config{Type: "gate", ID: "g", Frontend: true, Groups: groups()}, e.bindHandlers)
	back := e.start(pitaya.Config{Type: "room", ID: "r", Groups: groups()}, nil)
	a := e.login(gate, "a")
	e.noError(back.Group("team").Create(e.ctx(), time.Hour))
	e.noError(back.Group("team").Add(e.ctx(), "a", "away"))
	err := back.Group("team").Broadcast(e.ctx(), "gate", "onTeam", []byte("hi"))
	if u, ok := errors.AsType[*pitaya.UndeliveredError](err); e.kind == e2eGRPC && (!ok || !slices.Equal(u.UIDs, []string{"away"})) ||
		e.kind != e2eGRPC && err != nil {
		e.Errorf("got %v", err)
	}
	e.push(a, "onTeam", "hi")
	members, err := gate.Group("team").Members(e.ctx())
	if e.inMemory() {
		if !errors.Is(err, pitaya.ErrGroupNotFound) {
			e.Errorf("got %v, %v", members, err)
		}
		return
	}
	slices.Sort(members)
	b, _ := json.Marshal(members)
	e.want("members", string(b), `["a","away"]`)
	e.noError(gate.Group("team").Remove(e.ctx(), "away"))
	e.noError(gate.Group("team").Broadcast(e.ctx(), "", "onTeam", []byte("from the frontend")))
	e.push(a, "onTeam", "from the frontend")
	e.noError(gate.Group("team").Delete(e.ctx()))
	if err := back.Group("team").Add(e.ctx(), "b"); !errors.Is(err, pitaya.ErrGroupNotFound) {
		e.Errorf("got %v", err)
	}
}
