package pitaya_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func e2eSessionCases() []e2eCase {
	return []e2eCase{
		{"session/bind", (*e2e).binds},
		{"session/bind callbacks", (*e2e).bindCallbacks},
		{"session/illegal uids", (*e2e).illegalUIDs},
		{"session/data", (*e2e).sessionData},
		{"session/merge", (*e2e).mergedData},
		{"session/methods", (*e2e).sessionMethods},
		{"session/reconnect", (*e2e).reconnects},
		{"unique/one after the other", (*e2e).newestWins},
		{"unique/same moment", (*e2e).simultaneous},
		{"unique/same frontend", (*e2e).simultaneousHere},
		{"unique/off", (*e2e).notUnique},
		{"unique/old frontends", (*e2e).oldFrontends},
	}
}

// bindHandlers registers "h.bind", which binds the session to the uid that is sent.
func (e *e2e) bindHandlers(s *pitaya.Server) {
	e.raw(s, "h.bind", func(ctx context.Context, uid string) (string, error) {
		return "ok", pitaya.SessionFromContext(ctx).Bind(ctx, uid)
	})
	e.raw(s, "h.push", func(ctx context.Context, in string) (string, error) {
		return "ok", pitaya.SessionFromContext(ctx).Push(ctx, "onPush", []byte(in))
	})
	e.raw(s, "h.uid", func(ctx context.Context, in string) (string, error) {
		return pitaya.SessionFromContext(ctx).UID(), nil
	})
}

func (e *e2e) binds() {
	gate, other := e.gate("g", e.bindHandlers), e.gate("g2", nil)
	e.room("r", e.bindHandlers)
	a, b := gate.Client(e), gate.Client(e)
	// A push needs a user on a backend.
	e.refused(a, "room.h.push", "too early", pitaya.CodeUnknown, "you have to bind an UID to the session to do that")
	e.want("bind", e.ask(a, "room.h.bind", "alice"), "ok")
	e.want("on the frontend", e.ask(a, "gate.h.uid", ""), "alice")
	e.want("on the backend", e.ask(a, "room.h.uid", ""), "alice")
	if s := gate.SessionByUID("alice"); s == nil || s.UID() != "alice" {
		e.Error("alice is not on her frontend")
	}
	e.ask(a, "room.h.push", "hi")
	e.push(a, "onPush", "hi")
	e.refused(a, "room.h.bind", "alice", pitaya.CodeUnknown, "*")
	e.refused(a, "room.h.bind", "bob", pitaya.CodeUnknown, "*")
	e.ask(b, "gate.h.bind", "bob")
	e.ask(b, "room.h.push", "hi bob")
	e.push(b, "onPush", "hi bob")
	a.NoPush()
	_ = other
}

// Callbacks run on both sides, in order; an error of one leaves nothing behind.
func (e *e2e) bindCallbacks() {
	var mu sync.Mutex
	var log []string
	callback := func(name string) func(context.Context, *pitaya.Session) error {
		return func(ctx context.Context, s *pitaya.Session) error {
			mu.Lock()
			defer mu.Unlock()
			log = append(log, name+" "+s.UID())
			if strings.HasPrefix(s.UID(), name) {
				return pitaya.Errorf("NO-1", "%s refuses", name)
			}
			return nil
		}
	}
	setup := func(side string) func(*pitaya.Server) {
		return func(s *pitaya.Server) {
			e.noError(s.OnSessionBind(callback(side + "-bind")))
			e.noError(s.OnAfterSessionBind(callback(side + "-after")))
			e.bindHandlers(s)
			e.raw(s, "h.try", func(ctx context.Context, uid string) (string, error) {
				session := pitaya.SessionFromContext(ctx)
				err := session.Bind(ctx, uid)
				if err != nil && session.UID() != "" {
					return "", errors.New("the uid stayed")
				}
				return "", err
			})
		}
	}
	gate := e.gate("g", setup("front"))
	e.room("r", setup("back"))
	c := gate.Client(e)
	for _, name := range []string{"back-bind", "front-bind", "front-after"} {
		uid := name + "-user"
		e.refused(c, "room.h.try", uid, "NO-1", name+" refuses")
		if gate.SessionByUID(uid) != nil {
			e.Errorf("%s: the uid leads to a session", uid)
		}
		e.want(name, e.ask(c, "gate.h.uid", ""), "")
		if err := gate.Push(e.ctx(), "gate", []string{uid}, "onPush", []byte("x")); e.kind != e2eNATS && !e.inMemory() && err == nil {
			e.Errorf("%s can be pushed to", uid)
		}
	}
	mu.Lock()
	log = nil
	mu.Unlock()
	e.ask(c, "room.h.try", "carol")
	mu.Lock()
	defer mu.Unlock()
	e.want("callbacks", fmt.Sprint(log), "[back-bind carol front-bind carol front-after carol back-after carol]")
	c.NoPush()
}

func (e *e2e) illegalUIDs() {
	gate := e.gate("g", e.bindHandlers)
	e.room("r", e.bindHandlers)
	c := gate.Client(e)
	for _, uid := range []string{"", "a b", "tab\t", "a..b", ".a", "a.", "*", ">", "a.*.b", "a.>", "\xff", "line\n", strings.Repeat("u", 257)} {
		for _, typ := range []string{"gate", "room"} {
			err := e.refused(c, typ+".h.bind", uid, pitaya.CodeUnknown, "*")
			if !strings.HasPrefix(err.Message, pitaya.ErrIllegalUID.Error()) {
				e.Errorf("%s, %q: got %q", typ, uid, err.Message)
			}
		}
	}
	if gate.Stats().Calls != 0 {
		e.Error("the frontend was asked")
	}
	uid := "mail+tag@example.com/größe.*x"
	e.ask(c, "room.h.bind", uid)
	e.ask(c, "room.h.push", "still well")
	e.push(c, "onPush", "still well")
}

// Session data on its way: exact numbers, keys that change and vanish, and all of it at once.
func (e *e2e) sessionData() {
	const big = int64(1)<<53 + 1
	value := func(s *pitaya.Session, key string) string {
		n, ok := pitaya.SessionValue[int64](s, key)
		return fmt.Sprint(n, ok)
	}
	setup := func(s *pitaya.Server) {
		e.raw(s, "h.set", func(ctx context.Context, in string) (string, error) {
			session := pitaya.SessionFromContext(ctx)
			err := errors.Join(session.Set("big", big), session.Set("neg", int64(-1<<63)), session.Set("name", "<ä>"),
				session.Set("nested", map[string]any{"list": []int{1, 2}}), session.Set("gone", 1))
			if err == nil && !session.IsFrontend() {
				err = session.PushToFront(ctx)
			}
			return "", err
		})
		e.raw(s, "h.look", func(ctx context.Context, in string) (string, error) {
			session := pitaya.SessionFromContext(ctx)
			b, err := json.Marshal(session.Data())
			return value(session, "big") + " " + value(session, "neg") + " " + string(b), err
		})
		e.raw(s, "h.add", func(ctx context.Context, in string) (string, error) {
			session := pitaya.SessionFromContext(ctx)
			n, _ := pitaya.SessionValue[int64](session, "big")
			session.Delete("gone")
			if err := session.Set("big", n+1); err != nil {
				return "", err
			}
			return "", session.PushToFront(ctx)
		})
		e.raw(s, "h.lost", func(ctx context.Context, in string) (string, error) {
			return "", pitaya.SessionFromContext(ctx).Set("lost", true)
		})
		e.raw(s, "h.all", func(ctx context.Context, in string) (string, error) {
			session := pitaya.SessionFromContext(ctx)
			if err := session.SetData(map[string]any{"only": big}); err != nil {
				return "", err
			}
			return "", session.PushToFront(ctx)
		})
		e.raw(s, "h.bad", func(ctx context.Context, in string) (string, error) {
			return "", pitaya.SessionFromContext(ctx).Set("bad", make(chan int))
		})
	}
	gate := e.gate("g", setup)
	e.room("r0", setup)
	e.start(pitaya.Config{Type: "shop", ID: "s"}, setup)
	c := gate.Client(e)
	const rest = `"name":"\u003cä\u003e","neg":-9223372036854775808,"nested":{"list":[1,2]}}`
	look := func(want string) {
		e.Helper()
		for _, typ := range []string{"gate", "room", "shop"} {
			e.want("on "+typ, e.ask(c, typ+".h.look", ""), want)
		}
	}
	look(`0 false 0 false {"ipversion":"ipv4"}`)
	e.ask(c, "room.h.set", "")
	look(`9007199254740993 true -9223372036854775808 true {"big":9007199254740993,"gone":1,"ipversion":"ipv4",` + rest)
	e.ask(c, "shop.h.add", "")
	look(`9007199254740994 true -9223372036854775808 true {"big":9007199254740994,"ipversion":"ipv4",` + rest)
	e.ask(c, "room.h.lost", "")
	e.refused(c, "room.h.bad", "", pitaya.CodeUnknown, "*")
	look(`9007199254740994 true -9223372036854775808 true {"big":9007199254740994,"ipversion":"ipv4",` + rest)
	e.ask(c, "room.h.all", "")
	look(`0 false 0 false {"only":9007199254740993}`)
	e.ask(c, "gate.h.set", "")
	look(`9007199254740993 true -9223372036854775808 true {"big":9007199254740993,"gone":1,` + strings.TrimSuffix(rest, "}") + `,"only":9007199254740993}`)
}

// Backends that change different keys at the same time do not undo each other's changes.
func (e *e2e) mergedData() {
	meet := barrier(2)
	gate := e.gate("g", nil)
	for _, typ := range []string{"room", "shop"} {
		e.start(pitaya.Config{Type: typ, ID: typ}, func(s *pitaya.Server) {
			e.raw(s, "h.set", func(ctx context.Context, in string) (string, error) {
				session := pitaya.SessionFromContext(ctx)
				meet() // both have the data as it was before
				if err := session.Set(typ, in); err != nil {
					return "", err
				}
				session.Delete("old-" + typ)
				return "", session.PushToFront(ctx)
			})
		})
	}
	c := gate.Client(e)
	var session *pitaya.Session
	for s := range gate.Sessions() {
		session = s
	}
	e.noError(errors.Join(session.Set("old-room", 1), session.Set("old-shop", 1), session.Set("kept", 1)))
	var wg sync.WaitGroup
	for _, typ := range []string{"room", "shop"} {
		wg.Go(func() {
			if _, err := c.RequestRaw(e.Context(), typ+".h.set", []byte("new")); err != nil {
				e.Error(err)
			}
		})
	}
	wg.Wait()
	b, _ := json.Marshal(session.Data())
	e.want("data", string(b), `{"ipversion":"ipv4","kept":1,"room":"new","shop":"new"}`)
}

// What a session can and cannot do on either side.
func (e *e2e) sessionMethods() {
	kickReason := make(chan string, 1)
	gate := e.gate("g", func(s *pitaya.Server) {
		e.raw(s, "h.do", func(ctx context.Context, in string) (string, error) {
			session := pitaya.SessionFromContext(ctx)
			if err := session.PushToFront(ctx); !errors.Is(err, pitaya.ErrFrontendSession) {
				return "", fmt.Errorf("PushToFront: %v", err)
			}
			return fmt.Sprintf("%v %q %v", session.IsFrontend(), session.FrontendID(), session.FrontendSessionID() == session.ID()), nil
		})
		e.raw(s, "h.id", func(ctx context.Context, in string) (string, error) {
			return fmt.Sprint(pitaya.SessionFromContext(ctx).ID()), nil
		})
	})
	e.room("r", func(s *pitaya.Server) {
		e.bindHandlers(s)
		e.raw(s, "h.do", func(ctx context.Context, in string) (string, error) {
			session := pitaya.SessionFromContext(ctx)
			for name, err := range map[string]error{
				"Close":        session.Close(),
				"OnClose":      session.OnClose(func() {}),
				"PushAndClose": session.PushAndClose(ctx, "onPush", []byte("x")),
			} {
				if !errors.Is(err, pitaya.ErrBackendSession) {
					return "", fmt.Errorf("%s: %v", name, err)
				}
			}
			if session.RemoteAddr() != nil || session.HandshakeData() != nil && session.HandshakeData().Sys.Platform != "" {
				return "", errors.New("address or handshake of another server's client")
			}
			if s.SessionCount() != 0 {
				return "", errors.New("the session is among those of the server")
			}
			return fmt.Sprintf("%v %q %v", session.IsFrontend(), session.FrontendID(), session.FrontendSessionID()), nil
		})
		e.raw(s, "h.kick", func(ctx context.Context, in string) (string, error) {
			session := pitaya.SessionFromContext(ctx)
			if in != "" {
				return "", session.KickReason(ctx, in)
			}
			return "", session.Kick(ctx)
		})
	})
	c := gate.Client(e)
	id := e.ask(c, "gate.h.id", "")
	e.want("frontend", e.ask(c, "gate.h.do", ""), `true "" true`)
	e.want("backend", e.ask(c, "room.h.do", ""), `false "g" `+id)
	e.refused(c, "room.h.kick", "", pitaya.CodeUnknown, "*") // not bound
	e.ask(c, "room.h.bind", "u")
	go c.RequestRaw(e.Context(), "room.h.kick", []byte("cheating"))
	kickReason <- c.ExpectKick()
	e.want("reason", <-kickReason, "kicked")
	until(e, "the session has ended", func() bool { return gate.SessionByUID("u") == nil })
	e.balanced(gate)
}

// A user that comes back while the old session ends can be reached, whatever overtakes what.
func (e *e2e) reconnects() {
	rounds := 30
	gate := e.gate("g", e.bindHandlers)
	back := e.room("r", nil)
	old := gate.Client(e)
	e.ask(old, "gate.h.bind", "u")
	for i := range rounds {
		c := gate.Client(e)
		go old.Close()
		e.ask(c, "gate.h.bind", "u")
		want := fmt.Sprint("round ", i)
		until(e, "the old session has ended", func() bool { return gate.SessionCount() == 1 })
		e.noError(back.Push(e.ctx(), "gate", []string{"u"}, "onPush", []byte(want)))
		e.push(c, "onPush", want)
		old = c
	}
}

func (e *e2e) newestWins() {
	gates := []*e2eNode{e.gate("g1", e.bindHandlers), e.gate("g2", e.bindHandlers), e.gate("g3", e.bindHandlers)}
	e.room("r", e.bindHandlers)
	var last *pitayatest.Client
	for i := range 9 {
		gate, route := gates[i%3], "gate.h.bind"
		if i%2 == 1 {
			route = "room.h.bind"
		}
		c := gate.Client(e)
		e.ask(c, route, "u")
		if last != nil {
			e.want("reason", last.ExpectKick(), "replaced")
		}
		for j, g := range gates {
			if j != i%3 {
				until(e, "the old session has ended", func() bool { return g.SessionByUID("u") == nil })
			}
		}
		if gate.SessionByUID("u") == nil {
			e.Fatalf("round %d: the newest has not won", i)
		}
		e.ask(c, "room.h.push", fmt.Sprint(i))
		e.push(c, "onPush", fmt.Sprint(i))
		last = c
	}
}

// race lets clients log in as one user at the same moment, and checks that one of them remains, and all others were told.
func (e *e2e) race(round int, all []*e2eNode, gates []*e2eNode, route func(i int) string) {
	e.Helper()
	uid := fmt.Sprint("u", round)
	clients := make([]*pitayatest.Client, len(gates))
	for i, g := range gates {
		clients[i] = g.Client(e)
	}
	var bound atomic.Int32
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i, c := range clients {
		wg.Go(func() {
			<-start
			if _, err := c.RequestRaw(e.Context(), route(i), []byte(uid)); err == nil {
				bound.Add(1)
			}
		})
	}
	close(start)
	wg.Wait()
	count := func() (n int) {
		for _, g := range all {
			if g.SessionByUID(uid) != nil {
				n++
			}
		}
		return n
	}
	until(e, "one session", func() bool { return count() <= 1 })
	if count() != 1 || bound.Load() < 1 {
		e.Fatalf("round %d: %d binds have succeeded, %d sessions remain", round, bound.Load(), count())
	}
	for _, c := range clients {
		c.Close()
	}
	until(e, "all have left", func() bool {
		for _, g := range all {
			if g.SessionCount() > 0 {
				return false
			}
		}
		return true
	})
}

// Of logins at the same moment exactly one remains.
func (e *e2e) simultaneous() {
	gates := []*e2eNode{e.gate("g1", e.bindHandlers), e.gate("g2", e.bindHandlers), e.gate("g3", e.bindHandlers)}
	e.room("r", e.bindHandlers)
	rounds := 40
	if !e.inMemory() {
		rounds = 15
	}
	for i := range rounds {
		some := gates[:2+i%2]
		e.race(i, gates, some, func(k int) string {
			if (i/2+k)%3 == 0 {
				return "room.h.bind"
			}
			return "gate.h.bind"
		})
	}
}

// The same on one frontend, and with another one beside it.
func (e *e2e) simultaneousHere() {
	gates := []*e2eNode{e.gate("g1", e.bindHandlers), e.gate("g2", e.bindHandlers)}
	for i := range 30 {
		some := []*e2eNode{gates[0], gates[0], gates[0]}
		if i%2 == 1 {
			some[2] = gates[1]
		}
		e.race(i, gates, some, func(int) string { return "gate.h.bind" })
	}
}

func (e *e2e) notUnique() {
	var clients []*pitayatest.Client
	var gates []*e2eNode
	for _, id := range []string{"g1", "g2"} {
		gates = append(gates, e.start(pitaya.Config{Type: "gate", ID: id, Frontend: true, NoUniqueSession: true}, e.bindHandlers))
	}
	for _, g := range gates {
		c := g.Client(e)
		e.ask(c, "gate.h.bind", "u")
		clients = append(clients, c)
	}
	for i, c := range clients {
		e.want("alive", e.ask(c, "gate.h.uid", ""), "u")
		if gates[i].SessionByUID("u") == nil {
			e.Error("one of them was ended")
		}
	}
}

// Frontends that know nothing of claims: a login is announced, as Pitaya does.
func (e *e2e) oldFrontends() {
	setup := func(s *pitaya.Server) {
		e.bindHandlers(s)
		e.remote(s, "x", func(context.Context, string) (string, error) { return "", nil })
	}
	now := e.gate("new", setup)
	e.oldPeers = true
	old := e.gate("old", setup)
	var last *pitayatest.Client
	for i, g := range []*e2eNode{now, old, now, old} {
		c := g.Client(e)
		e.ask(c, "gate.h.bind", "u")
		// Nobody waits for the announcement. Behind it, a call: one that came after the next login would end that.
		other := "new"
		if g == now {
			other = "old"
		}
		var out wrapperspb.StringValue
		e.noError(g.RPCTo(e.ctx(), other, "gate.x.Do", &out, nil))
		if last != nil {
			e.want("reason", last.ExpectKick(), "replaced")
		}
		if g.SessionByUID("u") == nil {
			e.Errorf("round %d: the newest has not won", i)
		}
		last = c
	}
}
