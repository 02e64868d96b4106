package pitaya

import (
	"bufio"
	"net"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Limits of a connection of HTTP/2.
const (
	// grpcStreamWindow and grpcConnWindow are what the peer may send ahead, for one call and for all, in bytes.
	grpcStreamWindow = 1 << 20
	grpcConnWindow   = 1 << 20

	// grpcQueued is how much may wait to be written before bodies of calls wait with their streams: about what a socket
	// holds. Headers and answers to what the peer asks for are not held up by it.
	grpcQueued = 256 << 10

	// grpcQueueKept is how large the memory of a queue may be that is used again.
	grpcQueueKept = 64 << 10

	// grpcMaxControl bounds what waits of answers that cost the peer no place among its streams, in bytes: to pings, to
	// settings, refusals. One that asks for such without reading is ended.
	grpcMaxControl = 512 << 10

	// grpcMaxWaste is how many frames that lead to nothing a peer may send in grpcWasteTime.
	grpcMaxWaste  = 50_000
	grpcWasteTime = 10 * time.Second

	// grpcLinger is how long the peer may take to close a connection that has ended.
	grpcLinger = time.Second

	// grpcMaxContinued is how many frames a block of headers may come in.
	grpcMaxContinued = 32
)

// A grpcEnd is one end of a connection: what the streams are for. Its methods are called by the reader of the link only,
// one at a time, those whose names end in Locked with the link's lock.
type grpcEnd interface {
	// headers takes a block of headers, which is not kept, of a stream that may be unknown and then is nil, and data the
	// bytes of a message, of a known stream.
	headers(id uint32, st *grpcStream, end bool, h *grpcHead) error
	data(st *grpcStream, b []byte, end bool) error
	// reset tells that the peer has ended a stream, or has to because of what it did wrong.
	reset(st *grpcStream, code http2Code)
	// idle reports whether a stream has not been opened yet.
	idle(stream uint32) bool
	// goAway tells that the peer takes no stream after last.
	goAway(last uint32, code http2Code)
	// pong is the answer to a ping of the end's own.
	pong(data [8]byte)
	// wakeLocked does what is due, and returns when it wants to be called again at the latest; an error ends the connection.
	wakeLocked(now time.Time) (time.Time, error)
}

// A grpcStream is one call of a link.
type grpcStream struct {
	ID uint32

	// The reader's.
	In       grpcMessage
	Encoding string // of what comes
	Left     int64  // bytes that must come yet, -1 where that was not said
	Credit   int    // bytes that the peer may be allowed to send again
	Room     int    // bytes that the peer may send

	// Guarded by the lock of the link.
	out    []byte      // what is to be sent yet, as far as the windows are too small
	window int64       // what may be sent
	listed bool        // it waits in ready
	gone   bool        // it has ended
	next   *grpcStream // in ready

	Served *grpcCall // what the stream is for, on the serving side

	// Until is when what is waited for is due: the message, the answer, the sending. Guarded by the lock of the link.
	Until time.Time
}

// A grpcLink is a connection of HTTP/2 for unary calls. One goroutine reads, and works on what it reads; everybody writes
// into a queue. What waits there is sent by a goroutine that is there while something waits. It lets those go first that can
// run and may have something to write too, and sends all of it at once: the system calls are most of what a call
// costs. When there is nobody else it does not wait.
//
// There is no timer. The reader's deadline is the time at which something is due next, at the latest.
type grpcLink struct {
	nc     net.Conn
	end    grpcEnd
	header int  // what a list of headers may have, in bytes
	serves bool // this is the end that answers

	// The reader's.
	in      *bufio.Reader
	dec     *hpack.Decoder
	head    grpcHead
	heard   time.Time // when something was read
	settled bool      // the peer's SETTINGS are there
	room    int       // bytes that the peer may send on all streams
	credit  int       // bytes that it may be allowed to send again
	waste   int       // frames that led to nothing, since wasted
	wasted  time.Time
	block   uint32 // the stream whose block of headers has not ended; 0 if there is none
	ending  bool   // the block ends the stream
	size    int    // bytes of the block
	pieces  int    // frames of it

	mu      sync.Mutex // guards the fields below; never held while writing
	change  sync.Cond  // told when the writer ends
	queue   []byte     // what waits
	spare   []byte     // room for the next queue, empty
	control int        // bytes in it that the peer has asked for
	busy    bool       // there is a writer, or one is on its way
	closed  bool       // nothing is written any more
	err     error      // of the socket
	Enc     grpcEncoder
	window  int64 // what may be sent on all streams
	initial int64 // what may be sent on a new one
	frame   int   // what one frame may carry
	most    int64 // streams that the peer takes at once
	Streams map[uint32]*grpcStream
	first   *grpcStream // of those whose windows are open and that have something to send
	last    *grpcStream
	armed   time.Time // the reader's deadline
	parting bool      // nothing is sent any more once there are no streams
	parted  bool      // which has been told to the peer
	partBy  time.Time // when the peer is to have closed the connection then
}

// start makes the link ready. first is what is said first: the preface and the settings. The reader is run by the caller.
func (l *grpcLink) start(nc net.Conn, end grpcEnd, serves bool, header int, first []byte) {
	*l = grpcLink{
		nc: nc, end: end, serves: serves, header: header,
		in: bufio.NewReaderSize(nc, http2FrameHeader+http2MaxFrame), heard: time.Now(), room: grpcConnWindow,
		window: http2Window, initial: http2Window, frame: http2MaxFrame, most: http2MaxStream,
		Streams: make(map[uint32]*grpcStream), queue: appendHTTP2WindowUpdate(first, 0, grpcConnWindow-http2Window),
	}
	l.change.L = &l.mu
	l.dec = hpack.NewDecoder(http2TableSize, func(f hpack.HeaderField) { l.head.add(f.Name, f.Value, l.header) })
	l.dec.SetMaxStringLength(header)
}

// kickLocked sees to it that what waits is written.
func (l *grpcLink) kickLocked() {
	if !l.busy && !l.closed {
		l.busy = true
		go l.send()
	}
}

// controlLocked takes what was put into the queue after the length before, because the peer asked for it.
func (l *grpcLink) controlLocked(before int) error {
	if l.control += len(l.queue) - before; l.control > grpcMaxControl {
		return http2Errorf(http2EnhanceYourCalm, "the peer asks without reading")
	}
	l.kickLocked()
	return nil
}

// send is the writer: it writes until nothing waits any more.
func (l *grpcLink) send() {
	for {
		runtime.Gosched()
		l.mu.Lock()
		if len(l.queue) == 0 || l.err != nil || l.closed && l.parted {
			part := l.parting && !l.parted && len(l.Streams) == 0 && l.err == nil
			if !part {
				l.busy = false
				l.change.Broadcast()
				l.mu.Unlock()
				return
			}
			l.parted = true
			l.partBy = time.Now().Add(grpcLinger)
			l.armLocked(l.partBy)
			l.nc.SetWriteDeadline(l.partBy)
			l.mu.Unlock()
			if half, ok := l.nc.(interface{ CloseWrite() error }); ok {
				half.CloseWrite() // an error means that it has ended
			}
			continue
		}
		b := l.queue
		l.queue, l.spare, l.control = l.spare, nil, 0
		l.pumpLocked()
		if !l.closed { // else the deadline is that of shut
			l.nc.SetWriteDeadline(time.Now().Add(grpcWriteTimeout))
		}
		l.mu.Unlock()
		_, err := l.nc.Write(b)
		l.mu.Lock()
		if err != nil {
			l.err, l.queue = err, nil
		} else if cap(b) <= grpcQueueKept && l.spare == nil {
			l.spare = b[:0]
		}
		l.mu.Unlock()
		if err != nil {
			l.nc.Close() // part of a frame may be on the wire; the reader learns of it
		}
	}
}

// shut ends the connection. What waits leaves, if the socket takes it soon. It is called once the reader has ended.
func (l *grpcLink) shut() {
	l.mu.Lock()
	l.closed = true
	if l.busy {
		l.nc.SetWriteDeadline(time.Now().Add(grpcCloseTime))
		for l.busy {
			l.change.Wait()
		}
	}
	l.mu.Unlock()
	l.nc.Close()
}

// partLocked lets the connection end once there is nothing to send any more.
func (l *grpcLink) partLocked() {
	l.parting = true
	l.kickLocked()
}

// armLocked sees to it that the reader wakes up at that time, or before.
func (l *grpcLink) armLocked(t time.Time) {
	if !t.IsZero() && (l.armed.IsZero() || t.Before(l.armed)) {
		l.armed = t
		l.nc.SetReadDeadline(t)
	}
}

// addLocked takes in a new stream.
func (l *grpcLink) addLocked(st *grpcStream) {
	st.Room, st.window = grpcStreamWindow, l.initial
	l.Streams[st.ID] = st
}

// removeLocked ends a stream for this side.
func (l *grpcLink) removeLocked(st *grpcStream) {
	st.gone, st.out = true, nil
	delete(l.Streams, st.ID)
	if l.parting {
		l.kickLocked()
	}
}

// headersLocked puts headers into the queue, as far as add appends them.
func (l *grpcLink) headersLocked(st uint32, flags byte, add func(e *grpcEncoder, b []byte) []byte) {
	start := len(l.queue)
	b := append(l.queue, make([]byte, http2FrameHeader)...)
	b = add(&l.Enc, l.Enc.begin(b))
	l.queue = appendHTTP2Headers(b, start, flags, st, l.frame)
}

// messageLocked sends a message, which is not kept. It is the last of the stream, apart from trailers.
func (l *grpcLink) messageLocked(st *grpcStream, message []byte) {
	n := grpcFrameHeader + len(message)
	if l.first == nil && n <= l.frame && int64(n) <= min(st.window, l.window) && len(l.queue) < grpcQueued {
		l.queue = appendHTTP2Frame(l.queue, n, http2Data, l.lastFlag(), st.ID)
		l.queue = append(appendGRPCFrameHeader(l.queue, len(message)), message...)
		l.window -= int64(n)
		st.window -= int64(n)
		l.sentLocked(st)
		return
	}
	st.out = append(appendGRPCFrameHeader(make([]byte, 0, n), len(message)), message...)
	l.listLocked(st)
	l.pumpLocked()
}

// lastFlag is the flag of the last frame with data.
func (l *grpcLink) lastFlag() byte {
	if l.serves {
		return 0 // trailers follow
	}
	return http2EndStream
}

// sentLocked is called when the message of a stream has been sent.
func (l *grpcLink) sentLocked(st *grpcStream) {
	st.out = nil
	if l.serves {
		l.headersLocked(st.ID, http2EndStream, func(e *grpcEncoder, b []byte) []byte {
			return e.field(b, grpcFieldStatus, "grpc-status", "0")
		})
		l.removeLocked(st)
	}
}

// listLocked lets a stream wait for its turn to send.
func (l *grpcLink) listLocked(st *grpcStream) {
	if st.listed || len(st.out) == 0 || st.window <= 0 {
		return
	}
	st.listed = true
	if l.first == nil {
		l.first = st
	} else {
		l.last.next = st
	}
	l.last = st
}

// pumpLocked puts into the queue what the windows allow, a frame of each stream in turn.
func (l *grpcLink) pumpLocked() {
	for l.first != nil && l.window > 0 && len(l.queue) < grpcQueued {
		st := l.first
		l.first, st.next, st.listed = st.next, nil, false
		n := min(int64(len(st.out)), st.window, l.window, int64(l.frame))
		if n <= 0 {
			continue // it has ended, or its window is closed
		}
		flags := byte(0)
		if n == int64(len(st.out)) {
			flags = l.lastFlag()
		}
		l.queue = append(appendHTTP2Frame(l.queue, int(n), http2Data, flags, st.ID), st.out[:n]...)
		st.out = st.out[n:]
		st.window -= n
		l.window -= n
		if len(st.out) == 0 {
			l.sentLocked(st)
		} else {
			l.listLocked(st)
		}
	}
	if len(l.queue) > 0 {
		l.kickLocked()
	}
}
