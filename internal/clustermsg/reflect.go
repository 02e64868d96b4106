package clustermsg

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoiface"

	"github.com/pitaya-go/pitaya/internal/protofield"
)

// What makes a [proto.Message] of those messages that a client's serializer is given.

// Reset implements what [proto.Reset] looks for.
func (m *Error) Reset() { *m = Error{} }

// ProtoReflect implements [proto.Message].
func (m *Error) ProtoReflect() protoreflect.Message { return plain("protos.Error", m) }

// Reset implements what [proto.Reset] looks for.
func (m *Doc) Reset() { *m = Doc{} }

// ProtoReflect implements [proto.Message].
func (m *Doc) ProtoReflect() protoreflect.Message { return plain("protos.Doc", m) }

// Reset implements what [proto.Reset] looks for.
func (m *ProtoNames) Reset() { *m = ProtoNames{} }

// ProtoReflect implements [proto.Message].
func (m *ProtoNames) ProtoReflect() protoreflect.Message { return plain("protos.ProtoNames", m) }

// Reset implements what [proto.Reset] looks for.
func (m *ProtoDescriptors) Reset() { *m = ProtoDescriptors{} }

// ProtoReflect implements [proto.Message].
func (m *ProtoDescriptors) ProtoReflect() protoreflect.Message {
	return plain("protos.ProtoDescriptors", m)
}

// Empty takes the place of google.protobuf.Empty. It keeps what it does not know.
type Empty struct{ unknown []byte }

// Reset implements what [proto.Reset] looks for.
func (m *Empty) Reset() { *m = Empty{} }

// ProtoReflect implements [proto.Message].
func (m *Empty) ProtoReflect() protoreflect.Message { return plain("google.protobuf.Empty", m) }

// Encode encodes the message.
func (m *Empty) Encode() ([]byte, error) { return m.unknown, nil }

// Decode adds to the message.
func (m *Empty) Decode(b []byte) error {
	if err := protofield.Each(b, func(protowire.Number, uint64, []byte) error { return nil }); err != nil {
		return err
	}
	m.unknown = append(m.unknown, b...)
	return nil
}

type message interface {
	proto.Message
	Encode() ([]byte, error)
	Decode([]byte) error
}

func plain(name protoreflect.FullName, m message) *plainMessage {
	return &plainMessage{name: name, message: m}
}

// A plainMessage is the reflection of a message that can be encoded and decoded, and no more: the methods that say so are
// all that [proto.Marshal] and [proto.Unmarshal] use of it. It is what generated code without reflection gives away, too.
type plainMessage struct {
	protoreflect.Message // nil: there are no fields to ask for

	name    protoreflect.FullName
	message message
}

// Interface returns the message.
func (m *plainMessage) Interface() protoreflect.ProtoMessage { return m.message }

// IsValid reports that the message is there.
func (m *plainMessage) IsValid() bool { return true }

// Descriptor returns a descriptor that knows the message's name.
func (m *plainMessage) Descriptor() protoreflect.MessageDescriptor {
	return plainDescriptor{name: m.name}
}

// Range calls f for no field.
func (m *plainMessage) Range(func(protoreflect.FieldDescriptor, protoreflect.Value) bool) {}

// GetUnknown returns nothing.
func (m *plainMessage) GetUnknown() protoreflect.RawFields { return nil }

// ProtoMethods returns how to encode and decode the message.
func (m *plainMessage) ProtoMethods() *protoiface.Methods {
	return &protoiface.Methods{
		Flags: protoiface.SupportMarshalDeterministic | protoiface.SupportUnmarshalDiscardUnknown,
		Marshal: func(in protoiface.MarshalInput) (out protoiface.MarshalOutput, err error) {
			b, err := m.message.Encode()
			out.Buf = append(in.Buf, b...)
			return out, err
		},
		Size: func(protoiface.SizeInput) (out protoiface.SizeOutput) {
			b, _ := m.message.Encode() // what is wrong with it, Marshal says
			out.Size = len(b)
			return out
		},
		Unmarshal: func(in protoiface.UnmarshalInput) (out protoiface.UnmarshalOutput, err error) {
			out.Flags = protoiface.UnmarshalInitialized
			return out, m.message.Decode(in.Buf)
		},
		CheckInitialized: func(protoiface.CheckInitializedInput) (out protoiface.CheckInitializedOutput, err error) {
			return out, nil
		},
	}
}

// plainDescriptor is the descriptor of a message of which no more than the name is known.
type plainDescriptor struct {
	protoreflect.MessageDescriptor // nil

	name protoreflect.FullName
}

// FullName returns the name with the package.
func (d plainDescriptor) FullName() protoreflect.FullName { return d.name }

// Name returns the last part of the name.
func (d plainDescriptor) Name() protoreflect.Name { return d.name.Name() }
