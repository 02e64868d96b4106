package pitayatest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// SerializerOptions say what [TestSerializer] works with.
type SerializerOptions struct {
	// Serializer is what is tested.
	Serializer pitaya.Serializer
	// Values are pointers to what an application would send, with all their fields set, so that each check has
	// something to find. At least one is needed.
	Values []any
	// Equal compares a value with what became of it. Nil means [reflect.DeepEqual].
	Equal func(a, b any) bool
	// Garbage is what Unmarshal must refuse, into any of the values. What else comes from a hostile client the test makes
	// itself, and is content if nothing panics.
	Garbage [][]byte
}

// TestSerializer checks the rules of [pitaya.Serializer] on an implementation. The checks are subtests and run in
// parallel. That Unmarshal takes no memory out of proportion it cannot check: that is for a fuzz test.
func TestSerializer(t *testing.T, opts SerializerOptions) {
	t.Helper()
	runChecks(t, false, serializerChecks(opts))
}

func serializerChecks(opts SerializerOptions) []check {
	if opts.Equal == nil {
		opts.Equal = reflect.DeepEqual
	}
	var checks []check
	for _, c := range []struct {
		name string
		run  func(*serializerTest)
	}{
		{"name", (*serializerTest).name},
		{"round trip", (*serializerTest).roundTrip},
		{"memory", (*serializerTest).memory},
		{"garbage", (*serializerTest).garbage},
		{"wrong types", (*serializerTest).wrongTypes},
		{"concurrent", (*serializerTest).concurrent},
		{"with a server", (*serializerTest).server},
	} {
		checks = append(checks, check{c.name, func(t testing.TB) {
			if len(opts.Values) == 0 {
				t.Fatal("SerializerOptions.Values is empty: there is nothing to test with")
			}
			c.run(&serializerTest{t, opts.Serializer, opts})
		}})
	}
	return checks
}

type serializerTest struct {
	testing.TB
	s    pitaya.Serializer
	opts SerializerOptions
}

// marshal encodes a value, or fails the test.
func (t *serializerTest) marshal(v any) []byte {
	t.Helper()
	b, err := t.s.Marshal(v)
	if err != nil {
		t.Fatalf("marshal of %T: %v", v, err)
	}
	return b
}

// sameAs checks that data is an encoding of v.
func (t *serializerTest) sameAs(what string, data []byte, v any) {
	t.Helper()
	out := newLike(v)
	if err := t.s.Unmarshal(data, out); err != nil {
		t.Errorf("%s: unmarshal into %T: %v", what, v, err)
	} else if !t.opts.Equal(out, v) {
		t.Errorf("%s: got %+v, want %+v", what, out, v)
	}
}

// newLike returns a pointer to a zero value of what v points to.
func newLike(v any) any { return reflect.New(reflect.TypeOf(v).Elem()).Interface() }

func (t *serializerTest) name() {
	name := t.s.Name()
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		t.Errorf("got the name %q, want visible ASCII", name)
	}
	for _, v := range t.opts.Values {
		t.marshal(v)
		if got := t.s.Name(); got != name {
			t.Errorf("the name was %q and is %q", name, got)
		}
	}
}

func (t *serializerTest) roundTrip() {
	for _, v := range t.opts.Values {
		first := t.marshal(v)
		t.sameAs("round trip", first, v)
		t.sameAs("another round trip", t.marshal(v), v)
		// An empty value has nothing of the one before.
		t.sameAs("round trip of a zero value", t.marshal(newLike(v)), newLike(v))
	}
}

// memory checks that neither side keeps what belongs to the other.
func (t *serializerTest) memory() {
	for _, v := range t.opts.Values {
		data := t.marshal(v)
		before := bytes.Clone(data)
		for _, other := range t.opts.Values {
			t.marshal(other)
			t.sameAs("round trip", t.marshal(other), other)
		}
		if !bytes.Equal(data, before) {
			t.Fatalf("what Marshal returned for %T was written to later", v)
		}
		for i := range data { // it belongs to the caller
			data[i] ^= 0xff
		}
		t.sameAs("after its caller has written to what Marshal returned", t.marshal(v), v)

		data = bytes.Clone(before)
		out := newLike(v)
		if err := t.s.Unmarshal(data, out); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, before) {
			t.Errorf("Unmarshal into %T has written to its data", v)
		}
		for i := range data { // the buffer of the connection is used again
			data[i] ^= 0xff
		}
		if !t.opts.Equal(out, v) {
			t.Errorf("%T has kept a part of its data: got %+v, want %+v", v, out, v)
		}
	}
}

// calm calls f and turns a panic into a failure.
func (t *serializerTest) calm(what string, f func() error) (err error) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("%s: panic: %v", what, p)
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

func (t *serializerTest) garbage() {
	rnd := rand.New(rand.NewPCG(1, 2)) // the same in every run
	for _, v := range t.opts.Values {
		try := func(data []byte) error {
			t.Helper()
			return t.calm(fmt.Sprintf("unmarshal of %.100q into %T", data, v), func() error { return t.s.Unmarshal(data, newLike(v)) })
		}
		for _, data := range t.opts.Garbage {
			if try(data) == nil {
				t.Errorf("unmarshal of %.100q into %T: got no error", data, v)
			}
		}
		good := t.marshal(v)
		for n := range min(len(good), 2000) {
			try(good[:n])
			try(good[n:])
		}
		for range 2000 {
			if t.Failed() {
				return // one way to fail is enough to read
			}
			bad := bytes.Clone(good)
			for range 1 + rnd.IntN(4) {
				if len(bad) > 0 {
					bad[rnd.IntN(len(bad))] = byte(rnd.Uint32())
				}
			}
			try(bad)
			noise := make([]byte, rnd.IntN(64))
			for i := range noise {
				noise[i] = byte(rnd.Uint32())
			}
			try(noise)
		}
	}
}

// wrongTypes tries what applications do by mistake. All of it happens in a server that others use as well.
func (t *serializerTest) wrongTypes() {
	data := t.marshal(t.opts.Values[0])
	for _, v := range []any{func() {}, make(chan int)} {
		if err := t.calm(fmt.Sprintf("marshal of %T", v), func() error { _, err := t.s.Marshal(v); return err }); err == nil {
			t.Errorf("marshal of %T: got no error", v)
		}
	}
	for _, v := range []any{nil, reflect.Zero(reflect.TypeOf(t.opts.Values[0])).Interface(), 1, struct{}{}, new(func())} {
		if err := t.calm(fmt.Sprintf("unmarshal into %T", v), func() error { return t.s.Unmarshal(data, v) }); err == nil {
			t.Errorf("unmarshal into %T: got no error", v)
		}
	}
}

func (t *serializerTest) concurrent() {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				for _, v := range t.opts.Values {
					err := t.calm("concurrent use", func() error {
						data, err := t.s.Marshal(v)
						if err == nil {
							t.sameAs("round trip among others", data, v)
						}
						return err
					})
					if err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// server sends the values and an error through a server, so that one end writes what the other reads.
func (t *serializerTest) server() {
	// The name of what is registered has to be exported, which a name in a function can be without being in the API.
	type Suite struct{ *serializerService }
	service := &serializerService{}
	s := NewServer(t, pitaya.Config{Serializer: t.s}, func(s *pitaya.Server) {
		noError(t, s.Register(Suite{service}))
	})
	c := s.ClientWith(t, &pitaya.ClientConfig{Serializer: t.s})
	if got := c.Handshake().Sys.Serializer; got != t.s.Name() {
		t.Errorf("clients are told of the serializer %q, want %q", got, t.s.Name())
	}
	for _, v := range t.opts.Values {
		out := newLike(v)
		c.Request("Suite.Echo", v, out)
		if !t.opts.Equal(out, v) {
			t.Errorf("through a server: got %+v, want %+v", out, v)
		}
	}
	want := pitaya.Error{Code: "SUITE-1", Message: "größer \"x\"", Metadata: map[string]string{"k": "v", "größe": "\n"}}
	service.err = &want
	got := c.ExpectError("Suite.Echo", t.opts.Values[0], want.Code)
	if got.Message != want.Message || !maps.Equal(got.Metadata, want.Metadata) {
		t.Errorf("an error answer became %q with %q, want %q with %q", got.Message, got.Metadata, want.Message, want.Metadata)
	}
}

// serializerService answers with what it was sent, or with an error.
type serializerService struct{ err error }

// Echo is called over the route Suite.Echo.
func (s *serializerService) Echo(_ context.Context, payload []byte) ([]byte, error) {
	return payload, s.err
}
