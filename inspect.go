package pitaya

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// inspector collects what the debug page shows of messages, sessions and
// errors. There is one only if somebody has asked for the page: where there may
// be none, the pointer to it is nil and nothing is counted.
//
// What it keeps is bounded. Clients choose the texts of routes, so a route has a
// row of its own only when it is known to exist; all others share one.
type inspector struct {
	// Immutable once the server runs.
	handlers map[string]*routeCount // the server's own, by full route
	remotes  map[string]*routeCount
	unknown  *routeCount

	Latency rolling // of all messages that were handled here or forwarded
	Errors  errorLog

	mu       sync.RWMutex // guards the field below
	forwards map[string]*routeCount
}

// maxForwardRoutes bounds the rows of routes on other servers.
const maxForwardRoutes = 512

// routeKind says where the handler of a route is, and who calls it.
type routeKind string

const (
	routeHandler routeKind = "handler" // here, for clients
	routeRemote  routeKind = "remote"  // here, for other servers
	routeForward routeKind = "forward" // on another server, for clients of this one
	routeUnknown routeKind = "unknown"
)

// routeCount is a row of the table of routes.
type routeCount struct {
	// Immutable.
	in    *inspector
	Kind  routeKind
	Route string

	Count    atomic.Int64 // messages that have ended
	Failed   atomic.Int64 // among them, with an error
	Lost     atomic.Int64 // among them, those whose client had left
	InFlight atomic.Int64

	Recent rolling // how long they took
}

// newInspector returns an inspector for a server with these routes.
func newInspector() *inspector {
	in := &inspector{
		handlers: make(map[string]*routeCount),
		remotes:  make(map[string]*routeCount),
		forwards: make(map[string]*routeCount),
	}
	in.unknown = &routeCount{in: in, Kind: routeUnknown}
	return in
}

// addRoute adds a route of the server's own, before it runs.
func (in *inspector) addRoute(kind routeKind, route string) {
	rows := in.handlers
	if kind == routeRemote {
		rows = in.remotes
	}
	rows[route] = &routeCount{in: in, Kind: kind, Route: route}
}

// begin takes in a message for a handler of this server, or for none if the
// route is empty. end is called next for what it returns.
func (in *inspector) begin(route string) *routeCount { return in.enter(in.handlers[route]) }

// beginRemote is begin for a call of a remote.
func (in *inspector) beginRemote(route string) *routeCount { return in.enter(in.remotes[route]) }

func (in *inspector) enter(r *routeCount) *routeCount {
	r = cmp.Or(r, in.unknown)
	r.InFlight.Add(1)
	return r
}

// forwarded moves a message that goes to another server to the row of its
// route, if it has one.
func (in *inspector) forwarded(r *routeCount, route string) *routeCount {
	in.mu.RLock()
	row := in.forwards[route]
	in.mu.RUnlock()
	return r.move(row)
}

// answered is forwarded when the other server has answered: from that it may be
// known that it has such a route.
func (in *inspector) answered(r *routeCount, route string, err error) *routeCount {
	if r.Kind != routeUnknown || !provesRoute(err) {
		return r
	}
	in.mu.Lock()
	row := in.forwards[route]
	if row == nil && len(in.forwards) < maxForwardRoutes {
		row = &routeCount{in: in, Kind: routeForward, Route: route}
		in.forwards[route] = row
	}
	in.mu.Unlock()
	return r.move(row)
}

// provesRoute reports whether an answer can only be that of a handler, or of a
// server that has one for the route and refuses to call it for this session. The
// other codes of the library are also those of messages that found none, and of
// those that the transport would not take, for their size for example.
func provesRoute(err error) bool {
	if err == nil {
		return true
	}
	code := ErrorCode(err)
	return code == CodeUnbound || !strings.HasPrefix(code, "PIT-")
}

// move takes a message that is in flight to another row; nil leaves it.
func (r *routeCount) move(to *routeCount) *routeCount {
	if to == nil || to == r {
		return r
	}
	to.InFlight.Add(1)
	r.InFlight.Add(-1)
	return to
}

// errLost ends a request whose client has left.
var errLost = errors.New("pitaya: the client has left")

// end counts how a message ended: with errLost, another error, or none. shown is
// err as others may see it.
func (r *routeCount) end(took time.Duration, err, shown error) {
	r.Recent.add(took)
	r.in.Latency.add(took)
	switch err {
	case nil:
	case errLost:
		r.Lost.Add(1)
	default:
		r.Failed.Add(1)
		code, text := errorTexts(err, shown)
		r.in.Errors.add(code, r.Route, text)
	}
	r.Count.Add(1)
	r.InFlight.Add(-1)
}

// turn forgets how long messages took in the turn before the present.
func (in *inspector) turn() {
	for _, r := range in.routes() {
		r.Recent.turn()
	}
}

// routes returns all rows in use, in no order.
func (in *inspector) routes() []*routeCount {
	list := []*routeCount{in.unknown}
	for _, rows := range []map[string]*routeCount{in.handlers, in.remotes} {
		for _, r := range rows {
			list = append(list, r)
		}
	}
	in.mu.RLock()
	defer in.mu.RUnlock()
	for _, r := range in.forwards {
		list = append(list, r)
	}
	return list
}

// sessionEnded notes the end of a session, if it was no ordinary one.
func (in *inspector) sessionEnded(cause error) {
	kind := ""
	switch {
	case errors.Is(cause, ErrSlowClient):
		kind = "slow client"
	case errors.Is(cause, ErrHeartbeat):
		kind = "silent client"
	case errors.Is(cause, ErrHandshakeTimeout):
		kind = "handshake timeout"
	case errors.Is(cause, errRefused):
		kind = "handshake refused"
	case errors.Is(cause, ErrProtocol):
		kind = "protocol violation"
	default:
		return
	}
	_, text := errorTexts(nil, cause)
	in.Errors.add(kind, "", text)
}

// refused notes a message over a limit.
func (in *inspector) refused() { in.Errors.add(CodeTooManyRequests, "", "over a limit") }

// panicked notes a panic of the application's code.
func (in *inspector) panicked(where string, v any) { in.Errors.add("panic", where, fmt.Sprint(v)) }

// sessionNotes are what the inspector keeps for one session.
type sessionNotes struct {
	Began time.Time                  // immutable
	last  atomic.Pointer[routeCount] // of its last message
}

// visit notes a message.
func (n *sessionNotes) visit(r *routeCount) { n.last.Store(r) }

// lastRoute returns the route of the session's last message; "" if it has sent
// none yet.
func (n *sessionNotes) lastRoute() string {
	r := n.last.Load()
	switch {
	case r == nil:
		return ""
	case r.Kind == routeUnknown:
		return unknownRoute
	}
	return r.Route
}

// errorLog counts errors by their kind and route. It keeps those that came last.
type errorLog struct {
	mu    sync.Mutex // guards the field below
	kinds map[errorKey]*errorCount
}

// errorKey is a code, or words for what has no code, and a route, which may be
// empty.
type errorKey struct{ Kind, Route string }

// errorCount is how often errors of one kind came.
type errorCount struct {
	errorKey
	Text  string // of the last one
	Count int64
	Last  time.Time
}

const (
	maxErrorKinds = 64
	maxErrorText  = 200 // bytes
)

func (l *errorLog) add(kind, route, text string) {
	key := errorKey{clipText(kind), clipText(route)}
	text = clipText(text)
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.kinds[key]
	if c == nil {
		if l.kinds == nil {
			l.kinds = make(map[errorKey]*errorCount)
		}
		if len(l.kinds) >= maxErrorKinds {
			l.forgetOldestLocked()
		}
		c = &errorCount{errorKey: key}
		l.kinds[key] = c
	}
	c.Text, c.Last = text, now
	c.Count++
}

func (l *errorLog) forgetOldestLocked() {
	var oldest *errorCount
	for _, c := range l.kinds {
		if oldest == nil || c.Last.Before(oldest.Last) {
			oldest = c
		}
	}
	delete(l.kinds, oldest.errorKey)
}

// list returns what is kept, the latest first.
func (l *errorLog) list() []errorCount {
	l.mu.Lock()
	list := make([]errorCount, 0, len(l.kinds))
	for _, c := range l.kinds {
		list = append(list, *c)
	}
	l.mu.Unlock()
	slices.SortFunc(list, func(a, b errorCount) int {
		return cmp.Or(b.Last.Compare(a.Last), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Route, b.Route))
	})
	return list
}

// errorTexts returns the code of one error and the text of another. Their methods
// are the application's, and may panic.
func errorTexts(coded, shown error) (code, text string) {
	defer func() {
		if recover() != nil {
			code, text = cmp.Or(code, CodeUnknown), textUnknown
		}
	}()
	code = ErrorCode(coded)
	return code, shown.Error()
}

// clipText bounds a text, and makes it valid UTF-8.
func clipText(s string) string {
	if len(s) > maxErrorText {
		s = s[:maxErrorText] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
