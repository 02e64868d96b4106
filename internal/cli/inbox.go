package cli

import (
	"context"
	"sync"
	"time"
)

// Bounds of what is kept for wait.
const (
	maxInbox      = 1024
	maxInboxBytes = 16 << 20
	// endGrace is how long a push may take through the client once the connection has ended.
	endGrace = 200 * time.Millisecond
)

// An arrival is a push that came.
type arrival struct {
	Route string
	Value value
}

// An inbox keeps pushes until somebody waits for them, so that a script that waits for one that has come already gets it.
// The oldest go when there are too many.
type inbox struct {
	mu    sync.Mutex
	list  []arrival
	bytes int
	news  chan struct{} // closed when something is added; nil while nobody waits
}

func (b *inbox) add(a arrival) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, a)
	b.bytes += len(a.Value.Raw) + len(a.Value.JSON)
	for len(b.list) > maxInbox || b.bytes > maxInboxBytes && len(b.list) > 1 {
		b.removeLocked(0)
	}
	if b.news != nil {
		close(b.news)
		b.news = nil
	}
}

func (b *inbox) removeLocked(i int) {
	b.bytes -= len(b.list[i].Value.Raw) + len(b.list[i].Value.JSON)
	copy(b.list[i:], b.list[i+1:])
	b.list[len(b.list)-1] = arrival{}
	b.list = b.list[:len(b.list)-1]
}

// take waits for a push with a route and takes it out. ended tells that no more will come; then err is nil and ok false.
func (b *inbox) take(ctx context.Context, route string, ended <-chan struct{}) (a arrival, ok bool, err error) {
	var last <-chan time.Time
	for {
		b.mu.Lock()
		for i, a := range b.list {
			if a.Route == route {
				b.removeLocked(i)
				b.mu.Unlock()
				return a, true, nil
			}
		}
		if b.news == nil {
			b.news = make(chan struct{})
		}
		news := b.news
		b.mu.Unlock()
		select {
		case <-news:
		case <-ended:
			// What came before the end may still be on its way through the client to here.
			ended, last = nil, time.After(endGrace)
		case <-last:
			return arrival{}, false, nil
		case <-ctx.Done():
			return arrival{}, false, ctx.Err()
		}
	}
}
