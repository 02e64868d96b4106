// Package buckets numbers the buckets of histograms over many orders of magnitude: a power of two has 1<<steps buckets
// of equal width, so that a value is known to one part in 1<<steps, and values below 1<<steps have a bucket each.
package buckets

import "math/bits"

// Index returns the bucket of a value.
func Index(v uint64, steps uint) int {
	if v < 1<<steps {
		return int(v)
	}
	exp := bits.Len64(v) - 1 - int(steps)
	return exp<<steps + int(v>>exp)
}

// Bounds returns the least value of a bucket and how many values it holds.
func Bounds(index int, steps uint) (low, width uint64) {
	exp := index>>steps - 1
	if exp <= 0 {
		return uint64(index), 1
	}
	return uint64(index-exp<<steps) << exp, 1 << exp
}
