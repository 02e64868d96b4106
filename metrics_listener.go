package pitaya

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// A scraper may take metricsReadTimeout for its request, and metricsWriteTimeout to read the answer. Its connection may
	// wait for metricsIdleTimeout for the next one: some of them ask rarely.
	metricsReadTimeout  = 10 * time.Second
	metricsWriteTimeout = time.Minute
	metricsIdleTimeout  = 5 * time.Minute

	// Bounds of what a scraper may send: a header, and a body, which nobody reads.
	metricsMaxHeader = 64 << 10
	metricsMaxBody   = 64 << 10
)

// A metricsListener serves metrics over HTTP/1.0 and 1.1 at the path /metrics, and nothing elsewhere. The requests of a
// connection are answered one after the other.
//
// It does the little that takes instead of an [http.Server]. With that one all programs, of which few serve their metrics
// this way, would contain HTTP/2, and 0.5 MB of code.
type metricsListener struct {
	// Immutable.
	l       net.Listener
	handler http.Handler
	log     *slog.Logger
	quit    chan struct{}  // closed when the end begins
	done    chan struct{}  // closed when nothing is accepted any more
	conns   sync.WaitGroup // connections whose goroutine has not ended; none is added once done is closed
	quiet   chan struct{}  // closed when the end has begun and no connection is left

	mu     sync.Mutex        // guards the fields below; never held across I/O
	open   map[net.Conn]bool // whether a request is being read or answered
	ending bool
}

// newMetricsListener serves h at l until close is called.
func newMetricsListener(l net.Listener, h http.Handler, log *slog.Logger) *metricsListener {
	m := &metricsListener{
		l: l, handler: h, log: log,
		quit: make(chan struct{}), done: make(chan struct{}), quiet: make(chan struct{}),
		open: make(map[net.Conn]bool),
	}
	go m.accept()
	return m
}

// addr returns where it listens.
func (m *metricsListener) addr() net.Addr { return m.l.Addr() }

// close ends it. Requests that are being answered are waited for until ctx ends, then their connections are closed. No
// goroutine of it is left when it returns. It is called once.
func (m *metricsListener) close(ctx context.Context) error {
	m.mu.Lock()
	m.ending = true
	close(m.quit)
	var idle []net.Conn
	for c, busy := range m.open {
		if !busy {
			idle = append(idle, c)
		}
	}
	if len(m.open) == 0 {
		close(m.quiet)
	}
	m.mu.Unlock()
	err := m.l.Close()
	for _, c := range idle {
		c.Close()
	}
	select {
	case <-m.quiet:
	case <-ctx.Done():
		m.mu.Lock()
		var rest []net.Conn
		for c := range m.open {
			rest = append(rest, c)
		}
		m.mu.Unlock()
		for _, c := range rest {
			c.Close()
		}
	}
	<-m.done
	m.conns.Wait() // those that were closed get an error from what they read or write
	return err
}

func (m *metricsListener) accept() {
	defer close(m.done)
	var delay time.Duration
	for {
		c, err := m.l.Accept()
		switch {
		case err == nil:
			delay = 0
			if !m.enter(c) {
				c.Close()
				return
			}
			go m.serve(c)
		case m.ended():
			return
		case errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF):
			m.log.Error("metrics are not served any more", "addr", m.addr(), "err", err)
			return
		default: // no descriptors are left, or a scraper has gone again
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			m.log.Debug("accept failed for metrics", "addr", m.addr(), "err", err, "retry", delay)
			select {
			case <-time.After(delay):
			case <-m.quit:
				return
			}
		}
	}
}

func (m *metricsListener) ended() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ending
}

// enter takes note of a new connection, busy says whether one has a request, and leave forgets it. The first two report
// false if the end has begun.
func (m *metricsListener) enter(c net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ending {
		m.open[c] = false
		m.conns.Add(1)
	}
	return !m.ending
}

func (m *metricsListener) busy(c net.Conn, busy bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[c] = busy
	return !m.ending
}

func (m *metricsListener) leave(c net.Conn) {
	m.mu.Lock()
	delete(m.open, c)
	if m.ending && len(m.open) == 0 {
		close(m.quiet)
	}
	m.mu.Unlock()
	m.conns.Done()
}

// serve answers the requests of a connection. It is the connection's goroutine.
func (m *metricsListener) serve(c net.Conn) {
	defer m.leave(c)
	defer c.Close()
	defer func() {
		if v := recover(); v != nil { // of a function given to OnScrape
			m.log.Error("a scrape of the metrics panicked", "addr", m.addr(), "err", v)
		}
	}()
	in := &io.LimitedReader{R: c}
	br := bufio.NewReader(in)
	for wait := metricsReadTimeout; ; wait = metricsIdleTimeout {
		in.N = metricsMaxHeader
		c.SetReadDeadline(time.Now().Add(wait))
		if _, err := br.Peek(1); err != nil || !m.busy(c, true) {
			return
		}
		if wait == metricsIdleTimeout {
			c.SetReadDeadline(time.Now().Add(metricsReadTimeout))
		}
		r, err := http.ReadRequest(br)
		c.SetWriteDeadline(time.Now().Add(metricsWriteTimeout))
		a := metricsAnswer{header: make(http.Header), last: true}
		switch {
		case err != nil && in.N == 0:
			http.Error(&a, "the header is too large", http.StatusRequestHeaderFieldsTooLarge)
		case err != nil:
			if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return // the connection, not what came over it
			}
			http.Error(&a, "malformed request", http.StatusBadRequest)
		case r.ProtoMajor != 1:
			http.Error(&a, "the protocol must be HTTP/1.1", http.StatusHTTPVersionNotSupported)
		case r.Host == "" && r.ProtoAtLeast(1, 1):
			http.Error(&a, "there is no Host", http.StatusBadRequest)
		default:
			a.head, a.last = r.Method == http.MethodHead, r.Close || r.ProtoMinor == 0 || r.Header.Get("Expect") != ""
			if !a.last {
				in.N = metricsMaxBody
				_, err := io.Copy(io.Discard, r.Body)
				a.last = err != nil || in.N == 0
			}
			m.answer(&a, r)
		}
		if _, err := c.Write(a.bytes()); err != nil || a.last || !m.busy(c, false) {
			return
		}
	}
}

func (m *metricsListener) answer(a *metricsAnswer, r *http.Request) {
	if r.URL.Path == "/metrics" {
		m.handler.ServeHTTP(a, r)
	} else {
		http.NotFound(a, r)
	}
	if m.ended() {
		a.last = true
	}
}

// A metricsAnswer keeps an answer until it is complete, so that its length can be told.
type metricsAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
	head   bool // the body is not sent
	last   bool // the connection is closed behind it
}

// Header implements [http.ResponseWriter].
func (a *metricsAnswer) Header() http.Header { return a.header }

// WriteHeader implements [http.ResponseWriter].
func (a *metricsAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements [http.ResponseWriter].
func (a *metricsAnswer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// bytes returns the answer as it is sent.
func (a *metricsAnswer) bytes() []byte {
	a.WriteHeader(http.StatusOK)
	a.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if !a.head {
		a.header.Set("Content-Length", strconv.Itoa(a.body.Len()))
	}
	if a.last {
		a.header.Set("Connection", "close")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
	for _, name := range slices.Sorted(maps.Keys(a.header)) {
		for _, value := range a.header[name] { // which is the handler's own and has no line ends
			b.WriteString(name + ": " + value + "\r\n")
		}
	}
	b.WriteString("\r\n")
	if !a.head {
		b.Write(a.body.Bytes())
	}
	return b.Bytes()
}
