package pitaya_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
)

// memServer runs a server of a cluster in memory.
func memServer(t *testing.T, c *pitaya.MemCluster, cfg pitaya.Config, setup func(*pitaya.Server)) (*pitaya.Server, *pitaya.MemListener) {
	t.Helper()
	cfg.Cluster = true
	cfg.Discovery, cfg.Transport = c.Node()
	cfg.Logger = testLogger(t)
	var l *pitaya.MemListener
	if cfg.Frontend {
		l = pitaya.ListenMem()
		cfg.Listeners = append(cfg.Listeners, l)
	}
	srv, err := pitaya.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if setup != nil {
		setup(srv)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	select {
	case <-srv.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return srv, l
}

type ClusterRoom struct{ srv *pitaya.Server }

func (r *ClusterRoom) Echo(ctx context.Context, in []byte) ([]byte, error) { return in, nil }

func (r *ClusterRoom) Bind(ctx context.Context, uid []byte) ([]byte, error) {
	return []byte("ok"), pitaya.SessionFromContext(ctx).Bind(ctx, string(uid))
}

func (r *ClusterRoom) PushMe(ctx context.Context, in []byte) ([]byte, error) {
	return []byte("ok"), pitaya.SessionFromContext(ctx).Push(ctx, "onPush", in)
}

func (r *ClusterRoom) Score(ctx context.Context, in []byte) ([]byte, error) {
	s := pitaya.SessionFromContext(ctx)
	n, _ := pitaya.SessionValue[int64](s, "score")
	d, _ := strconv.ParseInt(string(in), 10, 64)
	if err := s.Set("score", n+d); err != nil {
		return nil, err
	}
	return []byte(strconv.FormatInt(n+d, 10)), s.PushToFront(ctx)
}

type RoomRemote struct{}

func (RoomRemote) Upper(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	if in.Value == "fail" {
		return nil, pitaya.NewError(errors.New("failed on purpose"), "APP-1", map[string]string{"k": "v"})
	}
	return wrapperspb.String("<" + in.Value + ">"), nil
}

func TestClusterMem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := pitaya.NewMemCluster()
		front, l := memServer(t, c, pitaya.Config{Type: "gate", ID: "g1", Frontend: true}, nil)
		for i := range 2 {
			memServer(t, c, pitaya.Config{Type: "room", ID: fmt.Sprint("r", i)}, func(s *pitaya.Server) {
				if err := errors.Join(s.Register(&ClusterRoom{s}), s.RegisterRemote(RoomRemote{})); err != nil {
					t.Fatal(err)
				}
			})
		}
		synctest.Wait()
		nc, err := l.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cl, err := pitaya.NewClient(t.Context(), nc, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		pushed := make(chan string, 10)
		cl.OnPush("onPush", func(b []byte) { pushed <- string(b) })
		request := func(route, in string) string {
			t.Helper()
			out, err := cl.RequestRaw(t.Context(), route, []byte(in))
			if err != nil {
				t.Fatalf("%s: %v", route, err)
			}
			return string(out)
		}
		if got := request("room.ClusterRoom.Echo", "hi"); got != "hi" {
			t.Errorf("got %q", got)
		}
		request("room.ClusterRoom.Bind", "u-1")
		if s := front.SessionByUID("u-1"); s == nil {
			t.Error("not bound")
		}
		request("room.ClusterRoom.PushMe", "psst")
		if got := <-pushed; got != "psst" {
			t.Errorf("pushed %q", got)
		}
		request("room.ClusterRoom.Score", "9007199254740993")
		if got := request("room.ClusterRoom.Score", "2"); got != "9007199254740995" {
			t.Errorf("score %q", got)
		}
		var reply wrapperspb.StringValue
		if err := front.RPC(t.Context(), "room.RoomRemote.Upper", &reply, wrapperspb.String("x")); err != nil || reply.Value != "<x>" {
			t.Errorf("got %v %v", &reply, err)
		}
		_, err = pitaya.Call[wrapperspb.StringValue](t.Context(), front, "room.RoomRemote.Upper", wrapperspb.String("fail"))
		if e, ok := errors.AsType[*pitaya.Error](err); !ok || e.Code != "APP-1" || e.Metadata["k"] != "v" {
			t.Errorf("got %v", err)
		}
		_ = json.Valid
		_ = time.Second
	})
}
