package pitayatest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// BindingStoreOptions say how [TestBindingStore] gets at an implementation.
type BindingStoreOptions struct {
	// Open makes an empty store, and returns a function that opens it for a server. Each check has a store of its
	// own, and what Open and that function start ends with t; BindingStore.Close may have been called by then.
	Open func(t testing.TB) func(serverType, serverID string) pitaya.BindingStore
	// Synctest runs each check in a bubble of its own ([testing/synctest]), which an implementation without sockets
	// and foreign processes should be fit for.
	Synctest bool
}

// TestBindingStore checks the rules of [pitaya.BindingStore] on an implementation. The checks are subtests and run in
// parallel, after the function that calls TestBindingStore has returned: what they share has to end in a
// [testing.TB.Cleanup].
func TestBindingStore(t *testing.T, opts BindingStoreOptions) {
	t.Helper()
	runChecks(t, opts.Synctest, bindingChecks(opts))
}

func bindingChecks(opts BindingStoreOptions) []check {
	var checks []check
	for _, c := range []struct {
		name string
		run  func(*bindingTest)
	}{
		{"put, get, delete", (*bindingTest).basics},
		{"refused", (*bindingTest).refused},
		{"concurrent", (*bindingTest).concurrent},
		{"close", (*bindingTest).close},
	} {
		checks = append(checks, check{c.name, func(t testing.TB) {
			open := opts.Open(t)
			c.run(&bindingTest{TB: t, a: open("connector", "a"), b: open("connector", "b"), back: open("room", "r")})
		}})
	}
	return checks
}

// A bindingTest has the stores of two frontends of the type "connector" and of a backend.
type bindingTest struct {
	testing.TB
	a, b, back pitaya.BindingStore
}

// want checks on which frontend of a type a user is, "" for none, as some servers see it.
func (t *bindingTest) want(uid, frontendType, want string, stores ...pitaya.BindingStore) {
	t.Helper()
	for _, s := range stores {
		got, err := s.Get(t.Context(), uid, frontendType)
		if want == "" && !errors.Is(err, pitaya.ErrNoBinding) || want != "" && err != nil || got != want {
			t.Errorf("%s on %s: got %q, %v, want %q", uid, frontendType, got, err, want)
		}
	}
}

func (t *bindingTest) basics() {
	ctx, a, b := t.Context(), t.a, t.b
	want := func(uid, frontendType, want string) {
		t.Helper()
		t.want(uid, frontendType, want, a, b, t.back)
	}
	for _, uid := range []string{"u", "a/b", "mail@example.com", "größe"} {
		want(uid, "connector", "")
		noError(t, a.Delete(ctx, uid))
		noError(t, a.Put(ctx, uid))
		want(uid, "connector", "a")
		want(uid, "room", "")
		noError(t, a.Put(ctx, uid))
		noError(t, b.Delete(ctx, uid))
		want(uid, "connector", "a")
		noError(t, b.Put(ctx, uid))
		want(uid, "connector", "b")
		noError(t, a.Delete(ctx, uid))
		want(uid, "connector", "b")
		noError(t, a.Put(ctx, uid))
		want(uid, "connector", "a")
		noError(t, a.Delete(ctx, uid))
		want(uid, "connector", "")
	}
}

func (t *bindingTest) refused() {
	t.want("", "connector", "", t.a)
	t.want("u", "", "", t.a)
	if err := t.a.Put(t.Context(), ""); err == nil {
		t.Error("put an empty uid")
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := t.a.Put(done, "late"); !errors.Is(err, context.Canceled) {
		t.Errorf("put with a context that is done: got %v", err)
	}
	if _, err := t.a.Get(done, "u", "connector"); !errors.Is(err, context.Canceled) {
		t.Errorf("get with a context that is done: got %v", err)
	}
}

func (t *bindingTest) concurrent() {
	ctx := t.Context()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			uid := fmt.Sprint("p", i)
			if err := errors.Join(t.a.Put(ctx, uid), t.a.Delete(ctx, uid), t.a.Put(ctx, uid)); err != nil {
				t.Error(err)
			}
			t.want(uid, "connector", "a", t.back)
		})
	}
	wg.Wait()
}

func (t *bindingTest) close() {
	ctx := t.Context()
	for _, uid := range []string{"gone", "taken"} {
		noError(t, t.a.Put(ctx, uid))
	}
	noError(t, t.b.Put(ctx, "taken"))
	noError(t, t.a.Close(ctx))
	t.want("gone", "connector", "", t.b, t.back)
	t.want("taken", "connector", "b", t.b, t.back)
}
