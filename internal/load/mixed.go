package load

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/load/script"
)

// A user plays a script. It is a client of the library: what scripts are for is variety, and not the last request per
// second.
type user struct {
	run   *run
	shard *shard
	env   script.Env
	body  []byte // for reuse
	waits []string

	mu     sync.Mutex
	pushes map[string]int // by route that the script waits for: how many came in this block and were not waited for
	came   chan struct{}  // closed by the next one of them
}

// errAgain is the end of a connection that the script wants: the user connects again.
var errAgain = errors.New("the script disconnects")

// play is a user, from its first connection to its end.
func (r *run) play(life context.Context, id int) {
	u := &user{run: r, shard: r.rec.shards[id%len(r.rec.shards)], pushes: make(map[string]int), came: make(chan struct{}),
		env: script.Env{Conn: id, Rand: rand.New(rand.NewPCG(uint64(id), 0))}}
	u.findWaits()
	for first := true; ; first = false {
		err := u.session(life, first)
		if err == nil || life.Err() != nil || r.stopped(r.now()) {
			return
		}
		if !errors.Is(err, errAgain) {
			if !r.cfg.Reconnect {
				return
			}
			r.pause(life, 100*time.Millisecond+rand.N(400*time.Millisecond))
		}
	}
}

// findWaits lists the routes of pushes that the script waits for; others are only counted.
func (u *user) findWaits() {
	add := func(steps []script.Step) {
		for _, s := range steps {
			if s.Op == script.Wait {
				u.waits = append(u.waits, s.Route)
			}
		}
	}
	add(u.run.cfg.Script.Once)
	for _, b := range u.run.cfg.Script.Blocks {
		add(b.Steps)
	}
}

// connect opens a connection and does the handshake.
func (u *user) connect(life context.Context, first bool) (*pitaya.Client, *countConn, error) {
	r := u.run
	if first {
		defer r.try()
	}
	if !r.take(life) {
		return nil, nil, life.Err()
	}
	defer r.release()
	conn, err := r.dialer.dial(life)
	if err != nil {
		r.failed(u.env.Conn, errConnect, err)
		return nil, nil, err
	}
	counted := &countConn{Conn: conn}
	features := []string{pitaya.FeaturePushCodes, pitaya.FeatureDrain}
	if r.cfg.Inflate {
		features = append(features, pitaya.FeatureInflate)
	}
	hello := &pitaya.HandshakeData{Sys: pitaya.HandshakeSys{Platform: clientName, LibVersion: clientName, Features: features}}
	if r.cfg.Handshake != nil {
		if hello, err = pitaya.DecodeHandshake(r.cfg.Handshake); err != nil {
			conn.Close()
			r.failed(u.env.Conn, errHandshake, err)
			return nil, nil, err
		}
	}
	client, err := pitaya.NewClient(life, counted, &pitaya.ClientConfig{
		Handshake: hello, HandshakeTimeout: r.cfg.Timeout, WriteTimeout: r.cfg.Timeout, OnAnyPush: u.pushed,
	})
	if err != nil {
		r.failed(u.env.Conn, errHandshake, err)
		return nil, nil, err
	}
	return client, counted, nil
}

// session is one connection. Its error says that there is reason for another one.
func (u *user) session(life context.Context, first bool) (err error) {
	r := u.run
	client, conn, err := u.connect(life, first)
	if err != nil {
		return err
	}
	u.count(func(s *shard) { s.counts.Connections++ })
	r.open.Add(1)
	defer func() {
		if err == nil && r.hold.Load() {
			select {
			case <-r.quit:
			case <-life.Done():
			}
		}
		client.Close()
		r.open.Add(-1)
		u.count(func(s *shard) {
			s.counts.BytesSent += conn.out.Load()
			s.counts.BytesReceived += conn.in.Load()
		})
	}()
	select {
	case <-r.gate:
	case <-life.Done():
		return nil
	}
	if err = u.steps(life, client, r.cfg.Script.Once, r.now()); err == nil {
		for {
			at, ok := r.next(life)
			if !ok {
				return nil
			}
			if err = u.steps(life, client, r.cfg.Script.Choose(u.env.Rand).Steps, at); err != nil {
				break
			}
		}
	}
	switch {
	case errors.Is(err, errAgain):
	case r.forced.Load() || errors.Is(err, context.Canceled):
		return nil
	default:
		kind, code := userEnd(client, err)
		u.count(func(s *shard) { s.fail(kind, code, 1) })
	}
	return err
}

// userEnd says what the end of a client is reported as.
func userEnd(client *pitaya.Client, err error) (kind, code string) {
	switch {
	case errors.Is(err, errSetupFailed):
		return errSetup, ""
	case errors.Is(err, pitaya.ErrKicked):
		if code = client.KickReason(); code == "" {
			code = "no reason given"
		}
		return errKicked, code
	case errors.Is(err, pitaya.ErrServerClosed):
		return errDrained, ""
	case errors.Is(err, pitaya.ErrHeartbeat):
		return errSilent, ""
	}
	return endKind(err)
}

func (u *user) count(f func(*shard)) {
	u.shard.mu.Lock()
	defer u.shard.mu.Unlock()
	f(u.shard)
}

// steps makes the steps of a block, the first call of which was to be made at a time. The error ends the connection; it
// is errAgain if the script wants that.
func (u *user) steps(life context.Context, client *pitaya.Client, steps []script.Step, at int64) error {
	u.mu.Lock()
	clear(u.pushes)
	u.mu.Unlock()
	for i := range steps {
		s := &steps[i]
		switch s.Op {
		case script.Request, script.Bind, script.Notify:
			if err := u.call(life, client, s, at); err != nil {
				return err
			}
		case script.Wait:
			if err := u.wait(client, s); err != nil {
				return err
			}
		case script.Sleep, script.Think:
			if err := u.sleep(client, s.Pause(u.env.Rand)); err != nil {
				return err
			}
		case script.Disconnect:
			return errAgain
		}
		u.env.N++
		at = u.run.now()
	}
	return nil
}

// call makes a request or sends a notify.
func (u *user) call(life context.Context, client *pitaya.Client, s *script.Step, at int64) error {
	u.body = s.Body.Append(u.body[:0], &u.env)
	if s.Op == script.Notify {
		err := client.NotifyRaw(life, s.Route, u.body)
		if err == nil {
			u.count(func(sh *shard) { sh.counts.Notifies++ })
		}
		u.result(s, at, err != nil)
		return err
	}
	ctx, cancel := context.WithTimeout(life, u.run.cfg.Timeout)
	defer cancel()
	u.count(func(sh *shard) { sh.counts.Requests++ })
	_, err := client.RequestRaw(ctx, s.Route, u.body)
	u.result(s, at, err != nil)
	refusal, refused := errors.AsType[*pitaya.Error](err)
	switch {
	case err == nil:
		u.count(func(sh *shard) { sh.counts.Answered++ })
		return nil
	case refused:
		u.count(func(sh *shard) {
			sh.counts.Failed++
			sh.fail(errAnswer, refusal.Code, 1)
		})
	case errors.Is(err, context.DeadlineExceeded) && client.Err() == nil:
		u.count(func(sh *shard) { sh.fail(errTimeout, "", 1) })
	default:
		if !u.run.forced.Load() {
			u.count(func(sh *shard) { sh.fail(errLost, "", 1) })
		}
		return err
	}
	if s.Op == script.Bind {
		return errSetupFailed
	}
	return nil
}

func (u *user) result(s *script.Step, at int64, failed bool) {
	now := u.run.now()
	if !u.run.rec.measured(at) {
		return
	}
	u.count(func(sh *shard) {
		step := &sh.steps[s.Call]
		if failed {
			sh.failed++
			step.failed++
			return
		}
		d := u.run.since(now, at)
		sh.lat.Add(d)
		step.lat.Add(d)
		step.count++
	})
}

// pushed is called for each push.
func (u *user) pushed(route string, _ []byte) {
	u.count(func(s *shard) { s.counts.Pushes++ })
	if !slices.Contains(u.waits, route) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pushes[route]++
	close(u.came)
	u.came = make(chan struct{})
}

// wait waits for a push that came in this block and was not waited for yet.
func (u *user) wait(client *pitaya.Client, s *script.Step) error {
	d := s.Max
	if d == 0 {
		d = u.run.cfg.Timeout
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		u.mu.Lock()
		if u.pushes[s.Route] > 0 {
			u.pushes[s.Route]--
			u.mu.Unlock()
			return nil
		}
		came := u.came
		u.mu.Unlock()
		select {
		case <-came:
		case <-timer.C:
			u.count(func(sh *shard) { sh.fail(errWait, s.Route, 1) })
			return nil
		case <-client.Done():
			return client.Err()
		case <-u.run.quit:
			return nil
		}
	}
}

// sleep waits for a time, or for the end of the run.
func (u *user) sleep(client *pitaya.Client, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-u.run.quit:
	case <-client.Done():
		return client.Err()
	}
	return nil
}

// A countConn counts the bytes of a connection.
type countConn struct {
	net.Conn
	in, out atomic.Int64
}

func (c *countConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.Add(int64(n))
	return n, err
}

func (c *countConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.out.Add(int64(n))
	return n, err
}
