package pitayatest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// TracerOptions say how [TestTracer] gets at an implementation.
type TracerOptions struct {
	// Open makes a Tracer that samples all traces that do not say otherwise, and speaks the format of the W3C. Each check
	// has one of its own, and what Open starts ends with the t that it is given. The function that it returns gives the
	// spans that have ended so far and are sampled, in any order; it may be nil, and then less is checked.
	Open func(t testing.TB) (tracer pitaya.Tracer, ended func() []Span)
	// Synctest runs each check in a bubble of its own ([testing/synctest]).
	Synctest bool
}

// TestTracer checks the rules of [pitaya.Tracer] on an implementation. The checks are subtests and run in parallel,
// after the function that calls TestTracer has returned: what they share has to end in a [testing.TB.Cleanup].
func TestTracer(t *testing.T, opts TracerOptions) {
	t.Helper()
	runChecks(t, opts.Synctest, tracerChecks(opts))
}

func tracerChecks(opts TracerOptions) []check {
	var checks []check
	for _, c := range []struct {
		name string
		run  func(*tracerTest)
	}{
		{"parents", (*tracerTest).parents},
		{"contexts", (*tracerTest).contexts},
		{"other servers", (*tracerTest).others},
		{"not sampled", (*tracerTest).unsampled},
		{"garbage", (*tracerTest).garbage},
		{"ends", (*tracerTest).ends},
		{"attributes", (*tracerTest).attributes},
		{"concurrent", (*tracerTest).concurrent},
	} {
		checks = append(checks, check{c.name, func(t testing.TB) {
			tracer, ended := opts.Open(t)
			c.run(&tracerTest{t, tracer, ended})
		}})
	}
	return checks
}

type tracerTest struct {
	testing.TB
	tracer pitaya.Tracer
	ended  func() []Span // may be nil
}

// inject returns what travels with ctx, and the span that it names.
func (t *tracerTest) inject(ctx context.Context) (map[string]string, pitaya.TraceParent) {
	t.Helper()
	carrier := make(map[string]string)
	t.tracer.Inject(ctx, carrier)
	p, err := pitaya.ParseTraceParent(carrier["traceparent"])
	if err != nil {
		t.Fatalf("injected traceparent %q: %v", carrier["traceparent"], err)
	}
	return carrier, p
}

// start begins a span and checks that it is a child of parent, if that is not zero.
func (t *tracerTest) start(ctx context.Context, name string, parent pitaya.TraceParent) (context.Context, pitaya.Span, pitaya.TraceParent) {
	t.Helper()
	ctx, span := t.tracer.Start(ctx, name, pitaya.SpanServer, pitaya.Label{Name: "is", Value: name})
	if ctx == nil || span == nil {
		t.Fatalf("Start returned the context %v and the span %v", ctx, span)
	}
	_, p := t.inject(ctx)
	if id := hex.EncodeToString(p.TraceID[:]); span.TraceID() != id {
		t.Errorf("%s: the trace is %q, and %q is injected", name, span.TraceID(), id)
	}
	if parent != (pitaya.TraceParent{}) && (p.TraceID != parent.TraceID || p.SpanID == parent.SpanID) {
		t.Errorf("%s: %v is no child of %v", name, p, parent)
	}
	return ctx, span, p
}

// want checks parents and errors of the spans that have ended, by name. A parent is a name or an id.
func (t *tracerTest) want(want map[string]Span) {
	t.Helper()
	if t.ended == nil {
		return
	}
	got := make(map[string]Span)
	for _, s := range t.ended() {
		if _, twice := got[s.Name]; twice {
			t.Errorf("%s has ended twice", s.Name)
		}
		got[s.Name] = s
	}
	if len(got) != len(want) {
		t.Errorf("got the spans %v, want %d of them", got, len(want))
	}
	for name, w := range want {
		s, ok := got[name]
		if !ok {
			t.Errorf("%s is missing among %v", name, got)
			continue
		}
		parent := w.Parent
		if p, ok := got[parent]; ok {
			parent = p.ID
		}
		if s.Parent != parent {
			t.Errorf("%s: the parent is %q, want %q", name, s.Parent, parent)
		}
		if s.Kind != pitaya.SpanServer || s.Attributes["is"] != name {
			t.Errorf("%s: got the kind %q and the attributes %v", name, s.Kind, s.Attributes)
		}
		switch {
		case (s.Err == nil) != (w.Err == nil):
			t.Errorf("%s: got the error %v, want %v", name, s.Err, w.Err)
		case w.Err != nil && (!strings.Contains(s.Err.Error(), w.Err.Error()) || pitaya.ErrorCode(s.Err) != pitaya.ErrorCode(w.Err)):
			t.Errorf("%s: got the error %v with %s, want %v with %s", name, s.Err, pitaya.ErrorCode(s.Err), w.Err, pitaya.ErrorCode(w.Err))
		}
	}
}

func (t *tracerTest) parents() {
	none := pitaya.TraceParent{}
	a, spanA, idA := t.start(t.Context(), "a", none)
	b, spanB, idB := t.start(a, "b", idA)
	_, spanC, idC := t.start(b, "c", idB)
	_, spanD, _ := t.start(a, "d", idA)
	if idA.SpanID == idC.SpanID || idA.Flags&1 == 0 {
		t.Errorf("got the spans %v and %v", idA, idC)
	}
	_, other, id := t.start(t.Context(), "other", none)
	if id.TraceID == idA.TraceID {
		t.Errorf("two traces are one: %v, %v", id, idA)
	}
	for _, s := range []pitaya.Span{spanC, spanA, spanD, spanB, other} { // the parent before its children
		s.End(nil)
	}
	_, late, _ := t.start(b, "late", idB)
	late.End(nil)
	t.want(map[string]Span{"a": {}, "b": {Parent: "a"}, "c": {Parent: "b"}, "d": {Parent: "a"}, "other": {}, "late": {Parent: "b"}})
}

// valueKey is one that no Tracer knows.
type valueKey struct{}

func (t *tracerTest) contexts() {
	carrier := make(map[string]string)
	t.tracer.Inject(t.Context(), carrier)
	if carrier["traceparent"] != "" {
		t.Errorf("without a span %v was injected", carrier)
	}
	ctx := context.WithValue(t.Context(), valueKey{}, "value")
	check := func(what string, ctx context.Context) {
		t.Helper()
		if ctx == nil || ctx.Value(valueKey{}) != "value" {
			t.Errorf("%s: the context has lost its values", what)
		}
	}
	check("Extract of nothing", t.tracer.Extract(ctx, nil))
	check("Extract", t.tracer.Extract(ctx, map[string]string{"traceparent": remoteParent}))
	inner, span := t.tracer.Start(ctx, "a", pitaya.SpanClient)
	check("Start", inner)
	check("Start, Extract", t.tracer.Extract(inner, map[string]string{"traceparent": remoteParent}))
	span.End(nil)
	if span.TraceID() == "" {
		t.Error("after its end the span has no trace")
	}
	// A span may begin when its context is over.
	done, cancel := context.WithCancel(ctx)
	cancel()
	inner, span = t.tracer.Start(done, "b", pitaya.SpanServer)
	check("Start when all is over", inner)
	span.End(done.Err())
}

const (
	remoteTrace  = "0af7651916cd43dd8448eb211c80319c"
	remoteSpan   = "b7ad6b7169203331"
	remoteParent = "00-" + remoteTrace + "-" + remoteSpan + "-01"
)

func (t *tracerTest) others() {
	ctx := t.tracer.Extract(t.Context(), map[string]string{
		"traceparent": remoteParent, "tracestate": "vendor=1,other=2", "baggage": "user=ada", "unknown": "x",
	})
	parent, err := pitaya.ParseTraceParent(remoteParent)
	noError(t, err)
	ctx, span, own := t.start(ctx, "a", parent)
	carrier, _ := t.inject(ctx)
	if own.Flags&1 == 0 {
		t.Errorf("a sampled trace goes on as %v", own)
	}
	for key, want := range map[string]string{"tracestate": "vendor=1", "baggage": "user=ada"} {
		if !strings.Contains(carrier[key], want) {
			t.Errorf("%s: got %q, want it to have %q", key, carrier[key], want)
		}
	}
	// On to a third server, which has the same kind of Tracer.
	_, third, _ := t.start(t.tracer.Extract(t.Context(), carrier), "b", own)
	third.End(nil)
	span.End(nil)
	t.want(map[string]Span{"a": {Parent: remoteSpan}, "b": {Parent: "a"}})
}

func (t *tracerTest) unsampled() {
	text := strings.TrimSuffix(remoteParent, "1") + "0"
	ctx, span := t.tracer.Start(t.tracer.Extract(t.Context(), map[string]string{"traceparent": text}), "a", pitaya.SpanServer)
	if _, p := t.inject(ctx); p.Flags&1 != 0 || hex.EncodeToString(p.TraceID[:]) != remoteTrace {
		t.Errorf("%s goes on as %v", text, p)
	}
	span.End(nil)
}

func (t *tracerTest) garbage() {
	carriers := []map[string]string{nil, {}, {"": ""}, {"b3": "0", "traceParent": remoteParent}}
	for _, text := range []string{
		"", "-", "00", strings.ToUpper(remoteParent), remoteParent + "\x00", "ff" + remoteParent[2:],
		strings.ReplaceAll(remoteParent, "-", "_"), "00-" + strings.Repeat("0", 32) + remoteParent[35:],
		remoteParent[:36] + strings.Repeat("0", 16) + "-01", remoteParent[:54], strings.Repeat("0", 1<<16), "\xff\xfe",
	} {
		carriers = append(carriers, map[string]string{"traceparent": text, "tracestate": text, "baggage": text})
	}
	seen := make(map[string]bool)
	for _, carrier := range carriers {
		_, span, p := t.start(t.tracer.Extract(t.Context(), carrier), "a", pitaya.TraceParent{})
		if id := span.TraceID(); seen[id] || id == remoteTrace || p.Flags&1 == 0 {
			t.Errorf("after %.100q the trace is %v", carrier, p)
		}
		seen[span.TraceID()] = true
		span.End(nil)
	}
	for _, key := range []string{"tracestate", "baggage"} { // beside a parent that is good
		for _, text := range []string{"=", ",,,", "\xff=\xff", strings.Repeat("a=b,", 1000), strings.Repeat("x", 1<<16)} {
			ctx := t.tracer.Extract(t.Context(), map[string]string{"traceparent": remoteParent, key: text})
			_, span := t.tracer.Start(ctx, "a", pitaya.SpanServer)
			if id := span.TraceID(); id != remoteTrace {
				t.Errorf("with %s %.20q the trace is %s", key, text, id)
			}
			span.End(nil)
		}
	}
}

func (t *tracerTest) ends() {
	coded := pitaya.Errorf("GAME-1", "no room")
	wrapped := fmt.Errorf("the game: %w", pitaya.Errorf(pitaya.CodeTimeout, "too late"))
	plain := errors.New("plain")
	want := map[string]Span{"good": {}}
	for name, err := range map[string]error{"good": nil, "coded": coded, "wrapped": wrapped, "plain": plain} {
		_, span := t.tracer.Start(t.Context(), name, pitaya.SpanServer, pitaya.Label{Name: "is", Value: name})
		done := make(chan bool, 1)
		go func() {
			span.End(err)
			done <- true
		}()
		transporttest.Await(t, done)
		want[name] = Span{Err: err}
	}
	t.want(want)
}

func (t *tracerTest) attributes() {
	attributes := []pitaya.Label{{Name: "is", Value: "a"}, {Name: "empty"}, {Name: "text", Value: "größe \"<&>\""}}
	_, span := t.tracer.Start(t.Context(), "a", pitaya.SpanServer, attributes...)
	clear(attributes)
	span.End(nil)
	_, span = t.tracer.Start(t.Context(), "", pitaya.SpanConnection)
	span.End(nil)
	if t.ended == nil {
		return
	}
	for _, s := range t.ended() {
		if s.Name != "a" {
			continue
		}
		empty, ok := s.Attributes["empty"]
		if s.Attributes["is"] != "a" || s.Attributes["text"] != "größe \"<&>\"" || empty != "" || !ok || s.Attributes[""] != "" {
			t.Errorf("got the attributes %v", s.Attributes)
		}
		return
	}
	t.Error("the span is missing")
}

func (t *tracerTest) concurrent() {
	ctx, root := t.tracer.Start(t.Context(), "root", pitaya.SpanServer)
	const workers, rounds = 8, 50
	var wg sync.WaitGroup
	var lost atomic.Int64
	for range workers {
		wg.Go(func() {
			for range rounds {
				carrier := make(map[string]string)
				inner, span := t.tracer.Start(ctx, "a", pitaya.SpanClient, pitaya.Label{Name: "is", Value: "a"})
				t.tracer.Inject(inner, carrier)
				_, other := t.tracer.Start(t.tracer.Extract(context.Background(), carrier), "b", pitaya.SpanServer)
				if other.TraceID() != root.TraceID() {
					lost.Add(1)
				}
				span.End(nil)
				other.End(errors.New("late"))
			}
		})
	}
	begin := time.Now()
	wg.Wait()
	root.End(nil)
	if n := lost.Load(); n > 0 {
		t.Errorf("%d spans are not in the trace", n)
	}
	if took := time.Since(begin); took > patience {
		t.Errorf("%d spans took %v", 2*workers*rounds, took)
	}
	if t.ended != nil && len(t.ended()) != 2*workers*rounds+1 {
		t.Errorf("got %d spans, want %d", len(t.ended()), 2*workers*rounds+1)
	}
}
