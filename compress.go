package pitaya

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Compression of payloads and of the handshake answer: zlib, RFC 1950. See the client protocol, sections 5.5 and 8.3.

const (
	// deflateMin is the length in bytes under which nothing is compressed: header, checksum and the codes of so short
	// a text eat the gain, and the attempt costs microseconds.
	deflateMin = 64
	// inflateFloor is what data may inflate to whatever its ratio: repetitive state of a few kilobytes is honest.
	inflateFloor = 64 << 10
	// inflateRatio bounds what lies above the floor, so that a client pays for the memory it makes the server use.
	// Deflate can reach 1032; JSON and protobuf of games stay far under 100.
	inflateRatio = 256
	// defaultMaxInflated bounds inflated data where no bound is given.
	defaultMaxInflated = 4 << 20
)

// A deflater is a zlib writer together with what it writes to. It writes to dst until that would grow past limit.
type deflater struct {
	w     *zlib.Writer
	dst   []byte
	limit int
}

var errNoGain = errors.New("pitaya: data does not shrink")

func (d *deflater) Write(p []byte) (int, error) {
	if len(p) > d.limit-len(d.dst) {
		return 0, errNoGain
	}
	d.dst = append(d.dst, p...)
	return len(p), nil
}

var deflaters = sync.Pool{New: func() any {
	d := new(deflater)
	d.w = zlib.NewWriter(d)
	return d
}}

// deflate appends src, compressed, to dst, if that is strictly shorter than src; else it returns dst as it was and false.
// It gives up as soon as there is nothing to gain any more. What inflate would take for a bomb is not compressed either.
func deflate(dst, src []byte) (out []byte, ok bool) {
	if len(src) < deflateMin {
		return dst, false
	}
	d := deflaters.Get().(*deflater)
	d.w.Reset(d)
	d.dst, d.limit = dst, len(dst)+len(src)-1
	_, err := d.w.Write(src)
	if err == nil {
		err = d.w.Close()
	}
	out = d.dst
	d.dst = nil // the pool must not keep the caller's memory
	deflaters.Put(d)
	if err != nil || len(src) > inflateFloor && len(src) > inflateRatio*(len(out)-len(dst)) {
		return dst, false
	}
	return out, true
}

// An inflater is a zlib reader together with what it reads from.
type inflater struct {
	r       io.Reader // a zlib reader; nil until the first good header
	src     bytes.Reader
	scratch [1]byte
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

var errInflatedSize = fmt.Errorf("%w: inflates to more than allowed", ErrCompressed)

// inflate appends the plain form of src to dst. The plain form may have limit bytes (4 MiB if limit <= 0) and, above
// inflateFloor, inflateRatio times the length of src; no memory is taken beyond that. The checksum is verified; bytes
// behind the stream are ignored, as peers do. The error wraps ErrCompressed, and dst is then returned as it was.
func inflate(dst, src []byte, limit int) ([]byte, error) {
	if limit <= 0 {
		limit = defaultMaxInflated
	}
	if limit > inflateFloor && len(src) < limit/inflateRatio {
		limit = max(inflateFloor, len(src)*inflateRatio)
	}
	return inflateTo(dst, src, limit)
}

// inflateTo is inflate without the bound on the ratio, for clients: what a server chooses to send may be as repetitive
// as it likes.
func inflateTo(dst, src []byte, limit int) ([]byte, error) {
	i := inflaters.Get().(*inflater)
	defer inflaters.Put(i)
	i.src.Reset(src)
	defer i.src.Reset(nil) // the pool must not keep the caller's memory
	if err := i.start(); err != nil {
		return dst, fmt.Errorf("%w: %v", ErrCompressed, err)
	}
	start := len(dst)
	out := dst
	for {
		got := len(out) - start
		room := out[len(out):min(cap(out), start+limit)]
		switch {
		case got == limit:
			room = i.scratch[:] // all that may follow is the end, which also verifies the checksum
		case len(room) == 0:
			// Payloads are text more often than not, and that inflates to a few times its size.
			grown := make([]byte, len(out), start+min(limit, max(2*got, 4*len(src), 512)))
			copy(grown, out)
			out = grown
			continue
		}
		n, err := i.r.Read(room)
		if got == limit && n > 0 {
			return dst, errInflatedSize
		}
		out = out[:len(out)+n]
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return dst, fmt.Errorf("%w: %v", ErrCompressed, err)
		}
	}
}

// start makes the reader read the stream that src begins with.
func (i *inflater) start() (err error) {
	if z, ok := i.r.(zlib.Resetter); ok {
		return z.Reset(&i.src, nil)
	}
	i.r, err = zlib.NewReader(&i.src)
	return err
}
