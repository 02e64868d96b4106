package pitaya_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// What tests of transports give up after. Nothing waits as long unless it is broken.
const transportPatience = 20 * time.Second

// transportNet are the servers of one test.
type transportNet struct {
	t     *testing.T
	open  func(t *testing.T, self *pitaya.ServerInfo) pitaya.Transport
	peers []*transportPeer
}

// A transportPeer is a server that consists of a transport. The functions are what it does with what comes in; nil
// answers calls with their bodies and drops notices.
type transportPeer struct {
	pitaya.Transport
	t        *testing.T
	Self     *pitaya.ServerInfo
	OnCall   func(ctx context.Context, body []byte, reply func([]byte))
	OnNotice func(n *pitaya.Notice, reply func([]byte, error))
	silent   atomic.Bool // nothing may come in any more
}

func (p *transportPeer) HandleCall(ctx context.Context, body []byte, reply func([]byte)) {
	if p.silent.Load() {
		p.t.Error("HandleCall after Drain or Close")
	}
	if p.OnCall != nil {
		p.OnCall(ctx, body, reply)
	} else {
		reply(body)
	}
}

func (p *transportPeer) HandleNotice(n *pitaya.Notice, reply func([]byte, error)) {
	if p.silent.Load() {
		p.t.Error("HandleNotice after Drain or Close")
	}
	if p.OnNotice != nil {
		p.OnNotice(n, reply)
	} else if reply != nil {
		reply(nil, nil)
	}
}

// server starts a server. Its functions are set by setup, before anything comes in.
func (n *transportNet) server(serverType string, setup func(*transportPeer)) *transportPeer {
	n.t.Helper()
	p := &transportPeer{t: n.t, Self: &pitaya.ServerInfo{
		ID: fmt.Sprintf("%s-%d-%016x", serverType, len(n.peers), rand.Uint64()), Type: serverType, Frontend: true,
	}}
	if setup != nil {
		setup(p)
	}
	p.Transport = n.open(n.t, p.Self)
	n.t.Cleanup(func() { p.Close(context.Background()) })
	ctx, cancel := context.WithTimeout(n.t.Context(), transportPatience)
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

type transportResult struct {
	Body []byte
	Err  error
}

// start makes a call and returns where its result comes.
func (p *transportPeer) start(ctx context.Context, to *pitaya.ServerInfo, body []byte) <-chan transportResult {
	results := make(chan transportResult, 2)
	p.Call(ctx, to, body, func(response []byte, err error) { results <- transportResult{response, err} })
	return results
}

// call makes a call and waits for its result.
func (p *transportPeer) call(ctx context.Context, to *pitaya.ServerInfo, body []byte) ([]byte, error) {
	p.t.Helper()
	r := await(p.t, p.start(ctx, to, body))
	return r.Body, r.Err
}

// await receives a value, or fails the test.
func await[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	timer := time.NewTimer(transportPatience)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		t.Fatal("nothing happened in time")
		panic("unreachable")
	}
}
