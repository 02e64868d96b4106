package pitaya

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of a [GroupStore]. They come wrapped, with the names of the group and the member: compare with [errors.Is].
var (
	ErrGroupExists    = errors.New("pitaya: group already exists")
	ErrGroupNotFound  = errors.New("pitaya: group not found")
	ErrGroupNoTTL     = errors.New("pitaya: group has no TTL")
	ErrMemberExists   = errors.New("pitaya: member is already in the group")
	ErrMemberNotFound = errors.New("pitaya: member is not in the group")
)

var errGroupsClosed = errors.New("pitaya: group store is closed")

// A GroupStore keeps named groups of uids. A group exists from Create until Delete or the end of its TTL, also while
// it has no members. Members are mere names: a store knows no sessions, and nobody leaves a group by disconnecting.
//
// Implementations keep these rules:
//
//   - All methods may be called at any time by any number of goroutines. Each takes effect at one moment, in whole or
//     not at all: an Add or Remove of several uids that fails for one of them changes nothing, and its error names
//     that uid.
//   - An empty group name and an empty uid are errors, whatever the group contains.
//   - Methods on a group that does not exist, or no longer, return an error that wraps [ErrGroupNotFound]. Only
//     Create needs it so, and returns [ErrGroupExists] otherwise. This error comes before those about members.
//   - A call whose ctx is done before it takes effect changes nothing and returns an error that wraps ctx.Err().
//     Where the store is remote, a ctx that ends during the call may leave the caller not knowing.
//   - Slices that are passed in are not kept, slices that are returned belong to the caller.
type GroupStore interface {
	// Create makes an empty group. With a ttl above zero the whole group, with all its members, vanishes that long
	// after its creation or the last Renew, and a new group of the name can be created from then on. Changes of the
	// membership do not prolong its life. A ttl of zero is none, a negative one is an error. A store may round
	// a ttl up to its resolution, which it documents.
	Create(ctx context.Context, group string, ttl time.Duration) error
	// Delete removes the group and its members.
	Delete(ctx context.Context, group string) error
	// Renew lets the TTL of the group begin anew. It returns ErrGroupNoTTL if the group was created without one.
	Renew(ctx context.Context, group string) error
	// Add puts uids into the group. It returns ErrMemberExists if one of them is in it already or is given twice.
	// Without uids it only tells whether the group exists.
	Add(ctx context.Context, group string, uids ...string) error
	// Remove takes uids out of the group. It returns ErrMemberNotFound if one of them is not in it or is given
	// twice. The group stays when its last member has gone. Without uids it only tells whether the group exists.
	Remove(ctx context.Context, group string, uids ...string) error
	// RemoveAll takes all members out of the group. The group and its TTL stay.
	RemoveAll(ctx context.Context, group string) error
	// Members returns each member once, in an order that the store documents and that only changes of the
	// membership alter.
	Members(ctx context.Context, group string) ([]string, error)
	// Contains tells whether uid is in the group.
	Contains(ctx context.Context, group, uid string) (bool, error)
	// Count returns the number of members.
	Count(ctx context.Context, group string) (int, error)
}

// checkGroupCall holds what every method of every store has to refuse before it looks at its groups.
func checkGroupCall(ctx context.Context, group string, uids ...string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pitaya: group %q: %w", group, err)
	}
	if group == "" {
		return errors.New("pitaya: empty group name")
	}
	if slices.Contains(uids, "") {
		return fmt.Errorf("pitaya: group %q: empty uid", group)
	}
	return nil
}

// checkGroupTTL refuses what Create has to refuse beside that.
func checkGroupTTL(group string, ttl time.Duration) error {
	if ttl < 0 {
		return fmt.Errorf("pitaya: group %q: negative TTL %v", group, ttl)
	}
	return nil
}

// groupShards is how many locks the groups of a store are spread over. The single operations are short enough for one
// lock; what asks for more is that the first removal after a broadcast copies the list of members. With 100,000 of them
// that takes a millisecond or two, during which other groups should not wait (BenchmarkMemoryGroups/op=beside).
const groupShards = 32

// MemoryGroups is a [GroupStore] in the memory of this process, which it shares with nobody: each value has its own
// groups. Make it with [NewMemoryGroups].
//
// Members come in the order in which they were added, but a member that is removed leaves its place to the last one.
// TTLs are exact: the group is gone when its time is over, and a timer frees its memory then. Add, Remove and Contains
// take the same time in groups of any size.
type MemoryGroups struct {
	seed   maphash.Seed
	shards [groupShards]groupShard
}

type groupShard struct {
	mu     sync.RWMutex // guards the fields below and the groups; never held across a callback
	closed bool
	groups map[string]*memoryGroup // expired ones included, until their timer fires
}

// memoryGroup is guarded by the lock of its shard.
type memoryGroup struct {
	index   map[string]int // position in members
	members []string
	// shared is set when a reader may still be walking over members, outside the lock. Nothing within the length
	// that the reader has seen may be written from then on. Adding writes only beyond it, so only removals copy.
	// Atomic, because readers set it while they hold the lock for reading.
	shared atomic.Bool

	ttl      time.Duration // zero: lives until it is deleted
	deadline time.Time     // valid if ttl is not zero
	timer    *time.Timer   // frees the group after the deadline; nil if ttl is zero
}

// NewMemoryGroups returns an empty store. It runs no goroutine; groups with a TTL hold a timer, until they vanish or the
// store is closed.
func NewMemoryGroups() *MemoryGroups {
	m := &MemoryGroups{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].groups = make(map[string]*memoryGroup)
	}
	return m
}

func (m *MemoryGroups) shard(group string) *groupShard {
	return &m.shards[maphash.String(m.seed, group)%groupShards]
}

// findLocked returns the group unless its time is over. A lock for reading suffices.
func (s *groupShard) findLocked(group string) (*memoryGroup, error) {
	if s.closed {
		return nil, errGroupsClosed
	}
	g := s.groups[group]
	if g == nil || g.expired() {
		return nil, fmt.Errorf("%w: %q", ErrGroupNotFound, group)
	}
	return g, nil
}

// dropLocked removes the group, which must be the present one of that name.
func (s *groupShard) dropLocked(group string, g *memoryGroup) {
	if g.timer != nil {
		g.timer.Stop()
	}
	delete(s.groups, group)
}

// expire runs when the timer of a group fires. The group may have been renewed or replaced in that very moment.
func (s *groupShard) expire(group string, g *memoryGroup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.groups[group] == g && g.expired() {
		s.dropLocked(group, g)
	}
}

func (g *memoryGroup) expired() bool {
	return g.ttl > 0 && !time.Now().Before(g.deadline)
}

// Create implements [GroupStore].
func (m *MemoryGroups) Create(ctx context.Context, group string, ttl time.Duration) error {
	if err := errors.Join(checkGroupCall(ctx, group), checkGroupTTL(group, ttl)); err != nil {
		return err
	}
	s := m.shard(group)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errGroupsClosed
	}
	if old := s.groups[group]; old != nil {
		if !old.expired() {
			return fmt.Errorf("%w: %q", ErrGroupExists, group)
		}
		s.dropLocked(group, old)
	}
	g := &memoryGroup{index: make(map[string]int), ttl: ttl}
	if ttl > 0 {
		// In this order: the timer must not fire before the deadline.
		g.deadline = time.Now().Add(ttl)
		g.timer = time.AfterFunc(ttl, func() { s.expire(group, g) })
	}
	s.groups[group] = g
	return nil
}

// update calls f with a group and the lock of its shard.
func (m *MemoryGroups) update(ctx context.Context, group string, uids []string, f func(s *groupShard, g *memoryGroup) error) error {
	if err := checkGroupCall(ctx, group, uids...); err != nil {
		return err
	}
	s := m.shard(group)
	s.mu.Lock()
	defer s.mu.Unlock()
	g, err := s.findLocked(group)
	if err != nil {
		return err
	}
	return f(s, g)
}

// look calls f with a group, which it only reads, and the shard's lock for that.
func (m *MemoryGroups) look(group string, f func(g *memoryGroup)) error {
	s := m.shard(group)
	s.mu.RLock()
	defer s.mu.RUnlock()
	g, err := s.findLocked(group)
	if err != nil {
		return err
	}
	f(g)
	return nil
}

// Delete implements [GroupStore].
func (m *MemoryGroups) Delete(ctx context.Context, group string) error {
	return m.update(ctx, group, nil, func(s *groupShard, g *memoryGroup) error {
		s.dropLocked(group, g)
		return nil
	})
}

// Renew implements [GroupStore].
func (m *MemoryGroups) Renew(ctx context.Context, group string) error {
	return m.update(ctx, group, nil, func(_ *groupShard, g *memoryGroup) error {
		if g.ttl == 0 {
			return fmt.Errorf("%w: %q", ErrGroupNoTTL, group)
		}
		g.deadline = time.Now().Add(g.ttl)
		g.timer.Reset(g.ttl)
		return nil
	})
}

// Add implements [GroupStore].
func (m *MemoryGroups) Add(ctx context.Context, group string, uids ...string) error {
	return m.update(ctx, group, uids, func(_ *groupShard, g *memoryGroup) error {
		if uid, ok := g.allLocked(uids, false); !ok {
			return fmt.Errorf("%w: %q in %q", ErrMemberExists, uid, group)
		}
		for _, uid := range uids {
			g.index[uid] = len(g.members)
			g.members = append(g.members, uid)
		}
		return nil
	})
}

// Remove implements [GroupStore].
func (m *MemoryGroups) Remove(ctx context.Context, group string, uids ...string) error {
	return m.update(ctx, group, uids, func(_ *groupShard, g *memoryGroup) error {
		if uid, ok := g.allLocked(uids, true); !ok {
			return fmt.Errorf("%w: %q in %q", ErrMemberNotFound, uid, group)
		}
		if len(uids) > 0 && g.shared.Load() {
			g.members = slices.Clone(g.members)
			g.shared.Store(false)
		}
		for _, uid := range uids {
			gap, last := g.index[uid], len(g.members)-1
			moved := g.members[last]
			g.members[gap], g.index[moved] = moved, gap
			g.members[last] = "" // so that the text can be freed
			g.members = g.members[:last]
			delete(g.index, uid)
		}
		return nil
	})
}

// allLocked tells whether each uid is given once and is a member, or is none if present is false. Otherwise it returns the
// first that is in the way.
func (g *memoryGroup) allLocked(uids []string, present bool) (culprit string, ok bool) {
	var seen map[string]bool
	if len(uids) > 1 {
		seen = make(map[string]bool, len(uids))
	}
	for _, uid := range uids {
		if _, found := g.index[uid]; found != present || seen[uid] {
			return uid, false
		}
		if seen != nil {
			seen[uid] = true
		}
	}
	return "", true
}

// RemoveAll implements [GroupStore].
func (m *MemoryGroups) RemoveAll(ctx context.Context, group string) error {
	return m.update(ctx, group, nil, func(_ *groupShard, g *memoryGroup) error {
		// New ones, not cleared ones: this frees what a large group took, and leaves readers their list.
		g.members, g.index = nil, make(map[string]int)
		g.shared.Store(false)
		return nil
	})
}

// Members implements [GroupStore].
func (m *MemoryGroups) Members(ctx context.Context, group string) (members []string, err error) {
	if err := checkGroupCall(ctx, group); err != nil {
		return nil, err
	}
	err = m.look(group, func(g *memoryGroup) { members = slices.Clone(g.members) })
	return members, err
}

// Contains implements [GroupStore].
func (m *MemoryGroups) Contains(ctx context.Context, group, uid string) (found bool, err error) {
	if err := checkGroupCall(ctx, group, uid); err != nil {
		return false, err
	}
	err = m.look(group, func(g *memoryGroup) { _, found = g.index[uid] })
	return found, err
}

// Count implements [GroupStore].
func (m *MemoryGroups) Count(ctx context.Context, group string) (n int, err error) {
	if err := checkGroupCall(ctx, group); err != nil {
		return 0, err
	}
	err = m.look(group, func(g *memoryGroup) { n = len(g.members) })
	return n, err
}

// each calls f for every member, in the order of Members, as the membership was at the time of the call. It holds no
// lock meanwhile: f may be slow and may use the store.
//
// It copies nothing. The first Remove after it copies the list instead, once, which is little beside the sends to all
// members that each is for.
func (m *MemoryGroups) each(group string, f func(uid string)) error {
	members, err := m.view(group)
	if err != nil {
		return err
	}
	for _, uid := range members {
		f(uid)
	}
	return nil
}

// view returns the members without copying them. They must not be written.
func (m *MemoryGroups) view(group string) (members []string, err error) {
	err = m.look(group, func(g *memoryGroup) {
		g.shared.Store(true)
		members = g.members
	})
	return members, err
}

// Close removes all groups and stops their timers. All calls after it fail. It may be called more than once.
func (m *MemoryGroups) Close() error {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.closed = true
		for group, g := range s.groups {
			s.dropLocked(group, g)
		}
		s.mu.Unlock()
	}
	return nil
}
