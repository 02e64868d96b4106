package pitaya

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// statsdPacketSize bounds a datagram, in bytes: what passes any Ethernet
	// whole, as the other clients of statsd have it.
	statsdPacketSize = 1432
	// statsdPackets bounds the datagrams that wait to be sent.
	statsdPackets = 256
	// statsdFlush is how long a line waits for others.
	statsdFlush = 100 * time.Millisecond
	// statsdTagSize bounds the value of a tag, in bytes. DataDog cuts there.
	statsdTagSize = 200
	// statsdDialTimeout bounds a look-up of the address; at the end it is
	// statsdEndTimeout, which bounds a write as well.
	statsdDialTimeout = 5 * time.Second
	statsdEndTimeout  = time.Second
	// statsdRetry is the pause after the first failure; it doubles up to
	// statsdRetryMax. An address that is a name is looked up again as often as
	// that too.
	statsdRetry    = time.Second
	statsdRetryMax = time.Minute
	// statsdNameSpecial is what has a meaning where names stand.
	statsdNameSpecial = "|:@#,"
)

// Statsd is a [Reporter] that sends what is reported to a statsd server, over
// UDP, in DataDog's dialect:
//
//	pitaya.response_time_ns:331898.000000|ms|#serverType:connector,route:connector.h.echo,status:ok,type:handler,code:
//
// Counters are c, in whole numbers (fractions are cut), gauges g, summaries ms
// with six decimals, and histograms h. As in Pitaya, times are in nanoseconds
// although ms should say otherwise: dashboards count on it. Names need not be
// declared; what MetricsConfig.Custom does not call a histogram is a summary.
// Tags are serverType, then MetricsConfig.ConstLabels, then those of the report
// in their order. Characters that have a meaning in the format become "_".
//
// With StatsdConfig.Plain, there are no tags, and histograms are ms. With a
// StatsdConfig.Rate below 1 that share of the counts and observations is sent,
// with the rate, which lets the server make up for the rest. Gauges are always
// sent: the next value may be long in coming.
//
// No report waits for the network, and none fails. Lines gather in datagrams of
// up to 1,432 bytes, for 100 ms at most. If the address cannot be reached or
// looked up, it is tried again, with pauses of up to a minute; up to 256
// datagrams wait meanwhile, and then the oldest are dropped. That is logged
// once a minute at most. Telemetry of its own is not sent, and the DD_…
// variables have no effect. All methods may be called by any number of
// goroutines at once.
type Statsd struct {
	// Immutable after newStatsd.
	prefix     string
	rate       float64
	rateText   string // as it stands in a line; empty at rate 1
	plain      bool
	tags       string          // those of all lines, with what stands before them; empty when plain
	histograms map[string]bool // names that Observe sends as histograms
	stop       context.CancelFunc
	done       chan struct{} // closed when run has ended
	wake       chan struct{} // has room for one: run has something to do

	mu      sync.Mutex // guards the fields below; never held across I/O
	open    statsdPacket
	queue   []statsdPacket // whole ones, the oldest first
	spare   [][]byte       // buffers
	dropped int64          // lines
	closed  bool
}

// A statsdPacket is a datagram. Each line but the first begins with a newline.
type statsdPacket struct {
	text  []byte
	lines int
}

// NewStatsd makes one and starts sending to cfg.Statsd.Host. Of cfg it uses
// Statsd (except Enabled), ConstLabels and Custom. That nobody listens there, or
// that the address cannot be looked up, is no error; what [Config.Validate]
// finds is. Its failures go to [slog.Default]. The caller must call
// [Statsd.Close].
func NewStatsd(serverType string, cfg MetricsConfig) (*Statsd, error) {
	return newStatsd(serverType, cfg, slog.Default(), nil)
}

// newStatsd makes one that logs to logger and connects by dial, nil for UDP.
func newStatsd(serverType string, cfg MetricsConfig, logger *slog.Logger,
	dial func(ctx context.Context) (net.Conn, error)) (*Statsd, error) {
	cfg, err := checkedMetrics(cfg)
	if err != nil {
		return nil, err
	}
	s := &Statsd{
		prefix:     string(appendStatsdText(nil, cfg.Statsd.Prefix, statsdNameSpecial)),
		rate:       cfg.Statsd.Rate,
		plain:      cfg.Statsd.Plain,
		histograms: make(map[string]bool),
		done:       make(chan struct{}),
		wake:       make(chan struct{}, 1),
	}
	if s.rate < 1 {
		s.rateText = "|@" + strconv.FormatFloat(s.rate, 'f', -1, 64)
	}
	if !s.plain {
		tags := appendStatsdTag([]byte("|#"), "serverType", serverType)
		for _, name := range slices.Sorted(maps.Keys(cfg.ConstLabels)) {
			if name != "serverType" {
				tags = appendStatsdTag(append(tags, ','), name, cfg.ConstLabels[name])
			}
		}
		s.tags = string(tags)
	}
	summaries := make(map[string]bool)
	for _, d := range slices.Concat(builtinMetrics(), customMetrics(&cfg.Custom)) {
		switch d.Kind {
		case kindSummary:
			summaries[d.Name] = true
		case kindHistogram:
			s.histograms[d.Name] = true
		}
	}
	maps.DeleteFunc(s.histograms, func(name string, _ bool) bool { return summaries[name] })

	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", cfg.Statsd.Host)
		}
	}
	l := &statsdLink{host: cfg.Statsd.Host, dial: dial, log: guardLogger(logger), dropped: s.Dropped}
	host, _, _ := net.SplitHostPort(cfg.Statsd.Host)
	_, err = netip.ParseAddr(host)
	l.named = err != nil
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go s.run(ctx, l)
	return s, nil
}

// Count implements [Reporter].
func (s *Statsd) Count(name string, delta float64, labels ...Label) {
	if s.sampled() {
		s.report(reportCount, name, labels, nil, delta)
	}
}

// Gauge implements [Reporter].
func (s *Statsd) Gauge(name string, value float64, labels ...Label) {
	s.report(reportGauge, name, labels, nil, value)
}

// Observe implements [Reporter].
func (s *Statsd) Observe(name string, value float64, labels ...Label) {
	if s.sampled() {
		s.report(reportObserve, name, labels, nil, value)
	}
}

// series implements [seriesReporter].
func (s *Statsd) series(kind, name string, labels ...Label) func(float64) {
	parts := &statsdParts{head: string(s.appendHead(nil, name)), tail: string(s.appendTail(nil, kind, name, labels))}
	if kind == reportGauge {
		return func(x float64) { s.report(kind, name, nil, parts, x) }
	}
	return func(x float64) {
		if s.sampled() {
			s.report(kind, name, nil, parts, x)
		}
	}
}

// Dropped is the number of lines that were not sent, since the start: because
// the address could not be reached, because they were not numbers, too long or
// without a name, and those after Close.
func (s *Statsd) Dropped() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// Close sends what waits, which takes a few seconds at most, and ends the
// sending. What is reported later is dropped. The error is always nil.
func (s *Statsd) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	<-s.done
	return nil
}

func (s *Statsd) sampled() bool { return s.rate >= 1 || rand.Float64() < s.rate }

// statsdParts are what stands before the value of a line and after it.
type statsdParts struct{ head, tail string }

// report adds a line, or none where it would say nothing. parts may be nil.
func (s *Statsd) report(kind, name string, labels []Label, parts *statsdParts, value float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || name == "" && s.prefix == "" || math.IsNaN(value) || math.IsInf(value, 0) || kind == reportCount && math.Abs(value) >= 1<<63 {
		s.dropped++
		return
	}
	if kind == reportCount && int64(value) == 0 {
		return
	}
	if kind == reportGauge && s.plain && value < 0 {
		// A sign means a difference there.
		s.lineLocked(kind, name, labels, parts, 0)
	}
	s.lineLocked(kind, name, labels, parts, value)
}

func (s *Statsd) lineLocked(kind, name string, labels []Label, parts *statsdParts, value float64) {
	if s.open.text == nil {
		s.open.text = s.bufferLocked()
	}
	text := s.open.text
	if s.open.lines > 0 {
		text = append(text, '\n')
	}
	begin := len(text)
	if parts != nil {
		text = append(text, parts.head...)
	} else {
		text = s.appendHead(text, name)
	}
	switch {
	case kind == reportCount:
		text = strconv.AppendInt(text, int64(value), 10)
	case kind == reportObserve && !s.histograms[name]:
		text = strconv.AppendFloat(text, value, 'f', 6, 64)
	default:
		text = strconv.AppendFloat(text, value, 'f', -1, 64)
	}
	if parts != nil {
		text = append(text, parts.tail...)
	} else {
		text = s.appendTail(text, kind, name, labels)
	}

	line := text[begin:]
	switch {
	case len(line) > statsdPacketSize:
		s.open.text = text[:len(s.open.text)]
		s.dropped++
		return
	case len(text) > statsdPacketSize:
		next := append(s.bufferLocked(), line...)
		s.open.text = text[:begin-1]
		s.sealLocked()
		s.open.text = next
	default:
		s.open.text = text
	}
	s.open.lines++
	if s.open.lines == 1 {
		s.signal()
	}
}

func (s *Statsd) appendHead(dst []byte, name string) []byte {
	dst = append(dst, s.prefix...)
	dst = appendStatsdText(dst, name, statsdNameSpecial)
	return append(dst, ':')
}

func (s *Statsd) appendTail(dst []byte, kind, name string, labels []Label) []byte {
	switch {
	case kind == reportCount:
		dst = append(dst, "|c"...)
	case kind == reportGauge:
		dst = append(dst, "|g"...)
	case s.histograms[name] && !s.plain:
		dst = append(dst, "|h"...)
	default:
		dst = append(dst, "|ms"...)
	}
	if kind != reportGauge {
		dst = append(dst, s.rateText...)
	}
	if s.plain {
		return dst
	}
	dst = append(dst, s.tags...)
	for i := range labels {
		dst = appendStatsdTag(append(dst, ','), labels[i].Name, labels[i].Value)
	}
	return dst
}

func appendStatsdTag(dst []byte, name, value string) []byte {
	dst = append(appendStatsdText(dst, name, "|:,#"), ':')
	return appendStatsdText(dst, value, "|,#")
}

// appendStatsdText appends s, cut to statsdTagSize, with "_" for what is in
// special, for control characters and for what is no UTF-8.
func appendStatsdText(dst []byte, s, special string) []byte {
	if len(s) > statsdTagSize {
		end := statsdTagSize
		for end > statsdTagSize-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c < ' ' || c == 0x7f || isOneOf(c, special) {
				c = '_'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, '_')
		} else {
			dst = append(dst, s[i:i+n]...)
		}
		i += n
	}
	return dst
}

func isOneOf(c byte, special string) bool {
	for i := range len(special) {
		if special[i] == c {
			return true
		}
	}
	return false
}

func (s *Statsd) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Statsd) bufferLocked() []byte {
	if n := len(s.spare); n > 0 {
		b := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return b[:0]
	}
	return make([]byte, 0, statsdPacketSize+512) // a line may be written before it proves too long
}

// sealLocked ends the open packet.
func (s *Statsd) sealLocked() {
	if s.open.lines == 0 {
		return
	}
	if len(s.queue) == statsdPackets {
		s.dropped += int64(s.queue[0].lines)
		s.spare = append(s.spare, s.queue[0].text)
		s.queue = slices.Delete(s.queue, 0, 1)
	}
	s.queue = append(s.queue, s.open)
	s.open = statsdPacket{}
	s.signal()
}
