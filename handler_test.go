package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// clientOf connects a client to the server's listener in memory.
func clientOf(t testing.TB, ts *testServer, cfg *pitaya.ClientConfig) *pitaya.Client {
	t.Helper()
	conn, err := ts.Mem.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := pitaya.NewClient(t.Context(), conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

type shapeArg struct{ A int }

// Shapes has a handler of each shape (API document, section 2.3), and methods
// that are none and do not look like it.
type Shapes struct {
	pitaya.Base
	notes chan string
}

func (s *Shapes) NotifyNone(ctx context.Context)          { s.notes <- "none" }
func (s *Shapes) NotifyRaw(ctx context.Context, b []byte) { s.notes <- "raw " + string(b) }
func (s *Shapes) NotifyTyped(ctx context.Context, in *shapeArg) {
	s.notes <- fmt.Sprint("typed ", in.A)
}
func (*Shapes) None(ctx context.Context) (*shapeArg, error)       { return &shapeArg{1}, nil }
func (*Shapes) NoneRaw(ctx context.Context) ([]byte, error)       { return []byte("raw"), nil }
func (*Shapes) Raw(ctx context.Context, b []byte) ([]byte, error) { return b, nil }
func (*Shapes) RawTyped(ctx context.Context, b []byte) (*shapeArg, error) {
	return &shapeArg{len(b)}, nil
}
func (*Shapes) Typed(ctx context.Context, in *shapeArg) (*shapeArg, error) {
	return &shapeArg{in.A + 1}, nil
}
func (*Shapes) TypedRaw(ctx context.Context, in *shapeArg) ([]byte, error) {
	return fmt.Append(nil, in.A), nil
}
func (*Shapes) Number(ctx context.Context, in *int) (*int, error) { return new(2 * *in), nil }
func (*Shapes) Empty(ctx context.Context) ([]byte, error)         { return []byte{}, nil }
func (*Shapes) NilBytes(ctx context.Context) ([]byte, error)      { return nil, nil }
func (*Shapes) NilPointer(ctx context.Context) (*int, error)      { return nil, nil }
func (*Shapes) Failed(ctx context.Context) (*int, error) {
	return new(1), pitaya.Errorf("APP-1", "failed")
}

func (*Shapes) Helper()                        {}
func (*Shapes) Sum(a, b int) int               { return a + b }
func (*Shapes) Last(a int, _ context.Context)  {}
func (*Shapes) unexported(ctx context.Context) {}

func TestHandlerShapes(t *testing.T) {
	t.Parallel()
	shapes := &Shapes{notes: make(chan string, 8)}
	shapes.unexported(t.Context())
	s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
		if err := s.Register(shapes); err != nil {
			t.Fatal(err)
		}
	})
	c := clientOf(t, s, nil)
	for _, tt := range []struct {
		method, in, want string
		code             string
	}{
		{"None", "", `{"A":1}`, ""},
		{"None", "not looked at", `{"A":1}`, ""},
		{"NoneRaw", "", "raw", ""},
		{"Raw", "abc", "abc", ""},
		{"Raw", "", "", ""},
		{"RawTyped", "abc", `{"A":3}`, ""},
		{"Typed", `{"A":1}`, `{"A":2}`, ""},
		{"Typed", `{"A":"x"}`, "", pitaya.CodeBadRequest},
		{"Typed", "", "", pitaya.CodeBadRequest},
		{"TypedRaw", `{"A":7}`, "7", ""},
		{"Number", "21", "42", ""},
		{"Empty", "", "", ""},
		{"NilBytes", "", "", pitaya.CodeUnknown},
		{"NilPointer", "", "", pitaya.CodeUnknown},
		{"Failed", "", "", "APP-1"},
		{"NotifyNone", "", "", pitaya.CodeBadRequest},
		{"Helper", "", "", pitaya.CodeNotFound},
		{"Sum", "", "", pitaya.CodeNotFound},
		{"Last", "", "", pitaya.CodeNotFound},
		{"unexported", "", "", pitaya.CodeNotFound},
		{"Init", "", "", pitaya.CodeNotFound},
		{"none", "", "", pitaya.CodeNotFound},
	} {
		got, err := c.RequestRaw(t.Context(), "Shapes."+tt.method, []byte(tt.in))
		if string(got) != tt.want || pitaya.ErrorCode(err) != tt.code {
			t.Errorf("%s(%q): got %q, %v; want %q, %q", tt.method, tt.in, got, err, tt.want, tt.code)
		}
	}
	// A request that comes as a notify runs and is not answered, and errors of
	// notifies go nowhere: the answers below would not fit otherwise.
	for _, n := range []struct{ method, in string }{
		{"NotifyNone", ""}, {"NotifyRaw", "abc"}, {"NotifyTyped", `{"A":1}`}, {"NotifyTyped", "no JSON"}, {"None", ""}, {"Nobody", ""},
	} {
		if err := c.NotifyRaw(t.Context(), "Shapes."+n.method, []byte(n.in)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.RequestRaw(t.Context(), "Shapes.Raw", nil); err != nil {
		t.Error(err)
	}
	close(shapes.notes)
	var notes []string
	for n := range shapes.notes {
		notes = append(notes, n)
	}
	if got, want := strings.Join(notes, ", "), "none, raw abc, typed 1"; got != want {
		t.Errorf("notifies %q, want %q", got, want)
	}
}

// NearMisses has methods that look like handlers and are none.
type NearMisses struct{}

type (
	namedBytes []byte
	ownContext interface{ context.Context }
	ownError   interface{ error }
)

func (*NearMisses) Good(context.Context)                                   {}
func (*NearMisses) ArgStruct(context.Context, shapeArg) (*int, error)      { return nil, nil }
func (*NearMisses) ArgInterface(context.Context, any)                      {}
func (*NearMisses) ArgMap(context.Context, map[string]int)                 {}
func (*NearMisses) ArgNamedBytes(context.Context, namedBytes)              {}
func (*NearMisses) ArgTwo(context.Context, *int, *int)                     {}
func (*NearMisses) ArgVariadic(context.Context, ...*int)                   {}
func (*NearMisses) Ctx(ownContext)                                         {}
func (*NearMisses) OutOne(context.Context) *int                            { return nil }
func (*NearMisses) OutError(context.Context) error                         { return nil }
func (*NearMisses) OutThree(context.Context) (*int, *int, error)           { return nil, nil, nil }
func (*NearMisses) OutStruct(context.Context) (shapeArg, error)            { return shapeArg{}, nil }
func (*NearMisses) OutText(context.Context) (string, error)                { return "", nil }
func (*NearMisses) OutNamedBytes(context.Context) (namedBytes, error)      { return nil, nil }
func (*NearMisses) OutOtherError(context.Context, []byte) (*int, ownError) { return nil, nil }

//lint:ignore ST1008 this is the mistake
func (*NearMisses) OutSwapped(context.Context, []byte) (error, *int) { return nil, nil }

// ValueMethods has a method on the value and one on the pointer.
type ValueMethods struct{}

func (ValueMethods) ByValue(context.Context)    {}
func (*ValueMethods) ByPointer(context.Context) {}

// PointerMethods has methods on the pointer only.
type PointerMethods struct{}

func (*PointerMethods) Get(context.Context) {}

// Nothing has no handlers.
type Nothing struct{ pitaya.Base }

type hidden struct{}

func (*hidden) Get(context.Context) {}

// Twins has methods whose names differ in case.
type Twins struct{}

func (*Twins) GetIt(context.Context) {}
func (*Twins) Getit(context.Context) {}

// FuncComponent is a component that is no struct.
type FuncComponent func(context.Context)

func (f FuncComponent) Get(ctx context.Context) { f(ctx) }

func TestRegisterMistakes(t *testing.T) {
	t.Parallel()
	lines := func(s ...string) string { return strings.Join(s, "\n") }
	dotted := func(string) string { return "a.b" }
	for _, tt := range []struct {
		name      string
		component any
		opts      []pitaya.RegisterOption
		want      string
	}{
		{"good", &Shapes{}, nil, ""},
		{"by value", ValueMethods{}, nil, ""},
		{"function", FuncComponent(func(context.Context) {}), nil, ""},
		{"nil", nil, nil, "pitaya: register: no component given"},
		{"nil pointer", (*Shapes)(nil), nil, "pitaya: register: no component given"},
		{"near misses", &NearMisses{}, nil, lines(
			"pitaya: register *pitaya_test.NearMisses: method ArgInterface is no handler: its argument is of type interface {}; it must be a pointer or []byte",
			"pitaya: register *pitaya_test.NearMisses: method ArgMap is no handler: its argument is of type map[string]int; it must be a pointer or []byte",
			"pitaya: register *pitaya_test.NearMisses: method ArgNamedBytes is no handler: its argument is of type pitaya_test.namedBytes; it must be a pointer or []byte",
			"pitaya: register *pitaya_test.NearMisses: method ArgStruct is no handler: its argument is of type pitaya_test.shapeArg; it must be a pointer or []byte",
			"pitaya: register *pitaya_test.NearMisses: method ArgTwo is no handler: it takes more than a context and one argument",
			"pitaya: register *pitaya_test.NearMisses: method ArgVariadic is no handler: it is variadic",
			"pitaya: register *pitaya_test.NearMisses: method Ctx is no handler: its first argument must be a context.Context",
			"pitaya: register *pitaya_test.NearMisses: method OutError is no handler: it must return nothing (a notify) or a result and an error (a request)",
			"pitaya: register *pitaya_test.NearMisses: method OutNamedBytes is no handler: its result is of type pitaya_test.namedBytes; it must be a pointer or []byte",
			"pitaya: register *pitaya_test.NearMisses: method OutOne is no handler: it must return nothing (a notify) or a result and an error (a request)",
			"pitaya: register *pitaya_test.NearMisses: method OutOtherError is no handler: its second result is of type pitaya_test.ownError; it must be error",
			"pitaya: register *pitaya_test.NearMisses: method OutStruct is no handler: its result is of type pitaya_test.shapeArg; it must be a pointer or []byte",
			"pitaya: register *pitaya_test.NearMisses: method OutSwapped is no handler: its result is of type error; it must be a pointer or []byte",
			"pitaya: register *pitaya_test.NearMisses: method OutText is no handler: its result is of type string; it must be a pointer or []byte",
			"pitaya: register *pitaya_test.NearMisses: method OutThree is no handler: it must return nothing (a notify) or a result and an error (a request)",
		)},
		{"near misses skipped", &NearMisses{}, []pitaya.RegisterOption{
			pitaya.WithSkip("ArgInterface", "ArgMap", "ArgNamedBytes", "ArgStruct", "ArgTwo", "ArgVariadic", "Ctx"),
			pitaya.WithSkip("OutError", "OutNamedBytes", "OutOne", "OutOtherError", "OutStruct", "OutSwapped", "OutText", "OutThree"),
		}, ""},
		{"skipped that is not there", &Twins{}, []pitaya.RegisterOption{pitaya.WithSkip("GetIt", "Set")},
			"pitaya: register *pitaya_test.Twins: there is no method Set to skip"},
		{"no methods", &Nothing{}, nil, "pitaya: register *pitaya_test.Nothing: it has no method that is a handler"},
		{"methods of the pointer", PointerMethods{}, nil,
			"pitaya: register pitaya_test.PointerMethods: it has no method that is a handler (its pointer has more methods: register a pointer)"},
		{"unexported", &hidden{}, nil, "pitaya: register *pitaya_test.hidden: the type is not exported"},
		{"two methods of one name", &Twins{}, []pitaya.RegisterOption{pitaya.WithNameFunc(strings.ToLower)},
			`pitaya: register *pitaya_test.Twins: two methods have the name "getit"`},
		{"service name", &PointerMethods{}, []pitaya.RegisterOption{pitaya.WithName("a.b")},
			`pitaya: register *pitaya_test.PointerMethods: service name "a.b": contains a dot`},
		{"method name", &PointerMethods{}, []pitaya.RegisterOption{pitaya.WithNameFunc(dotted)},
			`pitaya: register *pitaya_test.PointerMethods: method Get: name "a.b": contains a dot`},
		{"long route", &PointerMethods{}, []pitaya.RegisterOption{pitaya.WithName(strings.Repeat("s", 247))},
			"pitaya: register *pitaya_test.PointerMethods: route of 256 bytes, at most 255 fit"},
		{"longest route", &PointerMethods{}, []pitaya.RegisterOption{pitaya.WithName(strings.Repeat("s", 246))}, ""},
		{"taken service", &PointerMethods{}, []pitaya.RegisterOption{pitaya.WithName("taken")},
			`pitaya: register *pitaya_test.PointerMethods: there is a service with the name "taken" already`},
		{"several", &hidden{}, []pitaya.RegisterOption{pitaya.WithName("taken"), pitaya.WithNameFunc(dotted), pitaya.WithSkip("X")}, lines(
			"pitaya: register *pitaya_test.hidden: the type is not exported",
			`pitaya: register *pitaya_test.hidden: there is a service with the name "taken" already`,
			`pitaya: register *pitaya_test.hidden: method Get: name "a.b": contains a dot`,
			"pitaya: register *pitaya_test.hidden: there is no method X to skip",
		)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := pitaya.NewServer(pitaya.Config{Type: "conn"})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Register(&Shapes{}, pitaya.WithName("taken")); err != nil {
				t.Fatal(err)
			}
			err = s.Register(tt.component, tt.opts...)
			if got := fmt.Sprint(err); tt.want != "" && got != tt.want || tt.want == "" && err != nil {
				t.Errorf("got\n%v\nwant\n%s", err, tt.want)
			}
			if tt.want == "" {
				return
			}
			if rerr := s.Run(t.Context()); rerr == nil || rerr.Error() != tt.want {
				t.Errorf("Run does not tell: %v", rerr)
			}
		})
	}
}

func TestHandleMistakes(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]func(s *pitaya.Server, route string) error{
		"Handle": func(s *pitaya.Server, route string) error {
			return pitaya.Handle(s, route, func(_ context.Context, in *int) (*int, error) { return in, nil })
		},
		"HandleNotify": func(s *pitaya.Server, route string) error {
			return pitaya.HandleNotify(s, route, func(context.Context, *int) {})
		},
		"HandleRaw": func(s *pitaya.Server, route string) error {
			return pitaya.HandleRaw(s, route, func(_ context.Context, in []byte) ([]byte, error) { return in, nil })
		},
	} {
		s, err := pitaya.NewServer(pitaya.Config{Type: "conn"})
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ route, want string }{
			{"echo.short", ""},
			{"conn.echo.full", ""},
			{"echo.short", `there is a handler for "echo.short" already`},
			{"conn.echo.short", `there is a handler for "echo.short" already`},
			{"echo.full", `there is a handler for "echo.full" already`},
			{"other.echo.short", `this server is of type "conn"`},
			{"echo", "invalid route"},
			{"echo.", "route field can not be empty"},
			{"a.b.c.d", "invalid route"},
			{"echo." + strings.Repeat("m", 246), "route of 256 bytes, at most 255 fit"},
		} {
			want := fmt.Sprintf("pitaya: register %q: %s", tt.route, tt.want)
			if err := handle(s, tt.route); err == nil && tt.want != "" || err != nil && err.Error() != want {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
		}
	}
}

// Options tells about its calls' contexts.
type Options struct{}

func (*Options) Limit(ctx context.Context) (*string, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return new("none"), nil
	}
	return new(time.Until(deadline).String()), nil
}

func (*Options) Wait(ctx context.Context) (*string, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("waiting: %w", ctx.Err())
}

func TestHandlerTimeout(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		settings time.Duration
		opts     []pitaya.RegisterOption
		want     string
	}{
		{"none", 0, nil, "none"},
		{"setting", 5 * time.Second, nil, "5s"},
		{"option", 0, []pitaya.RegisterOption{pitaya.WithTimeout(3 * time.Second)}, "3s"},
		{"option before setting", 5 * time.Second, []pitaya.RegisterOption{pitaya.WithTimeout(3 * time.Second)}, "3s"},
		{"option switches off", 5 * time.Second, []pitaya.RegisterOption{pitaya.WithTimeout(-1)}, "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := startServer(t, pitaya.Config{HandlerTimeout: tt.settings}, func(s *pitaya.Server) {
					if err := s.Register(&Options{}, tt.opts...); err != nil {
						t.Fatal(err)
					}
				})
				c := clientOf(t, s, nil)
				var got string
				if err := c.Request(t.Context(), "Options.Limit", nil, &got); err != nil || got != tt.want {
					t.Errorf("limit %q, %v; want %s", got, err, tt.want)
				}
				if tt.want == "none" {
					return
				}
				begin := time.Now()
				err := c.Request(t.Context(), "Options.Wait", nil, nil)
				if pitaya.ErrorCode(err) != pitaya.CodeTimeout {
					t.Errorf("out of time: %v, want code %s", err, pitaya.CodeTimeout)
				}
				if took := time.Since(begin).String(); took != tt.want {
					t.Errorf("the context ended after %s, want %s", took, tt.want)
				}
			})
		})
	}
}

func TestHandlerOptions(t *testing.T) {
	t.Parallel()
	arrived, leave := make(chan struct{}), make(chan struct{})
	s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
		err := errors.Join(
			s.Register(&BindRoom{}, pitaya.WithName("room"), pitaya.WithNameFunc(strings.ToLower)),
			s.Register(&Options{}, pitaya.WithBound()),
			pitaya.HandleNotify(s, "gate.wait", func(ctx context.Context, _ *int) {
				close(arrived)
				<-leave
			}, pitaya.WithConcurrent()),
		)
		if err != nil {
			t.Fatal(err)
		}
	})
	c := clientOf(t, s, nil)
	if err := c.Request(t.Context(), "Options.Limit", nil, nil); pitaya.ErrorCode(err) != pitaya.CodeUnbound {
		t.Errorf("without a user: %v, want code %s", err, pitaya.CodeUnbound)
	}
	if err := c.Request(t.Context(), "room.bind", "ann", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Request(t.Context(), "Options.Limit", nil, nil); err != nil {
		t.Errorf("with a user: %v", err)
	}
	// A concurrent handler keeps nobody waiting.
	if err := c.Notify(t.Context(), "gate.wait", 1); err != nil {
		t.Fatal(err)
	}
	<-arrived
	if err := c.Request(t.Context(), "Options.Limit", nil, nil); err != nil {
		t.Errorf("beside a concurrent handler: %v", err)
	}
	close(leave)
}

// TestTypedLikeReflected sends the same to a method and to a function.
func TestTypedLikeReflected(t *testing.T) {
	t.Parallel()
	shapes := &Shapes{notes: make(chan string, 8)}
	s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
		err := errors.Join(
			s.Register(shapes, pitaya.WithName("method")),
			pitaya.Handle(s, "func.Typed", shapes.Typed),
			pitaya.Handle(s, "func.Number", shapes.Number),
			pitaya.HandleNotify(s, "func.NotifyTyped", shapes.NotifyTyped),
			pitaya.HandleRaw(s, "func.Raw", shapes.Raw),
			pitaya.Handle(s, "func.NilPointer", func(ctx context.Context, _ *any) (*int, error) { return nil, nil }),
		)
		if err != nil {
			t.Fatal(err)
		}
	})
	c := clientOf(t, s, nil)
	for _, tt := range []struct{ method, in string }{
		{"Typed", `{"A":1}`}, {"Typed", "no JSON"}, {"Number", "1"}, {"NotifyTyped", `{"A":1}`},
		{"Raw", "abc"}, {"Raw", ""}, {"NilPointer", "{}"},
	} {
		method, merr := c.RequestRaw(t.Context(), "method."+tt.method, []byte(tt.in))
		function, ferr := c.RequestRaw(t.Context(), "func."+tt.method, []byte(tt.in))
		if string(method) != string(function) || fmt.Sprint(merr) != fmt.Sprint(ferr) || pitaya.ErrorCode(merr) != pitaya.ErrorCode(ferr) {
			t.Errorf("%s(%q): method %q, %v; function %q, %v", tt.method, tt.in, method, merr, function, ferr)
		}
	}
}
