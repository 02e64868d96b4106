package pitaya_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// TestVanishedServer: the last server of a type is called for a moment after it has vanished from discovery: its lease
// may have been lost, and it is back at once. Afterwards, and when it has left, there is none.
func TestVanishedServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := pitayatest.NewCluster(t)
		gate := c.NewServer(t, pitaya.Config{Type: "gate", ID: "g", Frontend: true}, nil)
		room := func(id string) *pitayatest.Server {
			return c.NewServer(t, pitaya.Config{Type: "room", ID: id}, func(s *pitaya.Server) {
				if err := s.RegisterRemote(RoomRemote{}); err != nil {
					t.Fatal(err)
				}
			})
		}
		call := func() error {
			return gate.RPC(context.WithoutCancel(t.Context()), "room.RoomRemote.Upper", new(wrapperspb.StringValue), wrapperspb.String("x"))
		}
		none := func(when string) {
			t.Helper()
			if err := call(); pitaya.ErrorCode(err) != pitaya.CodeInternal || errors.Is(err, pitaya.ErrUnreachable) {
				t.Errorf("%s: %v, want that there is no server", when, err)
			}
		}
		r := room("r")
		c.Expire(r)
		if gate.ServerByID("r") != nil {
			t.Error("a server that has vanished is still listed")
		}
		if err := call(); err != nil {
			t.Errorf("just vanished: %v", err)
		}
		time.Sleep(time.Second)
		none("long vanished")
		c.Restore(r)
		if err := call(); err != nil {
			t.Errorf("back: %v", err)
		}
		r.Stop()
		none("left")
	})
}
