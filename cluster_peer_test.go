package pitaya_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
)

// RouteTeller says what route travelled.
type RouteTeller struct{ srv *pitaya.Server }

func (r *RouteTeller) Tell(ctx context.Context) ([]byte, error) {
	text, _ := pitaya.GetFromPropagateCtx(ctx, "req-route").(string)
	return []byte(text + " " + pitaya.RouteFromContext(ctx)), nil
}

// Ask tells what a remote is told by a call made here.
func (r *RouteTeller) Ask(ctx context.Context, route []byte) ([]byte, error) {
	var reply wrapperspb.StringValue
	err := r.srv.RPC(ctx, string(route), &reply, nil)
	return []byte(reply.Value), err
}

type RouteRemote struct{}

func (RouteRemote) Tell(ctx context.Context) (*wrapperspb.StringValue, error) {
	text, _ := pitaya.GetFromPropagateCtx(ctx, "req-route").(string)
	return wrapperspb.String(text), nil
}

// The route in the context is what the client wrote (cluster protocol, section
// 4), on each server the one of its own call.
func TestClusterRouteText(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := pitaya.NewMemCluster()
		setup := func(s *pitaya.Server) {
			lower := pitaya.WithNameFunc(strings.ToLower)
			if err := errors.Join(s.Register(&RouteTeller{s}, pitaya.WithName("svc"), lower), s.RegisterRemote(RouteRemote{}, pitaya.WithName("remote"), lower),
				s.SetDictionary(map[string]uint16{"gate.svc.ask": 1})); err != nil {
				t.Fatal(err)
			}
		}
		_, l := memServer(t, c, pitaya.Config{Type: "gate", Frontend: true}, setup)
		memServer(t, c, pitaya.Config{Type: "room"}, setup)
		synctest.Wait()
		client := memClient(t, l)
		for _, tt := range []struct{ route, in, want string }{
			{"svc.tell", "", "svc.tell gate.svc.tell"},
			{"gate.svc.tell", "", "gate.svc.tell gate.svc.tell"},
			{"room.svc.tell", "", "room.svc.tell room.svc.tell"},
			{"gate.svc.ask", "room.remote.tell", "room.remote.tell"},
			{"room.svc.ask", "gate.remote.tell", "gate.remote.tell"},
		} {
			if got, err := client.RequestRaw(t.Context(), tt.route, []byte(tt.in)); err != nil || string(got) != tt.want {
				t.Errorf("%s %s: got %q, %v, want %q", tt.route, tt.in, got, err, tt.want)
			}
		}
	})
}

func memClient(t *testing.T, l *pitaya.MemListener) *pitaya.Client {
	t.Helper()
	nc, err := l.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := pitaya.NewClient(t.Context(), nc, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Users are reached on a frontend that discovery does not list.
func TestClusterPushUnlisted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := pitaya.NewMemCluster()
		front, l := memServer(t, c, pitaya.Config{Type: "gate", ID: "g1", Frontend: true}, nil)
		back, _ := memServer(t, c, pitaya.Config{Type: "room"}, nil)
		client := memClient(t, l)
		pushed := make(chan string, 2)
		client.OnPush("on.x", func(b []byte) { pushed <- string(b) })
		for s := range front.Sessions() {
			if err := s.Bind(t.Context(), "anne"); err != nil {
				t.Fatal(err)
			}
		}
		c.Expire("g1")
		synctest.Wait()
		if list := back.Servers("gate"); len(list) > 0 {
			t.Fatalf("still known: %v", list)
		}
		if err := back.Push(t.Context(), "gate", []string{"anne", "nobody"}, "on.x", []byte("hi")); err != nil {
			t.Error(err)
		}
		if got := <-pushed; got != "hi" {
			t.Errorf("pushed %q", got)
		}
		if err := back.Kick(t.Context(), "gate", []string{"anne"}); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if front.SessionByUID("anne") != nil {
			t.Error("not kicked")
		}
	})
}

// Calls that are not made have no code (API document, section 9).
func TestClusterRPCRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, _ := memServer(t, pitaya.NewMemCluster(), pitaya.Config{Type: "room", ID: "r1", NoLoopback: true}, nil)
		for _, tt := range []struct{ id, route, text string }{
			{"", "room.a.b", "pitaya: RPC to the own server"},
			{"r1", "room.a.b", "pitaya: RPC to the own server"},
			{"r2", "room.a.b", "server not found"},
		} {
			err := srv.RPCTo(t.Context(), tt.id, tt.route, new(wrapperspb.StringValue), nil)
			if err == nil || !strings.HasPrefix(err.Error(), tt.text) || pitaya.ErrorCode(err) != pitaya.CodeUnknown {
				t.Errorf("%q %s: got %v (%s), want %s", tt.id, tt.route, err, pitaya.ErrorCode(err), tt.text)
			}
			if got := errors.Is(err, pitaya.ErrUnreachable); got != (tt.id == "r2") {
				t.Errorf("%q %s: %v is ErrUnreachable: %v", tt.id, tt.route, err, got)
			}
		}
	})
}

// A leaver is a discovery that needs a moment to leave, and a binding store that
// needs one to close. They say whether they got it.
type leaver struct {
	pitaya.Discovery
	pitaya.BindingStore
	deleted        []string
	left, released error
}

func (l *leaver) Leave(ctx context.Context) error {
	l.left = moment(ctx)
	return errors.Join(l.left, l.Discovery.Leave(context.WithoutCancel(ctx)))
}

func (l *leaver) Put(context.Context, string) error { return nil }

func (l *leaver) Get(context.Context, string, string) (string, error) {
	return "", pitaya.ErrNoBinding
}

func (l *leaver) Delete(_ context.Context, uid string) error {
	l.deleted = append(l.deleted, uid)
	return nil
}

func (l *leaver) Close(ctx context.Context) error {
	l.released = moment(ctx)
	return l.released
}

func moment(ctx context.Context) error {
	select {
	case <-time.After(100 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A server leaves the cluster also when its time is over.
func TestClusterLeaveLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := new(leaver)
		d, transport := pitaya.NewMemCluster().Node()
		l.Discovery = d
		listener := pitaya.ListenMem()
		srv, err := pitaya.NewServer(pitaya.Config{
			Type: "gate", Frontend: true, Cluster: true, ShutdownTimeout: time.Second, Logger: testLogger(t),
			Discovery: l, Transport: transport, Bindings: l, Listeners: []net.Listener{listener},
		})
		if err != nil {
			t.Fatal(err)
		}
		began := make(chan struct{})
		err = pitaya.HandleNotify(srv, "svc.wait", func(ctx context.Context, _ *struct{}) {
			close(began)
			<-ctx.Done()
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- srv.Run(ctx) }()
		<-srv.Ready()
		c := memClient(t, listener)
		for s := range srv.Sessions() {
			if err := s.Bind(ctx, "anne"); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Notify(t.Context(), "svc.wait", struct{}{}); err != nil {
			t.Fatal(err)
		}
		<-began
		begin := time.Now()
		cancel()
		<-ran
		if took := time.Since(begin); took < time.Second || took > 2*time.Second {
			t.Errorf("ended after %v", took)
		}
		if l.left != nil || l.released != nil {
			t.Errorf("leaving: %v; closing bindings: %v", l.left, l.released)
		}
		if len(l.deleted) > 0 {
			t.Errorf("deleted bindings of %q one by one, though all were about to be taken back", l.deleted)
		}
	})
}
