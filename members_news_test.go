package pitaya_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// The news of a frontend may reach a backend later than the first message of its clients. What the handler sends back
// waits for it, and not for ever.
func TestUnknownFrontend(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		after time.Duration // when the backend hears of the frontend
		code  string        // of the error; "" for none
		took  time.Duration
	}{
		{"soon", 300 * time.Millisecond, "", 300 * time.Millisecond},
		{"late", 3 * time.Second, pitaya.CodeInternal, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := pitaya.NewMemCluster()
				_, l := memServer(t, c, pitaya.Config{Type: "gate", ID: "g1", Frontend: true}, nil)
				memServer(t, c, pitaya.Config{Type: "room", ID: "r1"}, func(s *pitaya.Server) {
					err := pitaya.HandleRaw(s, "room.score", func(ctx context.Context, in []byte) ([]byte, error) {
						session := pitaya.SessionFromContext(ctx)
						if err := session.Set("score", string(in)); err != nil {
							return nil, err
						}
						return in, session.PushToFront(ctx)
					})
					if err != nil {
						t.Fatal(err)
					}
				})
				nc, err := l.DialContext(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				cl, err := pitaya.NewClient(t.Context(), nc, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer cl.Close()
				c.Expire("g1") // only discovery believes that: it can be reached, and reaches the others
				synctest.Wait()
				restored := time.AfterFunc(tt.after, func() { c.Restore("g1") })
				defer restored.Stop()
				start := time.Now()
				_, err = cl.RequestRaw(t.Context(), "room.room.score", []byte("5"))
				if err != nil && tt.code == "" || tt.code != "" && pitaya.ErrorCode(err) != tt.code {
					t.Errorf("error %v, want code %q", err, tt.code)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
			})
		})
	}
}
