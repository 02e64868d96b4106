package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// pipelineArg is the argument of the handlers of these tests.
type pipelineArg struct{ Text string }

// Validate is honoured when the setting is on.
func (a *pipelineArg) Validate() error {
	switch a.Text {
	case "bad":
		return pitaya.Errorf("APP-400", "bad text")
	case "panic":
		panic("validator")
	}
	return nil
}

type pipelineKey struct{}

func TestPipeline(t *testing.T) {
	t.Parallel()
	// add returns a function that appends to the text of the argument.
	add := func(text string) pitaya.BeforeFunc {
		return func(ctx context.Context, in any) (context.Context, any, error) {
			return ctx, &pipelineArg{in.(*pipelineArg).Text + text}, nil
		}
	}
	before := func(in any, err error) pitaya.BeforeFunc {
		return func(ctx context.Context, _ any) (context.Context, any, error) { return ctx, in, err }
	}
	// wrap returns a function that puts brackets around result and error.
	wrap := func(text string) pitaya.AfterFunc {
		return func(ctx context.Context, out any, err error) (any, error) {
			if err != nil {
				return nil, fmt.Errorf("%s(%w)", text, err)
			}
			return &pipelineArg{text + "(" + out.(*pipelineArg).Text + ")"}, nil
		}
	}
	after := func(out any, err error) pitaya.AfterFunc {
		return func(context.Context, any, error) (any, error) { return out, err }
	}
	coded := pitaya.Errorf("APP-1", "stopped")
	for _, tt := range []struct {
		name   string
		before []pitaya.BeforeFunc
		after  []pitaya.AfterFunc
		route  string // echo by default
		want   string // the answer, or the text of the error
		code   string
	}{
		{name: "nothing", want: `{"Text":"in"}`},
		{name: "order", before: []pitaya.BeforeFunc{add("1"), add("2")}, after: []pitaya.AfterFunc{wrap("a"), wrap("b")},
			want: `{"Text":"b(a(in12))"}`},
		{name: "before stops", before: []pitaya.BeforeFunc{before(nil, coded), add("never")}, after: []pitaya.AfterFunc{wrap("never")},
			want: "stopped", code: "APP-1"},
		{name: "before stops without a code", before: []pitaya.BeforeFunc{before(nil, errors.New("plain"))},
			want: "plain", code: pitaya.CodeUnknown},
		{name: "another type", before: []pitaya.BeforeFunc{before(new(int), nil)},
			want: "a function before the handler returned an argument of another type", code: pitaya.CodeInternal},
		{name: "no argument", before: []pitaya.BeforeFunc{before(nil, nil)},
			want: "a function before the handler returned an argument of another type", code: pitaya.CodeInternal},
		{name: "nil argument", before: []pitaya.BeforeFunc{before((*pipelineArg)(nil), nil)},
			want: "a function before the handler returned an argument of another type", code: pitaya.CodeInternal},
		{name: "no context", before: []pitaya.BeforeFunc{func(context.Context, any) (context.Context, any, error) { return nil, nil, nil }},
			want: "a function before the handler returned no context", code: pitaya.CodeInternal},
		{name: "context", before: []pitaya.BeforeFunc{func(ctx context.Context, in any) (context.Context, any, error) {
			return context.WithValue(ctx, pipelineKey{}, "value"), in, nil
		}}, route: "echo.context", want: `"value"`},
		{name: "context of another", before: []pitaya.BeforeFunc{func(_ context.Context, in any) (context.Context, any, error) {
			return context.Background(), in, nil
		}}, route: "echo.context", want: `""`},
		{name: "handler fails", after: []pitaya.AfterFunc{wrap("a"), wrap("b")}, route: "echo.fail", want: "b(a(failed))", code: "APP-2"},
		{name: "after repairs", after: []pitaya.AfterFunc{after(&pipelineArg{"repaired"}, nil)}, route: "echo.fail", want: `{"Text":"repaired"}`},
		{name: "after replaces the error", after: []pitaya.AfterFunc{after(nil, coded)}, route: "echo.fail", want: "stopped", code: "APP-1"},
		{name: "after fails", after: []pitaya.AfterFunc{after(nil, coded)}, want: "stopped", code: "APP-1"},
		{name: "after returns bytes", after: []pitaya.AfterFunc{after([]byte("bytes"), nil)}, want: "bytes"},
		{name: "after returns nothing", after: []pitaya.AfterFunc{after(nil, nil)}, want: "reply must not be null", code: pitaya.CodeUnknown},
		{name: "before panics", before: []pitaya.BeforeFunc{func(context.Context, any) (context.Context, any, error) { panic("before") }},
			want: "internal error", code: pitaya.CodeInternal},
		{name: "after panics", after: []pitaya.AfterFunc{func(context.Context, any, error) (any, error) { panic("after") }},
			want: "internal error", code: pitaya.CodeInternal},
		{name: "raw argument", before: []pitaya.BeforeFunc{func(ctx context.Context, in any) (context.Context, any, error) {
			return ctx, []byte(strings.ToUpper(string(in.([]byte)))), nil
		}}, route: "echo.raw", want: `{"TEXT":"IN"}`},
		{name: "raw argument of another type", before: []pitaya.BeforeFunc{before("text", nil)}, route: "echo.raw",
			want: "a function before the handler returned an argument of another type", code: pitaya.CodeInternal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, pitaya.Config{Logger: discard}, func(s *pitaya.Server) {
				err := errors.Join(
					pitaya.Handle(s, "echo.echo", func(_ context.Context, in *pipelineArg) (*pipelineArg, error) { return in, nil }),
					pitaya.Handle(s, "echo.fail", func(_ context.Context, in *pipelineArg) (*pipelineArg, error) {
						return nil, pitaya.Errorf("APP-2", "failed")
					}),
					pitaya.Handle(s, "echo.context", func(ctx context.Context, in *pipelineArg) (*string, error) {
						v, _ := ctx.Value(pipelineKey{}).(string)
						return &v, nil
					}),
					pitaya.HandleRaw(s, "echo.raw", func(_ context.Context, in []byte) ([]byte, error) { return in, nil }),
				)
				for _, f := range tt.before {
					err = errors.Join(err, s.Before(f))
				}
				for _, f := range tt.after {
					err = errors.Join(err, s.After(f))
				}
				if err != nil {
					t.Fatal(err)
				}
			})
			c := clientOf(t, s, nil)
			route := tt.route
			if route == "" {
				route = "echo.echo"
			}
			got, err := c.RequestRaw(t.Context(), route, []byte(`{"Text":"in"}`))
			if err != nil {
				got = []byte(err.Error())
			}
			if string(got) != tt.want || pitaya.ErrorCode(err) != tt.code {
				t.Errorf("got %q with code %q, want %q with %q", got, pitaya.ErrorCode(err), tt.want, tt.code)
			}
		})
	}
}

// TestPipelineNoArgument looks at what before functions get from handlers
// without an argument, and that notifies pass them too.
func TestPipelineNoArgument(t *testing.T) {
	t.Parallel()
	calls := make(chan string, 8)
	s := startServer(t, pitaya.Config{}, func(s *pitaya.Server) {
		err := errors.Join(
			s.Register(&Options{}),
			pitaya.HandleNotify(s, "notify.typed", func(context.Context, *pipelineArg) {}),
			s.Before(func(ctx context.Context, in any) (context.Context, any, error) {
				calls <- fmt.Sprintf("before %s %v", pitaya.RouteFromContext(ctx), in)
				return ctx, in, nil
			}),
			s.After(func(ctx context.Context, out any, err error) (any, error) {
				_, isText := out.(*string)
				calls <- fmt.Sprintf("after %s %v %v", pitaya.RouteFromContext(ctx), isText, err)
				return out, err
			}),
		)
		if err != nil {
			t.Fatal(err)
		}
	})
	c := clientOf(t, s, nil)
	if err := c.Notify(t.Context(), "notify.typed", &pipelineArg{"in"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Request(t.Context(), "Options.Limit", nil, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"before conn.notify.typed &{in}", "after conn.notify.typed false <nil>",
		"before conn.Options.Limit <nil>", "after conn.Options.Limit true <nil>",
	} {
		if got := <-calls; got != want {
			t.Errorf("call %q, want %q", got, want)
		}
	}
}

func TestValidateRequests(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		validate bool
		text     string
		code     string
	}{
		{"off", false, "bad", ""},
		{"good", true, "good", ""},
		{"bad", true, "bad", "APP-400"},
		{"panic", true, "panic", pitaya.CodeInternal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, pitaya.Config{ValidateRequests: tt.validate, Logger: discard}, func(s *pitaya.Server) {
				err := errors.Join(
					pitaya.Handle(s, "echo.typed", func(_ context.Context, in *pipelineArg) (*pipelineArg, error) { return in, nil }),
					pitaya.HandleRaw(s, "echo.raw", func(_ context.Context, in []byte) ([]byte, error) { return in, nil }),
				)
				if err != nil {
					t.Fatal(err)
				}
			})
			c := clientOf(t, s, nil)
			if err := c.Request(t.Context(), "echo.typed", &pipelineArg{tt.text}, nil); pitaya.ErrorCode(err) != tt.code {
				t.Errorf("got %v, want code %q", err, tt.code)
			}
			if err := c.Request(t.Context(), "echo.raw", []byte(tt.text), nil); err != nil {
				t.Errorf("a raw argument: %v", err)
			}
		})
	}
}
