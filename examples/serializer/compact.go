package main

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"github.com/pitaya-go/pitaya"
)

// Compact is a pitaya.Serializer. Values that have a binary form are sent in it; all others as JSON, such as the errors of
// handlers. Both ends know the type of each message, so nothing in a message says which of the two it is.
//
// It has no fields: any number of goroutines use it at once.
type Compact struct{}

// Name is what clients are told in the handshake. Names that are taken, "json" and "protobuf", would be a promise to speak
// those.
func (Compact) Name() string { return "compact" }

// Marshal makes a payload. The bytes must not be written to any more once they are returned, so there is no common buffer.
func (Compact) Marshal(v any) ([]byte, error) {
	if b, ok := v.(encoding.BinaryAppender); ok && !isNil(v) {
		return b.AppendBinary(nil)
	}
	return pitaya.JSON{}.Marshal(v)
}

// Unmarshal reads a payload, which may come from anybody: it must neither panic nor take much more memory than it is given.
// (That is why this example does not use encoding/gob, which promises neither.)
func (Compact) Unmarshal(data []byte, v any) error {
	if b, ok := v.(encoding.BinaryUnmarshaler); ok {
		if isNil(v) {
			return fmt.Errorf("compact: cannot decode into a nil %T", v)
		}
		return b.UnmarshalBinary(data)
	}
	return pitaya.JSON{}.Unmarshal(data, v)
}

func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return r.Kind() == reflect.Pointer && r.IsNil()
}

// A Move is the message that such a game has most of. It takes 4 bytes, and {"x":-300,"y":1200} as JSON takes 19.
type Move struct{ X, Y int16 }

// AppendBinary implements encoding.BinaryAppender.
func (m *Move) AppendBinary(b []byte) ([]byte, error) {
	b = binary.BigEndian.AppendUint16(b, uint16(m.X))
	return binary.BigEndian.AppendUint16(b, uint16(m.Y)), nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler. It keeps nothing of data, which is overwritten by the next message.
func (m *Move) UnmarshalBinary(data []byte) error {
	if len(data) != 4 {
		return errors.New("compact: a move has 4 bytes")
	}
	m.X, m.Y = int16(binary.BigEndian.Uint16(data)), int16(binary.BigEndian.Uint16(data[2:]))
	return nil
}
