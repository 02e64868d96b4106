package pitaya_test

import (
	"compress/zlib"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// TestResumeEnds ends sessions that can be resumed at once, with a connection and without.
func TestResumeEnds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		end   func(t *testing.T, s *testServer, session *pitaya.Session, dial func() *rawClient)
		cause string
	}{
		{"Kick", func(t *testing.T, s *testServer, session *pitaya.Session, dial func() *rawClient) {
			must(t, session.KickReason(t.Context(), "why"))
			if err := session.Kick(t.Context()); err != pitaya.ErrSessionClosed {
				t.Errorf("second kick: %v", err)
			}
		}, "pitaya: kicked: why"},
		{"Server.Kick", func(t *testing.T, s *testServer, session *pitaya.Session, dial func() *rawClient) {
			must(t, s.Kick(t.Context(), "", []string{"u"}))
		}, "pitaya: kicked: kicked"},
		{"Close", func(t *testing.T, s *testServer, session *pitaya.Session, dial func() *rawClient) {
			must(t, session.Close(), session.Close())
		}, "pitaya: session closed"},
		{"PushAndClose", func(t *testing.T, s *testServer, session *pitaya.Session, dial func() *rawClient) {
			must(t, session.PushAndClose(t.Context(), "p", "bye"))
			if err := session.PushAndClose(t.Context(), "p", "bye"); err != pitaya.ErrSessionClosed {
				t.Errorf("second one: %v", err)
			}
		}, "pitaya: session closed"},
		{"replaced", func(t *testing.T, s *testServer, session *pitaya.Session, dial func() *rawClient) {
			other, _ := dial().begin(s, "u")
			if s.SessionByUID("u") != other {
				t.Error("the user is not on the new session")
			}
		}, "pitaya: session replaced by a newer one"},
		{"shutdown", func(t *testing.T, s *testServer, session *pitaya.Session, dial func() *rawClient) {
			begin := time.Now()
			s.stop(t)
			if d := time.Since(begin); d > 3*time.Second {
				t.Errorf("the end took %v", d)
			}
		}, "pitaya: server closed"},
	} {
		for _, away := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, away %v", tt.name, away), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, dial, log := startResume(t, "mem", pitaya.Config{}, nil)
					c := dial()
					session, token := c.begin(s, "u")
					must(t, session.OnClose(func() { log.add("OnClose") }))
					pushNumbers(t, session, 0, 1)
					if away {
						c.Close()
						log.want(t, "detach u false")
					}
					tt.end(t, s, session, dial)
					synctest.Wait()
					cause := context.Cause(session.Context())
					if cause == nil || !strings.Contains(cause.Error(), strings.TrimPrefix(tt.cause, "pitaya: ")) {
						t.Errorf("cause %v, want %q", cause, tt.cause)
					}
					log.want(t, "OnClose", fmt.Sprintf("close u: %v", cause))
					if err := session.Push(t.Context(), "p", "x"); err != pitaya.ErrSessionClosed {
						t.Errorf("push: %v", err)
					}
					if session.Connected() {
						t.Error("connected")
					}
					if tt.name != "shutdown" {
						dial().refusedResume(back(token, 0), "unknown")
						time.Sleep(time.Minute)
						log.want(t) // once
					}
				})
			})
		}
	}
}

// TestResumeGoodbye has clients that leave for good, and others.
func TestResumeGoodbye(t *testing.T) {
	closeFrame := func(code uint16) func(c *rawClient) {
		return func(c *rawClient) {
			_, err := c.Conn.(*wsPeer).Conn.Write(pitaya.AppendWSFrame(nil, pitaya.WSClose, true, binary.BigEndian.AppendUint16(nil, code)))
			must(c.t, err)
		}
	}
	for _, tt := range []struct {
		name, kind string
		leave      func(c *rawClient)
		want       string
	}{
		{"kick packet", "mem", func(c *rawClient) { c.send(pitaya.PacketKick, nil) }, "close u: EOF"},
		{"kick packet", "memws", func(c *rawClient) { c.send(pitaya.PacketKick, nil) }, "close u: EOF"},
		{"close frame 1000", "memws", closeFrame(1000), "close u: EOF"},
		{"close frame 1001", "memws", closeFrame(1001), "detach u false"},
		{"close frame 4000", "memws", closeFrame(4000), "detach u false"},
		{"end of the stream", "mem", func(c *rawClient) { c.Close() }, "detach u false"},
		{"half a packet", "mem", func(c *rawClient) { c.write([]byte("\x04\x00\x00\x09\x00")); c.Close() }, "detach u false"},
		{"half a header", "memws", func(c *rawClient) {
			c.write([]byte("\x04\x00"))
			c.Close()
		}, "detach u false"},
		{"violation", "mem", func(c *rawClient) { c.write([]byte("\x09\x00\x00\x00")) }, "close u: pitaya: protocol violation: unknown packet type 9"},
		{"violation by a message", "mem", func(c *rawClient) { c.send(pitaya.PacketData, []byte("\x06\x01a")) }, "close u: pitaya: protocol violation: push from a client"},
		{"silence", "mem", func(c *rawClient) { time.Sleep(2 * time.Minute) }, "detach u false"},
		{"goodbye after messages", "mem", func(c *rawClient) {
			c.request(2, "test.echo", "x")
			c.message()
			c.send(pitaya.PacketKick, nil)
		}, "close u: EOF"},
	} {
		t.Run(tt.name+" over "+tt.kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial, log := startResume(t, tt.kind, pitaya.Config{Resume: pitaya.ResumeConfig{Window: time.Hour}}, nil)
				c := dial()
				c.begin(s, "u")
				tt.leave(c)
				log.want(t, tt.want)
			})
		})
	}
	t.Run("not resumable", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, dial, log := startResume(t, "mem", pitaya.Config{}, nil)
			c := dial().hello()
			c.bind("u")
			c.send(pitaya.PacketKick, nil) // as ever
			c.received(77)
			c.request(2, "test.echo", "x")
			c.message()
			log.want(t)
			c.Close()
			log.want(t, "close u: EOF")
			if got := s.Stats(); got.Sessions != 0 || got.Violations != 0 {
				t.Errorf("%+v", got)
			}
		})
	})
}

// TestResumeCounts has clients that say how many pushes they have.
func TestResumeCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, log := startResume(t, "mem", pitaya.Config{Resume: pitaya.ResumeConfig{Messages: 10}}, nil)
		c := dial()
		session, token := c.begin(s, "u")
		for n := 0; n < 100; n += 10 {
			pushNumbers(t, session, n, n+10)
			c.wantNumbers(n, n+10)
			c.received(uint32(n + 5))
			c.send(pitaya.PacketHeartbeat, nil)            // nothing new
			c.send(pitaya.PacketHeartbeat, []byte("\x00")) // and this says nothing
		}
		c.Close()
		log.want(t, "detach u false")
		pushNumbers(t, session, 100, 105) // five of those before are there, too
		for _, received := range []int{94, 106} {
			dial().refusedResume(back(token, received), "gap")
		}
		c = dial()
		c.comeBack(token, 95)
		c.wantNumbers(95, 105)
		log.want(t, "resume u true")
		c.received(105)
		pushNumbers(t, session, 105, 106)
		c.wantNumbers(105, 106)
		c.received(107)
		c.expectClosed()
		log.want(t, "close u: pitaya: protocol violation: more pushes received than sent")
	})
}

// TestResumeOverflow pushes more to a client that is away than is kept.
func TestResumeOverflow(t *testing.T) {
	for _, tt := range []struct {
		name   string
		resume pitaya.ResumeConfig
		keep   int
	}{
		{"messages", pitaya.ResumeConfig{Messages: 5}, 5},
		{"bytes", pitaya.ResumeConfig{Bytes: 5 * 200}, 5},
		{"one large push", pitaya.ResumeConfig{Bytes: 10}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial, log := startResume(t, "mem", pitaya.Config{Resume: tt.resume}, nil)
				c := dial()
				session, token := c.begin(s, "u")
				b := make([]byte, 140)
				for range 20 { // some of these are forgotten, which is no loss
					must(t, session.Push(t.Context(), "p", b))
					c.message()
				}
				c.Close()
				log.want(t, "detach u false")
				for range tt.keep {
					must(t, session.Push(t.Context(), "p", b))
				}
				if err := session.Push(t.Context(), "p", b); err != pitaya.ErrSessionClosed {
					t.Errorf("one more: %v", err)
				}
				synctest.Wait()
				cause := context.Cause(session.Context())
				if !errors.Is(cause, io.EOF) {
					t.Errorf("cause %v", cause)
				}
				log.want(t, "close u: pitaya: more was pushed than is kept for a client that is away: EOF")
				dial().refusedResume(back(token, 20), "unknown")
			})
		})
	}
	t.Run("dropped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, dial, log := startResume(t, "mem", pitaya.Config{SlowClient: pitaya.SlowClientDrop, Resume: pitaya.ResumeConfig{Messages: 5}}, nil)
			c := dial()
			session, token := c.begin(s, "u")
			c.Close()
			log.want(t, "detach u false")
			pushNumbers(t, session, 0, 5)
			if err := session.Push(t.Context(), "p", "x"); err != pitaya.ErrSlowClient {
				t.Errorf("one more: %v", err)
			}
			c = dial()
			c.comeBack(token, 0)
			c.wantNumbers(0, 5)
			log.want(t, "resume u true")
			if n := s.Stats().PushesDropped; n != 1 {
				t.Errorf("%d dropped", n)
			}
		})
	})
}

// TestResumeGap pushes more to a client that is connected than is kept, and than it has received.
func TestResumeGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, _ := startResume(t, "mem", pitaya.Config{Resume: pitaya.ResumeConfig{Messages: 5}}, nil)
		c := dial()
		session, token := c.begin(s, "u")
		pushNumbers(t, session, 0, 8)
		c.wantNumbers(0, 2)
		c.Close()
		synctest.Wait()
		terms := dial().refusedResume(back(token, 2), "gap")
		if terms.Token == token {
			t.Error("a new session has the token of the old one")
		}
		c = dial()
		c.comeBack(token, 3) // the old one is still there for who can have it
		c.wantNumbers(3, 8)
		if got := s.Stats(); got.Resumed != 1 || got.NotResumed != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// TestResumeChanged comes back with other abilities, on which the form of pushes depends.
func TestResumeChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, _ := startResume(t, "mem", pitaya.Config{}, nil)
		c := dial()
		session, token := c.begin(s, "u")
		c.Close()
		synctest.Wait()
		pushNumbers(t, session, 0, 1)
		for _, feature := range []string{pitaya.FeatureInflate, pitaya.FeaturePushCodes} {
			c = dial()
			answer := c.handshake(`{"sys":{"features":["` + feature + `"]},"user":{"resume":` + back(token, 0) + `}}`)
			if strings.HasPrefix(answer, "x") { // this one inflates
				r, err := zlib.NewReader(strings.NewReader(answer))
				must(t, err)
				b, err := io.ReadAll(r)
				must(t, err)
				answer = string(b)
			}
			if !strings.Contains(answer, `"resumed":false,"reason":"changed"`) {
				t.Errorf("%s: %s", feature, answer)
			}
		}
		c = dial() // this one changes nothing about pushes
		if answer := c.handshake(`{"sys":{"platform":"other","features":["drain"]},"user":{"resume":` + back(token, 0) + `}}`); !strings.Contains(answer, `"resumed":true`) {
			t.Error(answer)
		}
		c.wantNumbers(0, 1)
		if h := session.HandshakeData(); h.Sys.Platform != "other" {
			t.Errorf("handshake data %+v", h)
		}
	})
}

// TestResumeValidator refuses the handshake of a client that comes back.
func TestResumeValidator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := false
		s, dial, log := startResume(t, "mem", pitaya.Config{}, func(s *pitaya.Server) {
			s.AddHandshakeValidator("mood", func(*pitaya.HandshakeData) error {
				if refuse {
					return errors.New("not now")
				}
				return nil
			})
		})
		c := dial()
		_, token := c.begin(s, "u")
		c.Close()
		log.want(t, "detach u false")
		refuse = true
		c = dial()
		c.send(pitaya.PacketHandshake, []byte(`{"sys":{},"user":{"resume":`+back(token, 0)+`}}`))
		if body := string(c.expect(pitaya.PacketHandshake)); !strings.Contains(body, `"code":400`) || strings.Contains(body, "resume") {
			t.Error(body)
		}
		c.expectClosed()
		refuse = false
		dial().comeBack(token, 0)
		log.want(t, "resume u true")
	})
}

// TestResumeMaxSessions lets more sessions wait than may.
func TestResumeMaxSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, log := startResume(t, "mem", pitaya.Config{Resume: pitaya.ResumeConfig{MaxSessions: 2}}, nil)
		var tokens []string
		for _, uid := range []string{"a", "b", "c"} {
			c := dial()
			_, token := c.begin(s, uid)
			tokens = append(tokens, token)
			c.Close()
			time.Sleep(time.Second)
		}
		log.sort()
		log.want(t, "close a: pitaya: too many sessions wait for their clients: EOF", "detach a false", "detach b false", "detach c false")
		if got := s.Stats(); got.Waiting != 2 || got.Sessions != 2 {
			t.Errorf("%+v", got)
		}
		dial().refusedResume(back(tokens[0], 0), "unknown")
		dial().comeBack(tokens[1], 0)
		log.want(t, "resume b true")
		time.Sleep(31 * time.Second)
		log.want(t, "close c: EOF")
	})
}

// TestResumeAgain repeats the handshake on one connection, which makes the session an ordinary one.
func TestResumeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, log := startResume(t, "mem", pitaya.Config{}, nil)
		c := dial()
		session, token := c.begin(s, "u")
		if terms := c.askResume(`{}`); terms != nil {
			t.Errorf("the second answer has %+v", terms)
		}
		c.ack()
		pushNumbers(t, session, 0, 2)
		c.wantNumbers(0, 2)
		dial().refusedResume(back(token, 0), "unknown")
		c.Close()
		log.want(t, "close u: EOF")
	})
}

// TestResumeBind binds a session that waits.
func TestResumeBind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, log := startResume(t, "mem", pitaya.Config{}, nil)
		c := dial()
		terms := c.askResume(`{}`)
		c.ack()
		c.request(1, "test.echo", "x")
		c.message()
		var session *pitaya.Session
		for session = range s.Sessions() {
		}
		c.Close()
		log.want(t, "detach  false")
		must(t, session.Bind(t.Context(), "u"))
		if s.SessionByUID("u") != session {
			t.Error("not bound")
		}
		must(t, s.Push(t.Context(), "", []string{"u"}, "p", []byte("0")))
		c = dial()
		c.comeBack(terms.Token, 0)
		c.wantNumbers(0, 1)
		log.want(t, "resume u true")
	})
}

// TestResumeBudget resumes a session with more to repeat than the queue of a connection may hold: that is not the
// client's slowness.
func TestResumeBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 500
		s, dial, log := startResume(t, "mem", pitaya.Config{QueueMessages: 10, QueueBytes: 4 << 10}, nil)
		c := dial()
		session, token := c.begin(s, "u")
		c.Close()
		log.want(t, "detach u false")
		big := strings.Repeat("x", 400)
		for range n { // fewer bytes than the ring takes, more than a pipe in memory
			must(t, session.Push(t.Context(), "p", []byte(big)))
		}
		c = dial()
		c.comeBack(token, 0)
		synctest.Wait()
		must(t, session.Push(t.Context(), "p", []byte("last")))
		for i := range n {
			if m := c.message(); string(m.Payload) != big {
				t.Fatalf("push %d: %q", i, m.Payload)
			}
		}
		if m := c.message(); string(m.Payload) != "last" {
			t.Errorf("got %q", m.Payload)
		}
		log.want(t, "resume u true")
	})
}

// TestResumeSlow ends a session whose client is too slow, and lets one wait whose socket takes nothing.
func TestResumeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, log := startResume(t, "mem", pitaya.Config{QueueBytes: 4 << 10, WriteTimeout: 5 * time.Second}, nil)
		c := dial()
		session, _ := c.begin(s, "u")
		var err error
		for range 1000 {
			if err = session.Push(t.Context(), "p", make([]byte, 1000)); err != nil {
				break
			}
		}
		if err != pitaya.ErrSlowClient {
			t.Errorf("push: %v", err)
		}
		log.want(t, "close u: "+pitaya.ErrSlowClient.Error())

		c = dial()
		session, token := c.begin(s, "v")
		must(t, session.Push(t.Context(), "p", make([]byte, 100<<10))) // more than a pipe in memory takes
		time.Sleep(6 * time.Second)
		log.want(t, "detach v false")
		c = dial()
		c.comeBack(token, 0)
		if m := c.message(); len(m.Payload) != 100<<10 {
			t.Errorf("got %d bytes", len(m.Payload))
		}
		log.want(t, "resume v true")
	})
}
