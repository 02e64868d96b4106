package pitaya_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A lifeClient is a client, and what the model says of it.
type lifeClient struct {
	conn    *rawClient
	session *pitaya.Session
	ws      bool
	out     []byte // what it has not written yet

	// What it has read, by a goroutine of its own.
	mu    sync.Mutex
	got   []string // messages and kicks
	hello int      // answers to handshakes
	end   error    // how the stream ended; nil: it has not
	read  sync.WaitGroup

	// The model. What it says of want and hellos is exact, unless may says that the last of them need not be there.
	stream  []byte // written, and not a whole packet yet
	state   int    // 0: start, 1: handshake answered, 2: working
	over    bool
	left    bool    // the client itself has closed one direction or both
	deaf    bool    // both: whatever is written to it ends the connection
	unread  bool    // the server ends, and has read for as long as it does then
	causes  []error // what it may have ended with
	queue   []pitaya.Message
	blocked *pitaya.Message // that a handler is at
	want    []string
	hellos  int
	since   time.Time // when it was accepted
	seen    time.Time // when its last packet was read
	worked  bool      // it has acknowledged a handshake once
	kept    bool      // before the server was asked to end, which then does not refuse its handshakes
	uid     string
}

// A lifeModel is the server, and what the model says of it.
type lifeModel struct {
	*testing.T
	s       *testServer
	dial    [2]func() *rawClient // without and with the framing of WebSocket
	dict    *pitaya.Dictionary
	clients [lifeClients]*lifeClient
	all     []*lifeClient
	loose   bool // some of what follows need not have happened: the connection ended beside it
	unsure  bool // that was so once

	stopped   bool
	stoppedAt time.Time

	mu      sync.Mutex
	release chan struct{} // closed to let those handlers go on that wait

	answered int64 // requests, in the model
}

// feed is the server's side of the stream.
func (m *lifeModel) feed(c *lifeClient, b []byte) {
	if c.over {
		return
	}
	if c.unread { // its data is dropped, and no more is promised
		m.loose = true
		c.stream = m.behind(c, append(c.stream, b...))
		return
	}
	defer m.atRest(c)
	c.stream = append(c.stream, b...)
	packets := 0
	for !c.over {
		s := c.stream
		if len(s) < 4 {
			return
		}
		n := int(s[1])<<16 | int(s[2])<<8 | int(s[3])
		limit := lifeHello
		if s[0] == 4 {
			limit = lifePacket
		}
		if s[0] < 1 || s[0] > 5 || n > limit || s[0] == 4 && c.state != 2 {
			m.loose = m.loose || packets > 0
			m.end(c, pitaya.ErrProtocol)
			return
		}
		if len(s) < 4+n {
			return
		}
		body := s[4 : 4+n]
		c.stream = s[4+n:]
		c.seen = time.Now()
		packets++
		switch s[0] {
		case 1:
			c.hellos++
			if _, err := pitaya.DecodeHandshake(body); err != nil {
				m.loose = m.loose || packets > 1
				m.end(c, pitaya.ErrProtocol)
				return
			}
			if c.state != 2 && m.stopped && !c.kept {
				c.hellos--
				m.end(c, pitaya.ErrServerClosed)
				return
			}
			c.state = 1
		case 2:
			if c.state == 0 {
				m.loose = m.loose || packets > 1
				m.end(c, pitaya.ErrProtocol)
				return
			}
			c.state, c.worked = 2, true
		case 4:
			c.queue = append(c.queue, decodedView(body, m.dict))
			if m.run(c); c.over && len(c.stream) > 0 {
				m.loose = true // what comes behind it may have been read before it was handled
				rest := c.stream
				m.behind(c, rest)
			}
		}
	}
}

// behind says what else may have ended a connection whose last bytes these are, and what it may have been sent. It returns
// what is not a whole packet yet.
func (m *lifeModel) behind(c *lifeClient, rest []byte) []byte {
	c.causes = append(c.causes, pitaya.ErrProtocol)
	for len(rest) > 0 {
		p, after, err := pitaya.DecodePacket(rest, 0)
		if err != nil {
			return rest
		}
		if p.Type == pitaya.PacketHandshake {
			c.hellos++
		}
		rest = after
	}
	return nil
}

// An undecodable message is one of no type.
const lifeBroken = pitaya.MessageType(99)

// decodedView is a message whose bytes are its own.
func decodedView(b []byte, d *pitaya.Dictionary) pitaya.Message {
	msg, err := pitaya.DecodeMessage(bytes.Clone(b), d)
	if err == nil && msg.Type != pitaya.MessagePush {
		err = msg.Inflate(4 << 20)
	}
	if err != nil || msg.Type == pitaya.MessagePush {
		return pitaya.Message{Type: lifeBroken}
	}
	return msg
}

// run handles the messages that wait, until a handler waits too.
func (m *lifeModel) run(c *lifeClient) {
	for len(c.queue) > 0 && c.blocked == nil && !c.over {
		msg := c.queue[0]
		c.queue = c.queue[1:]
		if msg.Type == lifeBroken {
			m.end(c, pitaya.ErrProtocol)
			return
		}
		route := msg.Route
		if msg.Type == pitaya.MessageResponse {
			route = ""
		}
		switch route {
		case "fuzz.echo", "conn.fuzz.echo":
			m.answer(c, msg, false)
		case "fuzz.push", "conn.fuzz.push":
			m.send(c, fmt.Sprintf("push %q", msg.Payload))
			m.answer(c, msg, false)
		case "fuzz.wait", "conn.fuzz.wait":
			c.blocked = &msg
		case "fuzz.leave", "conn.fuzz.leave":
			m.end(c, pitaya.ErrSessionClosed)
		default:
			m.answer(c, msg, true)
		}
	}
}

func (m *lifeModel) answer(c *lifeClient, msg pitaya.Message, failed bool) {
	switch {
	case msg.Type == pitaya.MessageNotify || msg.ID == 0 || c.over:
		return
	case failed:
		m.send(c, fmt.Sprintf("%d true", msg.ID))
	default:
		m.send(c, fmt.Sprintf("%d false %q", msg.ID, msg.Payload))
	}
	m.answered++
}

// send says that the client reads something, if it reads still.
func (m *lifeModel) send(c *lifeClient, text string) {
	if c.over {
		return
	}
	c.want = append(c.want, text)
	if c.deaf {
		// The writing fails, unless what it was to read is all and the server ends it before. What stands behind may
		// have been handled by then.
		m.end(c, pitaya.ErrServerClosed, pitaya.ErrSessionClosed, pitaya.ErrProtocol, pitaya.ErrKicked)
	}
}

// end says that a connection ends. What waits is not answered.
func (m *lifeModel) end(c *lifeClient, causes ...error) {
	if c.over {
		return
	}
	c.over = true
	c.causes = append(c.causes, causes...)
	c.queue, c.blocked = nil, nil
}

// leave has the client close its connection, or only its sending half.
func (m *lifeModel) leave(c *lifeClient, half bool) {
	if w, ok := c.conn.Conn.(interface{ CloseWrite() error }); half && ok {
		if c.left {
			return
		}
		must(m, w.CloseWrite())
	} else {
		c.conn.Close()
		c.deaf = true
	}
	c.left = true
	cause := io.EOF
	if len(c.stream) > 0 {
		cause = pitaya.ErrTruncated
	}
	if m.stopped && c.blocked != nil {
		m.unsure = true // what it waits for is still answered, if it can be
		c.causes = append(c.causes, cause, io.ErrClosedPipe)
		return
	}
	m.end(c, cause)
}

// free lets the handlers go on that wait, and those behind them that do not.
func (m *lifeModel) free() {
	m.mu.Lock()
	close(m.release)
	m.release = make(chan struct{})
	m.mu.Unlock()
	for _, c := range m.all {
		if msg := c.blocked; msg != nil {
			c.blocked = nil
			m.answer(c, *msg, false)
			m.run(c)
		}
		m.atRest(c)
	}
}

// atRest ends a client that has got all its answers when the server ends.
func (m *lifeModel) atRest(c *lifeClient) {
	if m.stopped && c.worked && c.blocked == nil {
		m.end(c, pitaya.ErrServerClosed)
	}
}

func (m *lifeModel) bind(c *lifeClient, uid string) {
	err := c.session.Bind(m.Context(), uid)
	switch {
	case c.over:
		if !errors.Is(err, pitaya.ErrSessionClosed) {
			m.Fatalf("bind of an ended session: %v", err)
		}
		return
	case c.uid != "":
		if !errors.Is(err, pitaya.ErrAlreadyBound) {
			m.Fatalf("bind of a bound session: %v", err)
		}
		return
	case err != nil:
		m.Fatalf("bind: %v", err)
	}
	c.uid = uid
	for _, old := range m.all {
		if old != c && old.uid == uid && !old.over && !m.stopped {
			m.send(old, "kick replaced")
			m.end(old, pitaya.ErrReplaced)
		}
	}
	if got := m.s.SessionByUID(uid); got != c.session {
		m.Fatalf("%s leads to %v", uid, got)
	}
}

// pass lets time pass. Who is silent for too long is ended at some moment between two intervals of heartbeats and three;
// who has not shaken hands, at the end of the time for that.
func (m *lifeModel) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	for _, c := range m.all {
		if c.over {
			continue
		}
		c.unread = m.stopped && c.worked && time.Since(m.stoppedAt) >= lifeReads
		silent := time.Since(c.seen)
		cause := context.Cause(c.session.Context())
		switch {
		case m.stopped && time.Since(m.stoppedAt) >= lifeShutdown:
			m.end(c, pitaya.ErrServerClosed, pitaya.ErrHandshakeTimeout, pitaya.ErrHeartbeat)
		case !c.worked && time.Since(c.since) >= lifeHandshake:
			m.end(c, pitaya.ErrHandshakeTimeout)
		case silent > 3*lifeHeartbeat, silent >= 2*lifeHeartbeat && cause != nil:
			m.end(c, pitaya.ErrHeartbeat)
		case c.deaf && cause != nil: // by a heartbeat
			m.end(c)
		}
	}
}

// stop asks the server to end. It answers what it has been sent, and waits for clients whose handshake it has answered.
func (m *lifeModel) stop() {
	if m.stopped {
		return
	}
	m.stopped, m.stoppedAt = true, time.Now()
	m.s.end()
	for _, c := range m.all {
		if c.kept = c.worked; c.state == 0 {
			m.end(c, pitaya.ErrServerClosed)
		}
		m.atRest(c)
	}
}
