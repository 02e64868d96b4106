package pitaya

import (
	"runtime"
	"sync"
	"time"
)

// runners are goroutines that do what is to be done for sessions, one after the
// other. A handler needs more stack than a goroutine begins with, and growing it
// costs more than the handler; so a goroutine that is done waits for the next
// session, with the stack that it has. Those that are not needed any more end, at
// the latest two seconds after their last work.
//
// They are kept in shards, each for some of the sessions, so that the processors
// do not queue for one lock.
type runners struct {
	shards []runnerShard  // a power of two; immutable
	alive  sync.WaitGroup // the goroutines
}

type runnerShard struct {
	mu     sync.Mutex  // guards the fields below
	idle   *runner     // the last that was at work comes first: its stack is in the cache
	count  int         // of those that are idle
	low    int         // the least that count was since the last look: so many are not needed
	look   *time.Timer // at that; nil while nobody waits
	closed bool        // nobody waits any more
	_      [16]byte    // keeps two shards out of one line of the cache
}

// A runner is one of the goroutines.
type runner struct {
	next *runner   // of those that are idle; guarded by the shard's lock
	wake chan task // has room for one; nil ends the goroutine
}

// A task is what a runner does: it works until there is nothing left to do. It
// must see to it itself that it goes on if its goroutine is ended.
type task interface{ work() }

// idleRunners is how many goroutines of a shard wait for work at most. More are
// at work at the same time only where handlers wait for something, and then a
// stack costs little beside that.
const idleRunners = 4

// newRunners returns runners without a goroutine.
func newRunners() *runners { return &runners{shards: make([]runnerShard, shardCount())} }

// shardCount is the power of two that makes a shard for each processor.
func shardCount() int {
	n := 1
	for n < runtime.GOMAXPROCS(0) {
		n *= 2
	}
	return n
}

// start lets a runner do t. It does not wait for it. Tasks with the same key
// prefer the same runners.
func (r *runners) start(key int64, t task) {
	shard := &r.shards[int(key)&(len(r.shards)-1)]
	shard.mu.Lock()
	w := shard.idle
	if w != nil {
		shard.idle, w.next = w.next, nil
		shard.count--
		shard.low = min(shard.low, shard.count)
	}
	shard.mu.Unlock()
	if w != nil {
		w.wake <- t
		return
	}
	r.alive.Add(1)
	go r.run(shard, t)
}

// run does t, and then what is next.
func (r *runners) run(shard *runnerShard, t task) {
	defer r.alive.Done() // also if t ends the goroutine
	stretch()
	w := &runner{}
	for t != nil {
		t.work()
		if !r.rest(shard, w) {
			return
		}
		t = <-w.wake
	}
}

// rest makes w one that waits. It reports false if w is not needed any more.
func (r *runners) rest(s *runnerShard, w *runner) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.count >= idleRunners {
		return false
	}
	if w.wake == nil {
		w.wake = make(chan task, 1)
	}
	w.next, s.idle = s.idle, w
	s.count++
	if s.look == nil {
		s.low = 0
		r.alive.Add(1)
		s.look = time.AfterFunc(runnerRest, func() { r.lookAfter(s) })
	}
	return true
}

// runnerRest is how long runners wait that nobody needs, and at most twice that.
const runnerRest = time.Second

// lookAfter ends those that have not been needed for some time.
func (r *runners) lookAfter(s *runnerShard) {
	s.mu.Lock()
	// The first in the list were at work since, and stay: their stacks have the size that the handlers need.
	last := &s.idle
	for range s.count - s.low {
		last = &(*last).next
	}
	ends := *last
	*last = nil
	s.count -= s.low
	s.low = s.count
	again := s.count > 0
	if again {
		s.look.Reset(runnerRest)
	} else {
		s.look = nil
	}
	s.mu.Unlock()
	endRunners(ends)
	if !again {
		r.alive.Done()
	}
}

// endRunners ends those of a list.
func endRunners(w *runner) {
	for w != nil {
		next := w.next // w is its goroutine's from the sending on
		w.wake <- nil
		w = next
	}
}

// close ends the runners that wait, and lets the others end when they are done.
// It returns when there is none.
func (r *runners) close() {
	for i := range r.shards {
		shard := &r.shards[i]
		shard.mu.Lock()
		shard.closed = true
		idle := shard.idle
		shard.idle, shard.count, shard.low = nil, 0, 0
		if shard.look != nil && shard.look.Stop() {
			shard.look = nil
			r.alive.Done()
		}
		shard.mu.Unlock()
		endRunners(idle)
	}
	r.alive.Wait()
}

// stretch makes the stack of a new goroutine as large as most handlers need it,
// at once and while there is nothing on it. Left to itself the runtime would
// double it again and again in their midst, and go through all that is on it
// each time; that costs more than a small handler does.
//
//go:noinline
func stretch() {
	var room [stackRoom]byte
	reach(&room, stackRoom-1)
}

// stackRoom leads to a stack of 8 KiB.
const stackRoom = 5 << 10

// reach keeps the compiler from leaving the room out.
//
//go:noinline
func reach(room *[stackRoom]byte, i int) { room[i] = 1 }
