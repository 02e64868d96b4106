package pitayatest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// GroupStoreOptions say how [TestGroupStore] gets at an implementation.
type GroupStoreOptions struct {
	// Open makes an empty store. Each check has one of its own, and what Open starts ends with the t that it is given.
	Open func(t testing.TB) pitaya.GroupStore
	// Synctest runs each check in a bubble of its own ([testing/synctest]), which an implementation without sockets
	// and foreign processes should be fit for. Time passes by itself there.
	Synctest bool
	// Wait lets time pass, for the check of TTLs. Nil: in bubbles the time is theirs, elsewhere TTLs are not checked.
	Wait func(d time.Duration)
	// TTL is for the groups of that check, the shortest that the store is good for. Zero means 10 s.
	TTL time.Duration
	// Slack is how much later than it should a group may vanish. It has to be less than a quarter of TTL.
	Slack time.Duration
}

// TestGroupStore checks the rules of [pitaya.GroupStore] on an implementation. The checks are subtests and run in
// parallel, after the function that calls TestGroupStore has returned: what they share has to end in a
// [testing.TB.Cleanup].
func TestGroupStore(t *testing.T, opts GroupStoreOptions) {
	t.Helper()
	runChecks(t, opts.Synctest, groupChecks(opts))
}

func groupChecks(opts GroupStoreOptions) []check {
	if opts.Wait == nil && opts.Synctest {
		opts.Wait = time.Sleep
	}
	if opts.TTL == 0 {
		opts.TTL = 10 * time.Second
	}
	var checks []check
	for _, c := range []struct {
		name string
		run  func(*groupTest)
	}{
		{"members", (*groupTest).members},
		{"slices belong to the caller", (*groupTest).slices},
		{"atomic", (*groupTest).atomic},
		{"TTL", (*groupTest).ttl},
	} {
		checks = append(checks, check{c.name, func(t testing.TB) { c.run(&groupTest{t, opts.Open(t), opts}) }})
	}
	for _, c := range groupCalls() {
		checks = append(checks, check{"calls/" + c.name, func(t testing.TB) { c.check(&groupTest{t, opts.Open(t), opts}) }})
	}
	return checks
}

type groupTest struct {
	testing.TB
	store pitaya.GroupStore
	opts  GroupStoreOptions
}

// want checks the members of a group in any order, through all methods that tell of them.
func (t *groupTest) want(group string, want ...string) {
	t.Helper()
	ctx, s := t.Context(), t.store
	got, err := s.Members(ctx, group)
	noError(t, err)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("members of %s: got %q, want %q", group, got, want)
	}
	if n, err := s.Count(ctx, group); n != len(want) || err != nil {
		t.Errorf("count of %s: got %d, %v, want %d", group, n, err, len(want))
	}
	for _, uid := range want {
		if ok, err := s.Contains(ctx, group, uid); !ok || err != nil {
			t.Errorf("%s contains %s: got %v, %v, want true", group, uid, ok, err)
		}
	}
	if ok, err := s.Contains(ctx, group, "nobody"); ok || err != nil {
		t.Errorf("%s contains nobody: got %v, %v, want false", group, ok, err)
	}
}

// A groupCall is a call on a store where the group "g" has the members a, b and c, and what it is to return.
type groupCall struct {
	name string
	call func(context.Context, pitaya.GroupStore) error
	want error  // errAny for an error without a sentinel
	text string // part of the error
}

var errAny = errors.New("any error")

func groupCalls() []groupCall {
	type call = func(context.Context, pitaya.GroupStore) error
	add := func(group string, uids ...string) call {
		return func(ctx context.Context, s pitaya.GroupStore) error { return s.Add(ctx, group, uids...) }
	}
	remove := func(group string, uids ...string) call {
		return func(ctx context.Context, s pitaya.GroupStore) error { return s.Remove(ctx, group, uids...) }
	}
	create := func(group string, ttl time.Duration) call {
		return func(ctx context.Context, s pitaya.GroupStore) error { return s.Create(ctx, group, ttl) }
	}
	on := func(f func(pitaya.GroupStore, context.Context, string) error, group string) call {
		return func(ctx context.Context, s pitaya.GroupStore) error { return f(s, ctx, group) }
	}
	members := func(s pitaya.GroupStore, ctx context.Context, group string) error {
		_, err := s.Members(ctx, group)
		return err
	}
	count := func(s pitaya.GroupStore, ctx context.Context, group string) error {
		_, err := s.Count(ctx, group)
		return err
	}
	contains := func(group, uid string) call {
		return func(ctx context.Context, s pitaya.GroupStore) error {
			_, err := s.Contains(ctx, group, uid)
			return err
		}
	}
	return []groupCall{
		{"create", create("new", 0), nil, ""},
		{"create existing", create("g", 0), pitaya.ErrGroupExists, "g"},
		{"create existing with TTL", create("g", time.Hour), pitaya.ErrGroupExists, "g"},
		{"create with negative TTL", create("new", -1), errAny, ""},
		{"create without name", create("", 0), errAny, ""},

		{"delete unknown", on(pitaya.GroupStore.Delete, "no"), pitaya.ErrGroupNotFound, "no"},
		{"renew unknown", on(pitaya.GroupStore.Renew, "no"), pitaya.ErrGroupNotFound, "no"},
		{"remove all of unknown", on(pitaya.GroupStore.RemoveAll, "no"), pitaya.ErrGroupNotFound, "no"},
		{"members of unknown", on(members, "no"), pitaya.ErrGroupNotFound, "no"},
		{"count of unknown", on(count, "no"), pitaya.ErrGroupNotFound, "no"},
		{"contains in unknown", contains("no", "a"), pitaya.ErrGroupNotFound, "no"},
		{"add to unknown", add("no", "a"), pitaya.ErrGroupNotFound, "no"},
		{"add nobody to unknown", add("no"), pitaya.ErrGroupNotFound, "no"},
		{"remove from unknown", remove("no", "a"), pitaya.ErrGroupNotFound, "no"},
		{"remove nobody from unknown", remove("no"), pitaya.ErrGroupNotFound, "no"},

		{"delete without name", on(pitaya.GroupStore.Delete, ""), errAny, ""},
		{"renew without name", on(pitaya.GroupStore.Renew, ""), errAny, ""},
		{"remove all without name", on(pitaya.GroupStore.RemoveAll, ""), errAny, ""},
		{"members without name", on(members, ""), errAny, ""},
		{"count without name", on(count, ""), errAny, ""},
		{"contains without name", contains("", "a"), errAny, ""},
		{"add without name", add("", "a"), errAny, ""},
		{"remove without name", remove("", "a"), errAny, ""},

		{"add", add("g", "x", "y"), nil, ""},
		{"add nobody", add("g"), nil, ""},
		{"add member", add("g", "a"), pitaya.ErrMemberExists, `"a"`},
		{"add twice", add("g", "x", "x"), pitaya.ErrMemberExists, `"x"`},
		{"add several and a member", add("g", "x", "b", "y"), pitaya.ErrMemberExists, `"b"`},
		{"add empty uid", add("g", "x", ""), errAny, ""},
		{"contains empty uid", contains("g", ""), errAny, ""},
		{"remove", remove("g", "b", "a"), nil, ""},
		{"remove nobody", remove("g"), nil, ""},
		{"remove stranger", remove("g", "x"), pitaya.ErrMemberNotFound, `"x"`},
		{"remove twice", remove("g", "a", "a"), pitaya.ErrMemberNotFound, `"a"`},
		{"remove several and a stranger", remove("g", "a", "x", "b"), pitaya.ErrMemberNotFound, `"x"`},
		{"remove empty uid", remove("g", "a", ""), errAny, ""},

		{"renew without TTL", on(pitaya.GroupStore.Renew, "g"), pitaya.ErrGroupNoTTL, "g"},
	}
}

func (c groupCall) check(t *groupTest) {
	noError(t, t.store.Create(t.Context(), "g", 0))
	noError(t, t.store.Add(t.Context(), "g", "a", "b", "c"))
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.call(done, t.store); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: got %v", err)
	}
	err := c.call(t.Context(), t.store)
	switch {
	case c.want == errAny:
		if err == nil {
			t.Error("got no error")
		}
	case !errors.Is(err, c.want):
		t.Errorf("got %v, want %v", err, c.want)
	}
	if err == nil {
		return
	}
	if !strings.Contains(err.Error(), c.text) {
		t.Errorf("got %q, want it to contain %q", err, c.text)
	}
	t.want("g", "a", "b", "c")
	if n, err := t.store.Count(t.Context(), "new"); !errors.Is(err, pitaya.ErrGroupNotFound) {
		t.Errorf("after an error there is a new group: %d, %v", n, err)
	}
}

func (t *groupTest) members() {
	ctx, s := t.Context(), t.store
	// Names that a store must not take for parts of each other.
	groups := []string{"g", "g/", "g/a", "ga", "größe", "with space"}
	for _, g := range groups {
		noError(t, s.Create(ctx, g, 0))
	}
	for _, g := range groups {
		t.want(g)
		noError(t, s.Add(ctx, g, "a"))
		noError(t, s.Add(ctx, g, "b", "c", "mail@example.com"))
	}
	noError(t, s.Remove(ctx, "g", "a", "c"))
	t.want("g", "b", "mail@example.com")
	noError(t, s.Add(ctx, "g", "a"))
	t.want("g", "a", "b", "mail@example.com")
	noError(t, s.RemoveAll(ctx, "g"))
	t.want("g")
	noError(t, s.RemoveAll(ctx, "g"))
	noError(t, s.Add(ctx, "g", "z"))
	noError(t, s.Remove(ctx, "g", "z"))
	t.want("g")
	noError(t, s.Delete(ctx, "g"))
	for _, g := range groups[1:] {
		t.want(g, "a", "b", "c", "mail@example.com")
	}
	noError(t, s.Delete(ctx, "ga"))
	noError(t, s.Create(ctx, "ga", 0))
	t.want("ga")
}

func (t *groupTest) slices() {
	ctx := t.Context()
	in := []string{"a", "b"}
	noError(t, t.store.Create(ctx, "g", 0))
	noError(t, t.store.Add(ctx, "g", in...))
	clear(in)
	out, err := t.store.Members(ctx, "g")
	noError(t, err)
	clear(out)
	t.want("g", "a", "b")
}

// atomic has goroutines add and remove pairs of members: nobody may ever see half a pair, and of several that want to add
// the same pair exactly one succeeds.
func (t *groupTest) atomic() {
	ctx := t.Context()
	noError(t, t.store.Create(ctx, "g", 0))
	const rivals, rounds = 4, 50
	var wg sync.WaitGroup
	for range rivals {
		wg.Go(func() {
			for range rounds {
				err := t.store.Add(ctx, "g", "left", "right")
				if err == nil {
					err = t.store.Remove(ctx, "g", "right", "left")
				} else if errors.Is(err, pitaya.ErrMemberExists) {
					err = nil
				}
				if err != nil {
					t.Errorf("only one can have added the pair: %v", err)
					return
				}
			}
		})
		wg.Go(func() {
			for range rounds {
				members, err := t.store.Members(ctx, "g")
				if err != nil || len(members)%2 != 0 {
					t.Errorf("got members %q, %v", members, err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.want("g")
}

func (t *groupTest) ttl() {
	ttl, slack, wait := t.opts.TTL, t.opts.Slack, t.opts.Wait
	if wait == nil {
		t.Skip("no way to let time pass")
	}
	ctx, s := t.Context(), t.store
	is := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("%s: got %v, want %v", what, err, want)
		}
	}
	is("create", s.Create(ctx, "g", ttl), nil)
	is("create second", s.Create(ctx, "forever", 0), nil)
	is("create third", s.Create(ctx, "emptied", ttl), nil)
	wait(ttl / 2)
	is("create existing", s.Create(ctx, "g", ttl), pitaya.ErrGroupExists)
	is("add", s.Add(ctx, "g", "a", "b"), nil)
	is("renew", s.Renew(ctx, "g"), nil)
	is("remove all", s.RemoveAll(ctx, "emptied"), nil)
	wait(ttl/2 + slack)
	_, err := s.Count(ctx, "emptied")
	is("count after TTL of an emptied group", err, pitaya.ErrGroupNotFound)
	n, err := s.Count(ctx, "g")
	is("count after renewal", err, nil)
	if n != 2 {
		t.Errorf("a renewed group has %d members, want 2", n)
	}
	is("remove", s.Remove(ctx, "g", "a"), nil)
	is("add after half a TTL", s.Add(ctx, "g", "c"), nil)
	wait(ttl / 2)
	_, err = s.Members(ctx, "g")
	is("members after TTL", err, pitaya.ErrGroupNotFound)
	is("renew after TTL", s.Renew(ctx, "g"), pitaya.ErrGroupNotFound)
	is("add after TTL", s.Add(ctx, "g", "a"), pitaya.ErrGroupNotFound)
	is("delete after TTL", s.Delete(ctx, "g"), pitaya.ErrGroupNotFound)

	is("create again", s.Create(ctx, "g", 0), nil)
	n, err = s.Count(ctx, "g")
	is("count of the new group", err, nil)
	if n != 0 {
		t.Errorf("a group created after the TTL of its namesake has %d members, want 0", n)
	}
	wait(2*ttl + slack)
	for _, group := range []string{"g", "forever"} {
		_, err = s.Count(ctx, group)
		is("count of a group without TTL", err, nil)
	}
	is("renew without TTL", s.Renew(ctx, "g"), pitaya.ErrGroupNoTTL)

	is("delete", s.Delete(ctx, "forever"), nil)
	is("create for deletion", s.Create(ctx, "forever", ttl), nil)
	is("delete before TTL", s.Delete(ctx, "forever"), nil)
	is("create in its place", s.Create(ctx, "forever", 0), nil)
	wait(ttl + slack)
	_, err = s.Count(ctx, "forever")
	is("the TTL of a deleted group ends its successor", err, nil)
}
