package pitaya_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// LateRoom does to the client's session what it is asked for, once it is let.
type LateRoom struct {
	pitaya.Base
	let  chan struct{}
	done chan error
}

func (r *LateRoom) Bind(ctx context.Context, in []byte) ([]byte, error) {
	s := pitaya.SessionFromContext(ctx)
	<-r.let
	err := s.Bind(context.Background(), string(in))
	r.done <- err
	return nil, err
}

// TestClusterRestartedFrontend: a backend that is late, with a message of a client whose frontend has crashed, does nothing to
// the clients of the server that has the frontend's id now.
func TestClusterRestartedFrontend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := pitayatest.NewCluster(t)
		room := &LateRoom{let: make(chan struct{}), done: make(chan error, 1)}
		cl.NewServer(t, pitaya.Config{Type: "room"}, func(srv *pitaya.Server) { must(t, srv.Register(room)) })
		cfg := pitaya.Config{Type: "gate", ID: "gate", Frontend: true}
		old := cl.NewServer(t, cfg, nil)
		client := old.Client(t)
		go client.RequestRaw(t.Context(), "room.LateRoom.Bind", []byte("ada"))
		synctest.Wait()
		cl.Kill(old)
		time.Sleep(time.Second)
		now := cl.NewServer(t, cfg, nil)
		now.Client(t)
		time.Sleep(time.Second)
		close(room.let)
		if err := <-room.done; err == nil {
			t.Error("a session was bound whose server is gone")
		}
		for s := range now.Sessions() {
			if uid := s.UID(); uid != "" {
				t.Errorf("another client is bound to %q", uid)
			}
		}
	})
}
