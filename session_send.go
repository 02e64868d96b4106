package pitaya

import (
	"context"
	"encoding/json"
	"fmt"
)

// Push sends v to the client on a route of the application's choice, of at most
// [MaxRouteLength] bytes. A []byte is sent as it is, anything else through the
// serializer; a value that cannot be serialized is an error and nothing is sent.
//
// Push does not wait for the client: nil means queued, or kept for a client that
// is away (Config.Resume). Pushes leave in the order of the calls, and those that
// a handler makes precede its answer. For a client that takes too little, see
// [ErrSlowClient].
//
// On a backend the session must be bound. The push goes to the user's session
// on the frontend, which is usually this one, and nil means that it was sent
// there.
func (s *Session) Push(ctx context.Context, route string, v any) error {
	payload, err := s.host.encode(v)
	if err != nil {
		return fmt.Errorf("pitaya: push on %q: %w", route, err)
	}
	if s.front != nil {
		return s.front.push(ctx, s.UID(), route, payload)
	}
	return s.push(route, payload)
}

func (s *Session) push(route string, payload []byte) error {
	m, dict, chunk := s.pushMessage(route, payload)
	err := s.conn.Load().sendMessage(m, dict, sendPush, true, nil)
	if err == errKept {
		err = s.keepPush(m, dict)
	}
	if chunk != nil {
		chunk.free()
	}
	return s.pushed(err)
}

// pushMessage makes a push as this client can take it. The caller frees chunk,
// which may be nil, when it is done with the message.
func (s *Session) pushMessage(route string, payload []byte) (m Message, dict *Dictionary, chunk *buffer) {
	s.mu.Lock()
	inflates, codes := s.inflates, s.pushCodes
	s.mu.Unlock()
	m = Message{Type: MessagePush, Route: route, Payload: payload}
	if codes {
		dict = s.host.Dict
	}
	chunk = m.compress(inflates)
	return m, dict, chunk
}

// pushed counts a push.
func (s *Session) pushed(err error) error {
	switch err {
	case nil:
		s.host.Counters.Pushes.Add(1)
	case ErrSlowClient:
		if !s.host.Conn.DropWhenSlow {
			s.host.Log.Warn("client too slow", "session", s)
		}
	}
	return err
}

// compress replaces the payload by a compressed one, if it should be and if
// that is smaller. The payload is then in the buffer returned, which the caller
// frees when it is done.
func (m *Message) compress(should bool) *buffer {
	if !should || len(m.Payload) == 0 {
		return nil
	}
	chunk := getBuffer(len(m.Payload))
	out, ok := deflate(chunk.B, m.Payload)
	if !ok {
		chunk.free()
		return nil
	}
	m.Payload, m.Compressed = out, true
	return chunk
}

// answer sends the response to request id, by the connection that the request
// came by. It is written by the next flush of the connection; what mark has is
// told then.
func (s *Session) answer(c *conn, id uint64, payload []byte, isErr bool, mark *writeMark) error {
	m := Message{Type: MessageResponse, ID: id, Payload: payload, Err: isErr}
	var chunk *buffer
	if s.host.Compress {
		s.mu.Lock()
		inflates := s.inflates
		s.mu.Unlock()
		chunk = m.compress(inflates)
	}
	err := c.sendMessage(m, nil, sendAnswer, false, mark)
	if chunk != nil {
		chunk.free()
	}
	return err
}

// Kick sends the client the kick packet, behind everything that is queued, and
// ends the session with [ErrKicked]. It does not wait for the client, and the
// session ends whether or not the packet arrives.
//
// On a backend the session must be bound. The frontend is asked to kick the
// user, and Kick waits for its answer.
func (s *Session) Kick(ctx context.Context) error { return s.KickReason(ctx, plainKick) }

// plainKick is the reason of a kick without one. It adds nothing to ErrKicked.
const plainKick = "kicked"

// KickReason is Kick with a reason, which the client gets as the packet's body
// {"reason":"…"}. From a backend the reason does not travel.
func (s *Session) KickReason(ctx context.Context, reason string) error {
	if s.front != nil {
		return s.front.kick(ctx, s.UID())
	}
	cause := ErrKicked
	if reason != plainKick {
		cause = fmt.Errorf("%w: %s", ErrKicked, reason)
	}
	if s.ends() || !s.end(cause, endFlush, kickPacket(reason)) {
		return ErrSessionClosed
	}
	return nil
}

// kickPacket returns the packet of a kick. Clients of the pomelo family parse
// the body as JSON and some throw on an empty one; others ignore it (client
// protocol, section 7).
func kickPacket(reason string) []byte {
	body, _ := json.Marshal(struct { // a string can always be marshalled
		Reason string `json:"reason"`
	}{reason})
	b, err := AppendPacket(nil, PacketKick, body)
	if err != nil {
		b, _ = AppendPacket(nil, PacketKick, []byte(`{"reason":"`+plainKick+`"}`))
	}
	return b
}

// PushAndClose sends one last push, behind everything that is queued, and ends
// the session. Nothing can come between the two. A session that waits for its
// client to come back ends as well, but there is nobody to send to: the push is
// lost, and the error is [ErrSessionClosed], as it is for one that has ended. On
// a backend it returns [ErrBackendSession]. Of a push that cannot be encoded the
// error says so, and the session goes on.
func (s *Session) PushAndClose(ctx context.Context, route string, v any) error {
	if s.front != nil {
		return ErrBackendSession
	}
	payload, err := s.host.encode(v)
	if err != nil {
		return fmt.Errorf("pitaya: push on %q: %w", route, err)
	}
	m, dict, chunk := s.pushMessage(route, payload)
	body, err := AppendMessage(nil, m, dict)
	if chunk != nil {
		chunk.free()
	}
	if err != nil {
		return err
	}
	packet, err := AppendPacket(nil, PacketData, body)
	if err != nil {
		return err
	}
	if _, taken := s.endWith(ErrSessionClosed, endFlush, packet); !taken {
		return ErrSessionClosed
	}
	return s.pushed(nil)
}
