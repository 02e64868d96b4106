package pitaya_test

import (
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

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
		}, "pitaya: kicked"},
		{"Close", func(t *testing.T, s *testServer, session *pitaya.Session, dial func() *rawClient) {
			must(t, session.Close(), session.Close())
		}, "pitaya: session closed"},
		{"PushAndClose", func(t *testing.T, s *testServer, session *pitaya.Session, dial func() *rawClient) {
			pushes, want, more := s.Stats().Pushes, error(nil), int64(1)
			if !session.Connected() {
				want, more = pitaya.ErrSessionClosed, 0 // the session ends, but nobody gets the push
			}
			if err := session.PushAndClose(t.Context(), "p", "bye"); err != want || s.Stats().Pushes != pushes+more {
				t.Errorf("got %v and %d pushes, want %v and %d", err, s.Stats().Pushes-pushes, want, more)
			}
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

// TestResumeMaxSessionsAnonymous has strangers connect and vanish: they take each other's place, and no player's.
func TestResumeMaxSessionsAnonymous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial, log := startResume(t, "mem", pitaya.Config{Resume: pitaya.ResumeConfig{MaxSessions: 2}}, nil)
		vanish := func() (token string) {
			c := dial()
			token = c.askResume(`{}`).Token
			c.ack()
			c.request(1, "test.echo", "x")
			c.message()
			c.Close()
			time.Sleep(time.Second)
			return token
		}
		c := dial()
		_, player := c.begin(s, "a")
		c.Close()
		first := vanish()
		second := vanish()
		dial().refusedResume(back(first, 0), "unknown")
		c = dial()
		_, other := c.begin(s, "b")
		c.Close()
		time.Sleep(time.Second)
		dial().refusedResume(back(second, 0), "unknown")
		vanish()                                                     // and goes itself
		if got := s.Stats(); got.Waiting != 2 || got.Sessions != 4 { // the two that were refused are there
			t.Errorf("%+v", got)
		}
		log.sort()
		log.want(t, "detach  false", "detach  false", "detach  false", "detach a false", "detach b false")
		dial().comeBack(player, 0)
		dial().comeBack(other, 0)
		log.want(t, "resume a true", "resume b true")
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
