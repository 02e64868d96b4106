package pitaya_test

import (
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
	"github.com/pitaya-go/pitaya/pitayatest"
)

func newMemoryGroups(t testing.TB) *pitaya.MemoryGroups {
	s := pitaya.NewMemoryGroups()
	t.Cleanup(func() { s.Close() })
	return s
}

func TestMemoryGroups(t *testing.T) {
	pitayatest.TestGroupStore(t, pitayatest.GroupStoreOptions{
		Open:     func(t testing.TB) pitaya.GroupStore { return newMemoryGroups(t) },
		Synctest: true,
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
