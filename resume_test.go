package pitaya_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// resumeLog notes what the application is told of sessions.
type resumeLog struct {
	mu     sync.Mutex
	events []string
}

func (l *resumeLog) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, fmt.Sprintf(format, args...))
}

// sort is for events of several sessions, which have no order.
func (l *resumeLog) sort() {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.events)
}

// want compares the events since the last call, when all rests.
func (l *resumeLog) want(t testing.TB, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.events, want) {
		t.Errorf("the application was told %q, want %q", l.events, want)
	}
	l.events = nil
}

// startResume starts a server whose sessions wait for 30 s, unless cfg says something else. Its users are bound by the
// request test.bind.
func startResume(t testing.TB, kind string, cfg pitaya.Config, setup func(*pitaya.Server)) (*testServer, func() *rawClient, *resumeLog) {
	t.Helper()
	if cfg.Resume.Window == 0 {
		cfg.Resume.Window = 30 * time.Second
	}
	log := new(resumeLog)
	s, dial := startOn(t, kind, cfg, func(s *pitaya.Server) {
		must(t,
			pitaya.HandleRaw(s, "test.bind", bindHandler),
			pitaya.HandleRaw(s, "test.echo", sleeper(0)),
			s.OnSessionDetach(func(s *pitaya.Session) { log.add("detach %s %v", s.UID(), s.Connected()) }),
			s.OnSessionResume(func(s *pitaya.Session) { log.add("resume %s %v", s.UID(), s.Connected()) }),
			s.OnSessionClose(func(s *pitaya.Session) {
				if s.UID() != "" {
					log.add("close %s: %v", s.UID(), context.Cause(s.Context()))
				}
			}),
		)
		if setup != nil {
			setup(s)
		}
	})
	return s, func() *rawClient {
		t.Helper()
		c := dial()
		c.SetDeadline(time.Time{})
		return c
	}, log
}

// askResume sends a handshake with that as user.resume, and returns the server's terms. The acknowledgement is left to
// the caller.
func (c *rawClient) askResume(ask string) *pitaya.HandshakeResume {
	c.t.Helper()
	c.send(pitaya.PacketHandshake, []byte(`{"sys":{},"user":{"resume":`+ask+`}}`))
	var r pitaya.HandshakeResponse
	if err := json.Unmarshal(c.expect(pitaya.PacketHandshake), &r); err != nil || r.Code != 200 {
		c.t.Fatalf("handshake answered with %+v, %v", r, err)
	}
	return r.Sys.Resume
}

func (c *rawClient) ack() { c.t.Helper(); c.send(pitaya.PacketHandshakeAck, nil) }

// begin connects for a new session, binds it, and returns it with its token.
func (c *rawClient) begin(s *testServer, uid string) (*pitaya.Session, string) {
	c.t.Helper()
	terms := c.askResume(`{}`)
	if terms == nil || len(terms.Token) < 22 || terms.Resumed || terms.Reason != "" {
		c.t.Fatalf("terms %+v", terms)
	}
	c.ack()
	c.bind(uid)
	return s.SessionByUID(uid), terms.Token
}

// back is what a client asks for that comes back.
func back(token string, received int) string {
	return fmt.Sprintf(`{"token":%q,"received":%d}`, token, received)
}

// comeBack resumes a session and returns the next token.
func (c *rawClient) comeBack(token string, received int) string {
	c.t.Helper()
	terms := c.askResume(back(token, received))
	if terms == nil || !terms.Resumed || terms.Reason != "" || terms.Token == token {
		c.t.Fatalf("not resumed: %+v", terms)
	}
	c.ack()
	synctest.Wait()
	return terms.Token
}

// refusedResume wants a new session, for a reason.
func (c *rawClient) refusedResume(ask, reason string) *pitaya.HandshakeResume {
	c.t.Helper()
	terms := c.askResume(ask)
	if terms == nil || terms.Resumed || terms.Reason != reason || terms.Token == "" {
		c.t.Errorf("%s: got %+v, want reason %q", ask, terms, reason)
	}
	return terms
}

// pushNumbers pushes the numbers from up to below to.
func pushNumbers(t testing.TB, s *pitaya.Session, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		must(t, s.Push(t.Context(), "p", fmt.Append(nil, n)))
	}
}

// wantNumbers reads them.
func (c *rawClient) wantNumbers(from, to int) {
	c.t.Helper()
	for n := from; n < to; n++ {
		if m := c.message(); m.Type != pitaya.MessagePush || string(m.Payload) != fmt.Sprint(n) {
			c.t.Fatalf("got %v %q, want push %d", m.Type, m.Payload, n)
		}
	}
}

// received sends a heartbeat with a count.
func (c *rawClient) received(n uint32) {
	c.t.Helper()
	c.send(pitaya.PacketHeartbeat, binary.BigEndian.AppendUint32(nil, n))
}

// inBubbles runs a test over memory, with packets as they are and in WebSocket frames.
func inBubbles(t *testing.T, f func(t *testing.T, kind string)) {
	t.Helper()
	for _, kind := range []string{"mem", "memws"} {
		t.Run(kind, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, kind) }) })
	}
}

func TestResume(t *testing.T) {
	inBubbles(t, func(t *testing.T, kind string) {
		s, dial, log := startResume(t, kind, pitaya.Config{}, nil)
		c := dial()
		session, token := c.begin(s, "u")
		must(t, session.Set("score", 7))
		id := session.ID()
		for round := range 3 {
			pushNumbers(t, session, 10*round, 10*round+5)
			c.wantNumbers(10*round, 10*round+5)
			c.Close()
			log.want(t, "detach u false")
			time.Sleep(29 * time.Second)
			if session.Connected() || s.SessionByUID("u") != session || s.SessionByID(id) != session || session.Context().Err() != nil || s.Stats().Waiting != 1 {
				t.Fatalf("a session that waits: connected %v, found %v, context %v, %+v", session.Connected(), s.SessionByUID("u") == session, session.Context().Err(), s.Stats())
			}
			pushNumbers(t, session, 10*round+5, 10*round+8)
			must(t, s.Push(t.Context(), "", []string{"u"}, "p", fmt.Append(nil, 10*round+8)))
			c = dial()
			token = c.comeBack(token, 10*round+5)
			pushNumbers(t, session, 10*round+9, 10*round+10)
			c.wantNumbers(10*round+5, 10*round+10)
			log.want(t, "resume u true")
			c.request(2, "test.echo", "x")
			if m := c.message(); m.ID != 2 || string(m.Payload) != "x" {
				t.Fatalf("answer %+v", m)
			}
		}
		if v, _ := pitaya.SessionValue[int](session, "score"); v != 7 {
			t.Errorf("data: %v", session.Data())
		}
		if got := s.Stats(); got.Resumed != 3 || got.NotResumed != 0 || got.Waiting != 0 || got.Sessions != 1 || got.Open != 1 {
			t.Errorf("%+v", got)
		}
		c.Close()
		log.want(t, "detach u false")
		time.Sleep(29 * time.Second)
		log.want(t)
		time.Sleep(2 * time.Second)
		log.want(t, "close u: EOF")
		if err := session.Push(t.Context(), "p", "x"); err != pitaya.ErrSessionClosed {
			t.Errorf("push after the window: %v", err)
		}
		if s.SessionByUID("u") != nil || s.SessionCount() != 0 || s.Stats().Waiting != 0 {
			t.Errorf("after the window: %+v", s.Stats())
		}
		dial().refusedResume(back(token, 30), "unknown")
	})
}

// TestResumeAnswer compares the answers to handshakes byte by byte: of clients that ask and others, with resume and
// without.
func TestResumeAnswer(t *testing.T) {
	const plain = `{"code":200,"sys":{"dict":{"conn.test.bind":1},"heartbeat":30,"serializer":"json"}}`
	dict := func(s *pitaya.Server) { s.SetDictionary(map[string]uint16{"conn.test.bind": 1}) }
	synctest.Test(t, func(t *testing.T) {
		_, dial, _ := startResume(t, "mem", pitaya.Config{}, dict)
		for _, user := range []string{``, `,"user":{}`, `,"user":{"a":1}`, `,"user":null`, `,"user":{"resume":null}`, `,"user":{"resume":5}`,
			`,"user":{"resume":"x"}`, `,"user":{"resume":[{}]}`, `,"user":{"resume":true}`} {
			if got := dial().handshake(`{"sys":{}` + user + `}`); got != plain {
				t.Errorf("user %s: answer %s", user, got)
			}
		}
		got := dial().handshake(`{"sys":{},"user":{"resume":{}}}`)
		var r pitaya.HandshakeResponse
		must(t, json.Unmarshal([]byte(got), &r))
		if want := strings.TrimSuffix(plain, "}}") + `,"resume":{"token":"` + r.Sys.Resume.Token + `","window":30,"resumed":false}}}`; got != want {
			t.Errorf("answer %s, want %s", got, want)
		}
		for _, ask := range []string{`{"token":null}`, `{"token":5,"received":1}`, `{"token":""}`, `{"token":{},"more":[]}`} {
			dial().refusedResume(ask, "") // a new one, which nobody has asked to resume
		}
		for _, ask := range []string{back("nonsense", 0), back(strings.Repeat("x", 60_000), 0), `{"token":"a","received":"1"}`,
			`{"token":"a","received":-1}`, `{"token":"a","received":1e300}`, `{"token":"a\u0000","received":0.5}`} {
			dial().refusedResume(ask, "unknown")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, dial := startOn(t, "mem", pitaya.Config{}, dict)
		c := dial()
		c.SetDeadline(time.Time{})
		if got := c.handshake(`{"sys":{},"user":{"resume":{}}}`); got != plain {
			t.Errorf("without resume: answer %s", got)
		}
	})
}

// TestResumeReceived gives a token with counts that no client can have.
func TestResumeReceived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, _ := startResume(t, "mem", pitaya.Config{}, nil)
		c := dial()
		session, token := c.begin(s, "u")
		pushNumbers(t, session, 0, 3)
		for received, reason := range map[string]string{`"1"`: "unknown", "-1": "unknown", "0.5": "unknown", "1e300": "unknown", "null": "unknown",
			"9007199254740993": "gap", "4": "gap"} {
			dial().refusedResume(fmt.Sprintf(`{"token":%q,"received":%s}`, token, received), reason)
		}
		dial().refusedResume(fmt.Sprintf(`{"token":%q}`, token), "unknown")
		c = dial()
		c.comeBack(token, 1) // and none of that has cost anything
		c.wantNumbers(1, 3)
	})
}

// TestResumeHidden makes sure that the application does not see tokens, and sees all else.
func TestResumeHidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		s, dial, _ := startResume(t, "mem", pitaya.Config{}, func(s *pitaya.Server) {
			s.AddHandshakeValidator("look", func(h *pitaya.HandshakeData) error {
				seen = append(seen, fmt.Sprint(h.User))
				return nil
			})
		})
		c := dial()
		c.send(pitaya.PacketHandshake, []byte(`{"sys":{"platform":"p"},"user":{"resume":{"token":"secret"},"name":"x"}}`))
		c.expect(pitaya.PacketHandshake)
		for session := range s.Sessions() {
			if h := session.HandshakeData(); fmt.Sprint(h.User) != "map[name:x]" || h.Sys.Platform != "p" {
				t.Errorf("handshake data %+v", h)
			}
		}
		if !slices.Equal(seen, []string{"map[name:x]"}) {
			t.Errorf("the validator has seen %q", seen)
		}
	})
}

func TestResumeTokenSingleUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, _ := startResume(t, "mem", pitaya.Config{}, nil)
		c := dial()
		session, first := c.begin(s, "u")
		c.Close()
		synctest.Wait()
		c = dial()
		second := c.comeBack(first, 0)
		pushNumbers(t, session, 0, 1)
		c.wantNumbers(0, 1)
		dial().refusedResume(back(first, 0), "unknown")
		c.Close()
		synctest.Wait()
		dial().refusedResume(back(first, 0), "unknown")
		dial().comeBack(second, 1)
		dial().refusedResume(back(second, 1), "unknown")
	})
}

// TestResumeLostAnswer comes back several times without the answer, or without the acknowledgement, having arrived.
func TestResumeLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, log := startResume(t, "mem", pitaya.Config{}, nil)
		c := dial()
		session, first := c.begin(s, "u")
		c.Close()
		synctest.Wait()
		for range 3 { // the client has not got the answer, and tries with what it has
			c = dial()
			c.askResume(back(first, 0))
			c.Close()
			synctest.Wait()
		}
		c = dial()
		second := c.askResume(back(first, 0)).Token
		c.Close() // before the acknowledgement
		synctest.Wait()
		c = dial()
		third := c.askResume(back(second, 0)).Token
		c.Close()
		synctest.Wait()
		dial().refusedResume(back(first, 0), "unknown") // whose successor was presented
		c = dial()
		c.comeBack(second, 0) // the answer with the third one was lost
		dial().refusedResume(back(third, 0), "unknown")
		pushNumbers(t, session, 0, 2)
		c.wantNumbers(0, 2)
		log.want(t, "detach u false", "resume u true")
	})
}

// TestResumeOldConnection comes back before the server has noticed that the old connection is gone. The handler that
// runs goes on, and its answer goes nowhere.
func TestResumeOldConnection(t *testing.T) {
	inBubbles(t, func(t *testing.T, kind string) {
		release := make(chan struct{})
		var ctxErr error
		var order []string
		s, dial, log := startResume(t, kind, pitaya.Config{}, func(s *pitaya.Server) {
			must(t, pitaya.HandleRaw(s, "test.slow", func(ctx context.Context, b []byte) ([]byte, error) {
				<-release
				ctxErr = ctx.Err()
				return b, nil
			}), pitaya.HandleRaw(s, "test.note", func(ctx context.Context, b []byte) ([]byte, error) {
				order = append(order, string(b))
				return b, nil
			}))
		})
		old := dial()
		session, token := old.begin(s, "u")
		old.request(2, "test.slow", "late")
		synctest.Wait() // the others wait behind it
		old.request(3, "test.note", "old")
		old.request(0, "test.note", "old notify")
		pushNumbers(t, session, 0, 3)
		synctest.Wait()
		c := dial()
		c.comeBack(token, 1)
		c.wantNumbers(1, 3)
		old.wantNumbers(0, 3)
		if _, err := old.Read(make([]byte, 1)); err == nil {
			t.Error("the old connection is open")
		}
		log.want(t, "detach u true", "resume u true")
		c.request(2, "test.note", "new")
		pushNumbers(t, session, 3, 5)
		c.wantNumbers(3, 5)
		synctest.Wait()
		close(release)
		if m := c.message(); m.ID != 2 || string(m.Payload) != "new" {
			t.Errorf("the answer on the new connection is %d %q", m.ID, m.Payload)
		}
		if ctxErr != nil || !slices.Equal(order, []string{"old", "old notify", "new"}) {
			t.Errorf("the handler's context: %v; messages handled: %q", ctxErr, order)
		}
		c.Close()
		synctest.Wait()
		if got := s.Stats(); got.Lost != 2 || got.Requests != got.Answered+got.Failed+got.Lost || got.Violations != 0 {
			t.Errorf("%+v", got)
		}
		log.want(t, "detach u false")
	})
}

// TestResumeTwoClaimants lets two connections have valid tokens of a session.
func TestResumeTwoClaimants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, log := startResume(t, "mem", pitaya.Config{}, nil)
		c := dial()
		session, token := c.begin(s, "u")
		pushNumbers(t, session, 0, 2)
		c.Close()
		synctest.Wait()
		a, b := dial(), dial()
		ta := a.askResume(back(token, 0))
		tb := b.askResume(back(token, 2))
		if !ta.Resumed || !tb.Resumed || ta.Token == tb.Token {
			t.Fatalf("%+v, %+v", ta, tb)
		}
		a.ack() // its token is not the one offered last, and is good all the same
		a.wantNumbers(0, 2)
		b.expectClosed()
		dial().refusedResume(back(tb.Token, 2), "unknown")
		log.want(t, "detach u false", "resume u true")
		a.Close()
		log.want(t, "detach u false")
		dial().comeBack(ta.Token, 2)
		log.want(t, "resume u true")
		if n := s.SessionCount(); n != 2 { // the session, and that of the refused one
			t.Errorf("%d sessions", n)
		}
	})
}

// TestResumeLateAck loses a connection right behind the acknowledgement, which the server gets only after the client has
// come back with the token that was offered on it.
func TestResumeLateAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, log := startResume(t, "mem", pitaya.Config{}, nil)
		c := dial()
		session, first := c.begin(s, "u")
		pushNumbers(t, session, 0, 2)
		c.Close()
		synctest.Wait()
		lost, c := dial(), dial()
		second := lost.askResume(back(first, 0)).Token
		third := c.askResume(back(second, 1))
		if !third.Resumed {
			t.Fatalf("%+v", third)
		}
		lost.ack()
		lost.expectClosed()
		c.ack()
		c.wantNumbers(1, 2)
		log.want(t, "detach u false", "resume u true")
		c.Close()
		synctest.Wait()
		dial().comeBack(third.Token, 2)
		log.want(t, "detach u false", "resume u true")
	})
}

// TestResumeClaimLost acknowledges when the session is over, or can not be resumed any more.
func TestResumeClaimLost(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(t *testing.T, s *pitaya.Session)
		again  string
	}{
		{"window over", func(t *testing.T, s *pitaya.Session) { time.Sleep(3 * time.Second) }, "unknown"},
		{"kicked", func(t *testing.T, s *pitaya.Session) { must(t, s.Kick(t.Context())) }, "unknown"},
		{"gap", func(t *testing.T, s *pitaya.Session) { pushNumbers(t, s, 1, 4) }, "gap"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial, _ := startResume(t, "mem", pitaya.Config{Resume: pitaya.ResumeConfig{Window: 2 * time.Second, Messages: 3}}, nil)
				c := dial()
				session, token := c.begin(s, "u")
				pushNumbers(t, session, 0, 1)
				c.wantNumbers(0, 1)
				c.Close()
				synctest.Wait()
				c = dial()
				terms := c.askResume(back(token, 0))
				if !terms.Resumed {
					t.Fatalf("%+v", terms)
				}
				tt.before(t, session)
				c.ack()
				c.expectClosed()
				dial().refusedResume(back(terms.Token, 0), tt.again)
			})
		})
	}
}
