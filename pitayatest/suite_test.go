package pitayatest_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// A fakeT takes what a check has to say, so that a test can look at a check that fails.
type fakeT struct {
	testing.TB // what is not below
	ctx        context.Context

	mu       sync.Mutex
	failed   bool
	log      []string
	cleanups []func()
}

// runFake runs f as the testing package runs a test, and returns what it has said if it has failed, else "".
func runFake(t testing.TB, f func(t testing.TB)) string {
	ctx, cancel := context.WithCancel(context.Background())
	fake := &fakeT{TB: t, ctx: ctx}
	guarded := func(f func()) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			f()
		}()
		<-done
	}
	guarded(func() { f(fake) })
	cancel()
	for len(fake.cleanups) > 0 {
		last := fake.cleanups[len(fake.cleanups)-1]
		fake.cleanups = fake.cleanups[:len(fake.cleanups)-1]
		guarded(last)
	}
	if !fake.Failed() {
		return ""
	}
	fake.mu.Lock() // what the check has left running may go on
	defer fake.mu.Unlock()
	return cmp.Or(strings.Join(fake.log, "\n"), "failed without a word")
}

func (t *fakeT) say(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = append(t.log, s)
}

func (t *fakeT) Fail() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = true
}

func (t *fakeT) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

func (t *fakeT) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *fakeT) Helper()                           {}
func (t *fakeT) Context() context.Context          { return t.ctx }
func (t *fakeT) Output() io.Writer                 { return io.Discard }
func (t *fakeT) FailNow()                          { t.Fail(); runtime.Goexit() }
func (t *fakeT) SkipNow()                          { runtime.Goexit() }
func (t *fakeT) Log(args ...any)                   { t.say(fmt.Sprint(args...)) }
func (t *fakeT) Logf(format string, args ...any)   { t.say(fmt.Sprintf(format, args...)) }
func (t *fakeT) Error(args ...any)                 { t.Log(args...); t.Fail() }
func (t *fakeT) Errorf(format string, args ...any) { t.Logf(format, args...); t.Fail() }
func (t *fakeT) Fatal(args ...any)                 { t.Log(args...); t.FailNow() }
func (t *fakeT) Fatalf(format string, args ...any) { t.Logf(format, args...); t.FailNow() }
func (t *fakeT) Skip(args ...any)                  { t.Log(args...); t.SkipNow() }
func (t *fakeT) Skipf(format string, args ...any)  { t.Logf(format, args...); t.SkipNow() }

// wantFailures runs the checks in bubbles of their own, and wants exactly those to fail that are listed.
func wantFailures(t *testing.T, checks []pitayatest.Check, want ...string) {
	t.Helper()
	var got []string
	for _, c := range checks {
		synctest.Test(t, func(t *testing.T) {
			if text := runFake(t, c.Run); text != "" {
				got = append(got, c.Name())
				t.Logf("%s: %s", c.Name(), text)
			}
		})
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("these checks failed: %q, want %q", got, want)
	}
}

// oddDiscovery breaks a rule of Discovery.
type oddDiscovery struct {
	pitaya.Discovery
	odd  string
	down *atomic.Bool // there is an outage
}

func (d *oddDiscovery) Join(ctx context.Context, self *pitaya.ServerInfo, watch func(pitaya.DiscoveryEvent)) error {
	switch d.odd {
	case "forgets fields":
		self = &pitaya.ServerInfo{ID: self.ID, Type: self.Type, Frontend: self.Frontend}
	case "reports twice":
		report := watch
		watch = func(e pitaya.DiscoveryEvent) { report(e); report(e) }
	case "ignores the context":
		ctx = context.WithoutCancel(ctx)
	case "updates by leaving":
		report := watch
		watch = func(e pitaya.DiscoveryEvent) {
			if e.Change == pitaya.ServerUpdated {
				report(pitaya.DiscoveryEvent{Change: pitaya.ServerLeft, Server: e.Server})
				e.Change = pitaya.ServerJoined
			}
			report(e)
		}
	}
	return d.Discovery.Join(ctx, self, watch)
}

func (d *oddDiscovery) Healthy() error {
	if d.odd == "always healthy" {
		return nil
	}
	if d.down.Load() {
		return errors.New("outage")
	}
	return d.Discovery.Healthy()
}

func TestDiscoverySuite(t *testing.T) {
	checks := func(odd string) []pitayatest.Check {
		return pitayatest.DiscoveryChecks(pitayatest.DiscoveryOptions{
			Open: func(testing.TB) pitayatest.DiscoveryCluster {
				cluster, down := pitaya.NewMemCluster(), new(atomic.Bool)
				return pitayatest.DiscoveryCluster{
					New: func() pitaya.Discovery {
						d, _ := cluster.Node()
						return &oddDiscovery{Discovery: d, odd: odd, down: down}
					},
					Outage: func() (end func()) {
						down.Store(true)
						if odd == "takes blindness for absence" {
							cluster.Expire("b")
						}
						return func() { cluster.Restore("b"); down.Store(false) }
					},
				}
			},
		})
	}
	wantFailures(t, checks(""))
	wantFailures(t, checks("forgets fields"), "join, update, leave")
	wantFailures(t, checks("reports twice"), "join, update, leave", "many", "refused", "leaving in no time", "outage")
	wantFailures(t, checks("ignores the context"), "refused")
	wantFailures(t, checks("updates by leaving"), "join, update, leave", "outage")
	wantFailures(t, checks("always healthy"), "join, update, leave", "outage")
	wantFailures(t, checks("takes blindness for absence"), "outage")
}

// oddGroups breaks a rule of GroupStore.
type oddGroups struct {
	pitaya.GroupStore
	odd  string
	mu   sync.Mutex
	last []string
}

func (g *oddGroups) Add(ctx context.Context, group string, uids ...string) error {
	if g.odd != "adds one by one" || len(uids) == 0 {
		return g.GroupStore.Add(ctx, group, uids...)
	}
	for _, uid := range uids {
		if err := g.GroupStore.Add(ctx, group, uid); err != nil {
			return err
		}
		g.pause()
	}
	return nil
}

// pause lets others go on, in a bubble.
func (g *oddGroups) pause() { <-time.After(1) }

func (g *oddGroups) Members(ctx context.Context, group string) ([]string, error) {
	if g.odd == "adds one by one" {
		g.pause()
	}
	list, err := g.GroupStore.Members(ctx, group)
	if g.odd == "returns what it keeps" {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.last == nil {
			g.last = list
		}
		if len(g.last) == len(list) {
			return g.last, err
		}
	}
	return list, err
}

func (g *oddGroups) Renew(ctx context.Context, group string) error {
	if g.odd == "does not renew" {
		_, err := g.Count(ctx, group)
		return err
	}
	return g.GroupStore.Renew(ctx, group)
}

func (g *oddGroups) Delete(ctx context.Context, group string) error {
	if g.odd == "ignores the context" {
		ctx = context.WithoutCancel(ctx)
	}
	return g.GroupStore.Delete(ctx, group)
}

func TestGroupSuite(t *testing.T) {
	checks := func(odd string) []pitayatest.Check {
		return pitayatest.GroupChecks(pitayatest.GroupStoreOptions{
			Open: func(t testing.TB) pitaya.GroupStore {
				s := pitaya.NewMemoryGroups()
				t.Cleanup(func() { s.Close() })
				return &oddGroups{GroupStore: s, odd: odd}
			},
			Synctest: true,
		})
	}
	wantFailures(t, checks(""))
	wantFailures(t, checks("adds one by one"), "atomic", "calls/add several and a member", "calls/add twice", "calls/add empty uid")
	wantFailures(t, checks("returns what it keeps"), "slices belong to the caller")
	wantFailures(t, checks("does not renew"), "TTL", "calls/renew without TTL")
	wantFailures(t, checks("ignores the context"), "calls/delete unknown", "calls/delete without name")
}

// memBindings is a BindingStore in memory. It is as odd as it is told to be.
type memBindings struct {
	*memBindingData
	typ, id string
	odd     string
}

type memBindingData struct {
	mu sync.Mutex
	on map[[2]string]string // server ids by type and uid
}

func (b *memBindings) Put(ctx context.Context, uid string) error {
	if uid == "" {
		return errors.New("empty uid")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx.Err() == nil {
		b.on[[2]string{b.typ, uid}] = b.id
	}
	return ctx.Err()
}

func (b *memBindings) Get(ctx context.Context, uid, frontendType string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.odd == "knows one type" {
		frontendType = "connector"
	}
	id, ok := b.on[[2]string{frontendType, uid}]
	if err := ctx.Err(); err != nil || ok {
		return id, err
	}
	if b.odd == "an error of its own" {
		return "", errors.New("nobody")
	}
	return "", fmt.Errorf("%w: %s", pitaya.ErrNoBinding, uid)
}

func (b *memBindings) Delete(_ context.Context, uid string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := [2]string{b.typ, uid}; b.on[k] == b.id || b.odd == "deletes for others" {
		delete(b.on, k)
	}
	return nil
}

func (b *memBindings) Close(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, id := range b.on {
		if id == b.id && b.odd != "leaves its bindings" {
			delete(b.on, k)
		}
	}
	return nil
}

func openBindings(odd string) func(testing.TB) func(typ, id string) pitaya.BindingStore {
	return func(testing.TB) func(typ, id string) pitaya.BindingStore {
		data := &memBindingData{on: make(map[[2]string]string)}
		return func(typ, id string) pitaya.BindingStore { return &memBindings{data, typ, id, odd} }
	}
}

func TestBindingSuite(t *testing.T) {
	checks := func(odd string) []pitayatest.Check {
		return pitayatest.BindingChecks(pitayatest.BindingStoreOptions{Open: openBindings(odd)})
	}
	wantFailures(t, checks("knows one type"), "put, get, delete")
	wantFailures(t, checks("an error of its own"), "put, get, delete", "refused", "close")
	wantFailures(t, checks("deletes for others"), "put, get, delete")
	wantFailures(t, checks("leaves its bindings"), "close")
	pitayatest.TestBindingStore(t, pitayatest.BindingStoreOptions{Open: openBindings(""), Synctest: true})
}

// oddJSON breaks a rule of Serializer.
type oddJSON struct {
	pitaya.JSON
	odd string
	mu  sync.Mutex
	buf []byte
}

func (s *oddJSON) Name() string {
	if s.odd == "no name" {
		return ""
	}
	return "odd"
}

func (s *oddJSON) Marshal(v any) ([]byte, error) {
	b, err := s.JSON.Marshal(v)
	if s.odd == "one buffer" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.buf = append(s.buf[:0], b...)
		return s.buf, err
	}
	return b, err
}

func (s *oddJSON) Unmarshal(data []byte, v any) error {
	switch s.odd {
	case "panics":
		_ = data[0]
	case "lenient":
		var syntax *json.SyntaxError
		if err := s.JSON.Unmarshal(data, v); !errors.As(err, &syntax) {
			return err
		}
		return nil
	case "writes to its data":
		defer clear(data)
	}
	return s.JSON.Unmarshal(data, v)
}

type score struct {
	Name   string
	Points map[string]int
	Raw    json.RawMessage
	Next   *score
}

func TestSerializerSuite(t *testing.T) {
	values := []any{
		&score{Name: "größer \"x\"", Points: map[string]int{"a": 1}, Raw: []byte(`{"b":[1,2]}`), Next: &score{Name: "y", Raw: []byte("2")}},
		&[]string{"a", "", "c"},
	}
	equal := func(a, b any) bool { x, _ := json.Marshal(a); y, _ := json.Marshal(b); return string(x) == string(y) }
	options := func(odd string) pitayatest.SerializerOptions {
		return pitayatest.SerializerOptions{
			Serializer: &oddJSON{odd: odd}, Values: values, Equal: equal,
			Garbage: [][]byte{nil, {}, []byte("{"), []byte("\xff"), []byte(`{"Name"`)},
		}
	}
	checks := func(odd string) []pitayatest.Check { return pitayatest.SerializerChecks(options(odd)) }
	wantFailures(t, checks("no name"), "name")
	racy := slices.DeleteFunc(checks("one buffer"), func(c pitayatest.Check) bool { return c.Name() == "concurrent" })
	wantFailures(t, racy, "memory")
	wantFailures(t, checks("panics"), "garbage")
	wantFailures(t, checks("lenient"), "garbage")
	wantFailures(t, checks("writes to its data"), "memory")
	pitayatest.TestSerializer(t, options(""))
}

// oddTransport breaks a rule of Transport.
type oddTransport struct {
	pitaya.Transport
	odd string
}

func (o *oddTransport) Call(ctx context.Context, to *pitaya.ServerInfo, body []byte, done func([]byte, error)) {
	if done == nil {
		o.Transport.Call(ctx, to, body, nil)
		return
	}
	reply := done
	switch o.odd {
	case "errors of its own":
		done = func(b []byte, err error) {
			if err != nil {
				err = errors.New("it did not work")
			}
			reply(b, err)
		}
	}
	o.Transport.Call(ctx, to, body, done)
}

func (o *oddTransport) Bind(ctx context.Context, uid string) error {
	if o.odd == "takes any name" && ctx.Err() == nil {
		if err := o.Transport.Bind(ctx, uid); !errors.Is(err, pitaya.ErrIllegalUID) {
			return err
		}
		return nil
	}
	return o.Transport.Bind(ctx, uid)
}

func (o *oddTransport) Unbind(ctx context.Context, uid string) error {
	if o.odd == "keeps users" {
		return nil
	}
	return o.Transport.Unbind(ctx, uid)
}

func TestTransportSuite(t *testing.T) {
	checks := func(odd string) []pitayatest.Check {
		return pitayatest.TransportChecks(pitayatest.TransportOptions{
			Open: func(testing.TB) func(*pitaya.ServerInfo) pitaya.Transport {
				cluster := pitaya.NewMemCluster()
				return func(*pitaya.ServerInfo) pitaya.Transport {
					_, transport := cluster.Node()
					return &oddTransport{transport, odd}
				}
			},
		})
	}
	wantFailures(t, checks("takes any name"), "illegal names")
	wantFailures(t, checks("keeps users"), "notices")
	wantFailures(t, checks("errors of its own"), "deadline", "deadline has passed", "cancel", "nobody there", "given up", "drain", "close")
}

// oddTracer breaks a rule of Tracer.
type oddTracer struct {
	pitayatest.Tracer
	odd string
}

type oddSpan struct {
	pitaya.Span
	odd string
}

func (s oddSpan) TraceID() string {
	if s.odd == "another id" {
		return "1"
	}
	return s.Span.TraceID()
}

func (s oddSpan) End(err error) {
	if s.odd == "forgets errors" {
		err = nil
	}
	s.Span.End(err)
}

func (o *oddTracer) Start(ctx context.Context, name string, kind pitaya.SpanKind, attributes ...pitaya.Label) (context.Context, pitaya.Span) {
	inner, span := o.Tracer.Start(ctx, name, kind, attributes...)
	switch o.odd {
	case "loses values":
		inner, span = o.Tracer.Start(context.Background(), name, kind, attributes...)
	case "does not nest":
		inner = ctx
	}
	return inner, oddSpan{span, o.odd}
}

func (o *oddTracer) Inject(ctx context.Context, carrier map[string]string) {
	o.Tracer.Inject(ctx, carrier)
	switch {
	case carrier["traceparent"] == "":
	case o.odd == "drops baggage":
		delete(carrier, "baggage")
	case o.odd == "samples all":
		carrier["traceparent"] = carrier["traceparent"][:53] + "01"
	}
}

func (o *oddTracer) Extract(ctx context.Context, carrier map[string]string) context.Context {
	if o.odd == "believes everything" && len(carrier["traceparent"]) >= 55 {
		carrier = maps.Clone(carrier)
		carrier["traceparent"] = strings.ToLower(carrier["traceparent"])[:55]
	}
	return o.Tracer.Extract(ctx, carrier)
}

func TestTracerSuite(t *testing.T) {
	options := func(odd string) pitayatest.TracerOptions {
		return pitayatest.TracerOptions{
			Open: func(testing.TB) (pitaya.Tracer, func() []pitayatest.Span) {
				tracer := &oddTracer{odd: odd}
				return tracer, tracer.Spans
			},
			Synctest: true,
		}
	}
	checks := func(odd string) []pitayatest.Check { return pitayatest.TracerChecks(options(odd)) }
	wantFailures(t, checks("another id"), "parents", "other servers", "garbage")
	wantFailures(t, checks("forgets errors"), "ends")
	wantFailures(t, checks("loses values"), "parents", "contexts", "other servers", "not sampled", "garbage", "concurrent")
	wantFailures(t, checks("does not nest"), "parents", "other servers", "garbage", "concurrent")
	wantFailures(t, checks("drops baggage"), "other servers")
	wantFailures(t, checks("samples all"), "not sampled")
	wantFailures(t, checks("believes everything"), "garbage")
	pitayatest.TestTracer(t, options(""))
}
