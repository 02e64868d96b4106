package pitaya

import (
	"sync"
	"sync/atomic"
)

// flushers write for connections that were pushed to. A push must not wait for a
// socket, and a goroutine for each connection would cost more than the write; so
// a connection whose socket can be written to without waiting is put on a list,
// and one goroutine goes through that. What a socket does not take at once is
// left to a goroutine of the connection's own, so nobody on the list waits for a
// slow client.
//
// Whoever pushes is done by the time the goroutine runs, as long as all
// processors are busy: then what was pushed to a connection meanwhile leaves in
// one system call.
type flushers struct {
	runners *runners
	shards  []flushShard // a power of two; immutable
	next    atomic.Int64 // connections that got a shard
}

// A flushShard is the list of some of the connections.
type flushShard struct {
	all *flushers
	key int64 // for runners

	mu      sync.Mutex // guards the fields below; never held while writing
	calls   []*conn    // that are to be written
	spare   []*conn    // room for the next list, empty
	running bool       // a runner is at work, or on its way
	_       [32]byte   // keeps two shards out of one line of the cache
}

func newFlushers(r *runners) *flushers {
	f := &flushers{runners: r, shards: make([]flushShard, shardCount())}
	for i := range f.shards {
		f.shards[i].all, f.shards[i].key = f, int64(i)
	}
	return f
}

// shard returns the shard for a new connection.
func (f *flushers) shard() *flushShard {
	return &f.shards[int(f.next.Add(1))&(len(f.shards)-1)]
}

// call lets a runner write what is queued for c. The right to do so was called
// for (connQueue.callLocked).
func (s *flushShard) call(c *conn) {
	s.mu.Lock()
	s.calls = append(s.calls, c)
	start := !s.running
	s.running = true
	s.mu.Unlock()
	if start {
		s.all.runners.start(s.key, s)
	}
}

// work implements task.
func (s *flushShard) work() {
	var list []*conn
	done := false
	defer func() {
		if !done { // a Reporter ended the goroutine
			s.mu.Lock()
			s.calls = append(list, s.calls...)
			s.mu.Unlock()
			s.all.runners.start(s.key, s)
		}
	}()
	for {
		s.mu.Lock()
		if len(s.calls) == 0 {
			s.running, done = false, true
			s.mu.Unlock()
			return
		}
		list, s.calls = s.calls, s.spare
		s.spare = nil
		s.mu.Unlock()
		whole := list
		for len(list) > 0 {
			c := list[0]
			list[0], list = nil, list[1:]
			c.answerCall(false)
		}
		s.mu.Lock()
		if cap(whole) <= maxFlushList && cap(whole) > cap(s.spare) {
			s.spare = whole[:0]
		}
		s.mu.Unlock()
	}
}

// maxFlushList is the length from which a list is left to the garbage collector.
const maxFlushList = 1 << 14
