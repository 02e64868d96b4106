package protofile_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	_ "google.golang.org/protobuf/types/gofeaturespb"
	_ "google.golang.org/protobuf/types/known/anypb"
	_ "google.golang.org/protobuf/types/known/apipb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/pluginpb"

	"github.com/pitaya-go/pitaya/internal/pb"
	"github.com/pitaya-go/pitaya/internal/protofile"
)

// editions is a file that uses what those above do not.
func editions(t testing.TB) protoreflect.FileDescriptor {
	field := func(name string, number int32, label descriptorpb.FieldDescriptorProto_Label, typ descriptorpb.FieldDescriptorProto_Type, typeName string, f *descriptorpb.FeatureSet) *descriptorpb.FieldDescriptorProto {
		d := &descriptorpb.FieldDescriptorProto{Name: &name, Number: &number, Label: &label, Type: &typ}
		if typeName != "" {
			d.TypeName = &typeName
		}
		if f != nil {
			d.Options = &descriptorpb.FieldOptions{Features: f}
		}
		return d
	}
	const optional, repeated = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL, descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	const i32, msg, enum = descriptorpb.FieldDescriptorProto_TYPE_INT32, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, descriptorpb.FieldDescriptorProto_TYPE_ENUM
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("editions.proto"), Package: new("e"), Syntax: new("editions"), Edition: descriptorpb.Edition_EDITION_2023.Enum(),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: new("M"),
			Field: []*descriptorpb.FieldDescriptorProto{
				field("plain", 1, optional, i32, "", nil),
				field("implicit", 2, optional, i32, "", &descriptorpb.FeatureSet{FieldPresence: descriptorpb.FeatureSet_IMPLICIT.Enum()}),
				field("required", 3, optional, i32, "", &descriptorpb.FeatureSet{FieldPresence: descriptorpb.FeatureSet_LEGACY_REQUIRED.Enum()}),
				field("packed", 4, repeated, i32, "", nil),
				field("expanded", 5, repeated, i32, "", &descriptorpb.FeatureSet{RepeatedFieldEncoding: descriptorpb.FeatureSet_EXPANDED.Enum()}),
				field("delimited", 6, optional, msg, ".e.M", &descriptorpb.FeatureSet{MessageEncoding: descriptorpb.FeatureSet_DELIMITED.Enum()}),
				field("closed", 7, optional, enum, ".e.E", nil),
			},
		}},
		EnumType: []*descriptorpb.EnumDescriptorProto{{
			Name: new("E"), Options: &descriptorpb.EnumOptions{Features: &descriptorpb.FeatureSet{EnumType: descriptorpb.FeatureSet_CLOSED.Enum()}},
			Value: []*descriptorpb.EnumValueDescriptorProto{{Name: new("ONE"), Number: proto.Int32(1)}},
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// proto2 is a file with what only old ones have: defaults, groups, packed fields, aliases.
func proto2(t testing.TB) protoreflect.FileDescriptor {
	var fields []*descriptorpb.FieldDescriptorProto
	for i, def := range []struct {
		typ  descriptorpb.FieldDescriptorProto_Type
		text string
	}{
		{descriptorpb.FieldDescriptorProto_TYPE_BOOL, "true"}, {descriptorpb.FieldDescriptorProto_TYPE_INT64, "-7"},
		{descriptorpb.FieldDescriptorProto_TYPE_UINT32, "7"}, {descriptorpb.FieldDescriptorProto_TYPE_FLOAT, "1.5e+10"},
		{descriptorpb.FieldDescriptorProto_TYPE_DOUBLE, "-inf"}, {descriptorpb.FieldDescriptorProto_TYPE_DOUBLE, "inf"},
		{descriptorpb.FieldDescriptorProto_TYPE_DOUBLE, "nan"}, {descriptorpb.FieldDescriptorProto_TYPE_STRING, "a \"quote\"\n"},
		{descriptorpb.FieldDescriptorProto_TYPE_BYTES, `\000\377\"\\text`}, {descriptorpb.FieldDescriptorProto_TYPE_ENUM, "TWO"},
	} {
		f := &descriptorpb.FieldDescriptorProto{
			Name: new("f" + string(rune('a'+i))), Number: new(int32(i + 1)), Type: def.typ.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), DefaultValue: new(def.text),
		}
		if def.typ == descriptorpb.FieldDescriptorProto_TYPE_ENUM {
			f.TypeName = new(".p.E")
		}
		fields = append(fields, f)
	}
	fields = append(fields,
		&descriptorpb.FieldDescriptorProto{Name: new("packed"), Number: proto.Int32(20), Type: descriptorpb.FieldDescriptorProto_TYPE_INT32.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(), Options: &descriptorpb.FieldOptions{Packed: new(true)}},
		&descriptorpb.FieldDescriptorProto{Name: new("g"), Number: proto.Int32(21), Type: descriptorpb.FieldDescriptorProto_TYPE_GROUP.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_REQUIRED.Enum(), TypeName: new(".p.M.G")})
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("proto2.proto"), Package: new("p"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: new("M"), Field: fields, NestedType: []*descriptorpb.DescriptorProto{{Name: new("G")}},
			ExtensionRange: []*descriptorpb.DescriptorProto_ExtensionRange{{Start: proto.Int32(100), End: proto.Int32(200)}},
			ReservedRange:  []*descriptorpb.DescriptorProto_ReservedRange{{Start: proto.Int32(50), End: proto.Int32(60)}},
			ReservedName:   []string{"gone"},
		}},
		Extension: []*descriptorpb.FieldDescriptorProto{{Name: new("ext"), Number: proto.Int32(100), Type: descriptorpb.FieldDescriptorProto_TYPE_INT32.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Extendee: new(".p.M")}},
		EnumType: []*descriptorpb.EnumDescriptorProto{{
			Name: new("E"), Options: &descriptorpb.EnumOptions{AllowAlias: new(true)},
			Value: []*descriptorpb.EnumValueDescriptorProto{{Name: new("MINUS"), Number: proto.Int32(-1)},
				{Name: new("TWO"), Number: proto.Int32(2)}, {Name: new("ZWEI"), Number: proto.Int32(2)}},
			ReservedRange: []*descriptorpb.EnumDescriptorProto_EnumReservedRange{{Start: proto.Int32(-9), End: proto.Int32(-8)}},
			ReservedName:  []string{"NEVER"},
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// files are those of the program, and those above.
func files(t *testing.T) []protoreflect.FileDescriptor {
	_ = pb.Error{} // the files of this package are among them
	list := []protoreflect.FileDescriptor{editions(t), proto2(t)}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		list = append(list, f)
		return true
	})
	if len(list) < 15 {
		t.Fatalf("%d files", len(list))
	}
	return list
}

// TestAppend compares what is written with what the library of protobuf makes of a file.
func TestAppend(t *testing.T) {
	t.Parallel()
	for _, file := range files(t) {
		b, err := protofile.Append(nil, file, true)
		if err != nil {
			t.Fatal(err)
		}
		var got descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v", file.Path(), err)
		}
		want := protodesc.ToFileDescriptorProto(file)
		want.SourceCodeInfo = nil
		for _, ext := range want.Extension {
			ext.JsonName = nil // means nothing
		}
		if !proto.Equal(&got, want) {
			t.Errorf("%s: got\n%v\nwant\n%v", file.Path(), &got, want)
		}
	}
}

// TestAppendWithoutOptions: whoever reads such a descriptor encodes messages as the program does.
func TestAppendWithoutOptions(t *testing.T) {
	t.Parallel()
	for _, file := range files(t) {
		b, err := protofile.Append(nil, file, false)
		if err != nil {
			t.Fatal(err)
		}
		var d descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(b, &d); err != nil {
			t.Fatalf("%s: %v", file.Path(), err)
		}
		got, err := protodesc.FileOptions{AllowUnresolvable: true}.New(&d, protoregistry.GlobalFiles)
		if err != nil {
			t.Errorf("%s: %v", file.Path(), err)
			continue
		}
		sameMessages(t, got.Messages(), file.Messages())
		sameEnums(t, got.Enums(), file.Enums())
	}
}

func sameMessages(t *testing.T, got, want protoreflect.MessageDescriptors) {
	for i := range want.Len() {
		g, w := got.Get(i), want.Get(i)
		if g.FullName() != w.FullName() || g.IsMapEntry() != w.IsMapEntry() {
			t.Errorf("%s: got %s, map entry: %v", w.FullName(), g.FullName(), g.IsMapEntry())
		}
		for i := range w.Fields().Len() {
			g, w := g.Fields().Get(i), w.Fields().Get(i)
			if g.FullName() != w.FullName() || g.Number() != w.Number() || g.Kind() != w.Kind() || g.Cardinality() != w.Cardinality() ||
				g.IsPacked() != w.IsPacked() || g.HasPresence() != w.HasPresence() || g.JSONName() != w.JSONName() || g.IsMap() != w.IsMap() {
				t.Errorf("%s: got %v, want %v", w.FullName(), g, w)
			}
		}
		sameMessages(t, g.Messages(), w.Messages())
		sameEnums(t, g.Enums(), w.Enums())
	}
}

func sameEnums(t *testing.T, got, want protoreflect.EnumDescriptors) {
	for i := range want.Len() {
		g, w := got.Get(i), want.Get(i)
		if g.FullName() != w.FullName() || g.IsClosed() != w.IsClosed() || g.Values().Len() != w.Values().Len() {
			t.Errorf("%s: got %v, want %v", w.FullName(), g, w)
		}
	}
}

// TestRead: what is read is what the library of protobuf reads.
func TestRead(t *testing.T) {
	t.Parallel()
	for _, file := range files(t) {
		want := protodesc.ToFileDescriptorProto(file)
		b, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := protofile.Read(b)
		if err != nil {
			t.Fatalf("%s: %v", file.Path(), err)
		}
		sameFile(t, got, want)
	}
}

func sameFile(t *testing.T, got *protofile.File, want *descriptorpb.FileDescriptorProto) {
	if got.Name != want.GetName() || got.Package != want.GetPackage() || !slices.Equal(got.Dependency, want.Dependency) {
		t.Errorf("%s: got %+v", want.GetName(), got)
	}
	sameRead(t, got.Messages, want.MessageType)
	sameValues(t, got.Enums, want.EnumType)
}

func sameValues(t *testing.T, got []*protofile.Enum, want []*descriptorpb.EnumDescriptorProto) {
	if len(got) != len(want) {
		t.Errorf("got %d enums, want %d", len(got), len(want))
		return
	}
	for i, w := range want {
		g := got[i]
		if g.Name != w.GetName() || len(g.Values) != len(w.Value) {
			t.Errorf("%s: got %+v", w.GetName(), g)
			continue
		}
		for k, v := range w.Value {
			if g.Values[k] != (protofile.EnumValue{Name: v.GetName(), Number: v.GetNumber()}) {
				t.Errorf("%s: got %+v, want %v", w.GetName(), g.Values[k], v)
			}
		}
	}
}

func sameRead(t *testing.T, got []*protofile.Message, want []*descriptorpb.DescriptorProto) {
	if len(got) != len(want) {
		t.Errorf("got %d messages, want %d", len(got), len(want))
		return
	}
	for i, w := range want {
		g := got[i]
		if g.Name != w.GetName() || g.MapEntry != w.GetOptions().GetMapEntry() || len(g.Fields) != len(w.Field) || len(g.Enums) != len(w.EnumType) || len(g.Oneofs) != len(w.OneofDecl) {
			t.Errorf("%s: got %+v", w.GetName(), g)
			continue
		}
		for i, w := range w.OneofDecl {
			if g.Oneofs[i] != w.GetName() {
				t.Errorf("oneof %s: got %s", w.GetName(), g.Oneofs[i])
			}
		}
		for i, w := range w.Field {
			g := g.Fields[i]
			typ := strings.ToLower(strings.TrimPrefix(w.GetType().String(), "TYPE_"))
			if g.Name != w.GetName() || g.Number != w.GetNumber() || int32(g.Label) != int32(w.GetLabel()) || g.Type.String() != typ || g.TypeName != w.GetTypeName() ||
				(g.Default == nil) != (w.DefaultValue == nil) || g.Default != nil && *g.Default != w.GetDefaultValue() ||
				(g.Oneof == nil) != (w.OneofIndex == nil) || g.Oneof != nil && *g.Oneof != w.GetOneofIndex() || g.Proto3Optional != w.GetProto3Optional() {
				t.Errorf("%s: got %+v, want %v", w.GetName(), g, w)
			}
		}
		sameRead(t, g.Nested, w.NestedType)
		sameValues(t, g.Enums, w.EnumType)
	}
}

// TestReadUnknown: labels and types that there are none of are kept as they are, as by the library of protobuf.
func TestReadUnknown(t *testing.T) {
	t.Parallel()
	file, err := protofile.Read([]byte("\x22\x08\x12\x06\x18\x01\x20\x30\x28\x63")) // field 1, label 48, type 99
	if err != nil {
		t.Fatal(err)
	}
	f := file.Messages[0].Fields[0]
	if f.Number != 1 || f.Label != 48 || f.Type.String() != "99" {
		t.Errorf("got %+v", f)
	}
}

// FuzzRead: whatever it is, it is read as the library of protobuf reads it. What that one refuses may be read all the same:
// parts that nobody needs are not looked at.
func FuzzRead(f *testing.F) {
	f.Add([]byte("\x0a\x01a"))
	f.Add([]byte("\x22\x02\x1a\x00"))
	f.Add([]byte("\x22\xff\xff\xff\xff\x0f"))
	for _, file := range []protoreflect.FileDescriptor{descriptorpb.File_google_protobuf_descriptor_proto, proto2(f), editions(f)} {
		b, err := proto.Marshal(protodesc.ToFileDescriptorProto(file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := protofile.Read(b)
		var d descriptorpb.FileDescriptorProto
		if proto.Unmarshal(b, &d) != nil {
			return
		}
		if err != nil {
			t.Errorf("refused: %v", err)
			return
		}
		sameFile(t, file, &d)
	})
}
