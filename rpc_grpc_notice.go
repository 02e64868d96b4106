package pitaya

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pitaya-go/pitaya/internal/clustermsg"
)

// Notify calls the server that the notice names, and waits for its answer: what it refuses is an error.
func (t *GRPCTransport) Notify(ctx context.Context, n *Notice) error {
	if t.client.ctx.Err() != nil {
		return errGRPCClosed
	}
	if n.Server == nil {
		return fmt.Errorf("pitaya: over gRPC a notice needs the server of the user, and that of %q is not known", n.UID)
	}
	var method string
	switch n.Kind {
	case NoticePush:
		method = grpcMethodPush
	case NoticeKick:
		method = grpcMethodKick
	case NoticeBind:
		method = grpcMethodBind
	default:
		return fmt.Errorf("pitaya: notice of kind %d", n.Kind)
	}
	frame, err := appendGRPCFrame(make([]byte, 0, grpcFrameHeader+len(n.Body)), n.Body)
	if err != nil {
		return grpcCallError(n.Server.ID, err)
	}
	answer, err := t.client.invoke(ctx, n.Server, method, frame)
	if err != nil {
		return err
	}
	if err := grpcNoticeAnswer(n.Kind, answer); err != nil {
		return grpcCallError(n.Server.ID, err)
	}
	return nil
}

// grpcNoticeAnswer looks for a refusal in the answer to a notice. Pitaya refuses with a status; others may answer as
// they do to calls.
func grpcNoticeAnswer(kind NoticeKind, answer []byte) error {
	if kind == NoticeKick {
		var a clustermsg.KickAnswer
		if err := a.Decode(answer); err != nil {
			return err
		}
		if !a.Kicked {
			return errors.New("the user was not kicked")
		}
		return nil
	}
	var r rpcResponse
	if err := r.decode(answer); err != nil {
		return fmt.Errorf("the answer is no protos.Response: %w", err)
	}
	if r.Err != nil {
		return r.Err
	}
	return nil
}

// deliver calls the handler.
func (s *grpcServer) deliver(c *grpcCall, method string, body []byte) error {
	n := &Notice{FrontendType: s.frontendType, Body: body}
	var field protowire.Number // of the user
	yes := "\x0a\x03ack"       // Response with the data "ack"
	switch method {
	case grpcMethodCall:
		s.handler.HandleCall(c, body, func(response []byte) { c.reply(response, nil) })
		return nil
	case grpcMethodPush:
		n.Kind, field = NoticePush, 2
	case grpcMethodKick:
		n.Kind, field = NoticeKick, 1
		yes = "\x08\x01" // KickAnswer with kicked
	case grpcMethodBind:
		n.Kind, field = NoticeBind, 1
	}
	var err error
	if n.UID, err = protoString(body, field); err != nil {
		return grpcErrorf(grpcInternal, "undecodable message: %s", err)
	}
	if n.Kind != NoticeBind && !s.bound(n.UID) {
		return grpcErrorf(grpcUnknown, "user %.100q is not bound here", n.UID)
	}
	s.handler.HandleNotice(n, func(response []byte, err error) {
		if response == nil && err == nil {
			response = []byte(yes)
		}
		c.reply(response, err)
	})
	return nil
}

// bind notes that a user is here, and unbind that he is not any more.
func (s *grpcServer) bind(uid string) error {
	if err := checkUID(uid, grpcMaxUID); err != nil {
		return fmt.Errorf("pitaya: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closing:
		return errGRPCClosed
	default:
	}
	s.users[uid] = struct{}{}
	return nil
}

func (s *grpcServer) unbind(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users, uid)
}

func (s *grpcServer) bound(uid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.users[uid]
	return ok
}

// protoString returns a string field of an encoded protobuf message, "" if there is none, without decoding the rest.
func protoString(b []byte, field protowire.Number) (string, error) {
	var value []byte
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return "", protowire.ParseError(n)
		}
		b = b[n:]
		if num == field && typ == protowire.BytesType {
			value, n = protowire.ConsumeBytes(b)
		} else {
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return "", protowire.ParseError(n)
		}
		b = b[n:]
	}
	return string(value), nil
}
