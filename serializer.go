package pitaya

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// A Serializer turns values into payloads and back. A server has one, which it names in the handshake, and all its
// clients use it.
//
// Rules for implementations: any number of goroutines may call it at once. Name returns the same text always; clients
// know "json" and "protobuf", and one with such a name must be able to read and write what they do. Marshal returns
// memory that nobody else writes to, and keeps nothing of v. Unmarshal keeps nothing of data, which may come from a
// hostile client: it must neither panic nor take memory out of proportion. For error answers a serializer named
// "protobuf" is given protobuf messages, any other a pointer to a struct with the exported fields Code, Msg and Metadata,
// two strings and a map of strings, with tags for encoding/json. In programs built with the tag nocluster those messages can
// be encoded and decoded, but have no fields to reflection.
type Serializer interface {
	Name() string
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// A lender is a serializer that can marshal into borrowed memory, for who needs it until it is copied only. The caller frees
// the buffer; with an error there is none.
type lender interface {
	marshalLent(v any) (*buffer, error)
}

// lends returns s as a lender, if it is one of this package's own. A type of the application's that embeds one has its
// method too, and perhaps a Marshal of its own, which counts.
func lends(s Serializer) (lender, bool) {
	switch s := s.(type) {
	case JSON:
		return s, true
	case Protobuf:
		return s, true
	}
	return nil, false
}

// The errors of both serializers are those of their libraries, as they are: clients get to see the text of an argument
// that could not be decoded.

// Protobuf is the [Serializer] named "protobuf". Values must be of type [proto.Message].
type Protobuf struct{}

// Name returns "protobuf".
func (Protobuf) Name() string { return "protobuf" }

// Marshal is [proto.Marshal]. A nil pointer to a message counts as an empty one.
func (Protobuf) Marshal(v any) ([]byte, error) {
	m, err := protobufOf(v)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(m)
}

// marshalLent implements lender.
func (Protobuf) marshalLent(v any) (*buffer, error) {
	m, err := protobufOf(v)
	if err != nil {
		return nil, err
	}
	b := getBuffer(minBufferSize)
	if b.B, err = (proto.MarshalOptions{}).MarshalAppend(b.B, m); err != nil {
		return nil, err // with the memory: it may be what was appended to, or not
	}
	return b, nil
}

func protobufOf(v any) (proto.Message, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("protobuf: %T is not a proto.Message", v)
	}
	return m, nil
}

// Unmarshal is [proto.Unmarshal]. Empty data gives an empty message.
func (Protobuf) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok || !m.ProtoReflect().IsValid() {
		return fmt.Errorf("protobuf: cannot decode into %T, only into a proto.Message that is not nil", v)
	}
	return proto.Unmarshal(data, m)
}
