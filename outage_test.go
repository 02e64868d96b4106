package pitaya_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/devtest"
)

// Outages of what a cluster depends on, and of its servers, while clients are at work. With -outage.long they last as
// long as docs/operations.md says, with the default settings, and -v shows the figures that stand there.
//
//	go test -run TestOutages -outage.long -v -timeout 30m .

var (
	outageLong  = flag.Bool("outage.long", false, "let outages last as long as docs/operations.md says, with default settings")
	outageChild = flag.String("outage.child", "", "be a server of TestOutages with these settings, not a test")
)

// outageNode are the settings of one server, for another process to start it.
type outageNode struct {
	Type, ID   string
	Etcd, NATS string
	GRPC       int // port; 0 is NATS
	Times      outageTimes
}

// outageTimes are how long servers wait for what does not come.
type outageTimes int

const (
	outageDefault outageTimes = iota // the defaults of the settings
	outageShort                      // less, where that is what is tested
	outagePatient                    // more, where nothing may be given up because the machine is busy
)

type OutageRoom struct{ srv *pitaya.Server }

func (r *OutageRoom) Echo(ctx context.Context, in []byte) ([]byte, error) { return in, nil }

func (r *OutageRoom) Bind(ctx context.Context, uid []byte) ([]byte, error) {
	return uid, pitaya.SessionFromContext(ctx).Bind(ctx, string(uid))
}

// Tell pushes to the user named, wherever that user is.
func (r *OutageRoom) Tell(ctx context.Context, uid []byte) ([]byte, error) {
	err := r.srv.Push(ctx, "gate", []string{string(uid)}, "onTell", uid)
	switch {
	case errors.Is(err, pitaya.ErrUnreachable):
		err = pitaya.NewError(err, pitaya.CodeInternal)
	case errors.Is(err, pitaya.ErrUserNotFound):
		err = pitaya.NewError(err, pitaya.CodeNotFound)
	}
	return uid, err
}

// outageRun is a server at work.
type outageRun struct {
	*pitaya.Server
	url string // of a frontend
	end context.CancelFunc
	ran chan error
}

// start starts the server and waits until it is ready.
func (n outageNode) start(ctx context.Context, log *slog.Logger) (*outageRun, error) {
	cfg := pitaya.Config{
		Type: n.Type, ID: n.ID, Cluster: true, Frontend: n.Type == "gate", Logger: log,
		Etcd:        pitaya.EtcdConfig{Endpoints: []string{n.Etcd}},
		NATSClient:  pitaya.NATSConfig{URL: n.NATS},
		NATSServer:  pitaya.NATSConfig{URL: n.NATS},
		CloseWindow: 100 * time.Millisecond,
	}
	switch n.Times {
	case outageShort:
		cfg.Etcd.HeartbeatTTL = 3 * time.Second
		cfg.NATSClient.RequestTimeout = requestTime(false)
		cfg.GRPC.RequestTimeout = requestTime(false)
	case outagePatient:
		cfg.NATSClient.RequestTimeout = time.Minute
		cfg.GRPC.RequestTimeout = time.Minute
		cfg.ShutdownTimeout = time.Minute
	}
	if n.GRPC > 0 {
		cfg.GRPC.Port = n.GRPC
		cfg.Metadata = map[string]string{"grpcHost": "127.0.0.1"}
		t, err := pitaya.NewGRPCTransport(cfg.GRPC, "", log)
		if err != nil {
			return nil, err
		}
		cfg.Transport = t
		bindings := pitaya.BindingEtcdConfig{Endpoints: []string{n.Etcd}}
		if cfg.Bindings, err = pitaya.NewEtcdBindings(bindings, n.Type, n.ID, log); err != nil {
			return nil, err
		}
	}
	run := &outageRun{ran: make(chan error, 1)}
	if cfg.Frontend {
		l, err := pitaya.ListenTCP("127.0.0.1:0", nil)
		if err != nil {
			return nil, err
		}
		cfg.Listeners = []net.Listener{l}
		run.url = "tcp://" + l.Addr().String()
	}
	srv, err := pitaya.NewServer(cfg)
	if err != nil {
		return nil, err
	}
	run.Server = srv
	if err := errors.Join(srv.Register(&OutageRoom{srv}), srv.RegisterRemote(RoomRemote{})); err != nil {
		return nil, err
	}
	ctx, run.end = context.WithCancel(ctx)
	go func() { run.ran <- srv.Run(ctx) }()
	select {
	case <-srv.Ready():
		return run, nil
	case err := <-run.ran:
		run.end()
		return nil, err
	}
}

// runOutageChild is the main function of a server in a process of its own. It ends with its standard input.
func runOutageChild(settings string) error {
	var n outageNode
	if err := json.Unmarshal([]byte(settings), &n); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	run, err := n.start(context.Background(), log)
	if err != nil {
		return err
	}
	fmt.Println(cmp.Or(run.url, "ready"))
	io.Copy(io.Discard, os.Stdin)
	run.end()
	return <-run.ran
}

// An outagePhase is what happened between two marks. The kinds of calls are "local", a request to the frontend's own
// handler, "forwarded", "push", which makes a backend push to the client's own user, "bind", and "rpc" between servers.
type outagePhase struct {
	sent     int
	answered map[string]int
	failed   map[string]int       // by kind and code
	slowest  time.Duration        // of the calls that failed
	wrong    []string             // errors without a type
	first    map[string]time.Time // success, by kind and caller
	ended    int                  // connections that ended
}

func newOutagePhase() *outagePhase {
	return &outagePhase{answered: make(map[string]int), failed: make(map[string]int), first: make(map[string]time.Time)}
}

func (p *outagePhase) failures() (n int) {
	for _, k := range p.failed {
		n += k
	}
	return n
}

// outageLoad are clients at work.
type outageLoad struct {
	t       *testing.T
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup
	callers int
	pause   sync.RWMutex // held for reading by each call

	mu      sync.Mutex // guards the fields below
	phase   *outagePhase
	doors   []outageDoor  // of the frontends
	changed chan struct{} // closed at the next change
	planned bool          // connections may end: frontends are killed or replaced
}

// An outageDoor connects a client to a certain frontend.
type outageDoor func(context.Context, *pitaya.ClientConfig) (*pitaya.Client, error)

func doorTo(url string) outageDoor {
	return func(ctx context.Context, cfg *pitaya.ClientConfig) (*pitaya.Client, error) {
		return pitaya.Dial(ctx, url, cfg)
	}
}

// open says which frontends clients connect to from now on, and returns which they were.
func (l *outageLoad) open(doors ...outageDoor) []outageDoor {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.doors
	l.doors = doors
	return old
}

// mark begins a phase and returns the one before.
func (l *outageLoad) mark() *outagePhase {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.phase
	l.phase = newOutagePhase()
	return old
}

// until waits until what happened since the mark is enough.
func (l *outageLoad) until(what string, enough func(*outagePhase) bool) {
	l.t.Helper()
	late := time.After(2 * time.Minute)
	for {
		l.mu.Lock()
		ok, changed := enough(l.phase), l.changed
		phase := *l.phase
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-late:
			l.t.Fatalf("%s: not within 2 min; since the mark: %+v", what, phase)
		}
	}
}

// recovered waits until each caller has had success with all that it does, and returns when the last one had.
func (l *outageLoad) recovered(since time.Time) time.Duration {
	l.t.Helper()
	var last time.Time
	l.until("recover", func(p *outagePhase) bool {
		if len(p.first) < l.callers {
			return false
		}
		last = slices.MaxFunc(slices.Collect(maps.Values(p.first)), time.Time.Compare)
		return true
	})
	return max(last.Sub(since), 0)
}

// record notes how a call ended.
func (l *outageLoad) record(kind, caller string, start time.Time, err error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.phase
	p.sent++
	if err == nil {
		p.answered[kind]++
		if _, ok := p.first[kind+caller]; !ok {
			p.first[kind+caller] = now
		}
	} else {
		p.slowest = max(p.slowest, now.Sub(start))
		e, typed := errors.AsType[*pitaya.Error](err)
		switch {
		case kind == "rpc" && errors.Is(err, pitaya.ErrUnreachable):
			p.failed[kind+" unreachable"]++
		case typed && e.Code != pitaya.CodeUnknown:
			p.failed[kind+" "+e.Code]++
		case l.planned && !typed:
			p.failed[kind+" connection lost"]++
		case len(p.wrong) < 10: // enough to see what it is
			p.wrong = append(p.wrong, fmt.Sprintf("%s: %v", kind, err))
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// outageClient is a player: connected to some frontend, bound, and connected again when that ends.
type outageClient struct {
	l   *outageLoad
	uid string
	old bool // announces nothing, as clients of Pitaya

	free  chan struct{} // has room for one: who sends may use the fields below; taken while connecting, in bubbles too
	c     *pitaya.Client
	tries int
	told  atomic.Int64
}

// connected returns the connection, which is bound to the user.
func (o *outageClient) connected() (*pitaya.Client, error) {
	o.free <- struct{}{}
	defer func() { <-o.free }()
	if o.c != nil {
		return o.c, nil
	}
	o.l.mu.Lock()
	door := o.l.doors[o.tries%len(o.l.doors)]
	o.l.mu.Unlock()
	o.tries++
	ctx, cancel := context.WithTimeout(o.l.ctx, 10*time.Second)
	defer cancel()
	cfg := &pitaya.ClientConfig{
		OnPush: map[string]func([]byte){"onTell": func([]byte) {
			o.told.Add(1)
			o.l.record("push", o.uid, time.Now(), nil)
		}},
	}
	if o.old {
		cfg.Handshake = oldClient.Handshake
	}
	c, err := door(ctx, cfg)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if _, err := c.RequestRaw(ctx, "gate.OutageRoom.Bind", []byte(o.uid)); err != nil {
		if o.l.ctx.Err() == nil && !errors.Is(err, pitaya.ErrServerClosed) {
			o.l.record("bind", "", start, err)
		}
		c.Close()
		return nil, err
	}
	o.c = c
	return c, nil
}

// gone forgets a connection that is of no more use. Requests on it may still be answered.
func (o *outageClient) gone(c *pitaya.Client) {
	o.free <- struct{}{}
	defer func() { <-o.free }()
	if o.c != c {
		return
	}
	o.c = nil
	o.l.mu.Lock()
	o.l.phase.ended++
	o.l.mu.Unlock()
	o.l.wg.Go(func() {
		<-c.Done()
		c.Close()
	})
}

// work makes calls of one kind, one after the other.
func (o *outageClient) work(kind, route string, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-o.l.ctx.Done():
			return
		}
		o.l.pause.RLock()
		o.once(kind, route)
		o.l.pause.RUnlock()
	}
}

func (o *outageClient) once(kind, route string) {
	c, err := o.connected()
	if err != nil {
		return // nothing was asked for
	}
	start := time.Now()
	_, err = c.RequestRaw(o.l.ctx, route, []byte(o.uid))
	switch {
	case o.l.ctx.Err() != nil:
	case errors.Is(err, pitaya.ErrServerClosed): // nothing was sent
		o.gone(c)
	case err == nil && kind == "push": // counted when it arrives
	default:
		o.l.record(kind, o.uid, start, err)
		if c.Err() != nil {
			o.gone(c)
		}
	}
}

// outageCluster is a cluster with clients.
type outageCluster struct {
	t          *testing.T
	node       outageNode // what servers have in common
	etcd, nats *devtest.Server
	admin      *clientv3.Client
	grpc       bool
	monitor    string // address of NATS' numbers
	runs       []*outageRun
	clients    []*outageClient
	guests     []*outageGuest // who have come during an outage
	load       *outageLoad
}

// newOutageCluster starts two frontends and two backends, to which clients can connect.
func newOutageCluster(t *testing.T, grpc bool, times outageTimes) *outageCluster {
	t.Helper()
	c := &outageCluster{t: t, monitor: freeAddress(t)}
	conf := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(conf, []byte("http: "+strconv.Quote(c.monitor)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.etcd = startEtcd(t)
	c.nats = startNATS(t, "-nats-config", conf)
	c.node = outageNode{Etcd: c.etcd.URL(), NATS: c.nats.URL(), Times: times}
	c.grpc = grpc
	c.newAdmin()
	t.Cleanup(func() { c.admin.Close() })
	for _, id := range []string{"r1", "r2", "g1", "g2"} {
		c.start(id)
	}
	c.load = newOutageLoad(t)
	c.know(c.runs...)
	c.doors()
	return c
}

// newAdmin connects to etcd, anew after an outage: the client's pauses between attempts grow to minutes.
func (c *outageCluster) newAdmin() {
	c.t.Helper()
	if c.admin != nil {
		c.admin.Close()
	}
	var err error
	if c.admin, err = clientv3.New(clientv3.Config{Endpoints: []string{c.etcd.URL()}}); err != nil {
		c.t.Fatal(err)
	}
}

// nodeOf returns the settings of a server; those whose id begins with g are frontends.
func (c *outageCluster) nodeOf(id string) outageNode {
	n := c.node
	n.Type, n.ID = "room", id
	if id[0] == 'g' {
		n.Type = "gate"
	}
	if c.grpc {
		_, port, err := net.SplitHostPort(freeAddress(c.t))
		if err == nil {
			n.GRPC, err = strconv.Atoi(port)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	return n
}

// start starts a server in this process.
func (c *outageCluster) start(id string) *outageRun {
	c.t.Helper()
	run, err := c.nodeOf(id).start(context.Background(), testLogger(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	c.runs = append(c.runs, run)
	c.t.Cleanup(func() { c.end(run) })
	return run
}

// end ends a server, if that has not been done.
func (c *outageCluster) end(run *outageRun) {
	c.t.Helper()
	run.end()
	if err, ok := <-run.ran; ok {
		close(run.ran)
		if err != nil {
			c.t.Error(err)
		}
	}
	c.runs = slices.DeleteFunc(c.runs, func(r *outageRun) bool { return r == run })
}

// An outageProcess is a server in a process of its own.
type outageProcess struct {
	cmd   *exec.Cmd
	stdin io.Closer
	url   string
}

// spawn starts a server in a process of its own.
func (c *outageCluster) spawn(id string) *outageProcess {
	c.t.Helper()
	settings, err := json.Marshal(c.nodeOf(id))
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-outage.child="+string(settings))
	cmd.Stderr = c.t.Output()
	cmd.WaitDelay = 10 * time.Second
	devtest.OwnGroup(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	p := &outageProcess{cmd: cmd, stdin: stdin}
	c.t.Cleanup(p.kill)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		c.t.Fatalf("server %s: %v", id, err)
	}
	p.url = strings.TrimSpace(line)
	return p
}

// kill ends the process as a crash does, if it has not ended.
func (p *outageProcess) kill() {
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.stdin.Close()
	p.cmd = nil
}

// doors opens the frontends that are there.
func (c *outageCluster) doors() {
	var doors []outageDoor
	for _, r := range c.runs {
		if r.url != "" {
			doors = append(doors, doorTo(r.url))
		}
	}
	c.load.open(doors...)
}

// newOutageLoad returns a load without clients.
func newOutageLoad(t *testing.T) *outageLoad {
	l := &outageLoad{t: t, phase: newOutagePhase(), changed: make(chan struct{})}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// connect connects clients until the end of the test. Old ones do not announce what they can do.
func (l *outageLoad) connect(n int, old bool) (list []*outageClient) {
	l.t.Helper()
	for i := range n {
		o := &outageClient{l: l, uid: fmt.Sprint("user-", i), old: old, tries: i, free: make(chan struct{}, 1)}
		list = append(list, o)
		if _, err := o.connected(); err != nil {
			l.t.Fatal(err)
		}
	}
	l.t.Cleanup(func() {
		l.stop()
		for _, o := range list {
			o.free <- struct{}{}
			if o.c != nil {
				o.c.Close()
			}
			<-o.free
		}
		l.wg.Wait()
	})
	return list
}

// clients lets clients work until the end of the test, and returns when all have had success.
func (l *outageLoad) clients(n int, interval time.Duration) []*outageClient {
	l.t.Helper()
	list := l.connect(n, false)
	for _, o := range list {
		l.wg.Go(func() { o.work("local", "gate.OutageRoom.Echo", interval) })
		l.wg.Go(func() { o.work("forwarded", "room.OutageRoom.Echo", interval) })
		l.wg.Go(func() { o.work("push", "room.OutageRoom.Tell", 5*interval) })
		l.callers += 3
	}
	l.recovered(time.Now())
	return list
}

// startRPC adds a loop of calls from one server to the others.
func (c *outageCluster) startRPC(from *outageRun, interval time.Duration) {
	l := c.load
	l.wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-l.ctx.Done():
				return
			}
			l.pause.RLock()
			start := time.Now()
			err := from.RPC(l.ctx, "room.RoomRemote.Upper", new(wrapperspb.StringValue), wrapperspb.String("x"))
			if l.ctx.Err() == nil {
				l.record("rpc", from.Info().ID, start, err)
			}
			l.pause.RUnlock()
		}
	})
	l.callers++
	l.recovered(time.Now())
}

// poll waits for something that tells nobody when it changes.
func (c *outageCluster) poll(what string, limit time.Duration, ok func() bool) {
	c.t.Helper()
	late := time.After(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			c.t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// know waits until all servers of this process know these ones.
func (c *outageCluster) know(those ...*outageRun) {
	c.t.Helper()
	c.poll("servers know each other", 30*time.Second, func() bool {
		for _, r := range c.runs {
			for _, o := range those {
				if r.ServerByID(o.Info().ID) == nil {
					return false
				}
			}
		}
		return true
	})
}

// healthy waits until all servers of this process say that they are, or that they are not.
func (c *outageCluster) healthy(want bool) {
	c.t.Helper()
	c.poll(fmt.Sprint("healthy: ", want), time.Minute, func() bool {
		return !slices.ContainsFunc(c.runs, func(r *outageRun) bool { return (r.Healthy() == nil) != want })
	})
}

// outageUse is what must be the same before and after an outage.
type outageUse struct {
	goroutines, subscriptions, entries, bindings int
	sessions                                     int64
}

// use measures while no call is under way.
func (c *outageCluster) use() (u outageUse) {
	c.t.Helper()
	u.goroutines = runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	for prefix, n := range map[string]*int{"pitaya/servers/": &u.entries, "pitaya/bindings/": &u.bindings} {
		keys, err := c.admin.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			c.t.Fatal(err)
		}
		*n = int(keys.Count)
	}
	for _, r := range c.runs {
		u.sessions += r.Stats().Sessions
	}
	resp, err := http.Get("http://" + c.monitor + "/subsz")
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	var subs struct {
		N int `json:"num_subscriptions"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&subs); err != nil {
		c.t.Fatal(err)
	}
	u.subscriptions = subs.N
	return u
}

// rest waits until nothing changes any more, and returns what is used then.
func (c *outageCluster) rest() outageUse {
	c.t.Helper()
	c.load.pause.Lock()
	defer c.load.pause.Unlock()
	last, same := outageUse{}, 0
	c.poll("rest", 30*time.Second, func() bool {
		u := c.use()
		if u == last {
			same++
		} else {
			last, same = u, 0
		}
		return same == 10
	})
	return last
}

// back waits until what is used is what was used before.
func (c *outageCluster) back(before outageUse) {
	c.t.Helper()
	c.load.pause.Lock()
	defer c.load.pause.Unlock()
	late := time.After(20 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		u := c.use()
		if u.goroutines <= before.goroutines && u.subscriptions == before.subscriptions && u.entries == before.entries &&
			u.bindings == before.bindings && u.sessions == before.sessions {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			c.t.Errorf("after the outage there are %+v, before it there were %+v", u, before)
			return
		}
	}
}

// last lets an outage last: d in a long run, and else until enough has happened. Users log in meanwhile.
func (c *outageCluster) last(d time.Duration, what string, enough func(*outagePhase) bool) {
	c.t.Helper()
	c.login(6)
	if *outageLong {
		<-time.After(d)
	}
	c.load.until(what, enough)
}

// An outage is one scenario.
type outage struct {
	name string
	grpc bool // also makes sense with gRPC
	// breaks lets the outage begin, last, and end, and returns when it ended. What it started in place of what is
	// broken for good, it has ended again.
	breaks func(c *outageCluster) time.Time
	// fails are the failures that may happen, as "kind code", and those that may over gRPC beside them; all others may not.
	fails, failsGRPC []string
	// fast is how long a call may take that fails, beside what a busy machine needs.
	fast, fastGRPC func(long bool) time.Duration // the latter over gRPC, nil if it is the same
	planned        bool                          // connections may end
}

func atOnce(bool) time.Duration { return 0 }

// busyTime is what a busy machine needs beside that. It is less than the request timeout, which would tell nothing.
func busyTime(long bool) time.Duration {
	if long {
		return time.Second
	}
	return 2 * time.Second
}

// requestTime is the request timeout.
func requestTime(long bool) time.Duration {
	if long {
		return 5 * time.Second
	}
	return 3 * time.Second
}

func answered(kind string, n int) func(*outagePhase) bool {
	return func(p *outagePhase) bool { return p.answered[kind] >= n }
}

func outages() []outage {
	cluster := []string{"forwarded " + pitaya.CodeInternal, "push " + pitaya.CodeInternal, "rpc unreachable",
		"forwarded " + pitaya.CodeTimeout, "push " + pitaya.CodeTimeout, "rpc " + pitaya.CodeTimeout}
	// Over gRPC etcd knows where users are: pushes need it.
	bindings := []string{"push " + pitaya.CodeInternal, "push " + pitaya.CodeTimeout}
	lost := []string{"local connection lost", "forwarded connection lost", "push connection lost"}
	return []outage{
		{name: "NATS stopped", fails: cluster, fast: atOnce, breaks: func(c *outageCluster) time.Time {
			c.nats.Stop()
			c.last(20*time.Second, "calls fail", func(p *outagePhase) bool {
				return p.failures() >= 50 && p.failed["rpc unreachable"] > 0 && p.answered["local"] >= 50
			})
			c.nats.Start()
			return time.Now()
		}},
		{name: "etcd stopped", grpc: true, fast: atOnce, failsGRPC: bindings, fastGRPC: requestTime, breaks: func(c *outageCluster) time.Time {
			c.etcd.Stop()
			c.healthy(false)
			c.last(30*time.Second, "calls go on", answered("forwarded", 100))
			c.etcd.Start()
			began := time.Now()
			c.newAdmin()
			c.healthy(true)
			// It is back for others when they see who joins.
			run := c.start("r9")
			c.know(run)
			c.know(c.runs...)
			c.t.Logf("healthy, and a new server is known, after %v", time.Since(began).Round(time.Millisecond))
			c.end(run)
			return began
		}},
		{name: "lease revoked", grpc: true, fast: atOnce, breaks: func(c *outageCluster) time.Time {
			leases, err := c.admin.Leases(c.t.Context())
			if err != nil {
				c.t.Fatal(err)
			}
			for _, l := range leases.Leases {
				if _, err := c.admin.Revoke(c.t.Context(), l.ID); err != nil {
					c.t.Fatal(err)
				}
			}
			began := time.Now()
			c.poll("entries are back", 30*time.Second, func() bool {
				got, err := c.admin.Get(c.t.Context(), "pitaya/servers/", clientv3.WithPrefix(), clientv3.WithCountOnly())
				return err == nil && int(got.Count) == len(c.runs)
			})
			c.know(c.runs...)
			c.t.Logf("entries are back after %v", time.Since(began).Round(time.Millisecond))
			return began
		}, fails: []string{"forwarded " + pitaya.CodeInternal, "push " + pitaya.CodeInternal, "rpc " + pitaya.CodeInternal},
			failsGRPC: []string{"push " + pitaya.CodeNotFound}}, // until the bindings are back
		{name: "etcd stopped, then compacted", grpc: true, fast: atOnce, failsGRPC: bindings, fastGRPC: requestTime, breaks: func(c *outageCluster) time.Time {
			c.etcd.Stop()
			c.healthy(false)
			c.etcd.Start()
			began := time.Now()
			c.newAdmin()
			put, err := c.admin.Put(c.t.Context(), "other", "x")
			if err != nil {
				c.t.Fatal(err)
			}
			if _, err := c.admin.Compact(c.t.Context(), put.Header.Revision); err != nil {
				c.t.Fatal(err)
			}
			c.healthy(true)
			run := c.start("r9")
			c.know(run)
			c.end(run)
			return began
		}},
		{name: "etcd compacted", grpc: true, fast: atOnce, breaks: func(c *outageCluster) time.Time {
			// Again and again, while servers come and go and are seen by all.
			for i := range 5 {
				put, err := c.admin.Put(c.t.Context(), "other", fmt.Sprint(i))
				if err != nil {
					c.t.Fatal(err)
				}
				run := c.start("r9")
				if _, err := c.admin.Compact(c.t.Context(), put.Header.Revision); err != nil {
					c.t.Fatal(err)
				}
				c.know(run)
				c.end(run)
				c.seen("r9", false)
			}
			return time.Now()
		}},
		{name: "backend paused", grpc: true, fails: cluster, fast: requestTime, breaks: func(c *outageCluster) time.Time {
			p := c.spawn("r8")
			c.seen("r8", true)
			if err := devtest.PauseProcess(p.cmd.Process); errors.Is(err, errors.ErrUnsupported) {
				c.t.Skip("no way to pause a process here")
			} else if err != nil {
				c.t.Fatal(err)
			}
			began := time.Now()
			c.seen("r8", false) // its lease has ended
			c.t.Logf("a paused backend is forgotten after %v", time.Since(began).Round(time.Millisecond))
			if err := devtest.ResumeProcess(p.cmd.Process); err != nil {
				c.t.Fatal(err)
			}
			began = time.Now()
			c.seen("r8", true) // and comes back by itself
			c.t.Logf("a resumed backend is back after %v", time.Since(began).Round(time.Millisecond))
			p.stdin.Close()
			c.seen("r8", false)
			return time.Now()
		}},
		{name: "backend killed", grpc: true, fails: cluster, fast: requestTime, breaks: func(c *outageCluster) time.Time {
			p := c.spawn("r7")
			c.seen("r7", true)
			p.kill()
			began := time.Now()
			c.load.until("calls go on", answered("forwarded", 50))
			c.seen("r7", false)
			c.t.Logf("a killed backend is forgotten after %v", time.Since(began).Round(time.Millisecond))
			return began
		}},
		{name: "frontend killed", grpc: true, planned: true, fails: slices.Concat(cluster, lost), fast: requestTime,
			breaks: func(c *outageCluster) time.Time {
				p := c.spawn("g7")
				c.seen("g7", true)
				// Some clients go there.
				doors := c.load.open(doorTo(p.url))
				for _, o := range c.clients[:len(c.clients)/2] {
					o.free <- struct{}{}
					old := o.c
					o.c = nil
					<-o.free
					old.Close()
				}
				c.load.mark()
				c.load.recovered(time.Now())
				c.load.open(doors...)
				c.load.mark()
				p.kill()
				began := time.Now()
				c.t.Logf("all clients work again after %v", c.load.recovered(began).Round(time.Millisecond))
				c.seen("g7", false)
				c.t.Logf("a killed frontend is forgotten after %v", time.Since(began).Round(time.Millisecond))
				return began
			}},
	}
}

// seen waits until all servers of this process know another, or do not know it any more.
func (c *outageCluster) seen(id string, want bool) {
	c.t.Helper()
	c.poll(fmt.Sprintf("%s known: %v", id, want), 2*time.Minute, func() bool {
		return !slices.ContainsFunc(c.runs, func(r *outageRun) bool { return (r.ServerByID(id) != nil) != want })
	})
}

func TestOutages(t *testing.T) {
	for _, grpc := range []bool{false, true} {
		transport := "nats"
		if grpc {
			transport = "grpc"
		}
		t.Run(transport, func(t *testing.T) {
			times := outageShort
			if *outageLong {
				times = outageDefault
			}
			c := newOutageCluster(t, grpc, times)
			c.clients = c.load.clients(12, 60*time.Millisecond)
			c.startRPC(c.runs[2], 20*time.Millisecond)
			for _, o := range outages() {
				if grpc && !o.grpc {
					continue
				}
				t.Run(o.name, func(t *testing.T) {
					outer := c.t
					c.t, c.load.t = t, t
					defer func() { c.t, c.load.t = outer, outer }()
					c.suffer(o, transport)
				})
			}
		})
	}
}

// suffer runs a scenario and checks what must hold in each.
func (c *outageCluster) suffer(o outage, transport string) {
	t := c.t
	t.Helper()
	before := c.rest()
	c.load.mu.Lock()
	c.load.planned = o.planned
	c.load.mu.Unlock()
	c.load.mark()
	start := time.Now()
	ended := o.breaks(c)
	during := c.load.mark()
	took := c.load.recovered(ended)
	c.healthy(true)
	healthy := time.Since(ended)
	c.loggedIn()
	after := c.load.mark()
	c.back(before)
	t.Logf("| %s, %s | %v | %d | %v | %v | %v | %v | %d |", o.name, transport, ended.Sub(start).Round(100*time.Millisecond), during.sent,
		during.failed, max(during.slowest, after.slowest).Round(time.Millisecond), took.Round(10*time.Millisecond),
		healthy.Round(10*time.Millisecond), during.ended)
	fails, fast := o.fails, o.fast
	if c.grpc {
		fails = slices.Concat(fails, o.failsGRPC)
		if o.fastGRPC != nil {
			fast = o.fastGRPC
		}
	}
	for i, p := range []*outagePhase{during, after} {
		for _, w := range p.wrong {
			t.Errorf("failed without a type: %s", w)
		}
		for f, n := range p.failed {
			if !slices.Contains(fails, f) {
				t.Errorf("%d calls failed that do not depend on it, phase %d: %s", n, i, f)
			}
		}
		if p.ended > 0 && !o.planned {
			t.Errorf("%d connections of clients ended", p.ended)
		}
		if limit := fast(*outageLong) + busyTime(*outageLong); p.slowest > limit {
			t.Errorf("a call took %v to fail, want at most %v", p.slowest, limit)
		}
	}
}
