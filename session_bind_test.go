package pitaya_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pitaya-go/pitaya"
)

// TestBindGoexit: a callback that ends its goroutine, as t.FailNow does, ends
// the bind and nothing else.
func TestBindGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, after := range []bool{false, true} {
			exit := true
			callback := func(context.Context, *pitaya.Session) error {
				if exit {
					runtime.Goexit()
				}
				return nil
			}
			s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
				if after {
					must(t, s.OnAfterSessionBind(callback))
				} else {
					must(t, s.OnSessionBind(callback))
				}
			})
			s.connect(t)
			synctest.Wait()
			session := s.onlySession(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				session.Bind(t.Context(), "ann")
			}()
			<-done
			if session.UID() != "" || s.SessionByUID("ann") != nil {
				t.Errorf("after=%v: the session is bound to %q", after, session.UID())
			}
			exit = false
			if err := session.Bind(t.Context(), "ann"); err != nil || s.SessionByUID("ann") != session {
				t.Errorf("after=%v: binding again: %v", after, err)
			}
		}
	})
}

// TestHandleNames: options that name methods mean nothing for a function.
func TestHandleNames(t *testing.T) {
	for _, option := range []pitaya.RegisterOption{
		pitaya.WithName("x"), pitaya.WithNameFunc(strings.ToLower), pitaya.WithSkip("X"),
	} {
		s, err := pitaya.NewServer(pitaya.Config{})
		must(t, err)
		echo := func(_ context.Context, b []byte) ([]byte, error) { return b, nil }
		if err := pitaya.HandleRaw(s, "a.b", echo, option); err == nil {
			t.Error("an option without a meaning is accepted")
		}
	}
}
