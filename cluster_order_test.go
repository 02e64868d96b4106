package pitaya_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/pitaya-go/pitaya"
)

// What becomes of the order of a session's messages when one of them has to be sent to another server.

// bounceTransport is a transport in memory whose calls can be held.
type bounceTransport struct {
	pitaya.Transport
	unordered bool

	// onCall is asked what becomes of a client's message: it fails with the error, or is sent, once the channel is closed;
	// nil is at once.
	onCall func(to, payload string) (<-chan struct{}, error)
}

func (b *bounceTransport) Ordered() bool { return !b.unordered }

func (b *bounceTransport) Call(ctx context.Context, to *pitaya.ServerInfo, body []byte, done func([]byte, error)) {
	var r pitaya.RPCRequest
	if r.Decode(body) == nil && string(r.Msg.Route) == "room.game.echo" {
		held, err := b.onCall(to.ID, string(r.Msg.Data))
		wait := func() {
			if held != nil {
				<-held
			}
		}
		if err != nil {
			go func() {
				wait()
				done(nil, err)
			}()
			return
		}
		wait()
	}
	b.Transport.Call(ctx, to, body, done)
}

// bounceCluster is a gate and rooms. A message goes to the room that its first letter names, while that is there and was not
// tried, and else to the last of those that are left.
type bounceCluster struct {
	client *pitaya.Client

	mu      sync.Mutex
	handled map[string][]string // by room
}

func newBounceCluster(t *testing.T, tr *bounceTransport, rooms ...string) *bounceCluster {
	b := &bounceCluster{handled: make(map[string][]string)}
	cluster := pitaya.NewMemCluster()
	run := func(cfg pitaya.Config, setup func(*pitaya.Server) error) {
		cfg.Cluster, cfg.Logger = true, testLogger(t)
		srv, err := pitaya.NewServer(cfg)
		must(t, err)
		must(t, setup(srv))
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- srv.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ran; err != nil {
				t.Error(err)
			}
		})
		<-srv.Ready()
	}
	for _, id := range rooms {
		cfg := pitaya.Config{Type: "room", ID: id}
		cfg.Discovery, cfg.Transport = cluster.Node()
		run(cfg, func(srv *pitaya.Server) error {
			return pitaya.HandleRaw(srv, "game.echo", func(_ context.Context, in []byte) ([]byte, error) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.handled[id] = append(b.handled[id], string(in))
				return []byte(id), nil
			})
		})
	}
	mem := pitaya.ListenMem()
	cfg := pitaya.Config{Type: "gate", ID: "gate", Frontend: true, Listeners: []net.Listener{mem}}
	cfg.Discovery, tr.Transport = cluster.Node()
	cfg.Transport = tr
	run(cfg, func(srv *pitaya.Server) error {
		return srv.AddRoute("room", func(_ context.Context, _ pitaya.Route, payload []byte, servers map[string]*pitaya.ServerInfo) (*pitaya.ServerInfo, error) {
			if s := servers[string(payload[:1])]; s != nil {
				return s, nil
			}
			for _, id := range slices.Backward(rooms) {
				if s := servers[id]; s != nil {
					return s, nil
				}
			}
			return nil, pitaya.Errorf(pitaya.CodeInternal, "no room is left")
		})
	})
	nc, err := mem.DialContext(t.Context())
	must(t, err)
	b.client, err = pitaya.NewClient(t.Context(), nc, nil)
	must(t, err)
	t.Cleanup(func() { b.client.Close() })
	return b
}

// ask sends a request and returns where its answer will be.
func (b *bounceCluster) ask(t *testing.T, payload string) <-chan string {
	answer := make(chan string, 1)
	go func() {
		got, err := b.client.RequestRaw(t.Context(), "room.game.echo", []byte(payload))
		if err != nil {
			answer <- pitaya.ErrorCode(err)
			return
		}
		answer <- string(got)
	}()
	synctest.Wait()
	return answer
}

func (b *bounceCluster) at(room string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprint(b.handled[room])
}

// TestForwardedOrderRetried: a message that a server cannot have got goes to another one, but never to one that was sent a
// later message of the session.
func TestForwardedOrderRetried(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rooms []string
		want  [3]string // where the messages a1, b2 and a3 are answered, or the codes of errors
		at    map[string]string
	}{
		"nobody else": {[]string{"a", "b"}, [3]string{pitaya.CodeInternal, "b", "b"}, map[string]string{"b": "[b2 a3]"}},
		"a third":     {[]string{"a", "c", "b"}, [3]string{"c", "b", "b"}, map[string]string{"b": "[b2 a3]", "c": "[a1]"}},
	} {
		for _, unordered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/ordered %v", name, !unordered), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					late := make(chan struct{}) // closed when it is noticed that a does not get anything
					b := newBounceCluster(t, &bounceTransport{unordered: unordered, onCall: func(to, _ string) (<-chan struct{}, error) {
						if to == "a" {
							return late, pitaya.ErrUnreachable
						}
						return nil, nil
					}}, test.rooms...)
					answers := [3]<-chan string{b.ask(t, "a1"), b.ask(t, "b2")}
					close(late)
					answers[2] = b.ask(t, "a3")
					for i, answer := range answers {
						if got := <-answer; got != test.want[i] {
							t.Errorf("message %d: got %s, want %s", i+1, got, test.want[i])
						}
					}
					for room, want := range test.at {
						if got := b.at(room); got != want {
							t.Errorf("%s has handled %s, want %s", room, got, want)
						}
					}
				})
			})
		}
	}
}

// TestForwardedOrderBehindRetry: a message does not overtake one that is just being sent to another server.
func TestForwardedOrderBehindRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sending := make(chan struct{})
		b := newBounceCluster(t, &bounceTransport{onCall: func(to, payload string) (<-chan struct{}, error) {
			switch {
			case to == "a":
				return nil, pitaya.ErrUnreachable
			case payload == "a1":
				return sending, nil
			}
			return nil, nil
		}}, "a", "b")
		first, second := b.ask(t, "a1"), b.ask(t, "b2")
		if got := b.at("b"); got != "[]" {
			t.Errorf("while a1 is being sent, b has handled %s", got)
		}
		close(sending)
		<-first
		<-second
		if got := b.at("b"); got != "[a1 b2]" {
			t.Errorf("b has handled %s", got)
		}
	})
}

// TestForwardedOrderManyServers: what a session knows of servers is bounded, and errs on the side of the order.
func TestForwardedOrderManyServers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		late := make(chan struct{})
		rooms := strings.Split("abcdefghijklmn", "")
		b := newBounceCluster(t, &bounceTransport{onCall: func(to, payload string) (<-chan struct{}, error) {
			if to == "a" {
				return late, pitaya.ErrUnreachable
			}
			return nil, nil
		}}, rooms...)
		first := b.ask(t, "a1")
		for _, room := range slices.Backward(rooms[1:]) {
			if got := <-b.ask(t, room+"2"); got != room {
				t.Errorf("asked %s, and %s has answered", room, got)
			}
		}
		close(late)
		if got := <-first; got != pitaya.CodeInternal {
			t.Errorf("a message that comes behind others everywhere: got %s, want an error", got)
		}
		for _, room := range rooms[1:] {
			if got, want := b.at(room), "["+room+"2]"; got != want {
				t.Errorf("%s has handled %s", room, got)
			}
		}
	})
}
