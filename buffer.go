package pitaya

import (
	"math/bits"
	"sync"
)

// Pooled buffers come in powers of two, from what one read of a busy connection
// takes in to what is worth keeping; larger ones are made and left to the
// garbage collector, so that one huge packet does not stay in a pool for ever.
const (
	minBufferShift = 12 // 4 KiB
	maxBufferShift = 20 // 1 MiB
	minBufferSize  = 1 << minBufferShift
)

// A buffer is a byte slice that goes back to a pool. It has one owner at a
// time; free ends the ownership and the bytes must not be touched afterwards.
type buffer struct {
	B []byte
}

var bufferPools [maxBufferShift - minBufferShift + 1]sync.Pool

// getBuffer returns an empty buffer with room for at least n bytes.
func getBuffer(n int) *buffer {
	shift := minBufferShift
	if n > minBufferSize {
		shift = bits.Len(uint(n - 1))
	}
	if shift > maxBufferShift {
		return &buffer{B: make([]byte, 0, n)}
	}
	if b, ok := bufferPools[shift-minBufferShift].Get().(*buffer); ok {
		return b
	}
	return &buffer{B: make([]byte, 0, 1<<shift)}
}

// free gives the buffer back. A buffer whose slice was replaced by one of
// another size goes to the pool of that size.
func (b *buffer) free() {
	n := cap(b.B)
	if n < minBufferSize || n > 1<<maxBufferShift || n&(n-1) != 0 {
		return
	}
	b.B = b.B[:0]
	bufferPools[bits.Len(uint(n))-1-minBufferShift].Put(b)
}

// grow returns a buffer with the same bytes and room for n more, freeing b if
// the bytes had to move.
func (b *buffer) grow(n int) *buffer {
	if cap(b.B)-len(b.B) >= n {
		return b
	}
	g := getBuffer(len(b.B) + n)
	g.B = append(g.B, b.B...)
	b.free()
	return g
}
