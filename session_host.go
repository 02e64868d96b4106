package pitaya

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// sessionHost is what the sessions of one server share. Immutable while the
// server runs.
type sessionHost struct {
	ServerID        string
	Conn            *connConfig
	Table           *sessionTable
	Serializer      Serializer
	Dict            *Dictionary
	Compress        bool                    // toward clients that inflate
	PushCodes       func(bool) bool         // decides about codes in pushes, given what the handshake tells
	Accept          []byte                  // packet that accepts a handshake
	AcceptDeflated  []byte                  // the same for clients that inflate; may be the same bytes
	AcceptBody      []byte                  // the body of it, without the two brackets at its end
	Refuse          func(msg string) []byte // makes the packet that refuses one
	Validators      []handshakeValidator
	OnBind          []func(context.Context, *Session) error
	OnAfterBind     []func(context.Context, *Session) error
	OnClose         []func(*Session)
	Unique          bool // a replaced session is kicked
	MaxUID          int
	MailboxMessages int
	RemoteMessages  int // messages of one session under way to other servers
	Messages        messageHandler
	Cluster         sessionCluster       // nil: there are no other servers
	Limits          *limits              // nil: clients may send what they want
	Crowded         func(net.Addr) error // says that an address has too many connections
	Resumes         *resumes             // nil: sessions end with their connections
	OnDetach        []func(*Session)
	OnResume        []func(*Session)
	Busy            []byte    // packet that refuses a handshake because there are too many
	Stamps          bool      // it is of interest when a message was read
	Epoch           time.Time // from which that is counted
	Count           func()    // reports the number of sessions after a change
	Counters        *counters
	Inspect         *inspector // nil: nobody looks
	Meters          *meters    // nil: there are no reporters
	Log             *slog.Logger
	Runners         *runners
	Alive           sync.WaitGroup // sessions whose close callbacks have not run yet

	seen  handshakesSeen
	abuse sampler // of the log records about clients that send too much
}

// decodeHandshake decodes what a client says of itself. Validators are given what is the session's alone: they are the
// application's, and might change it.
func (h *sessionHost) decodeHandshake(body []byte) (*HandshakeData, error) {
	if len(h.Validators) > 0 {
		return DecodeHandshake(body)
	}
	return h.seen.decode(body)
}

// messageHandler is the layer above the sessions.
type messageHandler interface {
	// message handles a message, or answers that it was refused. It is called
	// by the session's worker, one at a time; the body is valid until it
	// returns. An error is a violation of the protocol and ends the connection.
	message(s *Session, m mail) error
}

// sessionCluster is the layer that knows other servers, as far as the sessions
// of a frontend have to do with it. Calls for one user may overlap.
type sessionCluster interface {
	// binding is called before a uid leads to the session: an error prevents
	// it. Then enter is called with the function that lets it, which it calls
	// unless a newer session has been let through meanwhile; then bound, whose
	// error undoes it.
	binding(ctx context.Context, s *Session, uid string) error
	enter(s *Session, uid string, f func()) error
	bound(ctx context.Context, s *Session, uid string) error
	// unbound is called, perhaps without the others, when the uid does not lead
	// to the session any more: the session has ended, or was not bound after
	// all. The function that it returns does what may wait for other servers,
	// and is called next.
	unbound(s *Session, uid string) (rest func())
}

// unbound tells the other servers that a user has left, or has not come. The
// function that it returns does what may take a moment.
func (h *sessionHost) unbound(s *Session, uid string) (rest func()) {
	if h.Cluster == nil {
		return func() {}
	}
	return h.Cluster.unbound(s, uid)
}

type handshakeValidator struct {
	Name  string
	Check func(*HandshakeData) error
}

// now is the current time. It reads one clock, where [time.Now] reads two.
func (h *sessionHost) now() time.Time { return h.Epoch.Add(time.Since(h.Epoch)) }

// guard calls code of the application and turns a panic into an error, whose
// text does not tell what happened; the log does.
func (h *sessionHost) guard(what string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = h.panicked(what, newRequestID(), v)
		}
	}()
	return f()
}

// newRequestID returns a text that no other request has.
func newRequestID() string { return rand.Text()[:22] }

// panicked logs a panic of the application's code, and makes the error that the
// client gets: it has an id by which the log record can be found, and nothing
// of what happened.
func (h *sessionHost) panicked(where, id string, v any) error {
	h.countPanic(where, v)
	h.Log.Error("panic", "where", where, "panic", v, "request", id, "stack", string(debug.Stack()))
	return &Error{
		Code:     CodeInternal,
		Message:  "internal error",
		Metadata: map[string]string{"request": id},
		Err:      fmt.Errorf("pitaya: panic in %s: %v", where, v),
	}
}

func (h *sessionHost) countPanic(where string, v any) {
	h.Counters.Panics.Add(1)
	if h.Inspect != nil {
		h.Inspect.panicked(where, v)
	}
}

// seamPanicked returns what is told of the panics of a reporter or a Tracer. One
// that is broken may panic several times for each message, and the log is not to
// be what takes the server down.
func (h *sessionHost) seamPanicked(where string) func(v any) {
	logged := new(sampler)
	return func(v any) {
		h.countPanic(where, v)
		if n, ok := logged.pass(); ok {
			h.Log.Error("panic", "where", where, "panic", v, "stack", string(debug.Stack()), "unlogged", n)
		}
	}
}

// encode makes the payload of a value.
func (h *sessionHost) encode(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return b, nil
	}
	return h.marshal(v)
}

// marshal is the serializer's, whose panics are errors too.
func (h *sessionHost) marshal(v any) (b []byte, err error) { return h.marshalWith(h.Serializer, v) }

func (h *sessionHost) marshalWith(s Serializer, v any) (b []byte, err error) {
	defer h.serializing(&err)
	return s.Marshal(v)
}

// marshalLent is marshalWith for a serializer that lends memory.
func (h *sessionHost) marshalLent(s lender, v any) (b *buffer, err error) {
	defer h.serializing(&err)
	return s.marshalLent(v)
}

// serializing, deferred, turns a panic of a serializer into an error.
func (h *sessionHost) serializing(err *error) {
	if p := recover(); p != nil {
		*err = h.panicked("serializer", newRequestID(), p)
	}
}
