package pitaya

import (
	"context"
	"errors"
)

// A NoticeKind is a kind of message between servers that asks for no result.
type NoticeKind uint8

const (
	NoticePush NoticeKind = iota // protos.Push, for a user
	NoticeKick                   // protos.KickMsg, for a user
	NoticeBind                   // protos.BindMsg: a user was bound to a session of a frontend
)

// A Notice is such a message and where it goes.
type Notice struct {
	Kind         NoticeKind
	FrontendType string      // the type of the frontends that it concerns
	UID          string      // the user
	Server       *ServerInfo // the frontend the user is on, where that is known; may be nil
	Body         []byte      // protobuf of the message
}

// Errors of transports that callers can tell apart. What else goes wrong is the
// error of the library below.
var (
	// ErrUnreachable says that the other server does not listen, or that there
	// is no connection to it.
	ErrUnreachable = errors.New("pitaya: server unreachable")
	// ErrNoAnswer says that the other server did not answer in time. Whether
	// the call was processed is not known.
	ErrNoAnswer = errors.New("pitaya: no answer in time")
)

// Transport carries calls and notices between the servers of a cluster. It
// knows nothing of what is in them but what the wire asks for. Each server has
// a Transport of its own. The implementations that come with the library pass
// pitayatest.TestTransport, and so should others.
//
// A Transport outlives outages: it connects again for ever, and calls fail
// meanwhile at once with an error that wraps ErrUnreachable.
type Transport interface {
	// Listen makes self reachable: from here on h is called. It is called
	// once, first. ctx bounds the call of Listen only.
	Listen(ctx context.Context, self *ServerInfo, h TransportHandler) error

	// Call sends an encoded protos.Request and calls done, exactly once, with
	// the encoded protos.Response or an error: ErrNoAnswer when ctx's deadline
	// passes first, ErrUnreachable when nobody is there. Call itself does not
	// wait for the answer; it returns when the request is on its way, or at
	// once if Ordered is false. done is called in a goroutine of the
	// Transport's, perhaps before Call returns, and must not block. body is not
	// used after Call has returned; the response is done's to keep.
	//
	// A nil done says that no answer is wanted. Nothing is reported then, not
	// even what is known at once: the request is sent like all others, in their
	// order, and may be lost. It is not sent if ctx has ended. That ctx is
	// cancelled once Call has returned does not take it back; ctx's deadline
	// bounds it on transports that carry deadlines.
	Call(ctx context.Context, to *ServerInfo, body []byte, done func(response []byte, err error))

	// Ordered reports whether requests of consecutive Calls to one server
	// arrive there, at the handler, in the order of the calls. If not, the
	// caller keeps that order itself, by waiting for the answers.
	Ordered() bool

	// Notify sends a notice. An error means that it was not sent, or that the
	// other server refused it; nil does not mean that it arrived.
	Notify(ctx context.Context, n *Notice) error

	// Bind makes notices for the user reach this server, which must be a
	// frontend; Unbind ends that. Both are cheap to call for the same user
	// again, and calls for one user do not overlap.
	Bind(ctx context.Context, uid string) error
	Unbind(ctx context.Context, uid string) error

	// ServerSeen tells the transport of another server, and ServerGone that
	// it has left, for transports that keep a connection to each.
	ServerSeen(s *ServerInfo)
	ServerGone(s *ServerInfo)

	// Healthy returns nil while calls can be made and received, else why not.
	Healthy() error

	// Drain stops calls and notices from coming in and returns when those that
	// have come were given to the handler; answers and own calls still work.
	Drain(ctx context.Context) error

	// Close ends everything. Calls under way fail. Once it has returned the
	// handler is not called any more.
	Close(ctx context.Context) error
}

// A TransportHandler takes what comes in. Its methods are called in the order
// of arrival per sender and must not block.
type TransportHandler interface {
	// HandleCall takes an encoded protos.Request. reply must be called once,
	// by any goroutine, with an encoded protos.Response; nil drops the call
	// without an answer, and where none is wanted reply does nothing. body is
	// the handler's to keep.
	//
	// ctx ends when the caller is known to have given up or to be gone, and
	// before reply is called for no other reason; thereafter it may end at any
	// time. Its deadline is the one that the transport carries: the caller's in
	// memory and over gRPC. NATS carries none and tells nothing of the caller,
	// so there ctx never ends. It has no values.
	HandleCall(ctx context.Context, body []byte, reply func(response []byte))

	// HandleNotice takes a notice. reply, which may be nil, sends an encoded
	// protos.Response or protos.KickAnswer to senders that wait for one, or an
	// error.
	HandleNotice(n *Notice, reply func(response []byte, err error))
}
