package pitaya

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// A grpcServed is a connection of the serving side. Its reader calls the handler; answers come from anywhere.
type grpcServed struct {
	s       *grpcServer
	nc      net.Conn // as it was accepted
	started bool     // there is something to end in link; guarded by the server's lock
	link    grpcLink
	pinged  time.Time // when the peer was asked for a sign of life; zero if it has given one since; the reader's

	// Guarded by the lock of the link.
	last     uint32     // the stream with the highest number
	recent   [64]uint32 // streams ended by this side before their requests were complete, the last ones
	ended    int        // of them, ever
	handling int        // calls that the handler has not answered, ended streams included
	going    bool       // the peer was told to go away
	gone     bool       // and no further stream is looked at
}

// grpcDraining is what a ping says that follows the first GOAWAY. When it comes back the peer knows, and what it has sent
// before is there.
const grpcDraining = "draining"

// run serves the connection to its end.
func (c *grpcServed) run() error {
	s, nc := c.s, c.nc
	until := time.Now().Add(s.limits.Read)
	nc.SetDeadline(until)
	if s.tls != nil {
		secured := tls.Server(nc, s.tls)
		if err := secured.Handshake(); err != nil {
			nc.Close()
			return err
		}
		nc = secured
		if p := secured.ConnectionState().NegotiatedProtocol; p != grpcALPN {
			nc.Close()
			return fmt.Errorf("the peer speaks %q", p)
		}
	}
	settings := appendHTTP2Frame(nil, 3*6, http2Settings, 0, 0)
	settings = appendHTTP2Setting(settings, http2SetStreams, uint32(s.limits.Streams))
	settings = appendHTTP2Setting(settings, http2SetWindow, grpcStreamWindow)
	settings = appendHTTP2Setting(settings, http2SetHeaders, grpcMaxHeader)
	l := &c.link
	l.start(nc, c, true, grpcMaxHeader, settings)
	l.armed = until
	if !s.started(c) {
		nc.Close()
		return nil
	}
	err := c.read()
	c.finish(err)
	return err
}

// read reads the preface, and then frames.
func (c *grpcServed) read() error {
	l := &c.link
	preface, err := l.fill(len(http2Preface))
	if err != nil {
		return err
	}
	if string(preface) != http2Preface {
		return errors.New("the peer does not speak HTTP/2")
	}
	l.in.Discard(len(http2Preface))
	l.mu.Lock()
	l.kickLocked()
	l.mu.Unlock()
	return l.read()
}

// finish ends the connection. Calls that were not answered end with it: their caller is gone.
func (c *grpcServed) finish(err error) {
	l := &c.link
	wrong, bad := errors.AsType[*http2Error](err)
	l.mu.Lock()
	streams := make([]*grpcStream, 0, len(l.Streams))
	for _, st := range l.Streams {
		streams = append(streams, st)
	}
	if bad {
		l.queue = appendHTTP2GoAway(l.queue, c.last, wrong.Code, wrong.Text)
	}
	l.mu.Unlock()
	for _, st := range streams {
		c.reset(st, http2Cancel)
	}
	if bad {
		c.linger()
	}
	l.shut()
}

// linger lets the peer read why the connection ends: one that is closed with something unread throws away what its peer has
// not received (RFC 2525, section 2.17).
func (c *grpcServed) linger() {
	l := &c.link
	l.mu.Lock()
	l.partLocked()
	l.nc.SetReadDeadline(time.Now().Add(grpcLinger))
	l.mu.Unlock()
	io.Copy(io.Discard, l.in)
}

// idle implements grpcEnd.
func (c *grpcServed) idle(stream uint32) bool { return stream%2 == 0 || stream > c.last }

// goAway implements grpcEnd. A client that goes away has only to finish.
func (c *grpcServed) goAway(uint32, http2Code) {}

// pong implements grpcEnd.
func (c *grpcServed) pong(data [8]byte) {
	if string(data[:]) != grpcDraining {
		return
	}
	l := &c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	c.goneLocked()
}

// goneLocked ends the acceptance of streams.
func (c *grpcServed) goneLocked() {
	if !c.going || c.gone {
		return
	}
	c.gone = true
	c.link.queue = appendHTTP2GoAway(c.link.queue, c.last, http2NoError, "")
	c.link.partLocked()
}

// drain tells the peer to call elsewhere. What it has sent before it knows is answered, if only with a refusal.
func (c *grpcServed) drain() {
	l := &c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.going {
		return
	}
	c.going = true
	l.queue = appendHTTP2GoAway(l.queue, http2MaxStream, http2NoError, "")
	l.queue = append(appendHTTP2Frame(l.queue, 8, http2Ping, 0, 0), grpcDraining...)
	l.kickLocked()
}

// close ends the calls that have no answer, without one, and the connection when those that have one are sent.
func (c *grpcServed) close() {
	l := &c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	c.going = true
	c.goneLocked()
	for _, st := range l.Streams {
		if call := st.Served; !call.answered {
			// The handler may go on: the caller has not given up.
			l.queue = appendHTTP2Reset(l.queue, st.ID, http2InternalError)
			c.removeLocked(st)
		}
	}
	l.kickLocked()
}

// wakeLocked implements grpcEnd.
func (c *grpcServed) wakeLocked(now time.Time) (time.Time, error) {
	l, limits := &c.link, &c.s.limits
	if !l.settled {
		return time.Time{}, errors.New("the peer took too long to begin")
	}
	if l.heard.After(c.pinged) {
		c.pinged = time.Time{}
	}
	next := l.heard.Add(limits.Ping)
	switch {
	case !c.pinged.IsZero():
		if next = c.pinged.Add(limits.Pong); !now.Before(next) {
			return time.Time{}, errors.New("the peer gives no sign of life")
		}
	case !now.Before(next):
		c.pinged = now
		l.queue = append(appendHTTP2Frame(l.queue, 8, http2Ping, 0, 0), make([]byte, 8)...)
		l.kickLocked()
		next = now.Add(limits.Pong)
	}
	for _, st := range l.Streams {
		if !st.Until.IsZero() && !now.Before(st.Until) {
			c.expireLocked(st)
		} else {
			next = earlier(next, st.Until)
		}
	}
	return next, nil
}

// expireLocked ends a call whose time is up.
func (c *grpcServed) expireLocked(st *grpcStream) {
	switch call := st.Served; {
	case call.receiving:
		c.refuseLocked(st, grpcErrorf(grpcDeadlineExceeded, "the request took longer than %v", c.s.limits.Read))
	case !call.answered:
		c.refuseLocked(st, grpcErrorf(grpcDeadlineExceeded, "no answer within %v", call.Timeout))
	default: // the peer does not take the answer
		c.link.queue = appendHTTP2Reset(c.link.queue, st.ID, http2InternalError)
		c.link.kickLocked()
		c.removeLocked(st)
	}
}

// removeLocked ends a stream for this side.
func (c *grpcServed) removeLocked(st *grpcStream) {
	call := st.Served
	call.answered = true
	if call.receiving {
		call.receiving = false
		c.recent[c.ended%len(c.recent)] = st.ID
		c.ended++
		if call.accepted {
			c.s.received(call.counted)
		}
	}
	c.link.removeLocked(st)
}

// reset implements grpcEnd.
func (c *grpcServed) reset(st *grpcStream, _ http2Code) {
	c.link.mu.Lock()
	if !st.gone {
		c.removeLocked(st)
	}
	c.link.mu.Unlock()
	if end := st.Served.End; end != nil {
		end()
	}
}
