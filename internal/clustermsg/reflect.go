package clustermsg

import (
	"bytes"

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
	if err := protofield.Each(b, errMalformed, func(protowire.Number, uint64, []byte) error { return nil }); err != nil {
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

func plain[T any, P interface {
	*T
	message
}](name protoreflect.FullName, m P) *plainMessage {
	return &plainMessage{name: name, message: m, fresh: func() message { return P(new(T)) }}
}

// A plainMessage is the reflection of a message that can be encoded, decoded, cloned, merged and compared, and has no fields
// to ask for: the functions of the package proto need no more than its methods. It is what generated code without
// reflection gives away, too.
type plainMessage struct {
	protoreflect.Message // nil: what cannot be called on a message without fields

	name    protoreflect.FullName
	message message
	fresh   func() message // makes an empty one
}

// Interface returns the message.
func (m *plainMessage) Interface() protoreflect.ProtoMessage { return m.message }

// New returns an empty message of the same kind.
func (m *plainMessage) New() protoreflect.Message { return m.fresh().ProtoReflect() }

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

// ProtoMethods returns what can be done with the message.
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
		Merge: func(in protoiface.MergeInput) (out protoiface.MergeOutput) {
			from, ok1 := in.Source.Interface().(message)
			to, ok2 := in.Destination.Interface().(message)
			if !ok1 || !ok2 {
				return out
			}
			if b, err := from.Encode(); err == nil && to.Decode(b) == nil { // text that is not UTF-8 cannot be encoded
				out.Flags = protoiface.MergeComplete
			}
			return out
		},
		Equal: func(in protoiface.EqualInput) (out protoiface.EqualOutput) {
			a, ok1 := in.MessageA.Interface().(message)
			b, ok2 := in.MessageB.Interface().(message)
			if ok1 && ok2 && in.MessageA.Descriptor().FullName() == in.MessageB.Descriptor().FullName() {
				x, errX := a.Encode()
				y, errY := b.Encode()
				out.Equal = errX == nil && errY == nil && bytes.Equal(x, y)
			}
			return out
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

// Syntax returns that of messages whose fields are not known to have presence.
func (plainDescriptor) Syntax() protoreflect.Syntax { return protoreflect.Proto3 }

// IsPlaceholder reports that there is more to the message.
func (plainDescriptor) IsPlaceholder() bool { return true }

// IsMapEntry returns false.
func (plainDescriptor) IsMapEntry() bool { return false }

// Fields returns none, and so do the following.
func (plainDescriptor) Fields() protoreflect.FieldDescriptors { return noFields{} }

// Oneofs returns none.
func (plainDescriptor) Oneofs() protoreflect.OneofDescriptors { return noOneofs{} }

// ExtensionRanges returns none.
func (plainDescriptor) ExtensionRanges() protoreflect.FieldRanges { return noRanges{} }

// RequiredNumbers returns none.
func (plainDescriptor) RequiredNumbers() protoreflect.FieldNumbers { return noNumbers{} }

// Lists without elements. What is nil in them is what elements are got by.
type (
	noFields  struct{ protoreflect.FieldDescriptors }
	noOneofs  struct{ protoreflect.OneofDescriptors }
	noRanges  struct{ protoreflect.FieldRanges }
	noNumbers struct{ protoreflect.FieldNumbers }
)

func (noFields) Len() int                                                       { return 0 }
func (noFields) ByName(protoreflect.Name) protoreflect.FieldDescriptor          { return nil }
func (noFields) ByJSONName(string) protoreflect.FieldDescriptor                 { return nil }
func (noFields) ByTextName(string) protoreflect.FieldDescriptor                 { return nil }
func (noFields) ByNumber(protoreflect.FieldNumber) protoreflect.FieldDescriptor { return nil }
func (noOneofs) Len() int                                                       { return 0 }
func (noOneofs) ByName(protoreflect.Name) protoreflect.OneofDescriptor          { return nil }
func (noRanges) Len() int                                                       { return 0 }
func (noRanges) Has(protoreflect.FieldNumber) bool                              { return false }
func (noNumbers) Len() int                                                      { return 0 }
func (noNumbers) Has(protoreflect.FieldNumber) bool                             { return false }
