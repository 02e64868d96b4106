package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// testGroupStore checks the rules of [pitaya.GroupStore] on the stores that open returns. Each is used by one subtest,
// and closed by whoever opened it.
func testGroupStore(t *testing.T, open func(*testing.T) pitaya.GroupStore) {
	t.Run("errors", func(t *testing.T) { testGroupErrors(t, open) })
	t.Run("members", func(t *testing.T) { testGroupMembers(t, open(t)) })
	t.Run("slices belong to the caller", func(t *testing.T) { testGroupSlices(t, open(t)) })
	t.Run("atomic", func(t *testing.T) { testGroupAtomic(t, open(t)) })
}

// testGroupStoreTTL checks the rules about TTLs, with groups that live for ttl. wait lets a time pass; a store may be late by
// slack.
func testGroupStoreTTL(t *testing.T, s pitaya.GroupStore, ttl, slack time.Duration, wait func(time.Duration)) {
	ctx := t.Context()
	check := func(name string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("%s: got %v, want %v", name, err, want)
		}
	}
	check("create", s.Create(ctx, "g", ttl), nil)
	check("create second", s.Create(ctx, "forever", 0), nil)
	check("create third", s.Create(ctx, "emptied", ttl), nil)
	wait(ttl / 2)
	check("create existing", s.Create(ctx, "g", ttl), pitaya.ErrGroupExists)
	check("add", s.Add(ctx, "g", "a", "b"), nil)
	check("renew", s.Renew(ctx, "g"), nil)
	check("remove all", s.RemoveAll(ctx, "emptied"), nil)
	wait(ttl/2 + slack)
	_, err := s.Count(ctx, "emptied")
	check("count after TTL of an emptied group", err, pitaya.ErrGroupNotFound)
	n, err := s.Count(ctx, "g")
	check("count after renewal", err, nil)
	if n != 2 {
		t.Errorf("a renewed group has %d members, want 2", n)
	}
	check("remove", s.Remove(ctx, "g", "a"), nil)
	check("add after half a TTL", s.Add(ctx, "g", "c"), nil)
	wait(ttl / 2)
	_, err = s.Members(ctx, "g")
	check("members after TTL", err, pitaya.ErrGroupNotFound)
	check("renew after TTL", s.Renew(ctx, "g"), pitaya.ErrGroupNotFound)
	check("add after TTL", s.Add(ctx, "g", "a"), pitaya.ErrGroupNotFound)
	check("delete after TTL", s.Delete(ctx, "g"), pitaya.ErrGroupNotFound)

	check("create again", s.Create(ctx, "g", 0), nil)
	n, err = s.Count(ctx, "g")
	check("count of the new group", err, nil)
	if n != 0 {
		t.Errorf("a group created after the TTL of its namesake has %d members, want 0", n)
	}
	wait(2*ttl + slack)
	for _, group := range []string{"g", "forever"} {
		_, err = s.Count(ctx, group)
		check("count of a group without TTL", err, nil)
	}
	check("renew without TTL", s.Renew(ctx, "g"), pitaya.ErrGroupNoTTL)

	check("delete", s.Delete(ctx, "forever"), nil)
	check("create for deletion", s.Create(ctx, "forever", ttl), nil)
	check("delete before TTL", s.Delete(ctx, "forever"), nil)
	check("create in its place", s.Create(ctx, "forever", 0), nil)
	wait(ttl + slack)
	_, err = s.Count(ctx, "forever")
	check("the TTL of a deleted group ends its successor", err, nil)
}

func testGroupErrors(t *testing.T, open func(*testing.T) pitaya.GroupStore) {
	// errAny stands for an error without a sentinel.
	errAny := errors.New("any")
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
	onGroup := func(f func(pitaya.GroupStore, context.Context, string) error, group string) call {
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
	tests := []struct {
		name string
		call call
		want error
		text string // part of the error
	}{
		{"create", create("new", 0), nil, ""},
		{"create existing", create("g", 0), pitaya.ErrGroupExists, "g"},
		{"create existing with TTL", create("g", time.Hour), pitaya.ErrGroupExists, "g"},
		{"create with negative TTL", create("new", -1), errAny, "TTL"},
		{"create without name", create("", 0), errAny, "empty group name"},

		{"delete unknown", onGroup(pitaya.GroupStore.Delete, "no"), pitaya.ErrGroupNotFound, "no"},
		{"renew unknown", onGroup(pitaya.GroupStore.Renew, "no"), pitaya.ErrGroupNotFound, "no"},
		{"remove all of unknown", onGroup(pitaya.GroupStore.RemoveAll, "no"), pitaya.ErrGroupNotFound, "no"},
		{"members of unknown", onGroup(members, "no"), pitaya.ErrGroupNotFound, "no"},
		{"count of unknown", onGroup(count, "no"), pitaya.ErrGroupNotFound, "no"},
		{"contains in unknown", contains("no", "a"), pitaya.ErrGroupNotFound, "no"},
		{"add to unknown", add("no", "a"), pitaya.ErrGroupNotFound, "no"},
		{"add nobody to unknown", add("no"), pitaya.ErrGroupNotFound, "no"},
		{"remove from unknown", remove("no", "a"), pitaya.ErrGroupNotFound, "no"},
		{"remove nobody from unknown", remove("no"), pitaya.ErrGroupNotFound, "no"},

		{"delete without name", onGroup(pitaya.GroupStore.Delete, ""), errAny, "empty group name"},
		{"renew without name", onGroup(pitaya.GroupStore.Renew, ""), errAny, "empty group name"},
		{"remove all without name", onGroup(pitaya.GroupStore.RemoveAll, ""), errAny, "empty group name"},
		{"members without name", onGroup(members, ""), errAny, "empty group name"},
		{"count without name", onGroup(count, ""), errAny, "empty group name"},
		{"contains without name", contains("", "a"), errAny, "empty group name"},
		{"add without name", add("", "a"), errAny, "empty group name"},
		{"remove without name", remove("", "a"), errAny, "empty group name"},

		{"add", add("g", "x", "y"), nil, ""},
		{"add nobody", add("g"), nil, ""},
		{"add member", add("g", "a"), pitaya.ErrMemberExists, `"a"`},
		{"add twice", add("g", "x", "x"), pitaya.ErrMemberExists, `"x"`},
		{"add several and a member", add("g", "x", "b", "y"), pitaya.ErrMemberExists, `"b"`},
		{"add empty uid", add("g", "x", ""), errAny, "empty uid"},
		{"contains empty uid", contains("g", ""), errAny, "empty uid"},
		{"remove", remove("g", "b", "a"), nil, ""},
		{"remove nobody", remove("g"), nil, ""},
		{"remove stranger", remove("g", "x"), pitaya.ErrMemberNotFound, `"x"`},
		{"remove twice", remove("g", "a", "a"), pitaya.ErrMemberNotFound, `"a"`},
		{"remove several and a stranger", remove("g", "a", "x", "b"), pitaya.ErrMemberNotFound, `"x"`},
		{"remove empty uid", remove("g", "a", ""), errAny, "empty uid"},

		{"renew without TTL", onGroup(pitaya.GroupStore.Renew, "g"), pitaya.ErrGroupNoTTL, "g"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t)
			if err := s.Create(t.Context(), "g", 0); err != nil {
				t.Fatal(err)
			}
			if err := s.Add(t.Context(), "g", "a", "b", "c"); err != nil {
				t.Fatal(err)
			}
			done, cancel := context.WithCancel(t.Context())
			cancel()
			if err := tt.call(done, s); !errors.Is(err, context.Canceled) {
				t.Errorf("with a context that is done: got %v", err)
			}
			err := tt.call(t.Context(), s)
			switch {
			case tt.want == errAny:
				if err == nil {
					t.Error("got no error")
				}
			case !errors.Is(err, tt.want):
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err == nil {
				return
			}
			if !strings.HasPrefix(err.Error(), "pitaya: ") || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %q, want it to begin with pitaya: and to contain %q", err, tt.text)
			}
			wantMembers(t, s, "g", "a", "b", "c")
			if n, err := s.Count(t.Context(), "new"); !errors.Is(err, pitaya.ErrGroupNotFound) {
				t.Errorf("after an error there is a new group: %d, %v", n, err)
			}
		})
	}
}

// wantMembers checks the members of a group in any order, through all methods that tell of them.
func wantMembers(t *testing.T, s pitaya.GroupStore, group string, want ...string) {
	t.Helper()
	got, err := s.Members(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("members of %s: got %q, want %q", group, got, want)
	}
	if n, err := s.Count(t.Context(), group); n != len(want) || err != nil {
		t.Errorf("count of %s: got %d, %v, want %d", group, n, err, len(want))
	}
	for _, uid := range want {
		if ok, err := s.Contains(t.Context(), group, uid); !ok || err != nil {
			t.Errorf("%s contains %s: got %v, %v, want true", group, uid, ok, err)
		}
	}
	if ok, err := s.Contains(t.Context(), group, "nobody"); ok || err != nil {
		t.Errorf("%s contains nobody: got %v, %v, want false", group, ok, err)
	}
}

func testGroupMembers(t *testing.T, s pitaya.GroupStore) {
	ctx := t.Context()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// Names that a store must not take for parts of each other.
	groups := []string{"g", "g/", "g/a", "ga", "größe", "with space"}
	for _, g := range groups {
		do(s.Create(ctx, g, 0))
	}
	for _, g := range groups {
		wantMembers(t, s, g)
		do(s.Add(ctx, g, "a"))
		do(s.Add(ctx, g, "b", "c", "mail@example.com"))
	}
	do(s.Remove(ctx, "g", "a", "c"))
	wantMembers(t, s, "g", "b", "mail@example.com")
	do(s.Add(ctx, "g", "a"))
	wantMembers(t, s, "g", "a", "b", "mail@example.com")
	do(s.RemoveAll(ctx, "g"))
	wantMembers(t, s, "g")
	do(s.RemoveAll(ctx, "g"))
	do(s.Add(ctx, "g", "z"))
	do(s.Remove(ctx, "g", "z"))
	wantMembers(t, s, "g")
	do(s.Delete(ctx, "g"))
	for _, g := range groups[1:] {
		wantMembers(t, s, g, "a", "b", "c", "mail@example.com")
	}
	do(s.Delete(ctx, "ga"))
	do(s.Create(ctx, "ga", 0))
	wantMembers(t, s, "ga")
}

func testGroupSlices(t *testing.T, s pitaya.GroupStore) {
	ctx := t.Context()
	in := []string{"a", "b"}
	if err := errors.Join(s.Create(ctx, "g", 0), s.Add(ctx, "g", in...)); err != nil {
		t.Fatal(err)
	}
	clear(in)
	out, err := s.Members(ctx, "g")
	if err != nil {
		t.Fatal(err)
	}
	clear(out)
	wantMembers(t, s, "g", "a", "b")
}

// testGroupAtomic has goroutines add and remove pairs of members: nobody may ever see half a pair, and of several that
// want to add the same pair exactly one succeeds.
func testGroupAtomic(t *testing.T, s pitaya.GroupStore) {
	ctx := t.Context()
	if err := s.Create(ctx, "g", 0); err != nil {
		t.Fatal(err)
	}
	const rivals, rounds = 4, 50
	var wg sync.WaitGroup
	for range rivals {
		wg.Go(func() {
			for range rounds {
				err := s.Add(ctx, "g", "left", "right")
				if err == nil {
					err = s.Remove(ctx, "g", "right", "left")
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
				members, err := s.Members(ctx, "g")
				if err != nil || len(members)%2 != 0 {
					t.Errorf("got members %q, %v", members, err)
					return
				}
			}
		})
	}
	wg.Wait()
	wantMembers(t, s, "g")
}

func newMemoryGroups(t testing.TB) *pitaya.MemoryGroups {
	s := pitaya.NewMemoryGroups()
	t.Cleanup(func() { s.Close() })
	return s
}

func TestMemoryGroups(t *testing.T) {
	testGroupStore(t, func(t *testing.T) pitaya.GroupStore { return newMemoryGroups(t) })
	t.Run("TTL", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			testGroupStoreTTL(t, newMemoryGroups(t), 10*time.Second, 0, time.Sleep)
		})
	})
}

// TestMemoryGroupsTTLExact checks the last moment of a group and the first without it, and that its memory goes although
// nobody asks for it.
func TestMemoryGroupsTTLExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s := newMemoryGroups(t)
		for i := range 100 {
			if err := s.Create(ctx, fmt.Sprint("g", i), time.Minute+time.Duration(i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute - 1)
		if err := s.Renew(ctx, "g7"); err != nil {
			t.Error(err)
		}
		if _, err := s.Count(ctx, "g0"); err != nil {
			t.Errorf("a nanosecond before its TTL ends: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := s.Count(ctx, "g0"); !errors.Is(err, pitaya.ErrGroupNotFound) {
			t.Errorf("when its TTL ends: got %v", err)
		}
		if err := s.Create(ctx, "g0", 0); err != nil {
			t.Errorf("cannot be created again when its TTL ends: %v", err)
		}
		time.Sleep(100 * time.Nanosecond)
		synctest.Wait()
		if n := s.Held(); n != 2 {
			t.Errorf("%d groups in memory, want the renewed and the new one", n)
		}
	})
}

func TestMemoryGroupsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s, other := pitaya.NewMemoryGroups(), newMemoryGroups(t)
		if err := errors.Join(s.Create(ctx, "g", time.Hour), s.Add(ctx, "g", "a")); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Count(ctx, "g"); !errors.Is(err, pitaya.ErrGroupNotFound) {
			t.Errorf("two stores share a group: %v", err)
		}
		for range 2 {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		if n := s.Held(); n != 0 {
			t.Errorf("%d groups in memory after Close", n)
		}
		_, err := s.Members(ctx, "g")
		for _, err := range []error{err, s.Create(ctx, "h", time.Hour), s.Add(ctx, "g", "b"), s.Each("g", func(string) {})} {
			if err == nil || !strings.Contains(err.Error(), "closed") {
				t.Errorf("after Close: got %v", err)
			}
		}
	})
}

// TestMemoryGroupsOrder runs random calls against a slice that does what the documentation says. It walks through the group
// at random moments, so that removals meet lists with and without readers.
func TestMemoryGroupsOrder(t *testing.T) {
	ctx := t.Context()
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := newMemoryGroups(t)
	if err := s.Create(ctx, "g", 0); err != nil {
		t.Fatal(err)
	}
	var want []string
	for step := range 5000 {
		uid := fmt.Sprint(rnd.IntN(40))
		at := slices.Index(want, uid)
		if rnd.IntN(2) == 0 {
			if err := s.Add(ctx, "g", uid); (err == nil) != (at < 0) {
				t.Fatalf("seed %d step %d: add: %v", seed, step, err)
			}
			if at < 0 {
				want = append(want, uid)
			}
		} else {
			if err := s.Remove(ctx, "g", uid); (err == nil) != (at >= 0) {
				t.Fatalf("seed %d step %d: remove: %v", seed, step, err)
			}
			if at >= 0 {
				want[at] = want[len(want)-1]
				want = want[:len(want)-1]
			}
		}
		var got []string
		var err error
		if rnd.IntN(2) == 0 {
			got, err = s.Members(ctx, "g")
		} else {
			err = s.Each("g", func(uid string) { got = append(got, uid) })
		}
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("seed %d step %d: got %q, %v, want %q", seed, step, got, err, want)
		}
	}
}

// TestMemoryGroupsEach changes the group from within a walk and from other goroutines: a walk shows the members of the moment
// it began.
func TestMemoryGroupsEach(t *testing.T) {
	ctx := t.Context()
	s := newMemoryGroups(t)
	if err := s.Each("g", func(string) {}); !errors.Is(err, pitaya.ErrGroupNotFound) {
		t.Errorf("unknown group: got %v", err)
	}
	if err := s.Create(ctx, "g", 0); err != nil {
		t.Fatal(err)
	}
	var uids []string
	for i := range 100 {
		uids = append(uids, fmt.Sprint("u", i))
	}
	if err := s.Add(ctx, "g", uids...); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			for j := range 200 {
				uid := fmt.Sprint("v", i, "-", j)
				if err := errors.Join(s.Add(ctx, "g", uid), s.Remove(ctx, "g", uid)); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 200 {
				seen := make(map[string]bool)
				if err := s.Each("g", func(uid string) {
					if seen[uid] || uid == "" {
						t.Errorf("got %q twice or empty", uid)
					}
					seen[uid] = true
				}); err != nil {
					t.Error(err)
				}
				for _, uid := range uids {
					if !seen[uid] {
						t.Errorf("%s was left out", uid)
					}
				}
			}
		})
	}
	wg.Wait()

	var seen []string
	err := s.Each("g", func(uid string) {
		seen = append(seen, uid)
		if err := s.Remove(ctx, "g", uid); err != nil {
			t.Error(err)
		}
		if err := s.Add(ctx, "g", "w"+uid); err != nil {
			t.Error(err)
		}
	})
	slices.Sort(seen)
	slices.Sort(uids)
	if err != nil || !slices.Equal(seen, uids) {
		t.Errorf("while the group changes: got %q, %v, want %q", seen, err, uids)
	}
	if n, err := s.Count(ctx, "g"); n != len(uids) || err != nil {
		t.Errorf("count: got %d, %v, want %d", n, err, len(uids))
	}
}

func TestMemoryGroupsAllocs(t *testing.T) {
	ctx := t.Context()
	s := newMemoryGroups(t)
	if err := errors.Join(s.Create(ctx, "g", time.Hour), s.Add(ctx, "g", "a", "b")); err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(100, func() {
		_, err1 := s.Contains(ctx, "g", "a")
		_, err2 := s.Count(ctx, "g")
		err3 := s.Each("g", func(string) {})
		if err1 != nil || err2 != nil || err3 != nil {
			t.Fatal(err1, err2, err3)
		}
	})
	if n != 0 {
		t.Errorf("reading takes %v allocations, want none", n)
	}
}

func BenchmarkMemoryGroups(b *testing.B) {
	for _, size := range []int{1_000, 100_000} {
		ctx := b.Context()
		s := newMemoryGroups(b)
		uids := make([]string, size)
		for i := range uids {
			uids[i] = fmt.Sprint("user", i)
		}
		// fill returns the name of a new group with all uids.
		fill := func(b *testing.B, group string) string {
			if err := errors.Join(s.Create(ctx, group, 0), s.Add(ctx, group, uids...)); err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { s.Delete(ctx, group) })
			return group
		}
		addRemove := func(b *testing.B, group, uid string) {
			if err := s.Add(ctx, group, uid); err != nil {
				b.Fatal(err)
			}
			if err := s.Remove(ctx, group, uid); err != nil {
				b.Fatal(err)
			}
		}
		run := func(op string, f func(b *testing.B)) {
			b.Run(fmt.Sprintf("op=%s/members=%d", op, size), func(b *testing.B) {
				b.ReportAllocs()
				f(b)
			})
		}
		run("add-remove", func(b *testing.B) {
			group := fill(b, "g")
			for b.Loop() {
				addRemove(b, group, "x")
			}
		})
		run("contains", func(b *testing.B) {
			group := fill(b, "g")
			for b.Loop() {
				if ok, err := s.Contains(ctx, group, "user500"); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
		run("each", func(b *testing.B) {
			group := fill(b, "g")
			for b.Loop() {
				n := 0
				if err := s.Each(group, func(string) { n++ }); n != size || err != nil {
					b.Fatal(n, err)
				}
			}
		})
		run("each-add-remove", func(b *testing.B) {
			group := fill(b, "g")
			for b.Loop() {
				if err := s.Each(group, func(string) {}); err != nil {
					b.Fatal(err)
				}
				addRemove(b, group, "x")
			}
		})
		// Small groups beside a large one whose members come and go between broadcasts.
		run("beside", func(b *testing.B) {
			large := fill(b, "large")
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						s.Each(large, func(string) {})
						s.Add(ctx, large, "x")
						s.Remove(ctx, large, "x")
					}
				}
			})
			if err := s.Create(ctx, "small", 0); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				addRemove(b, "small", "x")
			}
			close(stop)
			wg.Wait()
			s.Delete(ctx, "small")
		})
		// Each goroutine in a group of its own.
		run("parallel", func(b *testing.B) {
			var mu sync.Mutex
			next := 0
			b.RunParallel(func(pb *testing.PB) {
				mu.Lock()
				group := fmt.Sprint("p", next)
				next++
				mu.Unlock()
				s.Create(ctx, group, 0)
				defer s.Delete(ctx, group)
				for pb.Next() {
					addRemove(b, group, "x")
				}
			})
		})
	}
}
