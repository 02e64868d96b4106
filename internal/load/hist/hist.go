// Package hist counts durations in a bounded amount of memory, whatever their number.
package hist

import (
	"iter"
	"math"
	"time"

	"github.com/pitaya-go/pitaya/internal/buckets"
)

const (
	// steps makes a bucket at most 1/128 of its value wide.
	steps = 7
	// topBits bounds what is told apart: 2^42 ns is 73 minutes.
	topBits = 42
	size    = (topBits - steps + 1) << steps
)

// Precision is the largest relative error of a quantile.
const Precision = 1.0 / (1 << steps)

// A Hist is a histogram of durations from a nanosecond to 73 minutes, each known to [Precision]; what is longer counts as
// the longest, and negative ones as 0. Least, greatest and mean are exact. It takes 37 KB. The zero value is empty and
// ready. It is not safe for concurrent use: goroutines have one each, which are merged.
type Hist struct {
	counts   [size]uint64
	n        uint64
	sum      float64
	min, max time.Duration
}

// Add counts a duration.
func (h *Hist) Add(d time.Duration) { h.AddN(d, 1) }

// AddN counts a duration n times.
func (h *Hist) AddN(d time.Duration, n uint64) {
	if n == 0 {
		return
	}
	d = max(d, 0)
	if h.n == 0 || d < h.min {
		h.min = d
	}
	h.max = max(h.max, d)
	h.n += n
	h.sum += float64(d) * float64(n)
	h.counts[min(buckets.Index(uint64(d), steps), size-1)] += n
}

// Merge adds what other has counted.
func (h *Hist) Merge(other *Hist) {
	if other.n == 0 {
		return
	}
	if h.n == 0 || other.min < h.min {
		h.min = other.min
	}
	h.max = max(h.max, other.max)
	h.n += other.n
	h.sum += other.sum
	for i, c := range other.counts {
		h.counts[i] += c
	}
}

// Reset empties the histogram.
func (h *Hist) Reset() {
	if h.n > 0 {
		*h = Hist{}
	}
}

// Count returns how many durations were counted.
func (h *Hist) Count() uint64 { return h.n }

// Min returns the least duration, 0 if there are none.
func (h *Hist) Min() time.Duration { return h.min }

// Max returns the greatest duration, 0 if there are none.
func (h *Hist) Max() time.Duration { return h.max }

// Mean returns the mean, 0 if there are no durations.
func (h *Hist) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return time.Duration(h.sum / float64(h.n))
}

// Quantile returns a duration that the share q of all, from 0 to 1, does not exceed: the greatest one of the bucket in
// which that share is reached. It is 0 if there are none.
func (h *Hist) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := min(max(uint64(math.Ceil(q*float64(h.n))), 1), h.n)
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen >= rank {
			if i == size-1 {
				return h.max // the last bucket has no end
			}
			low, width := buckets.Bounds(i, steps)
			return min(time.Duration(low+width-1), h.max)
		}
	}
	return h.max
}

// Buckets yields the durations in use, in rising order, each the least of its bucket, and how often they came.
func (h *Hist) Buckets() iter.Seq2[time.Duration, uint64] {
	return func(yield func(time.Duration, uint64) bool) {
		for i, c := range h.counts {
			if c == 0 {
				continue
			}
			if low, _ := buckets.Bounds(i, steps); !yield(time.Duration(low), c) {
				return
			}
		}
	}
}

// Corrected returns a histogram as a client would have seen it that acts once per interval, whatever the one before has
// met: a duration d above interval hides others of d-interval, d-2*interval and so on, which are added. This is the
// correction for coordinated omission of a closed load whose clients meant to act at that interval. An interval of 0 or
// less gives a copy.
func (h *Hist) Corrected(interval time.Duration) *Hist {
	out := new(Hist)
	*out = *h
	if interval <= 0 {
		return out
	}
	// One stall of an hour at an interval of a nanosecond must not take hours to correct: what is finer than the
	// buckets of the stalled duration is counted in one go.
	for i, c := range h.counts {
		low, width := buckets.Bounds(i, steps)
		d := time.Duration(low + width/2)
		if c == 0 || d <= interval {
			continue
		}
		missing := d - interval
		for j := buckets.Index(uint64(min(missing, 1<<topBits-1)), steps); j >= 0; j-- {
			from, width := buckets.Bounds(j, steps)
			if time.Duration(from+width) <= interval {
				break
			}
			// How many of missing, missing-interval, ... down to interval are in this bucket.
			hi := min(time.Duration(from+width-1), missing)
			lo := max(time.Duration(from), interval)
			if hi < lo {
				continue
			}
			first := (missing - hi + interval - 1) / interval // least k with missing-k*interval <= hi
			last := (missing - lo) / interval                 // greatest k with missing-k*interval >= lo
			if last >= first {
				out.AddN((hi+lo)/2, c*uint64(last-first+1))
			}
		}
	}
	return out
}
