package pitaya_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pitaya-go/pitaya"
)

type (
	docBox[T any]  struct{ Item T }
	docTree[T any] struct {
		Value T
		Left  *docTree[T]
		More  []docTree[T] `json:"more"`
		ByKey map[string]docTree[T]
	}
	docChicken struct{ Eggs []docEgg }
	docEgg     struct{ *docChicken }
	docEither  struct{ Or *docBox[docEither] }
	docKeyed   map[string]docKeyed
	docArrays  [2][]docArrays
	docColour  uint8
	docLabel   string
	docTags    struct {
		Options int   `json:",omitempty"`
		Dash    int   `json:"-,"` //lint:ignore SA5008 what it means is what is tested
		Quoted  int64 `json:"id,string"`
		Invalid int   `json:"a\"b"` //lint:ignore SA5008 as above
		Strange int   `json:"*a b/Ü{}"`
		Other   int   `xml:"x"`
		Left    int   `json:"-"`
		Name    int
		LowName int `json:"name"`
	}
	docHidden  struct{ A, B int }
	docSame    struct{ A, C int }
	docSeveral struct {
		docHidden // A and B
		docSame   // C, and A again
		B         string
	}
	docTagged struct {
		docHidden          // A and B
		docRenamed         // A, by a tag
		Sub        docSame `json:"sub"`
	}
	docRenamed struct {
		X int `json:"A"`
	}
	docEmbeds struct {
		docHidden `json:"hidden"`
		docColour //lint:ignore U1000 it must not show
		docUpper  //lint:ignore U1000 as above
		DocUpper
		*docBox[int]
		fmt.Stringer
	}
	docUpper int //lint:ignore U1000 as above
	DocUpper int
	docTwice struct {
		docOnce1
		docOnce2
	}
	docOnce1 struct{ docHidden }
	docOnce2 struct{ docHidden }

	docStamp struct { // has the methods of what it embeds
		time.Time
		Zone string
	}
	docReads   struct{ N int }
	docWrites  struct{ N int }
	docText    struct{ n int } //lint:ignore U1000 it is what must not show
	docBits    [4]byte
	docCustoms struct {
		Int    *big.Int
		IP     net.IP
		Addr   netip.Addr
		Raw    json.RawMessage
		Number json.Number
		Stamp  docStamp
		Reads  docReads
		Writes docWrites
		Text   docText
		Bits   docBits
		Plain  [4]byte
		Took   time.Duration
	}
	docOdd struct {
		Func  func(docOdd) int
		Chan  chan docOdd
		Iface interface{ Do(docOdd) }
		Err   error
		Num   complex128
		Empty struct{}
		Names map[docLabel][]*docHidden
		Deep  [][]*[3]docColour
	}
	docOld struct { // as old generators have made messages
		Name                 string   `protobuf:"bytes,1,opt,name=name" json:"name,omitempty"`
		XXX_NoUnkeyedLiteral struct{} `json:"-"`
		XXX_unrecognized     []byte
		XXX_sizecache        int32
	}
)

func (*docReads) UnmarshalJSON([]byte) error   { return nil }
func (docWrites) MarshalJSON() ([]byte, error) { return nil, nil }
func (docText) MarshalText() ([]byte, error)   { return nil, nil }
func (*docText) UnmarshalText([]byte) error    { return nil }
func (b docBits) MarshalText() ([]byte, error) { return nil, nil }

// docOf is the documentation of a type as JSON.
func docOf[T any](t *testing.T, output, pointerNames bool) string {
	t.Helper()
	b, err := json.Marshal(pitaya.DescribeType(reflect.TypeFor[T](), output, pointerNames))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "pitaya_test.", "p.")
}

func TestDocumentationOfTypes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name            string
		doc             func(t *testing.T, output, pointerNames bool) string
		in, out, outPtr string // each may be left out
	}{
		{name: "generic", doc: docOf[docBox[docHidden]], in: `{"item":{"a":"int","b":"int"}}`, outPtr: `{"*p.docBox[github.com/pitaya-go/p.docHidden]":{"Item":{"*p.docHidden":{"A":"int","B":"int"}}}}`},
		{name: "recursive and generic", doc: docOf[*docTree[int]],
			in:     `{"byKey":"map[string]p.docTree[int]","left":"p.docTree[int]","more":["p.docTree[int]"],"value":"int"}`,
			outPtr: `{"*p.docTree[int]":{"ByKey":"map[string]p.docTree[int]","Left":"*p.docTree[int]","Value":"int","more":["*p.docTree[int]"]}}`},
		{name: "recursive through a slice and an embedded pointer", doc: docOf[docChicken],
			out:    `{"Eggs":[{"Eggs":["p.docEgg"]}]}`,
			outPtr: `{"*p.docChicken":{"Eggs":[{"*p.docEgg":{"Eggs":["*p.docEgg"]}}]}}`},
		{name: "the same from the other end", doc: docOf[docEgg], out: `{"Eggs":["p.docEgg"]}`},
		{name: "recursive through a generic type", doc: docOf[docEither], out: `{"Or":{"Item":"p.docEither"}}`},
		{name: "recursive map", doc: docOf[docKeyed], in: `"p.docKeyed"`, outPtr: `"p.docKeyed"`},
		{name: "recursive array", doc: docOf[docArrays], in: `[["p.docArrays"]]`},
		{name: "pointers to what is no struct", doc: docOf[***docColour], in: `"p.docColour"`, outPtr: `"p.docColour"`},
		{name: "named basic types", doc: docOf[[]docLabel], in: `["p.docLabel"]`, outPtr: `["p.docLabel"]`},
		{name: "tags", doc: docOf[docTags],
			in:  `{"*a b/Ü{}":"int","-":"int","Name":"int","id":"int64","invalid":"int","name":"int","options":"int","other":"int"}`,
			out: `{"*a b/Ü{}":"int","-":"int","Invalid":"int","Name":"int","Options":"int","Other":"int","id":"int64","name":"int"}`},
		{name: "embedded structs with the same name in both", doc: docOf[docSeveral], out: `{"B":"string","C":"int"}`},
		{name: "embedded structs of which one has a tag", doc: docOf[docTagged], in: `{"A":"int","b":"int","sub":{"a":"int","c":"int"}}`},
		{name: "what is embedded and no struct", doc: docOf[docEmbeds], out: `{"DocUpper":"p.DocUpper","Item":"int","Stringer":"fmt.Stringer","hidden":{"A":"int","B":"int"}}`},
		{name: "embedded twice", doc: docOf[docTwice], out: `{}`},
		{name: "their own JSON", doc: docOf[docCustoms],
			in: `{"addr":"netip.Addr","bits":["uint8"],"int":"big.Int","iP":"net.IP","number":"json.Number","plain":["uint8"],"raw":"json.RawMessage",` +
				`"reads":"p.docReads","stamp":"p.docStamp","text":"p.docText","took":"time.Duration","writes":{"n":"int"}}`,
			out: `{"Addr":"netip.Addr","Bits":"p.docBits","IP":"net.IP","Int":"big.Int","Number":"json.Number","Plain":["uint8"],"Raw":"json.RawMessage",` +
				`"Reads":{"N":"int"},"Stamp":"p.docStamp","Text":"p.docText","Took":"time.Duration","Writes":"p.docWrites"}`},
		{name: "kinds without JSON, and others", doc: docOf[docOdd],
			out: `{"Chan":"chan p.docOdd","Deep":[[["p.docColour"]]],"Empty":{},"Err":"error","Func":"func(p.docOdd) int","Iface":"interface { Do(p.docOdd) }",` +
				`"Names":"map[p.docLabel][]*p.docHidden","Num":"complex128"}`},
		{name: "an old message", doc: docOf[docOld], in: `{"name":"string"}`, outPtr: `{"*p.docOld":{"name":"string"}}`},
		{name: "a message with a oneof", doc: docOf[structpb.Value],
			in:     `{"kind":"structpb.isValue_Kind"}`,
			outPtr: `{"*google.protobuf.Value":{"Kind":"structpb.isValue_Kind"}}`},
		{name: "messages in messages", doc: docOf[descriptorpb.UninterpretedOption],
			outPtr: `{"*google.protobuf.UninterpretedOption":{"aggregate_value":"string","double_value":"float64","identifier_value":"string",` +
				`"name":[{"*google.protobuf.UninterpretedOption.NamePart":{"is_extension":"bool","name_part":"string"}}],` +
				`"negative_int_value":"int64","positive_int_value":"uint64","string_value":"[]byte"}}`},
	}
	for _, test := range tests {
		for _, c := range []struct {
			what                 string
			output, pointerNames bool
			want                 string
		}{{"argument", false, false, test.in}, {"result", true, false, test.out}, {"result with pointer names", true, true, test.outPtr}} {
			if c.want == "" {
				continue
			}
			got := test.doc(t, c.output, c.pointerNames)
			// json.Marshal has sorted the members, and so they are written here, by eye.
			if !sameJSON(t, got, c.want) {
				t.Errorf("%s as %s\n got %s\nwant %s", test.name, c.what, got, c.want)
			}
		}
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var values [2]any
	for i, text := range []string{a, b} {
		if err := json.Unmarshal([]byte(text), &values[i]); err != nil {
			t.Fatal(err)
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}

// TestDocumentationIsBounded has types that all refer to all others: to describe each of them wherever it stands would take
// as many fields as there are orders of them.
func TestDocumentationIsBounded(t *testing.T) {
	t.Parallel()
	for _, pointerNames := range []bool{false, true} {
		b, err := json.Marshal(pitaya.DescribeType(reflect.TypeFor[docWeb](), true, pointerNames))
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 1<<20 {
			t.Errorf("%d bytes", len(b))
		}
		for _, r := range "ABCDEFGHIJ" {
			if want := fmt.Sprintf(`"%c":`, r); !bytes.Contains(b, []byte(want)) {
				t.Errorf("it lacks %s", want)
			}
		}
	}
}

type (
	docWeb struct {
		A *docWebA
		B *docWebB
		C *docWebC
		D *docWebD
		E *docWebE
		F *docWebF
		G *docWebG
		H *docWebH
		I *docWebI
		J *docWebJ
	}
	docWebA struct{ docWeb }
	docWebB struct{ docWeb }
	docWebC struct{ docWeb }
	docWebD struct{ docWeb }
	docWebE struct{ docWeb }
	docWebF struct{ docWeb }
	docWebG struct{ docWeb }
	docWebH struct{ docWeb }
	docWebI struct{ docWeb }
	docWebJ struct{ docWeb }
)

type (
	DocEmbedded1 struct {
		A int
		B string `json:"b"`
	}
	DocEmbedded2 struct {
		A []int
		DocEmbedded3
	}
	DocEmbedded3 struct {
		B    int `json:"b"`
		Deep map[int]bool
	}
)

// docMaker makes types and values of them.
type docMaker struct{ *rand.Rand }

func (m docMaker) typ(depth int) reflect.Type {
	basic := []reflect.Type{
		reflect.TypeFor[int](), reflect.TypeFor[string](), reflect.TypeFor[bool](), reflect.TypeFor[float32](), reflect.TypeFor[[]byte](),
		reflect.TypeFor[time.Time](), reflect.TypeFor[docLabel](), reflect.TypeFor[uint16](), reflect.TypeFor[map[string]docHidden](),
		reflect.TypeFor[docReads](), reflect.TypeFor[DocEmbedded2](), reflect.TypeFor[docSeveral](), reflect.TypeFor[docTagged](),
		reflect.TypeFor[docTags](), reflect.TypeFor[docTwice](),
	}
	if depth == 0 {
		return basic[m.IntN(len(basic))]
	}
	switch m.IntN(6) {
	case 0:
		return reflect.PointerTo(m.typ(depth - 1))
	case 1:
		return reflect.SliceOf(m.typ(depth - 1))
	case 2:
		return reflect.ArrayOf(1+m.IntN(3), m.typ(depth-1))
	case 3:
		return reflect.MapOf(reflect.TypeFor[string](), m.typ(depth-1))
	}
	return m.structType(depth)
}

func (m docMaker) structType(depth int) reflect.Type {
	tags := []string{``, ``, `json:",omitempty"`, `json:"-"`, `json:"-,"`, `json:"a"`, `json:"A"`, `json:"b"`, `json:"a\"b"`, `json:"x y,omitempty"`, `json:"\\"`, `yaml:"q"`}
	embedded := []reflect.Type{reflect.TypeFor[DocEmbedded1](), reflect.TypeFor[DocEmbedded2](), reflect.TypeFor[*DocEmbedded3]()}
	names := []string{"A", "B", "Name", "Name2", "Ä", "ABC"}
	m.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var fields []reflect.StructField
	for _, name := range names[:m.IntN(len(names)+1)] {
		fields = append(fields, reflect.StructField{Name: name, Type: m.typ(depth - 1), Tag: reflect.StructTag(tags[m.IntN(len(tags))])})
	}
	for _, t := range embedded {
		if m.IntN(3) == 0 {
			elem := t
			if t.Kind() == reflect.Pointer {
				elem = t.Elem()
			}
			fields = append(fields, reflect.StructField{Name: elem.Name(), Type: t, Anonymous: true, Tag: reflect.StructTag(tags[m.IntN(len(tags))])})
		}
	}
	return reflect.StructOf(fields)
}

// fill makes all of a value something that JSON does not leave out.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(1)
	case reflect.String:
		v.SetString("x")
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Map:
		key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(elem)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, elem)
	case reflect.Struct:
		for _, f := range v.Fields() {
			if f.CanSet() {
				fill(f)
			} else if f.Kind() == reflect.Struct { // embedded, and its fields can be
				fill(f)
			}
		}
	}
}

// fits compares JSON with its documentation.
func fits(doc, v any) error {
	switch doc := doc.(type) {
	case map[string]any:
		object, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("an object is %T", v)
		}
		if a, b := slices.Sorted(maps.Keys(doc)), slices.Sorted(maps.Keys(object)); !slices.Equal(a, b) {
			return fmt.Errorf("documented fields %q, but JSON has %q", a, b)
		}
		for name, field := range doc {
			if err := fits(field, object[name]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	case []any:
		list, ok := v.([]any)
		if !ok || len(doc) != 1 || len(list) == 0 {
			return fmt.Errorf("a list %v is %v", doc, v)
		}
		return fits(doc[0], list[0])
	case string:
		var ok bool
		switch {
		case strings.HasPrefix(doc, "map["):
			_, ok = v.(map[string]any)
		case doc == "[]byte" || doc == "string" || doc == "time.Time" || doc == "pitaya_test.docLabel":
			_, ok = v.(string)
		case doc == "bool":
			_, ok = v.(bool)
		case doc == "int64": // of docTags.Quoted
			_, ok = v.(string)
		default:
			_, ok = v.(float64)
		}
		if !ok {
			return fmt.Errorf("%s is %v", doc, v)
		}
		return nil
	}
	return fmt.Errorf("%T in a documentation", doc)
}

// TestDocumentationIsThatOfJSON documents types that nobody has thought of, and compares that with what encoding/json makes
// of them.
func TestDocumentationIsThatOfJSON(t *testing.T) {
	t.Parallel()
	for seed := range uint64(700) {
		m := docMaker{rand.New(rand.NewPCG(seed, 0))}
		typ := m.structType(4)
		value := reflect.New(typ)
		fill(value.Elem())
		b, err := json.Marshal(value.Interface())
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		if err := fits(pitaya.DescribeType(typ, true, false), v); err != nil {
			t.Fatalf("seed %d: %v\n%v", seed, err, typ)
		}
		// What arguments are said to have is read by each field once.
		doc := pitaya.DescribeType(typ, false, false).(map[string]any)
		again, err := json.Marshal(example(doc))
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(bytes.NewReader(again))
		d.DisallowUnknownFields()
		back := reflect.New(typ)
		if err := d.Decode(back.Interface()); err != nil {
			t.Fatalf("seed %d: %v\n%s\n%v", seed, err, again, typ)
		}
	}
}

// example makes a value that the documentation allows.
func example(doc any) any {
	switch doc := doc.(type) {
	case map[string]any:
		object := make(map[string]any)
		for name, field := range doc {
			object[name] = example(field)
		}
		return object
	case []any:
		return []any{example(doc[0])}
	}
	return nil // which is read as any type
}
