package pitaya

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pitaya-go/pitaya/internal/protofield"
)

// The envelopes of calls (cluster protocol, section 2), written and read by
// hand: they cross the wire with every forwarded message, and a view into the
// received bytes is all that most of their fields are needed for. What is legal
// protobuf is read as the library of protobuf reads it.

// rpcType says what a call is for.
type rpcType int32

const (
	rpcSys  rpcType = 0 // a client's message, for a handler
	rpcUser rpcType = 1 // a call of the application or of this library, for a remote
)

// rpcMsgType is the type of the message in a call.
type rpcMsgType int32

const (
	rpcMsgRequest rpcMsgType = 0
	rpcMsgNotify  rpcMsgType = 1
)

// rpcRequest is a protos.Request. After decoding its bytes are views into what
// was decoded.
type rpcRequest struct {
	Type       rpcType
	HasSession bool
	Session    rpcSession
	HasMsg     bool
	Msg        rpcMsg
	FrontendID []byte
	Metadata   []byte
}

// rpcSession is a protos.Session.
type rpcSession struct {
	ID   int64
	UID  []byte
	Data []byte
}

// rpcMsg is a protos.Msg without the fields that nobody reads.
type rpcMsg struct {
	ID    uint64
	Route []byte
	Data  []byte
	Type  rpcMsgType
}

// rpcResponse is a protos.Response.
type rpcResponse struct {
	Data []byte
	Err  *Error // nil: success
}

// rpcPush is a protos.Push.
type rpcPush struct {
	Route, UID, Data []byte
}

// errEnvelope is what a peer sent that is no protobuf message of the expected
// form.
var errEnvelope = errors.New("pitaya: malformed message from another server")

func sizeBytes(num protowire.Number, n int) int {
	if n == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeBytes(n)
}

func sizeVarint(num protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeVarint(v)
}

// appendBytes appends a field that is left out when it is empty.
func appendBytes[B ~string | ~[]byte](b []byte, num protowire.Number, v B) []byte {
	if len(v) == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(v)))
	return append(b, v...)
}

// appendVarint appends a field that is left out when it is zero.
func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func (s *rpcSession) size() int {
	return sizeVarint(1, uint64(s.ID)) + sizeBytes(2, len(s.UID)) + sizeBytes(3, len(s.Data))
}

func (s *rpcSession) append(b []byte) []byte {
	b = appendVarint(b, 1, uint64(s.ID))
	b = appendBytes(b, 2, s.UID)
	return appendBytes(b, 3, s.Data)
}

func (m *rpcMsg) size() int {
	return sizeVarint(1, m.ID) + sizeBytes(2, len(m.Route)) + sizeBytes(3, len(m.Data)) + sizeVarint(5, uint64(m.Type))
}

// encode returns the message in one piece of the right size.
func (r *rpcRequest) encode() []byte {
	session, msg := r.Session.size(), r.Msg.size()
	n := sizeVarint(1, uint64(r.Type)) + protowire.SizeTag(3) + protowire.SizeBytes(msg) +
		sizeBytes(4, len(r.FrontendID)) + sizeBytes(5, len(r.Metadata))
	if r.HasSession {
		n += protowire.SizeTag(2) + protowire.SizeBytes(session)
	}
	b := appendVarint(make([]byte, 0, n), 1, uint64(r.Type))
	if r.HasSession {
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(session))
		b = r.Session.append(b)
	}
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(msg))
	b = appendVarint(b, 1, r.Msg.ID)
	b = appendBytes(b, 2, r.Msg.Route)
	b = appendBytes(b, 3, r.Msg.Data)
	b = appendVarint(b, 5, uint64(r.Msg.Type))
	b = appendBytes(b, 4, r.FrontendID)
	return appendBytes(b, 5, r.Metadata)
}

// decode reads a message that a peer sent.
func (r *rpcRequest) decode(b []byte) error {
	return eachField(b, func(num protowire.Number, v uint64, data []byte) error {
		switch {
		case num == 1 && data == nil:
			r.Type = rpcType(v)
		case num == 2 && data != nil:
			r.HasSession = true
			return r.Session.decode(data)
		case num == 3 && data != nil:
			r.HasMsg = true
			return r.Msg.decode(data)
		case num == 4 && data != nil:
			r.FrontendID = data
			return checkText(data)
		case num == 5 && data != nil:
			r.Metadata = data
		}
		return nil
	})
}

func (s *rpcSession) decode(b []byte) error {
	return eachField(b, func(num protowire.Number, v uint64, data []byte) error {
		switch {
		case num == 1 && data == nil:
			s.ID = int64(v)
		case num == 2 && data != nil:
			s.UID = data
			return checkText(data)
		case num == 3 && data != nil:
			s.Data = data
		}
		return nil
	})
}

func (m *rpcMsg) decode(b []byte) error {
	return eachField(b, func(num protowire.Number, v uint64, data []byte) error {
		switch {
		case num == 1 && data == nil:
			m.ID = v
		case num == 2 && data != nil:
			m.Route = data
			return checkText(data)
		case num == 3 && data != nil:
			m.Data = data
		case num == 4 && data != nil:
			return checkText(data) // a reply subject, which the transport knows
		case num == 5 && data == nil:
			m.Type = rpcMsgType(v)
		}
		return nil
	})
}

// encode returns the message. An error has a code and a text that are valid
// UTF-8; see wireError.
func (r *rpcResponse) encode() []byte {
	if r.Err == nil {
		return appendBytes(make([]byte, 0, sizeBytes(1, len(r.Data))), 1, r.Data)
	}
	var e []byte
	e = appendBytes(e, 1, r.Err.Code)
	e = appendBytes(e, 2, r.Err.Message)
	for _, k := range slices.Sorted(maps.Keys(r.Err.Metadata)) {
		var entry []byte // has both fields, empty ones too, as all peers write it
		entry = protowire.AppendTag(entry, 1, protowire.BytesType)
		entry = protowire.AppendString(entry, k)
		entry = protowire.AppendTag(entry, 2, protowire.BytesType)
		entry = protowire.AppendString(entry, r.Err.Metadata[k])
		e = protowire.AppendTag(e, 3, protowire.BytesType)
		e = protowire.AppendBytes(e, entry)
	}
	b := protowire.AppendTag(nil, 2, protowire.BytesType)
	return protowire.AppendBytes(b, e)
}

// decode reads what a peer answered. An error without a code gets the code of
// unknown errors (cluster protocol, section 3.4).
func (r *rpcResponse) decode(b []byte) error {
	err := eachField(b, func(num protowire.Number, _ uint64, data []byte) error {
		switch {
		case num == 1 && data != nil:
			r.Data = data
		case num == 2 && data != nil:
			if r.Err == nil {
				r.Err = new(Error)
			}
			return decodeRPCError(r.Err, data)
		}
		return nil
	})
	if err == nil && r.Err != nil {
		if r.Err.Code == "" {
			r.Err.Code = CodeUnknown
		}
		if r.Err.Message == "" {
			r.Err.Message = textUnknown
		}
	}
	return err
}

// decodeRPCError reads a protos.Error.
func decodeRPCError(e *Error, b []byte) error {
	return eachField(b, func(num protowire.Number, _ uint64, data []byte) error {
		if data == nil || num > 3 {
			return nil
		}
		switch num {
		case 1:
			e.Code = string(data)
		case 2:
			e.Message = string(data)
		case 3:
			var key, value string
			err := eachField(data, func(num protowire.Number, _ uint64, data []byte) error {
				switch {
				case data == nil:
				case num == 1:
					key = string(data)
					return checkText(data)
				case num == 2:
					value = string(data)
					return checkText(data)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if e.Metadata == nil {
				e.Metadata = make(map[string]string)
			}
			e.Metadata[key] = value
			return nil
		}
		return checkText(data)
	})
}

func (p *rpcPush) encode() []byte {
	n := sizeBytes(1, len(p.Route)) + sizeBytes(2, len(p.UID)) + sizeBytes(3, len(p.Data))
	b := appendBytes(make([]byte, 0, n), 1, p.Route)
	b = appendBytes(b, 2, p.UID)
	return appendBytes(b, 3, p.Data)
}

func (p *rpcPush) decode(b []byte) error {
	return eachField(b, func(num protowire.Number, _ uint64, data []byte) error {
		switch {
		case data == nil:
		case num == 1:
			p.Route = data
			return checkText(data)
		case num == 2:
			p.UID = data
			return checkText(data)
		case num == 3:
			p.Data = data
		}
		return nil
	})
}

// eachField is [protofield.Each]. What is no message is an errEnvelope.
func eachField(b []byte, f func(num protowire.Number, v uint64, data []byte) error) error {
	return protofield.Each(b, errEnvelope, f)
}

// checkText refuses strings that protobuf would.
func checkText(b []byte) error {
	if !utf8.Valid(b) {
		return fmt.Errorf("%w: text is not UTF-8", errEnvelope)
	}
	return nil
}

// Messages of this library's own, between its servers. They are protobuf as the
// others are; fields may be added.

// rpcUsers is a push for many users: route 1, uid 2 (repeated), data 3.
type rpcUsers struct {
	Route []byte
	UIDs  []string
	Data  []byte
}

func (u *rpcUsers) encode() []byte {
	n := sizeBytes(1, len(u.Route)) + sizeBytes(3, len(u.Data))
	for _, uid := range u.UIDs {
		n += protowire.SizeTag(2) + protowire.SizeBytes(len(uid))
	}
	b := appendBytes(make([]byte, 0, n), 1, u.Route)
	for _, uid := range u.UIDs { // empty ones too: the answer must tell of as many
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendString(b, uid)
	}
	return appendBytes(b, 3, u.Data)
}

func (u *rpcUsers) decode(b []byte) error {
	return eachField(b, func(num protowire.Number, _ uint64, data []byte) error {
		switch {
		case data == nil:
		case num == 1:
			u.Route = data
			return checkText(data)
		case num == 2:
			u.UIDs = append(u.UIDs, string(data))
			return checkText(data)
		case num == 3:
			u.Data = data
		}
		return nil
	})
}

// rpcClaim says that a frontend is about to bind a user: uid 1, fid 2, stamp 3.
type rpcClaim struct {
	UID, FID string
	Stamp    uint64
}

func (c *rpcClaim) encode() []byte {
	return appendVarint(appendBytes(appendBytes(nil, 1, c.UID), 2, c.FID), 3, c.Stamp)
}

func (c *rpcClaim) decode(b []byte) error {
	return eachField(b, func(num protowire.Number, v uint64, data []byte) error {
		switch {
		case num == 1 && data != nil:
			c.UID = string(data)
			return checkText(data)
		case num == 2 && data != nil:
			c.FID = string(data)
			return checkText(data)
		case num == 3 && data == nil:
			c.Stamp = v
		}
		return nil
	})
}

// rpcClaimAnswer is the answer: refused 1, bound 2, stamp 3 of the other claim.
type rpcClaimAnswer struct {
	Refused bool   // the user stays where it is
	Bound   bool   // it is bound there, not only about to be
	Stamp   uint64 // what a claim must be above
}

func (c *rpcClaimAnswer) encode() []byte {
	b := appendVarint([]byte{}, 1, protowire.EncodeBool(c.Refused))
	b = appendVarint(b, 2, protowire.EncodeBool(c.Bound))
	return appendVarint(b, 3, c.Stamp)
}

func (c *rpcClaimAnswer) decode(b []byte) error {
	return eachField(b, func(num protowire.Number, v uint64, data []byte) error {
		switch {
		case data != nil:
		case num == 1:
			c.Refused = protowire.DecodeBool(v)
		case num == 2:
			c.Bound = protowire.DecodeBool(v)
		case num == 3:
			c.Stamp = v
		}
		return nil
	})
}

// rpcEvent tells of a session of a frontend: kind 1, session 2, uid 3, fid 4,
// reason 5.
type rpcEvent struct {
	Kind             uint64
	Session          int64
	UID, FID, Reason string
}

func (e *rpcEvent) encode() []byte {
	b := appendVarint(nil, 1, e.Kind)
	b = appendVarint(b, 2, uint64(e.Session))
	b = appendBytes(b, 3, e.UID)
	b = appendBytes(b, 4, e.FID)
	return appendBytes(b, 5, e.Reason)
}

func (e *rpcEvent) decode(b []byte) error {
	return eachField(b, func(num protowire.Number, v uint64, data []byte) error {
		switch {
		case num == 1 && data == nil:
			e.Kind = v
		case num == 2 && data == nil:
			e.Session = int64(v)
		case num == 3 && data != nil:
			e.UID = string(data)
			return checkText(data)
		case num == 4 && data != nil:
			e.FID = string(data)
			return checkText(data)
		case num == 5 && data != nil:
			e.Reason = string(data)
			return checkText(data)
		}
		return nil
	})
}
