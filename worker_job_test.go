package pitaya_test

import (
	"math"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
)

func TestRetryDelay(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name string
		opts pitaya.RetryOptions
		want []time.Duration // after 0, 1, 2, … failures
	}{
		{"the defaults of Pitaya", pitaya.RetryOptions{Exponential: 5, MinDelay: 10 * s, MaxDelay: 10 * s}, []time.Duration{10 * s, 10 * s, 10 * s, 10 * s}},
		{"growing", pitaya.RetryOptions{Exponential: 2, MinDelay: s, MaxDelay: 11 * s}, []time.Duration{s, s, 2 * s, 5 * s, 10 * s, 11 * s}},
		{"fractions", pitaya.RetryOptions{Exponential: 1, MinDelay: 250 * time.Millisecond}, []time.Duration{s / 4, s / 4, s + s/4, 2*s + s/4}},
		{"0 to the 0 is 1", pitaya.RetryOptions{}, []time.Duration{s, s, s}},
		{"no bound is a day", pitaya.RetryOptions{Exponential: 100}, []time.Duration{0, 0, s, 24 * time.Hour, 24 * time.Hour}},
	} {
		for failures, want := range tt.want {
			if got := tt.opts.Delay(failures); got != want {
				t.Errorf("%s: after %d failures: got %v, want %v", tt.name, failures, got, want)
			}
		}
	}
	if got := (pitaya.RetryOptions{Exponential: 100}).Delay(math.MaxInt); got != 24*time.Hour {
		t.Errorf("got %v", got)
	}
	random := pitaya.RetryOptions{Exponential: 1, MinDelay: s, MaxRandom: 10 * s}
	var low, high bool
	for range 10_000 {
		d := random.Delay(3) // 2 + 1 + up to 30
		if d < 3*s || d >= 33*s {
			t.Fatalf("got %v", d)
		}
		low, high = low || d < 10*s, high || d > 26*s
	}
	if !low || !high {
		t.Error("the random part is not what it should be")
	}
}

func TestJobFormat(t *testing.T) {
	t.Parallel()
	text := `{"v":1,"route":"room.room.do","metadata":{"k":["v",1]},"argType":"google.protobuf.StringValue","arg":"CgVoZWxsbw==",
		"replyType":"google.protobuf.Empty","retry":{"enabled":true,"max":2,"exp":5,"minDelay":10000,"maxDelay":11000,"maxRandom":12000},
		"enqueued":1795327345863,"server":"g","requestId":"r","trace":{"traceparent":"x"},"later":"is ignored"}`
	info, err := pitaya.ParseJob([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := pitaya.JobInfo{
		Route: "room.room.do", Metadata: map[string]any{"k": []any{"v", 1.0}}, ArgType: "google.protobuf.StringValue", ReplyType: "google.protobuf.Empty",
		Retry:    pitaya.RetryOptions{Enabled: true, Max: 2, Exponential: 5, MinDelay: 10 * time.Second, MaxDelay: 11 * time.Second, MaxRandom: 12 * time.Second},
		Enqueued: time.UnixMilli(1795327345863), Server: "g", RequestID: "r",
	}
	if !reflect.DeepEqual(info, want) {
		t.Errorf("got %+v, want %+v", info, want)
	}
	var arg wrapperspb.StringValue
	if err := pitaya.JobArg([]byte(text), &arg); err != nil || arg.Value != "hello" {
		t.Errorf("argument: got %q, %v", arg.Value, err)
	}
}

func FuzzParseJob(f *testing.F) {
	for _, s := range []string{
		``, `null`, `{"v":1}`, `{"v":1,"route":"a.b.c"}`, `{"V":1,"Route":"a.b.c","ARG":"AA=="}`,
		`{"v":1,"route":"a.b.c","argType":"google.protobuf.StringValue","arg":"CgVoZWxsbw==","retry":{"enabled":true,"max":2,"exp":5,"minDelay":10,"maxDelay":11}}`,
		`{"v":1,"route":"a.b.c","trace":{"traceparent":"x"},"metadata":{"a":[1e999]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		info, err := pitaya.ParseJob(body)
		if err != nil {
			return
		}
		if r, err := pitaya.ParseRoute(info.Route); err != nil || r.ServerType == "" {
			t.Errorf("the route %q", info.Route)
		}
		if d := info.Retry.Delay(3); d < 0 || d > 24*time.Hour {
			t.Errorf("a pause of %v", d)
		}
		again, err := pitaya.RecodeJob(body)
		if err != nil {
			t.Fatal(err)
		}
		second, err := pitaya.ParseJob(again)
		if len(info.Metadata) == 0 {
			info.Metadata = nil // {} is left away
		}
		if err != nil || !reflect.DeepEqual(info, second) {
			t.Errorf("decoded %+v, and encoded and decoded %+v, %v", info, second, err)
		}
	})
}
