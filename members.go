package pitaya

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What servers of this library tell each other beyond the protocol stands in
// the metadata of their discovery entries, where old peers do not look.
const (
	metadataFeatures = "pitaya-go.features" // names of abilities, with commas between them
	metadataDraining = "pitaya-go.draining" // "true" on a server that is ending: no new work for it
	metadataSince    = "pitaya-go.since"    // when the server joined, in nanoseconds since 1970 by its own clock
)

// feature is an ability that a server announces. Without it, it is treated as
// one of Pitaya.
type feature uint8

const (
	featureMerge  feature = 1 << iota // takes changes of session data, not only all of it
	featureUsers                      // takes one push for many users
	featureClaim                      // answers claims to users before they are bound elsewhere
	featureEvents                     // wants to be told of binds and ends of sessions
	featureDocs                       // tells of its routes and messages
)

// featureName returns the name that a feature is announced by.
func featureName(bit int) string {
	return [...]string{"merge", "users", "claim", "events", "docs"}[bit]
}

const featureCount = 5

func (f feature) String() string {
	var names []string
	for bit := range featureCount {
		if f&(1<<bit) != 0 {
			names = append(names, featureName(bit))
		}
	}
	return strings.Join(names, ",")
}

// featuresOf reads what a server announces. Unknown names are those of a newer
// version.
func featuresOf(s *ServerInfo) (f feature) {
	for name := range strings.SplitSeq(s.Metadata[metadataFeatures], ",") {
		for bit := range featureCount {
			if featureName(bit) == name {
				f |= 1 << bit
			}
		}
	}
	return f
}

// sinceOf reads when a server has joined, if it tells.
func sinceOf(s *ServerInfo) (ns uint64, ok bool) {
	ns, err := strconv.ParseUint(s.Metadata[metadataSince], 10, 64)
	return ns, err == nil
}

// Draining reports whether the server has announced that it is ending. Such a
// server finishes what it has, and is chosen for new work only if there is no
// other of its type.
func (s *ServerInfo) Draining() bool { return s.Metadata[metadataDraining] == "true" }

// member is a server of the cluster as this one knows it. Immutable but for the
// counter.
type member struct {
	Info     *ServerInfo
	Features feature
	Pending  *atomic.Int64 // calls to it that wait for their answers; kept over updates
}

func (m *member) has(f feature) bool { return m.Features&f == f }

// members are the servers of the cluster, this one included.
type members struct {
	mu     sync.RWMutex // guards the fields below; never held across a callback
	byID   map[string]*member
	byType map[string]*memberType
	came   chan struct{}   // closed by the next put; nil if nobody waits
	absent map[string]bool // ids that were waited for in vain: nobody waits for them again
	late   []lateMember    // that have vanished a moment ago, the latest last
}

// lateMember is a server that has vanished without having announced it. Its
// lease may have been lost, and then it lives, and comes back at once.
type lateMember struct {
	*member
	since time.Time
}

// maxAbsent bounds the ids that are remembered as absent. They are others'
// texts, so beyond it all are forgotten.
const maxAbsent = 1 << 10

// absentLocked remembers that a server is not there.
func (ms *members) absentLocked(id string) {
	if ms.absent == nil || len(ms.absent) >= maxAbsent {
		ms.absent = make(map[string]bool)
	}
	ms.absent[id] = true
}

// memberType are the servers of one type. It is replaced as a whole, so who has
// one may look at it without a lock.
type memberType struct {
	All      []*member // sorted by id
	Eligible []*member // those for new work; never empty
}

func newMembers() *members {
	return &members{byID: make(map[string]*member), byType: make(map[string]*memberType)}
}

// put adds or replaces a server.
func (ms *members) put(s *ServerInfo) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m := &member{Info: s, Features: featuresOf(s), Pending: new(atomic.Int64)}
	if old := ms.byID[s.ID]; old != nil {
		m.Pending = old.Pending
		if old.Info.Type != s.Type {
			delete(ms.byID, s.ID)
			ms.groupLocked(old.Info.Type)
		}
	}
	ms.byID[s.ID] = m
	delete(ms.absent, s.ID)
	ms.forgetLateLocked(s.ID)
	ms.groupLocked(s.Type)
	if ms.came != nil {
		close(ms.came)
		ms.came = nil
	}
}

// remove takes a server out.
func (ms *members) remove(id string) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m := ms.byID[id]; m != nil {
		delete(ms.byID, id)
		ms.groupLocked(m.Info.Type)
		ms.forgetLateLocked(id)
		if !m.Info.Draining() {
			ms.late = append(ms.late, lateMember{m, time.Now()})
		}
	}
}

// forgetLateLocked forgets a server that is back, and those whose time is over.
func (ms *members) forgetLateLocked(id string) {
	ms.late = slices.DeleteFunc(ms.late, func(m lateMember) bool {
		return m.Info.ID == id || time.Since(m.since) >= newsDelay
	})
}

// withLate returns the servers of a type, those that have vanished a moment ago
// included.
func (ms *members) withLate(serverType string) (list []*member) {
	ms.mu.RLock()
	defer ms.mu.RUnlock()
	if t := ms.byType[serverType]; t != nil {
		list = slices.Clone(t.All)
	}
	for _, m := range ms.late {
		if m.Info.Type == serverType && time.Since(m.since) < newsDelay {
			list = append(list, m.member)
		}
	}
	return list
}

// getLate is get that also finds a server that has vanished a moment ago.
func (ms *members) getLate(id string) *member {
	ms.mu.RLock()
	defer ms.mu.RUnlock()
	if m := ms.byID[id]; m != nil {
		return m
	}
	for _, m := range ms.late {
		if m.Info.ID == id && time.Since(m.since) < newsDelay {
			return m.member
		}
	}
	return nil
}

// groupLocked makes the list of a type anew.
func (ms *members) groupLocked(serverType string) {
	t := new(memberType)
	for _, m := range ms.byID {
		if m.Info.Type == serverType {
			t.All = append(t.All, m)
		}
	}
	if len(t.All) == 0 {
		delete(ms.byType, serverType)
		return
	}
	slices.SortFunc(t.All, func(a, b *member) int { return cmp.Compare(a.Info.ID, b.Info.ID) })
	for _, m := range t.All {
		if !m.Info.Draining() {
			t.Eligible = append(t.Eligible, m)
		}
	}
	if len(t.Eligible) == 0 {
		t.Eligible = t.All // better than none
	}
	ms.byType[serverType] = t
}

func (ms *members) get(id string) *member {
	ms.mu.RLock()
	defer ms.mu.RUnlock()
	return ms.byID[id]
}

// newsDelay is how long the news of a server may be behind its first messages,
// and how long one that has vanished may take to be back.
const newsDelay = time.Second

// await is get for a server that has been heard of, and so is there: the news
// of it may still be on its way from discovery. It waits for that, not for long,
// and once only: what else a server that is gone has sent must not wait in turn.
func (ms *members) await(ctx context.Context, id string) *member {
	if m := ms.get(id); m != nil {
		return m
	}
	timer := time.NewTimer(newsDelay)
	defer timer.Stop()
	for {
		ms.mu.Lock()
		m := ms.byID[id]
		if ms.absent[id] {
			ms.mu.Unlock()
			return m
		}
		if ms.came == nil {
			ms.came = make(chan struct{})
		}
		came := ms.came
		ms.mu.Unlock()
		if m != nil {
			return m
		}
		select {
		case <-came:
		case <-timer.C:
			ms.mu.Lock()
			defer ms.mu.Unlock()
			if m := ms.byID[id]; m != nil {
				return m
			}
			ms.absentLocked(id)
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// forWork returns the servers of a type for a call to any of them, nil if there
// are none. When the last one has vanished, those that have a moment ago are
// still worth a try: the call would fail otherwise.
func (ms *members) forWork(serverType string) *memberType {
	if t := ms.ofType(serverType); t != nil {
		return t
	}
	if list := ms.withLate(serverType); len(list) > 0 {
		return &memberType{All: list, Eligible: list}
	}
	return nil
}

// ofType returns the servers of a type, nil if there are none.
func (ms *members) ofType(serverType string) *memberType {
	ms.mu.RLock()
	defer ms.mu.RUnlock()
	return ms.byType[serverType]
}

// all returns all servers, in no order.
func (ms *members) all() []*member {
	ms.mu.RLock()
	defer ms.mu.RUnlock()
	return slices.Collect(maps.Values(ms.byID))
}

// listeners returns the servers that want to be told of sessions.
func (ms *members) listeners() (list []*member) {
	ms.mu.RLock()
	defer ms.mu.RUnlock()
	for _, m := range ms.byID {
		if m.has(featureEvents) {
			list = append(list, m)
		}
	}
	return list
}

// pick returns one of the servers for new work at random, other than those to
// skip; nil if there is none. Those to which no connection could be made yet are
// for when there is no other. ready says so, and may be nil.
func (t *memberType) pick(skip []*member, ready func(id string) bool) *member {
	fresh := func(m *member) bool {
		return !slices.ContainsFunc(skip, func(s *member) bool { return s.Info.ID == m.Info.ID })
	}
	var chosen *member
	if len(skip) == 0 {
		chosen = t.Eligible[rand.IntN(len(t.Eligible))]
	} else {
		chosen = anyMember(t.Eligible, fresh)
	}
	if chosen == nil || ready == nil || ready(chosen.Info.ID) {
		return chosen
	}
	if other := anyMember(t.Eligible, func(m *member) bool { return fresh(m) && ready(m.Info.ID) }); other != nil {
		return other
	}
	return chosen
}

// anyMember returns one of those in the list that fit, at random, or nil.
func anyMember(list []*member, fits func(*member) bool) (chosen *member) {
	n := 0
	for _, m := range list {
		if fits(m) {
			if n++; rand.IntN(n) == 0 {
				chosen = m
			}
		}
	}
	return chosen
}

// choice returns the servers for new work, other than those to skip, in a map
// for a routing function to keep.
func (t *memberType) choice(skip []*member) map[string]*ServerInfo {
	servers := make(map[string]*ServerInfo, len(t.Eligible))
	for _, m := range t.Eligible {
		servers[m.Info.ID] = m.Info
	}
	for _, m := range skip {
		delete(servers, m.Info.ID)
	}
	return servers
}
