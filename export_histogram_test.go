package pitaya

import "time"

// A Histogram is a histogram, for tests.
type Histogram struct{ rolling }

func (h *Histogram) Add(d time.Duration) { h.add(d) }
func (h *Histogram) Turn()               { h.turn() }

// Quantile is that of the present turn, or of it and the one before.
func (h *Histogram) Quantile(q float64, both bool) time.Duration {
	d := h.present()
	if both {
		d = h.both()
	}
	return d.quantile(q)
}
