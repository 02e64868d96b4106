package load

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"

	"github.com/pitaya-go/pitaya/internal/load/hist"
	"github.com/pitaya-go/pitaya/internal/load/script"
)

// What can go wrong. They stand in reports, so they do not change.
const (
	errConnect    = "connect"     // no connection; the code says why
	errHandshake  = "handshake"   // refused, or not answered
	errSetup      = "setup"       // the request that joins or binds failed
	errAnswer     = "answer"      // an answer with the error flag; its code
	errMismatch   = "mismatch"    // an answer that is not the request's body
	errTimeout    = "timeout"     // no answer in time
	errLost       = "lost"        // the connection ended before the answer
	errUnsent     = "unsent"      // open load: too many wait on the connection, or it is gone
	errDelivery   = "undelivered" // pushes of a broadcast that did not arrive
	errExtra      = "extra"       // pushes that nobody asked for
	errWait       = "wait"        // script: a push did not come in time
	errKicked     = "kicked"      // the server kicked the client; its reason
	errDrained    = "drained"     // the server announced its end
	errDisconnect = "disconnect"  // the connection ended; the code says how
	errProtocol   = "protocol"    // the server broke the protocol
	errSilent     = "silent"      // nothing was heard for three heartbeat intervals
	errSlow       = "slow"        // the server took nothing for the timeout
)

type errKey struct{ Kind, Code string }

// maxCodes bounds how many different codes of errors are told apart, since servers choose them.
const maxCodes = 1000

// Counts are of the whole run, from the first connection to the last.
type Counts struct {
	Connections   int64 `json:"connections"`    // handshakes done
	Requests      int64 `json:"requests"`       // requests sent, those that join or bind included
	Notifies      int64 `json:"notifies"`       // notifies sent
	Answered      int64 `json:"answered"`       // answers with a result, late ones too
	Failed        int64 `json:"failed"`         // answers with an error, late ones too
	Late          int64 `json:"late"`           // answers that came after their timeout
	Pushes        int64 `json:"pushes"`         // pushes received
	Heartbeats    int64 `json:"heartbeats"`     // heartbeats sent
	BytesSent     int64 `json:"bytes_sent"`     // packets, without the framing of WebSocket and TLS
	BytesReceived int64 `json:"bytes_received"` // likewise
}

func (c *Counts) add(o *Counts) {
	c.Connections += o.Connections
	c.Requests += o.Requests
	c.Notifies += o.Notifies
	c.Answered += o.Answered
	c.Failed += o.Failed
	c.Late += o.Late
	c.Pushes += o.Pushes
	c.Heartbeats += o.Heartbeats
	c.BytesSent += o.BytesSent
	c.BytesReceived += o.BytesReceived
}

// A shard is where some of the connections count. The collector takes from it what is new.
type shard struct {
	mu     sync.Mutex
	counts Counts
	errs   map[errKey]int64
	lat    hist.Hist // what was measured since the last collection
	failed int64     // measured operations that failed, since the last collection
	steps  []stepCount

	_ [64]byte // shards are not to share a line of the caches
}

// stepCount is of one step of a script, since the last collection.
type stepCount struct {
	lat    hist.Hist
	count  int64
	failed int64
}

// fail counts errors. The caller holds mu.
func (s *shard) fail(kind, code string, n int64) {
	if n == 0 {
		return
	}
	// The server may have chosen it, and it goes to a terminal.
	code = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, code[:min(len(code), 100)])
	k := errKey{kind, code}
	if _, ok := s.errs[k]; !ok && len(s.errs) >= maxCodes {
		k.Code = "others"
	}
	if s.errs == nil {
		s.errs = make(map[errKey]int64)
	}
	s.errs[k] += n
}

// A recorder has the shards, and the time that is measured.
type recorder struct {
	begin, end atomic.Int64 // what is to be sent from begin on and before end is measured; both far ahead until known
	shards     []*shard
	script     *script.Script

	// Owned by the collector.
	total  hist.Hist
	failed int64
	steps  []stepCount
}

func newRecorder(n int, sc *script.Script) *recorder {
	r := &recorder{script: sc}
	steps := 0
	if sc != nil {
		steps = len(sc.Calls)
	}
	for range n {
		r.shards = append(r.shards, &shard{steps: make([]stepCount, steps)})
	}
	r.steps = make([]stepCount, steps)
	r.begin.Store(far)
	r.end.Store(far)
	return r
}

// far is a time that does not come.
const far = 1<<63 - 1

// measured reports whether what was to be sent at a time counts.
func (r *recorder) measured(at int64) bool { return at >= r.begin.Load() && at < r.end.Load() }

// collect takes what is new from the shards into fresh, and adds it to the totals.
func (r *recorder) collect(fresh *hist.Hist) (failed int64) {
	for _, s := range r.shards {
		s.mu.Lock()
		fresh.Merge(&s.lat)
		s.lat.Reset()
		failed += s.failed
		s.failed = 0
		for i := range s.steps {
			r.steps[i].lat.Merge(&s.steps[i].lat)
			s.steps[i].lat.Reset()
			r.steps[i].count += s.steps[i].count
			r.steps[i].failed += s.steps[i].failed
			s.steps[i].count, s.steps[i].failed = 0, 0
		}
		s.mu.Unlock()
	}
	r.total.Merge(fresh)
	r.failed += failed
	return failed
}

// counts adds up what is counted of the whole run so far.
func (r *recorder) counts() (c Counts) {
	for _, s := range r.shards {
		s.mu.Lock()
		c.add(&s.counts)
		s.mu.Unlock()
	}
	return c
}

// errors lists the errors so far, the most frequent first.
func (r *recorder) errors() (list []ErrorCount, sum int64) {
	all := make(map[errKey]int64)
	for _, s := range r.shards {
		s.mu.Lock()
		for k, n := range s.errs {
			all[k] += n
		}
		s.mu.Unlock()
	}
	list = []ErrorCount{}
	for k, n := range all {
		list = append(list, ErrorCount{Kind: k.Kind, Code: k.Code, Count: n})
		sum += n
	}
	slices.SortFunc(list, func(a, b ErrorCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Code, b.Code))
	})
	return list, sum
}
