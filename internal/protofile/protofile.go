// Package protofile reads and writes the descriptors of .proto files without the generated messages for them. These, and
// with them all that is needed for generated messages, would be part of every program that can show its routes, also of
// those that use no protobuf: a package's init is linked with the package.
package protofile

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pitaya-go/pitaya/internal/protofield"
)

// A File is a FileDescriptorProto, as far as pages about routes need it. Names are as they are on the wire: not checked.
type File struct {
	Name, Package string
	Dependency    []string // paths of the files that it imports
	Messages      []*Message
	Enums         []*Enum
}

// A Message is a DescriptorProto.
type Message struct {
	Name     string
	Fields   []*Field
	Nested   []*Message
	Enums    []*Enum
	Oneofs   []string // names
	MapEntry bool     // it stands for a pair of a map
}

// A Field is a FieldDescriptorProto.
type Field struct {
	Name           string
	Number         int32
	Label          Label
	Type           Type
	TypeName       string  // of a message or an enum, with a dot first
	Default        *string // nil: none
	Oneof          *int32  // index into Oneofs; nil: in none. It is as it was received, perhaps out of range
	Proto3Optional bool
}

// An Enum is an EnumDescriptorProto.
type Enum struct {
	Name   string
	Values []EnumValue
}

// An EnumValue is an EnumValueDescriptorProto.
type EnumValue struct {
	Name   string
	Number int32
}

// Label is how often a field may be there.
type Label int32

// The labels.
const (
	Optional Label = 1
	Required Label = 2
	Repeated Label = 3
)

// Type is the type of a field.
type Type int32

// The types that are told apart.
const (
	Double   Type = 1
	Float    Type = 2
	Int64    Type = 3
	Uint64   Type = 4
	Fixed64  Type = 6
	Bool     Type = 8
	String   Type = 9
	Group    Type = 10
	Msg      Type = 11
	Bytes    Type = 12
	EnumType Type = 14
	Sfixed64 Type = 16
	Sint64   Type = 18
)

// String returns the word of the type in a .proto file, or its number if there is no such type.
func (t Type) String() string {
	words := [...]string{"", "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "group", "message",
		"bytes", "uint32", "enum", "sfixed32", "sfixed64", "sint32", "sint64"}
	if t < 1 || int(t) >= len(words) {
		return fmt.Sprint(int32(t))
	}
	return words[t]
}

var errMalformed = errors.New("protofile: malformed descriptor")

// maxDepth bounds how deep messages may be nested, as in the library of protobuf.
const maxDepth = 10_000

// Read reads a serialized FileDescriptorProto, which may come from anywhere.
func Read(b []byte) (*File, error) {
	f := new(File)
	err := protofield.Each(b, errMalformed, func(num protowire.Number, _ uint64, data []byte) (err error) {
		switch {
		case data == nil:
		case num == 1:
			f.Name = string(data)
		case num == 2:
			f.Package = string(data)
		case num == 3:
			f.Dependency = append(f.Dependency, string(data))
		case num == 4:
			f.Messages, err = add(f.Messages, data, func(m *Message, b []byte) error { return m.read(b, maxDepth) })
		case num == 5:
			f.Enums, err = add(f.Enums, data, (*Enum).read)
		}
		return err
	})
	return f, err
}

// add reads an element of a list.
func add[T any](list []*T, b []byte, read func(*T, []byte) error) ([]*T, error) {
	v := new(T)
	return append(list, v), read(v, b)
}

func (m *Message) read(b []byte, depth int) error {
	if depth == 0 {
		return errors.New("protofile: messages are nested too deep")
	}
	return protofield.Each(b, errMalformed, func(num protowire.Number, _ uint64, data []byte) (err error) {
		switch {
		case data == nil:
		case num == 1:
			m.Name = string(data)
		case num == 2:
			m.Fields, err = add(m.Fields, data, (*Field).read)
		case num == 3:
			m.Nested, err = add(m.Nested, data, func(m *Message, b []byte) error { return m.read(b, depth-1) })
		case num == 4:
			m.Enums, err = add(m.Enums, data, (*Enum).read)
		case num == 7: // MessageOptions
			err = protofield.Each(data, errMalformed, func(num protowire.Number, v uint64, data []byte) error {
				if num == 7 && data == nil {
					m.MapEntry = protowire.DecodeBool(v)
				}
				return nil
			})
		case num == 8: // OneofDescriptorProto
			name := ""
			err = protofield.Each(data, errMalformed, func(num protowire.Number, _ uint64, data []byte) error {
				if num == 1 && data != nil {
					name = string(data)
				}
				return nil
			})
			m.Oneofs = append(m.Oneofs, name)
		}
		return err
	})
}

func (f *Field) read(b []byte) error {
	f.Label, f.Type = Optional, Double // what is not said
	return protofield.Each(b, errMalformed, func(num protowire.Number, v uint64, data []byte) error {
		switch {
		case num == 1 && data != nil:
			f.Name = string(data)
		case num == 3 && data == nil:
			f.Number = int32(v)
		case num == 4 && data == nil:
			f.Label = Label(v) // perhaps none of those above; the same goes for the type
		case num == 5 && data == nil:
			f.Type = Type(v)
		case num == 6 && data != nil:
			f.TypeName = string(data)
		case num == 7 && data != nil:
			f.Default = new(string(data))
		case num == 9 && data == nil:
			f.Oneof = new(int32(v))
		case num == 17 && data == nil:
			f.Proto3Optional = protowire.DecodeBool(v)
		}
		return nil
	})
}

func (e *Enum) read(b []byte) error {
	return protofield.Each(b, errMalformed, func(num protowire.Number, _ uint64, data []byte) error {
		switch {
		case data == nil:
		case num == 1:
			e.Name = string(data)
		case num == 2:
			var v EnumValue
			err := protofield.Each(data, errMalformed, func(num protowire.Number, n uint64, data []byte) error {
				switch {
				case num == 1 && data != nil:
					v.Name = string(data)
				case num == 2 && data == nil:
					v.Number = int32(n)
				}
				return nil
			})
			e.Values = append(e.Values, v)
			return err
		}
		return nil
	})
}
