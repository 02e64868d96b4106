// Package clustermsg holds the small messages that servers send each other (section 2 of the cluster protocol), written and
// read by hand. The generated ones of the package pb are the same on the wire. But whoever contains them contains all that
// generated messages stand on, 1.6 MB, also in programs that use no protobuf: a package's init is linked with the package.
package clustermsg

import (
	"errors"
	"maps"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pitaya-go/pitaya/internal/protofield"
)

// BindMsg tells that a user is on a frontend.
type BindMsg struct{ Uid, Fid string }

// KickMsg asks for the end of a user's session.
type KickMsg struct{ UserId string }

// KickAnswer is the answer to a KickMsg.
type KickAnswer struct{ Kicked bool }

// Doc is documentation as JSON.
type Doc struct {
	Doc string `json:"doc,omitempty"`
}

// ProtoNames are names of messages and paths of files.
type ProtoNames struct {
	Name []string `json:"name,omitempty"`
}

// ProtoDescriptors are compressed descriptors of files.
type ProtoDescriptors struct {
	Desc [][]byte `json:"desc,omitempty"`
}

// Error is an error.
type Error struct {
	Code     string            `json:"code,omitempty"`
	Msg      string            `json:"msg,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Encode and Decode are what proto.Marshal and proto.Unmarshal do, without reflection. Unknown fields are passed over.

var (
	errMalformed = errors.New("protobuf: malformed message")
	errText      = errors.New("protobuf: text is not UTF-8")
)

// appendText appends a text field, which is left out when it is empty.
func appendText(b []byte, num protowire.Number, s string) ([]byte, error) {
	if s == "" {
		return b, nil
	}
	if !utf8.ValidString(s) {
		return nil, errText
	}
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s), nil
}

// setText sets a text field.
func setText(to *string, data []byte) error {
	if !utf8.Valid(data) {
		return errText
	}
	*to = string(data)
	return nil
}

// Encode encodes the message.
func (m *BindMsg) Encode() ([]byte, error) {
	b, err := appendText([]byte{}, 1, m.Uid)
	if err != nil {
		return nil, err
	}
	return appendText(b, 2, m.Fid)
}

// Decode reads into an empty message.
func (m *BindMsg) Decode(b []byte) error {
	return protofield.Each(b, errMalformed, func(num protowire.Number, _ uint64, data []byte) error {
		switch {
		case num == 1 && data != nil:
			return setText(&m.Uid, data)
		case num == 2 && data != nil:
			return setText(&m.Fid, data)
		}
		return nil
	})
}

// Encode encodes the message.
func (m *KickMsg) Encode() ([]byte, error) { return appendText([]byte{}, 1, m.UserId) }

// Decode reads into an empty message.
func (m *KickMsg) Decode(b []byte) error {
	return protofield.Each(b, errMalformed, func(num protowire.Number, _ uint64, data []byte) error {
		if num == 1 && data != nil {
			return setText(&m.UserId, data)
		}
		return nil
	})
}

// Decode reads into an empty message.
func (m *KickAnswer) Decode(b []byte) error {
	return protofield.Each(b, errMalformed, func(num protowire.Number, v uint64, data []byte) error {
		if num == 1 && data == nil {
			m.Kicked = protowire.DecodeBool(v)
		}
		return nil
	})
}

// Encode encodes the message.
func (m *Doc) Encode() ([]byte, error) { return appendText([]byte{}, 1, m.Doc) }

// Decode reads into an empty message.
func (m *Doc) Decode(b []byte) error {
	return protofield.Each(b, errMalformed, func(num protowire.Number, _ uint64, data []byte) error {
		if num == 1 && data != nil {
			return setText(&m.Doc, data)
		}
		return nil
	})
}

// Encode encodes the message. Empty names are there, too.
func (m *ProtoNames) Encode() ([]byte, error) {
	b := []byte{}
	for _, name := range m.Name {
		if !utf8.ValidString(name) {
			return nil, errText
		}
		b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), name)
	}
	return b, nil
}

// Decode reads into an empty message.
func (m *ProtoNames) Decode(b []byte) error {
	return protofield.Each(b, errMalformed, func(num protowire.Number, _ uint64, data []byte) error {
		if num != 1 || data == nil {
			return nil
		}
		m.Name = append(m.Name, "")
		return setText(&m.Name[len(m.Name)-1], data)
	})
}

// Encode encodes the message. Empty descriptors are there, too.
func (m *ProtoDescriptors) Encode() ([]byte, error) {
	b := []byte{}
	for _, d := range m.Desc {
		b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), d)
	}
	return b, nil
}

// Decode reads into an empty message.
func (m *ProtoDescriptors) Decode(b []byte) error {
	return protofield.Each(b, errMalformed, func(num protowire.Number, _ uint64, data []byte) error {
		if num == 1 && data != nil {
			m.Desc = append(m.Desc, slices.Clone(data))
		}
		return nil
	})
}

// Encode encodes the message. Pairs of the metadata are in the order of their keys.
func (m *Error) Encode() ([]byte, error) {
	b, err := appendText([]byte{}, 1, m.Code)
	if err != nil {
		return nil, err
	}
	if b, err = appendText(b, 2, m.Msg); err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(m.Metadata)) {
		if !utf8.ValidString(key) || !utf8.ValidString(m.Metadata[key]) {
			return nil, errText
		}
		pair := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), key)
		pair = protowire.AppendString(protowire.AppendTag(pair, 2, protowire.BytesType), m.Metadata[key])
		b = protowire.AppendBytes(protowire.AppendTag(b, 3, protowire.BytesType), pair)
	}
	return b, nil
}

// Decode reads into an empty message.
func (m *Error) Decode(b []byte) error {
	return protofield.Each(b, errMalformed, func(num protowire.Number, _ uint64, data []byte) error {
		switch {
		case num == 1 && data != nil:
			return setText(&m.Code, data)
		case num == 2 && data != nil:
			return setText(&m.Msg, data)
		case num == 3 && data != nil:
			var key, value string
			err := protofield.Each(data, errMalformed, func(num protowire.Number, _ uint64, data []byte) error {
				switch {
				case num == 1 && data != nil:
					return setText(&key, data)
				case num == 2 && data != nil:
					return setText(&value, data)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if m.Metadata == nil {
				m.Metadata = make(map[string]string)
			}
			m.Metadata[key] = value
		}
		return nil
	})
}
