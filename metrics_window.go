package pitaya

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// The observations of a [sampleWindow] are kept for windowAge, in windowParts
// parts that end one after the other, as in Prometheus' client library: a
// quantile is of the last eight to ten minutes.
const (
	windowAge   = 10 * time.Minute
	windowParts = 5
	windowPart  = windowAge / windowParts
)

// The observations are counted in cells: each power of two is divided into
// windowCells of the same width, and a quantile is the middle of its cell. So
// it is at most 1/64, 1.6 %, beside the observation it stands for. That holds
// for absolute values from 2^windowLow to 2^windowHigh; what is smaller counts
// as 0, what is larger as the largest.
const (
	windowCellBits = 5
	windowCells    = 1 << windowCellBits
	windowLow      = -64
	windowHigh     = 64
)

// windowClock is how many observations may pass between two looks at the clock,
// which cost more than all the rest. The first ones of a part always look, so
// where there are few of them each is in the right part.
const windowClock = 64

// A sampleWindow keeps what quantiles of the latest observations need, in 640
// bytes for each power of two that occurs. It is for many goroutines; adding is
// a few atomic operations and, but for a power of two that is new, does not
// allocate.
type sampleWindow struct {
	start time.Time // parts are counted from it

	part atomic.Int64  // the one that is open
	mark atomic.Uint64 // observations there had been when it was opened

	zero     [windowParts]atomic.Uint32
	positive windowTable
	negative atomic.Pointer[windowTable] // nil until there is one

	mu sync.Mutex // held to open a part and to read, so that a part is not emptied meanwhile
}

// A windowTable has a page for each power of two that has occurred.
type windowTable [windowHigh - windowLow]atomic.Pointer[windowPage]

type windowPage [windowParts][windowCells]atomic.Uint32

func newSampleWindow() *sampleWindow { return &sampleWindow{start: time.Now()} }

// add counts x, which is finite and the nth observation of all.
func (w *sampleWindow) add(x float64, n uint64) {
	if n%windowClock == 0 || n-w.mark.Load() <= windowClock {
		w.turn(n)
	}
	part := w.part.Load() % windowParts
	table := &w.positive
	if x < 0 {
		x = -x
		if table = w.negative.Load(); table == nil {
			w.negative.CompareAndSwap(nil, new(windowTable))
			table = w.negative.Load()
		}
	}
	const exponents, mantissa = 11, 52
	bits := math.Float64bits(x)
	octave := int(bits>>mantissa&(1<<exponents-1)) - (1<<(exponents-1) - 1)
	cell := bits >> (mantissa - windowCellBits) % windowCells
	switch {
	case octave < windowLow:
		w.zero[part].Add(1)
		return
	case octave >= windowHigh:
		octave, cell = windowHigh-1, windowCells-1
	}
	slot := &table[octave-windowLow]
	page := slot.Load()
	if page == nil {
		slot.CompareAndSwap(nil, new(windowPage))
		page = slot.Load()
	}
	page[part][cell].Add(1)
}

// turn opens the part that it is time for. n is the number of observations.
func (w *sampleWindow) turn(n uint64) {
	part := int64(time.Since(w.start) / windowPart)
	if part <= w.part.Load() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turnLocked(part, n)
}

func (w *sampleWindow) turnLocked(part int64, n uint64) {
	open := w.part.Load()
	if part <= open {
		return
	}
	// An observer that was stopped for as long as the whole window may still write to a part that is emptied here. That
	// puts one observation into the wrong part.
	for i := max(open+1, part-windowParts+1); i <= part; i++ {
		p := i % windowParts
		w.zero[p].Store(0)
		w.positive.empty(p)
		if t := w.negative.Load(); t != nil {
			t.empty(p)
		}
	}
	w.mark.Store(n)
	w.part.Store(part)
}

func (t *windowTable) empty(part int64) {
	for i := range t {
		if page := t[i].Load(); page != nil {
			for j := range page[part] {
				page[part][j].Store(0)
			}
		}
	}
}

// A windowCell is a cell that is not empty.
type windowCell struct {
	value float64
	upTo  uint64 // observations in it and below
}

// quantiles returns the values of the quantiles qs, which rise: not a number
// where there are no observations. n is the number of all observations since
// the window was made. scratch is reused.
func (w *sampleWindow) quantiles(qs []float64, n uint64, scratch *[]windowCell) []pointSample {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turnLocked(int64(time.Since(w.start)/windowPart), n)

	cells := (*scratch)[:0] // from the lowest value to the highest
	defer func() { *scratch = cells }()
	total := uint64(0)
	add := func(value float64, n uint64) {
		if n > 0 {
			total += n
			cells = append(cells, windowCell{value, total})
		}
	}
	if t := w.negative.Load(); t != nil {
		for i := len(t) - 1; i >= 0; i-- {
			if page := t[i].Load(); page != nil {
				for j := windowCells - 1; j >= 0; j-- {
					add(-cellValue(i, j), page.count(j))
				}
			}
		}
	}
	zeros := uint64(0)
	for i := range w.zero {
		zeros += uint64(w.zero[i].Load())
	}
	add(0, zeros)
	for i := range w.positive {
		if page := w.positive[i].Load(); page != nil {
			for j := range windowCells {
				add(cellValue(i, j), page.count(j))
			}
		}
	}

	points := make([]pointSample, 0, len(qs))
	at := 0
	for _, q := range qs {
		if total == 0 {
			points = append(points, pointSample{q, math.NaN()})
			continue
		}
		rank := max(1, uint64(math.Ceil(q*float64(total))))
		for at < len(cells)-1 && cells[at].upTo < rank {
			at++
		}
		points = append(points, pointSample{q, cells[at].value})
	}
	return points
}

// A pointSample is the value of a quantile, or the number of observations up to
// a bound.
type pointSample struct{ at, value float64 }

// count is the number of observations in a cell, of all parts.
func (p *windowPage) count(cell int) uint64 {
	n := uint64(0)
	for part := range p {
		n += uint64(p[part][cell].Load())
	}
	return n
}

// cellValue is the middle of a cell.
func cellValue(octave, cell int) float64 {
	return math.Ldexp(1+(float64(cell)+0.5)/windowCells, octave+windowLow)
}
