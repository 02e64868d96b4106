package pitaya

import (
	"sync/atomic"
	"time"

	"github.com/pitaya-go/pitaya/internal/buckets"
)

// The buckets of a histogram: eight of equal width for each power of two, so
// that a value is known to about 6 %, from a microsecond to a quarter of an hour.
const (
	histogramShift   = 10 // the first buckets are 1,024 ns wide
	histogramSteps   = 3  // a power of two has 1<<histogramSteps buckets
	histogramBuckets = 28 << histogramSteps
)

// histogram counts durations, in a kilobyte and without looking at the clock:
// whose turn it is, its user says. (The summaries of [Metrics] have a
// sampleWindow, which is finer, for any number, and for the last ten minutes.)
// Its zero value is ready, and all methods may be called by many goroutines at
// once.
type histogram struct {
	counts [histogramBuckets]atomic.Uint32
}

// histogramBucket returns the bucket of a duration; what is out of range is in
// the first or the last.
func histogramBucket(d time.Duration) int {
	return min(buckets.Index(uint64(max(d, 0))>>histogramShift, histogramSteps), histogramBuckets-1)
}

// histogramValue returns the middle of a bucket.
func histogramValue(bucket int) time.Duration {
	low, width := buckets.Bounds(bucket, histogramSteps)
	return time.Duration(low)<<histogramShift + time.Duration(width)<<histogramShift/2
}

func (h *histogram) add(d time.Duration) { h.counts[histogramBucket(d)].Add(1) }

func (h *histogram) clear() {
	for i := range h.counts {
		h.counts[i].Store(0)
	}
}

// distribution is what a histogram has counted up to a moment.
type distribution [histogramBuckets]uint32

// take adds what h has counted.
func (d *distribution) take(h *histogram) {
	for i := range h.counts {
		d[i] += h.counts[i].Load()
	}
}

func (d *distribution) total() (n uint64) {
	for _, c := range d {
		n += uint64(c)
	}
	return n
}

// quantile returns the duration that the share q of all, from 0 to 1, is not
// above; 0 if there are none.
func (d *distribution) quantile(q float64) time.Duration {
	total := d.total()
	if total == 0 {
		return 0
	}
	rank := min(uint64(q*float64(total)), total-1) // how many are below it
	var seen uint64
	for i, c := range d {
		if seen += uint64(c); seen > rank {
			return histogramValue(i)
		}
	}
	return 0 // not reached
}

// rolling counts the durations of a while: of the present turn and the one
// before. Who turns it decides how long that is. Its zero value is ready.
type rolling struct {
	turns atomic.Uint32 // the parity says which part is the present one
	parts [2]histogram
}

func (r *rolling) add(d time.Duration) { r.parts[r.turns.Load()&1].add(d) }

// present returns the distribution of the present turn.
func (r *rolling) present() (d distribution) {
	d.take(&r.parts[r.turns.Load()&1])
	return d
}

// both returns the distribution of the present turn and the last one.
func (r *rolling) both() (d distribution) {
	d.take(&r.parts[0])
	d.take(&r.parts[1])
	return d
}

// turn begins another turn and forgets the one before the present. One goroutine
// calls it.
func (r *rolling) turn() {
	next := r.turns.Load() + 1
	r.parts[next&1].clear()
	r.turns.Store(next)
}
