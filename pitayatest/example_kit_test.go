package pitayatest_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// An exampleT takes the place of a *testing.T, which examples do not have. It
// prints what fails.
type exampleT struct {
	testing.TB // for what examples do not need
	ctx        context.Context
	cleanups   []func()
}

func (t *exampleT) Helper()                        {}
func (t *exampleT) Name() string                   { return "Example" }
func (t *exampleT) Context() context.Context       { return t.ctx }
func (t *exampleT) Output() io.Writer              { return io.Discard }
func (t *exampleT) Cleanup(f func())               { t.cleanups = append(t.cleanups, f) }
func (t *exampleT) Log(...any)                     {}
func (t *exampleT) Logf(string, ...any)            {}
func (t *exampleT) Error(args ...any)              { fmt.Println(args...) }
func (t *exampleT) Errorf(format string, a ...any) { fmt.Printf(format+"\n", a...) }
func (t *exampleT) Fatal(args ...any)              { t.Error(args...); runtime.Goexit() }
func (t *exampleT) Fatalf(format string, a ...any) { t.Errorf(format, a...); runtime.Goexit() }

// inTest calls f as the testing package calls a test.
func inTest(f func(t testing.TB)) {
	ctx, cancel := context.WithCancel(context.Background())
	t := &exampleT{ctx: ctx}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			cancel()
			for _, cleanup := range slices.Backward(t.cleanups) {
				cleanup()
			}
		}()
		f(t)
	}()
	<-done
}

// In a test, what inTest is given is its body.
func ExampleNewServer() {
	inTest(func(t testing.TB) {
		srv := pitayatest.NewServer(t, pitaya.Config{}, func(s *pitaya.Server) { s.Register(&Hello{}) })
		got := pitayatest.Request[Message](srv.Client(t), "Hello.Greet", &Message{Text: "Ada"})
		fmt.Println(got.Text)
	}) // and here the server ends
	// Output:
	// Hello, Ada!
}

// Clients fail the test instead of returning errors, and keep all pushes until
// they are asked for.
func ExampleClient() {
	inTest(func(t testing.TB) {
		srv := pitayatest.NewServer(t, pitaya.Config{}, func(s *pitaya.Server) {
			s.Register(&Chat{srv: s})
			s.Group("chat").Create(t.Context(), 0)
		})
		ada, bob := srv.Client(t), srv.Client(t)
		err := bob.ExpectError("Chat.Join", &Message{}, pitaya.CodeBadRequest)
		fmt.Println(err)
		ada.Request("Chat.Join", &Message{"ada"}, nil)
		bob.Request("Chat.Join", &Message{"bob"}, nil)

		ada.Notify("Chat.Say", &Message{"hi"})
		fmt.Println(pitayatest.Push[Message](ada, "onSay").Text)
		fmt.Printf("%s\n", bob.ExpectPush("onSay")) // as it came
		bob.Notify("Chat.Say", &Message{"spam"})
		fmt.Println(bob.ExpectKick())
		ada.NoPush()

		srv.Stop() // which would have happened at the end of the test
		fmt.Println(ada.ExpectClosed())
	})
	// Output:
	// a name is needed
	// hi
	// {"Text":"hi"}
	// no spam
	// pitaya: connection closed by the server: EOF
}

// Clients can say something else in their handshake, and be refused.
func ExampleServer_Dial() {
	inTest(func(t testing.TB) {
		srv := pitayatest.NewServer(t, pitaya.Config{}, func(s *pitaya.Server) {
			s.Register(&Hello{})
			s.AddHandshakeValidator("version", func(h *pitaya.HandshakeData) error {
				if h.Sys.Version != "2.0" {
					return pitaya.Errorf("OLD", "please update")
				}
				return nil
			})
		})
		version := func(v string) *pitaya.ClientConfig {
			return &pitaya.ClientConfig{Handshake: &pitaya.HandshakeData{Sys: pitaya.HandshakeSys{Version: v}}}
		}
		_, err := srv.Dial(t, version("1.0")) // for what may fail
		fmt.Println(err)
		c := srv.ClientWith(t, version("2.0"))
		fmt.Println(pitayatest.Request[Message](c, "Hello.Greet", &Message{Text: "Ada"}).Text)

		conn, err := srv.Listener().DialContext(t.Context()) // for those who speak the protocol themselves
		fmt.Println(conn != nil, err)
		conn.Close()
	})
	// Output:
	// pitaya: server refused the handshake with code 400: please update
	// Hello, Ada!
	// true <nil>
}

// What a deployment does to players.
func ExampleServer_Restart() {
	inTest(func(t testing.TB) {
		srv := pitayatest.NewServer(t, pitaya.Config{ID: "game-1"}, func(s *pitaya.Server) { s.Register(&Hello{}) })
		c := srv.Client(t)
		next := srv.Restart()
		fmt.Println(c.ExpectClosed())
		fmt.Println(next.ID(), pitayatest.Request[Message](next.Client(t), "Hello.Greet", &Message{Text: "Ada"}).Text)
	})
	// Output:
	// pitaya: connection closed by the server: EOF
	// game-1 Hello, Ada!
}

// A client whose network fails, and who comes back to its session.
func ExampleClient_Cut() {
	inTest(func(t testing.TB) {
		cfg := pitaya.Config{Resume: pitaya.ResumeConfig{Window: time.Minute}}
		srv := pitayatest.NewServer(t, cfg, func(s *pitaya.Server) { s.Register(&Hello{}) })
		back := make(chan bool, 1)
		c := srv.ClientWith(t, &pitaya.ClientConfig{Resume: true, OnReconnect: func(resumed bool) { back <- resumed }})
		c.Cut()
		fmt.Println(<-back)
		fmt.Println(pitayatest.Request[Message](c, "Hello.Greet", &Message{Text: "Ada"}).Text)
	})
	// Output:
	// true
	// Hello, Ada!
}

// A cluster whose network and machines fail when a test wants it.
func ExampleNewCluster() {
	inTest(func(t testing.TB) {
		cluster := pitayatest.NewCluster(t)
		room := func(id string) *pitayatest.Server {
			return cluster.NewServer(t, pitaya.Config{Type: "room", ID: id}, func(s *pitaya.Server) { s.Register(&Hello{}) })
		}
		one := room("room-1")
		gate := cluster.NewServer(t, pitaya.Config{Type: "gate", ID: "gate-1", Frontend: true}, nil)
		c := gate.Client(t)
		greet := func() {
			var reply Message
			err := c.Client.Request(t.Context(), "room.Hello.Greet", &Message{Text: "Ada"}, &reply) // returns the error
			fmt.Printf("%q %q\n", reply.Text, pitaya.ErrorCode(err))
		}
		greet()
		cluster.Cut(gate, one) // calls fail
		greet()
		cluster.Heal(gate, one)
		cluster.Expire(one) // the lease has run out: nobody lists it
		fmt.Println(len(gate.Servers("room")))
		cluster.Restore(one)
		two := room("room-2")
		fmt.Println(cluster.MemCluster().Servers())
		cluster.Kill(one) // it has crashed
		greet()
		fmt.Println(cluster.MemCluster().Servers(), two.ID())
		cluster.Delay(time.Millisecond) // from now on; in a bubble it costs nothing
		greet()
	})
	// Output:
	// "Hello, Ada!" ""
	// "" "PIT-500"
	// 0
	// [gate-1 room-1 room-2]
	// "Hello, Ada!" ""
	// [gate-1 room-2] room-2
	// "Hello, Ada!" ""
}

// A Tracer keeps spans, so that a test can look at what a request has led to.
func ExampleTracer() {
	inTest(func(t testing.TB) {
		tracer := &pitayatest.Tracer{}
		srv := pitayatest.NewServer(t, pitaya.Config{Tracer: tracer}, func(s *pitaya.Server) { s.Register(&Hello{}) })
		c := srv.Client(t)
		c.Request("Hello.Greet", &Message{Text: "Ada"}, nil)
		c.ExpectError("Hello.Nobody", nil, pitaya.CodeNotFound)
		srv.Stop()
		for _, span := range tracer.Spans() {
			fmt.Printf("%s %s %q\n", span.Name, span.Kind, pitaya.ErrorCode(span.Err))
		}
		fmt.Println("open:", tracer.Open())
	})
	// Output:
	// conn write connection ""
	// Hello.Greet server ""
	// conn write connection ""
	// Hello.Nobody server "PIT-404"
	// open: 0
}

// A ServerWatcher is what a Discovery tells: for tests beyond the suite.
func ExampleNewServerWatcher() {
	inTest(func(t testing.TB) {
		cluster := pitaya.NewMemCluster()
		discovery, _ := cluster.Node() // or one of yours
		w := pitayatest.NewServerWatcher(t)
		self := &pitaya.ServerInfo{ID: "a", Type: "room"}
		if err := discovery.Join(t.Context(), self, w.Watch); err != nil {
			t.Fatal(err)
		}
		other, _ := cluster.Node()
		if err := other.Join(t.Context(), &pitaya.ServerInfo{ID: "b", Type: "room"}, func(pitaya.DiscoveryEvent) {}); err != nil {
			t.Fatal(err)
		}
		w.WaitIDs("a", "b")
		if err := other.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.Wait("only a is left", func(servers map[string]*pitaya.ServerInfo) bool { return len(servers) == 1 })
		fmt.Println(w.Events(), w.Saw("left b"))
		fmt.Println(w.IDs(), w.Servers()["a"].Type)
		if err := discovery.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.End() // what comes now fails the test
	})
	// Output:
	// [joined a joined b left b] 1
	// [a] room
}
