package pitaya

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"unicode/utf8"
)

// Codes that the library itself puts into errors. See the client protocol, section 11.2. Applications choose codes of
// their own for their own errors; clients branch on the code and show the text.
const (
	CodeUnknown         = "PIT-000" // an error without a code
	CodeBadRequest      = "PIT-400" // route or argument cannot be parsed, or the message has the wrong type
	CodeUnbound         = "PIT-401" // the session must be bound to a user first; see WithBound
	CodeNotFound        = "PIT-404" // no such handler or remote
	CodeTimeout         = "PIT-408" // no answer in time
	CodeTooManyRequests = "PIT-429" // the client sends more than it may; see Config.RateLimit
	CodeSendFailed      = "PIT-498" // writing to the client failed
	CodeClosed          = "PIT-499" // the session has ended
	CodeInternal        = "PIT-500" // no server to forward to, a panic, or another fault of the server
	CodeClientTimeout   = "PIT-504" // made by [Client] itself: no answer within [ClientConfig].RequestTimeout
)

// What ends a session, a connection or a server. The cause of a session's context is one of these, or wraps one.
var (
	// ErrServerClosed means that the server is shutting down or has shut down.
	ErrServerClosed = errors.New("pitaya: server closed")
	// ErrSessionClosed is returned by calls on a session that has ended. Its code is [CodeClosed].
	ErrSessionClosed = errors.New("pitaya: session closed")
	// ErrKicked means that the server threw the client out.
	ErrKicked = errors.New("pitaya: kicked")
	// ErrSlowClient means that the client does not read what is sent to it.
	ErrSlowClient = errors.New("pitaya: client too slow")
	// ErrTooManyRequests means that the client went on sending more than it may (Config.RateLimit).
	ErrTooManyRequests = errors.New("pitaya: too many requests")
	// ErrHeartbeat means that the peer has been silent for too long.
	ErrHeartbeat = errors.New("pitaya: no life sign from the peer")
	// ErrHandshakeTimeout means that the peer did not complete the handshake in time.
	ErrHandshakeTimeout = errors.New("pitaya: handshake not completed in time")
	// ErrReplaced means that a newer session of the same user took the place of this one.
	ErrReplaced = errors.New("pitaya: session replaced by a newer one")
)

// What a peer can do wrong. All of them wrap [ErrProtocol], and each of them ends the connection it came from, except
// [ErrRoute], which is answered when it concerns a single request.
var (
	// ErrProtocol is the base of all errors about bytes that break the protocol.
	ErrProtocol = errors.New("pitaya: protocol violation")

	// ErrPacketType means that the type byte of a packet is none of the five that exist. Client protocol, section 3.
	ErrPacketType = fmt.Errorf("%w: unknown packet type", ErrProtocol)
	// ErrPacketTooLarge means that the body of a packet is longer than the reader allows or 24 bits can express.
	ErrPacketTooLarge = fmt.Errorf("%w: packet too large", ErrProtocol)
	// ErrMessageType means that a message has a type of 4 to 7. Client protocol, section 8.1.
	ErrMessageType = fmt.Errorf("%w: unknown message type", ErrProtocol)
	// ErrInvalidMessage means that a message is cut short or contradicts itself. Client protocol, section 8.2.
	ErrInvalidMessage = fmt.Errorf("%w: invalid message", ErrProtocol)
	// ErrRouteCode means that a route code is not in the dictionary. Client protocol, section 9.2.
	ErrRouteCode = fmt.Errorf("%w: unknown route code", ErrProtocol)
	// ErrCompressed means that a payload said to be zlib is not, or inflates to more than the reader allows.
	// Client protocol, section 8.3.
	ErrCompressed = fmt.Errorf("%w: bad compressed data", ErrProtocol)
	// ErrRoute means that a route does not have two or three filled parts, or is no text. Client protocol, section 9.1.
	ErrRoute = fmt.Errorf("%w: bad route", ErrProtocol)
)

// textUnknown is what a client reads when an error has no text at all: one client throws when the text is missing.
const textUnknown = "unknown error"

// An Error has a code that clients and other servers can branch on. It is what an error becomes on the wire. See the
// client protocol, section 11.
//
// A handler returns one, made by [Errorf] or [NewError] or as a literal; it may be wrapped, the code is found through
// wrappers. A [Client] returns one for each answer with the error flag. An Error that has been returned or sent must
// not be changed any more.
type Error struct {
	Code     string            // PIT-000 when empty
	Message  string            // text for people; the text of Err when empty
	Metadata map[string]string // further details, may be nil
	Err      error             // the error behind this one, may be nil; stays on this server
}

// Error returns the text: Message or, where that is empty, the text of Err or the code. It does not contain the code
// beside a text: clients get both, and logs have an attribute for each.
func (e *Error) Error() string {
	switch {
	case e == nil: // a typed nil returned as an error is a mistake, not a reason to end the process
		return textUnknown
	case e.Message != "":
		return e.Message
	case e.Err != nil:
		return e.Err.Error()
	}
	return e.Code
}

// Unwrap returns the error behind this one, or nil.
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.Err
}

// codedError returns the first *Error that err is or wraps, or nil.
func codedError(err error) *Error {
	e, _ := errors.AsType[*Error](err)
	return e
}

// Errorf returns an [*Error] with the given code and a text formatted as by [fmt.Errorf]. Operands of %w can be found
// by [errors.Is] and [errors.As]; if one of them has or wraps an *Error, its metadata is taken over.
func Errorf(code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	e := &Error{Code: code, Message: err.Error()}
	switch err.(type) {
	case interface{ Unwrap() error }, interface{ Unwrap() []error }:
		e.Err = err
		if inner := codedError(err); inner != nil {
			e.Metadata = maps.Clone(inner.Metadata)
		}
	}
	return e
}

// NewError gives an error a code. The new code and the text of err stand, whatever err wraps; metadata is merged from
// the first [*Error] that err is or wraps and then from the given maps, later ones overriding earlier ones. A nil err
// gives an Error whose text is its code.
func NewError(err error, code string, metadata ...map[string]string) *Error {
	e := &Error{Code: code, Err: err}
	if err != nil {
		e.Message = err.Error()
	}
	if inner := codedError(err); inner != nil {
		e.Metadata = maps.Clone(inner.Metadata)
	}
	for _, m := range metadata {
		if e.Metadata == nil && len(m) > 0 {
			e.Metadata = make(map[string]string, len(m))
		}
		maps.Copy(e.Metadata, m)
	}
	return e
}

// ErrorCode returns the code of the first [*Error] that err is or wraps. Errors without one have [CodeUnknown], except
// [ErrSessionClosed], which has [CodeClosed], and [context.DeadlineExceeded], which has [CodeTimeout]. The code of nil
// is the empty text.
func ErrorCode(err error) string {
	if err == nil {
		return ""
	}
	if e := codedError(err); e != nil {
		if e.Code == "" {
			return CodeUnknown
		}
		return e.Code
	}
	switch {
	case errors.Is(err, ErrSessionClosed):
		return CodeClosed
	case errors.Is(err, context.DeadlineExceeded):
		return CodeTimeout
	}
	return CodeUnknown
}

// wireError returns what a peer gets to see of an error: code and metadata of the first *Error in the chain and the
// text of the whole, all of it valid UTF-8, code and text never empty. The result may be err itself and is not to be
// changed.
func wireError(err error) *Error {
	var meta map[string]string
	var text string
	if err != nil {
		text = err.Error()
	}
	if e := codedError(err); e != nil {
		if error(e) == err && e.Code != "" && e.Message != "" && validTexts(e) {
			return e
		}
		meta = e.Metadata
	}
	w := &Error{Code: validText(ErrorCode(err)), Message: validText(text), Metadata: meta, Err: err}
	if w.Code == "" {
		w.Code = CodeUnknown
	}
	if w.Message == "" {
		w.Message = textUnknown
	}
	if !validTexts(w) {
		w.Metadata = make(map[string]string, len(meta))
		for k, v := range meta {
			w.Metadata[validText(k)] = validText(v)
		}
	}
	return w
}

func validTexts(e *Error) bool {
	if !utf8.ValidString(e.Code) || !utf8.ValidString(e.Message) {
		return false
	}
	for k, v := range e.Metadata {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return false
		}
	}
	return true
}

// validText replaces each byte that is not part of valid UTF-8 by U+FFFD, one for one as encoding/json does.
func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// errorPayload is the structure behind an error answer for every serializer but protobuf, which has its own message.
type errorPayload struct {
	Code     string            `json:"code,omitempty"`
	Msg      string            `json:"msg,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// marshalErrorPayload returns the payload of an error answer. See the client protocol, section 11.1. A serializer
// counts as protobuf by its name, because that is what the client goes by.
func marshalErrorPayload(s Serializer, e *Error) ([]byte, error) {
	e = wireError(e)
	if s.Name() == (Protobuf{}).Name() {
		return s.Marshal(&errorMessage{Code: e.Code, Msg: e.Message, Metadata: e.Metadata})
	}
	b, err := s.Marshal(&errorPayload{Code: e.Code, Msg: e.Message, Metadata: e.Metadata})
	if err == nil && s.Name() == (JSON{}).Name() {
		// The replacement of a bad byte goes out as an escape: old peers write it so, and it keeps the payload of an
		// error that was garbled somewhere in ASCII.
		b = bytes.ReplaceAll(b, []byte("\ufffd"), []byte(`\ufffd`))
	}
	return b, err
}

// decodeErrorPayload is the other direction, for clients. A payload that cannot be decoded is an error without a code
// that wraps the reason: whatever the answer was, it was not a success.
func decodeErrorPayload(s Serializer, b []byte) *Error {
	var p errorPayload
	var err error
	if s.Name() == (Protobuf{}).Name() {
		var m errorMessage
		err = s.Unmarshal(b, &m)
		p = errorPayload{Code: m.Code, Msg: m.Msg, Metadata: m.Metadata}
	} else {
		err = s.Unmarshal(b, &p)
	}
	if err != nil && p.Code == "" && p.Msg == "" { // what could be decoded is good enough, say beside odd metadata
		return &Error{Code: CodeUnknown, Message: "undecodable error answer: " + err.Error(), Err: err}
	}
	if p.Code == "" {
		p.Code = CodeUnknown
	}
	if p.Msg == "" {
		p.Msg = textUnknown
	}
	return &Error{Code: p.Code, Message: p.Msg, Metadata: p.Metadata}
}
