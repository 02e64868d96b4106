package protofile

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Append appends a file's FileDescriptorProto, which says what protodesc.ToFileDescriptorProto would, but for comments.
//
// Without withOptions the options of the file are left out, custom ones among them: the file cannot be asked for them in
// a program that does not contain the package descriptorpb. What they say about the wire format is there all the same.
func Append(b []byte, file protoreflect.FileDescriptor, withOptions bool) ([]byte, error) {
	a := appender{file: file, withOptions: withOptions}
	b = a.appendFile(b)
	return b, a.err
}

// An appender appends parts of a descriptor in the order of their numbers. The first error stays.
type appender struct {
	file        protoreflect.FileDescriptor
	withOptions bool
	err         error
}

// list is what lists of descriptors are.
type list[D any] interface {
	Len() int
	Get(i int) D
}

// appendList appends the elements of a list, each as a message.
func appendList[D any](b []byte, num protowire.Number, l list[D], f func([]byte, D) []byte) []byte {
	for i := range l.Len() {
		b = appendMessage(b, num, f(nil, l.Get(i)))
	}
	return b
}

func appendMessage(b []byte, num protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), m)
}

func appendText[S ~string](b []byte, num protowire.Number, s S) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), string(s))
}

func appendInt[N ~int | ~int8 | ~int32](b []byte, num protowire.Number, n N) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(n))
}

// options appends the options of d, or instead of them, if they cannot be had, those that the wire format depends on.
func (a *appender) options(b []byte, num protowire.Number, options func() protoreflect.ProtoMessage, instead []byte) []byte {
	text := instead
	if a.withOptions {
		var err error
		m := options()
		if m == nil || !m.ProtoReflect().IsValid() {
			return b
		}
		if text, err = (proto.MarshalOptions{Deterministic: true}).Marshal(m); err != nil && a.err == nil {
			a.err = err
		}
	} else if text == nil {
		return b
	}
	return appendMessage(b, num, text)
}

func (a *appender) editions() bool { return a.file.Syntax() == protoreflect.Editions }

func (a *appender) appendFile(b []byte) []byte {
	b = appendText(b, 1, a.file.Path())
	if p := a.file.Package(); p != "" {
		b = appendText(b, 2, p)
	}
	imports := a.file.Imports()
	for i := range imports.Len() {
		b = appendText(b, 3, imports.Get(i).Path())
	}
	b = appendList(b, 4, a.file.Messages(), a.message)
	b = appendList(b, 5, a.file.Enums(), a.enum)
	b = appendList(b, 6, a.file.Services(), a.service)
	b = appendList(b, 7, a.file.Extensions(), a.field)
	b = a.options(b, 8, a.file.Options, nil)
	for i := range imports.Len() {
		if imports.Get(i).IsPublic {
			b = appendInt(b, 10, i)
		}
	}
	if s := a.file.Syntax(); s != protoreflect.Proto2 && s.IsValid() {
		b = appendText(b, 12, s.String())
	}
	if e, ok := a.file.(interface{ Edition() int32 }); ok && a.editions() {
		b = appendInt(b, 14, e.Edition())
	}
	if o, ok := a.file.(interface {
		OptionImports() protoreflect.FileImports
	}); ok && a.withOptions {
		for imports, i := o.OptionImports(), 0; i < imports.Len(); i++ {
			b = appendText(b, 15, imports.Get(i).Path())
		}
	}
	return b
}

func (a *appender) message(b []byte, m protoreflect.MessageDescriptor) []byte {
	b = appendText(b, 1, m.Name())
	b = appendList(b, 2, m.Fields(), a.field)
	b = appendList(b, 3, m.Messages(), a.message)
	b = appendList(b, 4, m.Enums(), a.enum)
	for i := range m.ExtensionRanges().Len() {
		r := appendRange(m.ExtensionRanges().Get(i))
		r = a.options(r, 3, func() protoreflect.ProtoMessage { return m.ExtensionRangeOptions(i) }, nil)
		b = appendMessage(b, 5, r)
	}
	b = appendList(b, 6, m.Extensions(), a.field)
	var instead []byte
	if m.IsMapEntry() {
		instead = appendInt(nil, 7, 1)
	}
	b = a.options(b, 7, m.Options, instead)
	b = appendList(b, 8, m.Oneofs(), func(b []byte, o protoreflect.OneofDescriptor) []byte {
		return a.options(appendText(b, 1, o.Name()), 2, o.Options, nil)
	})
	b = appendList(b, 9, m.ReservedRanges(), func(_ []byte, r [2]protoreflect.FieldNumber) []byte { return appendRange(r) })
	return a.reserved(b, 10, m.ReservedNames(), m)
}

// reserved appends what comes last of messages and enums.
func (a *appender) reserved(b []byte, num protowire.Number, names protoreflect.Names, d protoreflect.Descriptor) []byte {
	for i := range names.Len() {
		b = appendText(b, num, names.Get(i))
	}
	if v, ok := d.(interface{ Visibility() int32 }); ok && v.Visibility() > 0 {
		b = appendInt(b, num+1, v.Visibility())
	}
	return b
}

func appendRange[N ~int32](r [2]N) []byte { return appendInt(appendInt(nil, 1, r[0]), 2, r[1]) }

func (a *appender) field(b []byte, f protoreflect.FieldDescriptor) []byte {
	kind, label := f.Kind(), f.Cardinality()
	if a.editions() { // which have neither groups nor required fields, but features
		if kind == protoreflect.GroupKind {
			kind = protoreflect.MessageKind
		}
		if label == protoreflect.Required {
			label = protoreflect.Optional
		}
	}
	b = appendText(b, 1, f.Name())
	if f.IsExtension() {
		b = appendText(b, 2, fullName(f.ContainingMessage()))
	}
	b = appendInt(b, 3, f.Number())
	b = appendInt(b, 4, label)
	if kind.IsValid() {
		b = appendInt(b, 5, kind)
	}
	switch {
	case f.Message() != nil:
		b = appendText(b, 6, fullName(f.Message()))
	case f.Enum() != nil:
		b = appendText(b, 6, fullName(f.Enum()))
	}
	if f.HasDefault() {
		b = appendText(b, 7, defaultOf(f))
	}
	b = a.options(b, 8, f.Options, a.fieldOptions(f))
	if o := f.ContainingOneof(); o != nil {
		b = appendInt(b, 9, o.Index())
	}
	if f.HasJSONName() && !f.IsExtension() { // which has none
		b = appendText(b, 10, f.JSONName())
	}
	if a.file.Syntax() == protoreflect.Proto3 && f.HasOptionalKeyword() {
		b = appendInt(b, 17, 1)
	}
	return b
}

// fieldOptions returns the options of a field that the wire format depends on, nil if it is what goes without saying.
func (a *appender) fieldOptions(f protoreflect.FieldDescriptor) []byte {
	packable := f.Cardinality() == protoreflect.Repeated && f.Message() == nil &&
		f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.BytesKind
	if !a.editions() {
		if packable && f.IsPacked() != (a.file.Syntax() == protoreflect.Proto3) {
			return appendInt(nil, 2, int(protowire.EncodeBool(f.IsPacked())))
		}
		return nil
	}
	var features []byte
	switch {
	case f.Cardinality() == protoreflect.Required:
		features = appendInt(features, 1, 3)
	case f.Cardinality() == protoreflect.Optional && !f.HasPresence():
		features = appendInt(features, 1, 2)
	}
	if packable && !f.IsPacked() {
		features = appendInt(features, 3, 2)
	}
	if f.Kind() == protoreflect.GroupKind {
		features = appendInt(features, 5, 2)
	}
	if features == nil {
		return nil
	}
	return appendMessage(nil, 21, features)
}

func (a *appender) enum(b []byte, e protoreflect.EnumDescriptor) []byte {
	b = appendText(b, 1, e.Name())
	b = appendList(b, 2, e.Values(), func(b []byte, v protoreflect.EnumValueDescriptor) []byte {
		b = appendInt(appendText(b, 1, v.Name()), 2, v.Number())
		return a.options(b, 3, v.Options, nil)
	})
	var instead []byte
	if a.editions() && e.IsClosed() {
		instead = appendMessage(nil, 7, appendInt(nil, 2, 2))
	} else if a.aliases(e) {
		instead = appendInt(nil, 2, 1)
	}
	b = a.options(b, 3, e.Options, instead)
	b = appendList(b, 4, e.ReservedRanges(), func(_ []byte, r [2]protoreflect.EnumNumber) []byte { return appendRange(r) })
	return a.reserved(b, 5, e.ReservedNames(), e)
}

// aliases reports whether two values of an enum have one number, which has to be allowed by an option.
func (a *appender) aliases(e protoreflect.EnumDescriptor) bool {
	seen := make(map[protoreflect.EnumNumber]bool)
	for i := range e.Values().Len() {
		n := e.Values().Get(i).Number()
		if seen[n] {
			return true
		}
		seen[n] = true
	}
	return false
}

func (a *appender) service(b []byte, s protoreflect.ServiceDescriptor) []byte {
	b = appendText(b, 1, s.Name())
	b = appendList(b, 2, s.Methods(), func(b []byte, m protoreflect.MethodDescriptor) []byte {
		b = appendText(b, 1, m.Name())
		b = appendText(b, 2, fullName(m.Input()))
		b = appendText(b, 3, fullName(m.Output()))
		b = a.options(b, 4, m.Options, nil)
		if m.IsStreamingClient() {
			b = appendInt(b, 5, 1)
		}
		if m.IsStreamingServer() {
			b = appendInt(b, 6, 1)
		}
		return b
	})
	return a.options(b, 3, s.Options, nil)
}

// fullName returns a name with a dot first. A type that the program does not have is known by what the file calls it.
func fullName(d protoreflect.Descriptor) string {
	if name, ok := strings.CutPrefix(string(d.FullName()), "*unresolved*."); ok {
		return name
	}
	return "." + string(d.FullName())
}

// defaultOf returns the default of a field as a descriptor has it.
func defaultOf(f protoreflect.FieldDescriptor) string {
	switch v := f.Default(); f.Kind() {
	case protoreflect.EnumKind:
		if e := f.DefaultEnumValue(); e != nil {
			return string(e.Name())
		}
		return strconv.Itoa(int(v.Enum()))
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		bits := 64
		if f.Kind() == protoreflect.FloatKind {
			bits = 32
		}
		switch n := v.Float(); {
		case math.IsInf(n, 1):
			return "inf"
		case math.IsInf(n, -1):
			return "-inf"
		case math.IsNaN(n):
			return "nan"
		default:
			return strconv.FormatFloat(n, 'g', -1, bits)
		}
	case protoreflect.BytesKind:
		var b strings.Builder
		for _, c := range v.Bytes() {
			switch {
			case c == '\\' || c == '"' || c == '\'':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c < ' ' || c > '~':
				fmt.Fprintf(&b, `\%03o`, c)
			default:
				b.WriteByte(c)
			}
		}
		return b.String()
	default:
		return v.String()
	}
}
