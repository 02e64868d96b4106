package hist_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya/internal/load/hist"
)

var quantiles = []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 1}

// exact is the quantile by sorting.
func exact(all []time.Duration, q float64) time.Duration {
	rank := max(int(math.Ceil(q*float64(len(all)))), 1)
	return all[rank-1]
}

func checkQuantiles(t *testing.T, h *hist.Hist, all []time.Duration) {
	t.Helper()
	slices.Sort(all)
	for _, q := range quantiles {
		want, got := exact(all, q), h.Quantile(q)
		if diff := got - want; diff < 0 || float64(diff) > hist.Precision*float64(want) {
			t.Errorf("quantile %v is %v, want %v and at most 1/128 more", q, got, want)
		}
	}
	var sum float64
	for _, d := range all {
		sum += float64(d)
	}
	if h.Count() != uint64(len(all)) || h.Min() != all[0] || h.Max() != all[len(all)-1] {
		t.Errorf("count %d min %v max %v, want %d %v %v", h.Count(), h.Min(), h.Max(), len(all), all[0], all[len(all)-1])
	}
	if mean := sum / float64(len(all)); math.Abs(float64(h.Mean())-mean) > mean/1e6+1 {
		t.Errorf("mean %v, want %v", h.Mean(), time.Duration(mean))
	}
}

// Quantiles are never below what sorting says, and at most 1/128 above it, over the whole range.
func TestQuantiles(t *testing.T) {
	t.Parallel()
	for _, top := range []time.Duration{100, 50 * time.Microsecond, 3 * time.Millisecond, 7 * time.Second, time.Hour} {
		r := rand.New(rand.NewPCG(1, uint64(top)))
		var h, merged hist.Hist
		parts := make([]hist.Hist, 3)
		var all []time.Duration
		for i := range 5000 {
			d := time.Duration(math.Pow(float64(top), r.Float64())) // many are short
			all = append(all, d)
			h.Add(d)
			parts[i%3].Add(d)
		}
		for i := range parts {
			merged.Merge(&parts[i])
		}
		checkQuantiles(t, &h, all)
		checkQuantiles(t, &merged, all)
		if merged != h {
			t.Error("what was merged differs from what was counted at once")
		}
	}
}

func TestRange(t *testing.T) {
	t.Parallel()
	var h hist.Hist
	if h.Quantile(0.5) != 0 || h.Mean() != 0 {
		t.Error("an empty histogram has a quantile")
	}
	h.Add(-time.Second)
	if h.Quantile(1) != 0 || h.Count() != 1 {
		t.Errorf("a negative duration counts as %v", h.Quantile(1))
	}
	h.Add(math.MaxInt64)
	if got := h.Quantile(1); got != math.MaxInt64 {
		t.Errorf("the longest duration counts as %v", got)
	}
	h.Reset()
	if h != (hist.Hist{}) {
		t.Error("not empty after Reset")
	}
	h.AddN(time.Second, 3)
	for d, n := range h.Buckets() {
		if n != 3 || d > time.Second || d < time.Second*127/128 {
			t.Errorf("bucket of %v with %d", d, n)
		}
	}
}

// The correction adds what a client at a fixed interval would have seen during a stall.
func TestCorrected(t *testing.T) {
	t.Parallel()
	const interval = 10 * time.Millisecond
	var h hist.Hist
	var all []time.Duration
	for range 100 {
		h.Add(time.Millisecond)
		all = append(all, time.Millisecond)
	}
	h.Add(time.Second)
	for d := time.Second; d >= interval; d -= interval {
		all = append(all, d)
	}
	c := h.Corrected(interval)
	if diff := int64(c.Count()) - int64(len(all)); diff < -1 || diff > 1 {
		t.Errorf("%d after the correction, want %d", c.Count(), len(all))
	}
	slices.Sort(all)
	for _, q := range quantiles {
		want, got := exact(all, q), c.Quantile(q)
		if diff := (got - want).Abs(); diff > want/64+interval {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
	if got := h.Corrected(0); *got != h {
		t.Error("an interval of 0 changes something")
	}
	h.Add(time.Hour)
	if got := h.Corrected(time.Nanosecond).Count(); got < uint64(time.Hour)*9/10 {
		t.Errorf("%d after the correction of an hour by nanoseconds", got)
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	var h hist.Hist
	d := time.Duration(1)
	if n := testing.AllocsPerRun(100, func() { d *= 3; h.Add(d) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
