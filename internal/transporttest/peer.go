// Package transporttest has the servers that tests of transports talk to, those of the library and those of pitayatest.
package transporttest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Patience is what tests of transports give up after. Nothing waits as long unless it is broken.
const Patience = 20 * time.Second

// A Net is the servers of one test.
type Net struct {
	Open func(self *pitaya.ServerInfo) pitaya.Transport // makes the transport of a server

	t     testing.TB
	peers []*Peer
}

// NewNet returns a network without servers, whose transports are made by open.
func NewNet(t testing.TB, open func(self *pitaya.ServerInfo) pitaya.Transport) *Net {
	return &Net{Open: open, t: t}
}

// Server starts a server. Its functions are set by setup, before anything comes in.
func (n *Net) Server(serverType string, setup func(*Peer)) *Peer {
	n.t.Helper()
	p := NewPeer(n.t, nil, &pitaya.ServerInfo{
		ID: fmt.Sprintf("%s-%d-%016x", serverType, len(n.peers), rand.Uint64()), Type: serverType, Frontend: true,
	})
	if setup != nil {
		setup(p)
	}
	p.Transport = n.Open(p.Self)
	n.t.Cleanup(func() { p.Close(context.Background()) })
	ctx, cancel := context.WithTimeout(n.t.Context(), Patience)
	defer cancel()
	if err := p.Listen(ctx, p.Self, p); err != nil {
		n.t.Fatal(err)
	}
	for _, other := range n.peers {
		other.ServerSeen(p.Self)
		p.ServerSeen(other.Self)
	}
	n.peers = append(n.peers, p)
	return p
}

// TypeName returns a server type that no other test uses.
func (n *Net) TypeName(what string) string {
	return fmt.Sprintf("%s%08x", what, rand.Uint32())
}

// A Peer is a server that consists of a transport. The functions are what it does with what comes in; nil answers calls
// with their bodies and drops notices.
type Peer struct {
	pitaya.Transport
	t        testing.TB
	Self     *pitaya.ServerInfo
	OnCall   func(ctx context.Context, body []byte, reply func([]byte))
	OnNotice func(n *pitaya.Notice, reply func([]byte, error))
	Silent   atomic.Bool // nothing may come in any more
}

// NewPeer returns a server on a transport that the caller listens with, and closes.
func NewPeer(t testing.TB, tr pitaya.Transport, self *pitaya.ServerInfo) *Peer {
	return &Peer{Transport: tr, t: t, Self: self}
}

// HandleCall implements [pitaya.TransportHandler].
func (p *Peer) HandleCall(ctx context.Context, body []byte, reply func([]byte)) {
	if p.Silent.Load() {
		p.t.Error("HandleCall after Drain or Close")
	}
	if p.OnCall != nil {
		p.OnCall(ctx, body, reply)
	} else {
		reply(body)
	}
}

// HandleNotice implements [pitaya.TransportHandler].
func (p *Peer) HandleNotice(n *pitaya.Notice, reply func([]byte, error)) {
	if p.Silent.Load() {
		p.t.Error("HandleNotice after Drain or Close")
	}
	if p.OnNotice != nil {
		p.OnNotice(n, reply)
	} else if reply != nil {
		reply(nil, nil)
	}
}

// A Result is what a call has come to.
type Result struct {
	Body []byte
	Err  error
}

// Start makes a call and returns where its result comes.
func (p *Peer) Start(ctx context.Context, to *pitaya.ServerInfo, body []byte) <-chan Result {
	results := make(chan Result, 2)
	p.Call(ctx, to, body, func(response []byte, err error) { results <- Result{response, err} })
	return results
}

// Ask makes a call and waits for its result.
func (p *Peer) Ask(ctx context.Context, to *pitaya.ServerInfo, body []byte) ([]byte, error) {
	p.t.Helper()
	r := Await(p.t, p.Start(ctx, to, body))
	return r.Body, r.Err
}

// Await receives a value, or fails the test.
func Await[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		t.Fatal("nothing happened in time")
		panic("unreachable")
	}
}
