package pitaya

import (
	"errors"
	"fmt"
	"time"
)

// reply answers a request with a result, or with an error if that cannot be
// sent.
func (d *dispatcher) reply(q *request, payload []byte) {
	if q.ID == 0 {
		q.settle(&d.Counters.Unanswerable, nil)
		q.report(nil)
		return
	}
	mark := d.mark(q, nil)
	err := q.Session.answer(q.From, q.ID, payload, false, &mark)
	switch {
	case err == nil:
		q.settle(&d.Counters.Answered, nil)
	case err == ErrSessionClosed:
		q.settle(&d.Counters.Lost, errLost)
		mark.done(err)
	default: // too large for a packet
		mark.done(err)
		d.fail(q, err)
	}
}

// fail answers a request with an error. Nobody is told about a failed notify.
func (d *dispatcher) fail(q *request, err error) {
	if q.Entry == nil {
		d.Log.Debug("message refused", "session", q.Session, "err", err)
	}
	if q.Notify {
		q.end(err)
	} else {
		d.answerError(q, err)
	}
}

func (d *dispatcher) answerError(q *request, err error) {
	if q.ID == 0 {
		q.settle(&d.Counters.Unanswerable, err)
		q.report(err)
		return
	}
	d.answerPayload(q, d.errorPayload(err), err)
}

// answerPayload answers a request with the payload of an error.
func (d *dispatcher) answerPayload(q *request, payload []byte, err error) {
	mark := d.mark(q, err)
	switch failed := q.Session.answer(q.From, q.ID, payload, true, &mark); {
	case failed == nil:
		q.settle(&d.Counters.Failed, err)
	case failed == ErrSessionClosed:
		q.settle(&d.Counters.Lost, errLost)
		mark.done(failed)
	default: // an error whose text does not fit into a packet
		mark.done(failed)
		d.answerError(q, Errorf(CodeInternal, "the error is too large to be sent"))
	}
}

// errorPayload makes the payload of an error answer. An error whose text cannot
// be had becomes an internal error, and where the serializer fails JSON stands
// in: some answer there must be.
func (d *dispatcher) errorPayload(err error) []byte {
	payload, failure := d.tryErrorPayload(d.Serializer, err)
	if failure == nil {
		return payload
	}
	d.Log.Error("error payload cannot be serialized", "err", failure)
	if payload, err = d.tryErrorPayload(d.Serializer, failure); err != nil {
		payload, _ = d.tryErrorPayload(JSON{}, failure)
	}
	return payload
}

// tryErrorPayload calls the application's serializer and the methods of its
// errors, in whatever goroutine an answer comes in; that goroutine may be one for
// all sessions, so those that could end it get one of their own.
func (d *dispatcher) tryErrorPayload(s Serializer, err error) (payload []byte, failure error) {
	failure = errPayloadAborted
	try := func() {
		defer func() {
			if v := recover(); v != nil {
				failure = d.Host.panicked("error answer", newRequestID(), v)
			}
		}()
		payload, failure = marshalErrorPayload(s, wireError(err))
	}
	switch s.(type) {
	case JSON, Protobuf:
		_, plain := err.(*Error)
		if plain {
			try()
			return payload, failure
		}
	}
	apart(try)
	return payload, failure
}

// errPayloadAborted is that code of the application has ended the goroutine that
// it was to make an error answer in.
var errPayloadAborted = errors.New("pitaya: the error answer was not made")

// apart calls f in a goroutine of its own and waits for it: for callbacks that
// may end their goroutine, where the caller's must go on. It reports whether f
// has come to its end.
func apart(f func()) (done bool) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f()
		done = true
	}()
	<-ended
	return done
}

// argumentError is an argument that cannot be decoded. The client gets to see
// the decoder's text; logs do not, because it can quote what was sent.
type argumentError struct{ error }

func (e argumentError) Unwrap() error { return e.error }

// loggable is what logs may hold of an error.
func loggable(err error) error {
	if _, ok := errors.AsType[argumentError](err); ok {
		return errArgument
	}
	return err
}

var errArgument = errors.New("the argument cannot be decoded")

// traceable is what spans may hold of an error.
func traceable(err error) error {
	if _, ok := errors.AsType[argumentError](err); ok {
		return NewError(errArgument, ErrorCode(err))
	}
	return err
}

// report tells the reporters how a message was handled that is not answered on a
// connection of this server, and ends its span.
func (q *request) report(err error) {
	q.end(err)
	if q.Meter != nil {
		q.Meter.response(q.Kind, ErrorCode(err), q.tags()).report(time.Since(q.Arrived))
	}
}

// mark is report for one that is: its time is over when the answer was written.
func (d *dispatcher) mark(q *request, err error) (m writeMark) {
	m.Since = q.Arrived
	if q.Meter != nil {
		m.Meter = q.Meter.response(q.Kind, ErrorCode(err), q.tags())
	}
	if q.Span != nil {
		m.Done = d.answering(q.Span, q.Session, err)
	}
	return m
}

// answering begins the span of the writing of an answer, to a message that has
// failed with err if that is not nil. What it returns ends it, and that of the
// message.
func (d *dispatcher) answering(message *spanContext, s *Session, err error) (done func(failed error)) {
	write := d.Spans.start(message, spanConnWrite, SpanConnection, Label{"addr", fmt.Sprint(s.RemoteAddr())})
	return func(failed error) {
		write.end(failed)
		switch {
		case errors.Is(failed, ErrPacketTooLarge): // another answer takes the place of this one
		case err != nil:
			message.end(traceable(err))
		default:
			message.end(failed)
		}
	}
}

// tags returns what the application wants a message to be reported with.
func (q *request) tags() map[string]string {
	if q.Call != nil {
		return q.Call.MetricTags()
	}
	return q.In.tags()
}
