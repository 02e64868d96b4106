package pitaya_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// TestDeliveryOrder: what a backend sends to a client that inflates arrives in order, though the large payloads take the
// frontend longer than the small ones.
func TestDeliveryOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := pitayatest.NewCluster(t)
		gate := cl.NewServer(t, pitaya.Config{Type: "gate", Frontend: true}, nil)
		const n = 200
		large := strings.Repeat("large ", 2000)
		cl.NewServer(t, pitaya.Config{Type: "room"}, func(s *pitaya.Server) {
			err := pitaya.HandleRaw(s, "room.talk", func(ctx context.Context, in []byte) ([]byte, error) {
				session := pitaya.SessionFromContext(ctx)
				if err := session.Bind(ctx, "u-1"); err != nil {
					return nil, err
				}
				if err := s.Group("all").Create(ctx, 0); err != nil {
					return nil, err
				}
				if err := s.Group("all").Add(ctx, "u-1", "u-2"); err != nil {
					return nil, err
				}
				for i := range n {
					text := fmt.Sprint(i, " ")
					if i%3 == 0 {
						text += large
					}
					var err error
					if i%5 == 0 {
						err = s.Group("all").Broadcast(ctx, "gate", "onText", []byte(text))
					} else {
						err = session.Push(ctx, "onText", []byte(text))
					}
					if err != nil {
						return nil, err
					}
				}
				return []byte(large), nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
		c := gate.Client(t)
		got := make(chan string, n)
		c.OnPush("onText", func(b []byte) { got <- string(b) })
		answer, err := c.RequestRaw(t.Context(), "room.room.talk", nil)
		if err != nil || string(answer) != large {
			t.Fatalf("got %.20q %v", answer, err)
		}
		synctest.Wait()
		for i := range n {
			var k int
			if fmt.Sscan(<-got, &k); k != i {
				t.Fatalf("push %d came as number %d", k, i)
			}
		}
	})
}
