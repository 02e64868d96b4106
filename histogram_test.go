package pitaya_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Quantiles are within a sixteenth of what sorting says, over the whole range.
func TestHistogramQuantiles(t *testing.T) {
	t.Parallel()
	for _, top := range []time.Duration{50 * time.Microsecond, 3 * time.Millisecond, 7 * time.Second, 10 * time.Minute} {
		var h pitaya.Histogram
		r := rand.New(rand.NewPCG(1, uint64(top)))
		var all []time.Duration
		for range 5000 {
			d := time.Duration(math.Pow(float64(top), 0.5+r.Float64()/2)) // many are short
			all = append(all, d)
			h.Add(d)
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 1} {
			want := all[min(int(q*float64(len(all))), len(all)-1)]
			got := h.Quantile(q, false)
			if diff := (got - want).Abs(); diff > want/16+time.Microsecond {
				t.Errorf("up to %v: quantile %v is %v, want %v", top, q, got, want)
			}
		}
	}
}

func TestHistogramRange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, low, high time.Duration }{
		{-time.Second, 0, time.Microsecond},
		{0, 0, time.Microsecond},
		{time.Nanosecond, 0, time.Microsecond},
		{1 << 13, 1 << 13, 1<<13 + 1<<10}, // the first bucket that is as wide as the last before it
		{math.MaxInt64, 10 * time.Minute, math.MaxInt64},
	} {
		var h pitaya.Histogram
		h.Add(tt.in)
		if got := h.Quantile(0.5, false); got < tt.low || got > tt.high {
			t.Errorf("%v: got %v, want %v to %v", tt.in, got, tt.low, tt.high)
		}
	}
	var empty pitaya.Histogram
	if got := empty.Quantile(0.99, true); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// What was added is seen in its turn and the next, and not after that.
func TestHistogramTurns(t *testing.T) {
	t.Parallel()
	var h pitaya.Histogram
	h.Add(time.Second)
	for turn, want := range []struct{ present, both bool }{{true, true}, {false, true}, {false, false}, {false, false}} {
		if got := h.Quantile(1, false) > 0; got != want.present {
			t.Errorf("turn %d: in the present one: %v", turn, got)
		}
		if got := h.Quantile(1, true) > 0; got != want.both {
			t.Errorf("turn %d: in both: %v", turn, got)
		}
		h.Turn()
	}
}
