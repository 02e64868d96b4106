package main

import (
	"net"
	"sync"
	"time"
)

// interval is what the answer to the handshake tells.
const interval = 30 * time.Second

// beats writes a heartbeat to each connection once in an interval: four bytes, from one goroutine, each by one write.
type beats struct {
	mu   sync.Mutex // guards next
	next []beat     // in the order in which they are due
	wake chan bool  // the first has been added
}

type beat struct {
	c   net.Conn
	due time.Time
}

func newBeats() *beats { return &beats{wake: make(chan bool, 1)} }

func (b *beats) add(c net.Conn, due time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next = append(b.next, beat{c, due})
	if len(b.next) == 1 {
		b.wake <- true
	}
}

// run writes to all that are added. One that has failed is not written to again.
func (b *beats) run() {
	for range b.wake {
		for {
			b.mu.Lock()
			if len(b.next) == 0 {
				b.mu.Unlock()
				break
			}
			first := b.next[0]
			b.mu.Unlock()
			time.Sleep(time.Until(first.due))
			_, err := first.c.Write([]byte{packetHeartbeat, 0, 0, 0})
			b.mu.Lock()
			b.next = b.next[1:]
			if err == nil {
				b.next = append(b.next, beat{first.c, first.due.Add(interval)})
			}
			b.mu.Unlock()
		}
	}
}
