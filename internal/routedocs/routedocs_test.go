package routedocs_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
	"github.com/pitaya-go/pitaya/internal/routedocs"
)

var update = flag.Bool("update", false, "write the pages that tests compare")

type (
	Join struct {
		Room string `json:"room"`
		Team *Team  `json:"team,omitempty"`
	}
	Team struct {
		Name    string
		Leader  *Player
		Members []*Player
	}
	Player struct {
		Name   string         `json:"name"`
		Score  float64        `json:"score"`
		Since  time.Time      `json:"since"`
		Friend *Player        `json:"friend"`
		Items  map[string]int `json:"items"`
	}
	Joined struct {
		Teams map[string]Team `json:"teams"`
		Team  Team            `json:"team"`
		Extra any             `json:"extra"`
		Key   []byte          `json:"key"`
		Point struct{ X, Y int }
	}
	Nothing struct{}
)

type Room struct{}

func (Room) Join(context.Context, *Join) (*Joined, error)              { return nil, nil }
func (Room) Leave(context.Context)                                     {}
func (Room) Say(context.Context, *Team)                                {}
func (Room) Ping(context.Context, *Nothing) (*[]Player, error)         { return nil, nil }
func (Room) Echo(context.Context, []byte) ([]byte, error)              { return nil, nil }
func (Room) Fail(context.Context, *map[int8]Player) (*pb.Error, error) { return nil, nil }

type World struct{}

func (World) Forward(context.Context, *pb.Request) (*pb.Response, error) { return nil, nil }

// game returns the documentation of a server, as a client gets it, and the descriptors of its messages.
func game(t testing.TB, pointerNames bool) (map[string]any, [][]byte) {
	t.Helper()
	s, err := pitaya.NewServer(pitaya.Config{Type: "game", Frontend: true})
	if err == nil {
		err = s.Register(Room{}, pitaya.WithName("room"))
	}
	if err == nil {
		err = s.RegisterRemote(World{}, pitaya.WithName("world"))
	}
	if err != nil {
		t.Fatal(err)
	}
	doc, err := s.Documentation(pointerNames)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var descriptors [][]byte
	for _, name := range routedocs.Messages(doc) {
		if b, err := pitaya.Descriptor(name); err == nil {
			descriptors = append(descriptors, b)
		}
	}
	return decode(t, string(text)), descriptors
}

func decode(t testing.TB, text string) (doc map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// descriptor returns a file descriptor as a descriptors route does.
func descriptor(t testing.TB, text string) []byte {
	t.Helper()
	var file descriptorpb.FileDescriptorProto
	if err := prototext.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(&file)
	if err != nil {
		t.Fatal(err)
	}
	return compressed(b)
}

func compressed(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// questFile has what the language of .proto files has.
const questFile = `
name: "quest/quest.proto" package: "questproto" syntax: "proto3"
message_type { name: "Quest"
	field { name: "id" number: 1 type: TYPE_INT64 label: LABEL_OPTIONAL }
	field { name: "title" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 1 proto3_optional: true }
	field { name: "reward" number: 3 type: TYPE_MESSAGE type_name: ".questproto.Quest.Reward" label: LABEL_REPEATED }
	field { name: "steps" number: 4 type: TYPE_MESSAGE type_name: ".questproto.Quest.StepsEntry" label: LABEL_REPEATED }
	field { name: "gold" number: 5 type: TYPE_UINT32 label: LABEL_OPTIONAL oneof_index: 0 }
	field { name: "item" number: 6 type: TYPE_BYTES label: LABEL_OPTIONAL oneof_index: 0 }
	field { name: "parent" number: 7 type: TYPE_MESSAGE type_name: ".questproto.Quest" label: LABEL_OPTIONAL }
	field { name: "rank" number: 8 type: TYPE_ENUM type_name: ".questproto.Rank" label: LABEL_OPTIONAL }
	field { name: "start" number: 9 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_OPTIONAL }
	field { name: "far" number: 10 type: TYPE_MESSAGE type_name: ".other.Unknown" label: LABEL_OPTIONAL }
	field { name: "byflag" number: 11 type: TYPE_MESSAGE type_name: ".questproto.Quest.ByflagEntry" label: LABEL_REPEATED }
	nested_type { name: "Reward"
		field { name: "weight" number: 1 type: TYPE_DOUBLE label: LABEL_OPTIONAL } }
	nested_type { name: "StepsEntry" options { map_entry: true }
		field { name: "key" number: 1 type: TYPE_INT32 label: LABEL_OPTIONAL }
		field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".questproto.Quest.Reward" label: LABEL_OPTIONAL } }
	nested_type { name: "ByflagEntry" options { map_entry: true }
		field { name: "key" number: 1 type: TYPE_BOOL label: LABEL_OPTIONAL }
		field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".questproto.Quest" label: LABEL_OPTIONAL } }
	oneof_decl { name: "prize" } oneof_decl { name: "_title" }
}
enum_type { name: "Rank" value { name: "NONE" number: 0 } value { name: "GREAT" number: -3 } }
`

const oldFile = `
name: "old.proto" package: "questproto"
message_type { name: "Old"
	field { name: "kind" number: 1 type: TYPE_ENUM type_name: ".questproto.Old.Kind" label: LABEL_REQUIRED default_value: "B" }
	field { name: "text" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL default_value: "a \"b\"" }
	field { name: "many" number: 3 type: TYPE_SFIXED32 label: LABEL_REPEATED }
	field { name: "sub" number: 4 type: TYPE_GROUP type_name: ".questproto.Old.Sub" label: LABEL_OPTIONAL }
	nested_type { name: "Sub" field { name: "quest" number: 1 type: TYPE_MESSAGE type_name: ".questproto.Quest" label: LABEL_OPTIONAL } }
	enum_type { name: "Kind" value { name: "B" number: 7 } }
}
`

const timestampFile = `
name: "google/protobuf/timestamp.proto" package: "google.protobuf" syntax: "proto3"
message_type { name: "Timestamp"
	field { name: "seconds" number: 1 type: TYPE_INT64 label: LABEL_OPTIONAL }
	field { name: "nanos" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL }
}
`

const questDoc = `{"handlers": {
	"game.quest.list": {"input": null, "output": [{"*questproto.Quest": {"id": "int64", "Prize": "questpb.isQuest_Prize"}}, "error"]},
	"game.quest.put": {"input": {"*questproto.Quest": {"id": "int64", "prize": "questpb.isQuest_Prize"}}, "output": []},
	"game.quest.old": {"input": {"*questproto.Old": {"text": "string"}}, "output": [{"*questproto.NotAsked": {"x": "int"}}, "error"]}
}, "remotes": {}}`

// hostile is a string that is none of what it is put into.
const hostile = "</style></pre><script>alert(1)</script><img src=x onerror=alert(2)>`|]($(#x)\n\n# h\u2028\u202e\"'&lt;https://e.example *b* _i_ ~~~ ```` \\\u0000{{.Title}}"

func hostileDoc() map[string]any {
	return map[string]any{
		"handlers": map[string]any{
			hostile: map[string]any{
				"input": map[string]any{"*" + hostile: map[string]any{
					hostile:      hostile,
					"a":          "map[string]" + hostile,
					"":           "*" + hostile,
					"<a|b>":      map[string]any{hostile: []any{hostile}},
					"javascript": "javascript:alert(1)",
					"list":       []any{"int", "string"},
					"number":     1.5,
				}},
				"output": []any{map[string]any{"*x": map[string]any{}}, "error"},
			},
			"":                       map[string]any{"input": "[]byte", "output": []any{map[string]any{"*x": map[string]any{"y": "int"}}}},
			"a":                      map[string]any{"input": []any{map[string]any{"*x": map[string]any{"z": "int"}}}},
			"a b":                    map[string]any{"output": []any{}},
			"a-b":                    map[string]any{"output": []any{nil}},
			strings.Repeat("a", 300): map[string]any{"output": []any{"*not known"}},
		},
		"remotes": map[string]any{hostile: map[string]any{}},
	}
}

const hostileFile = `
name: "x\n</pre><script>alert(3)</script>.proto" package: "x"
message_type { name: "x"
	field { name: "</pre><script>alert(4)</script>\n" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL default_value: "</pre>\n<script>" }
	field { name: "e" number: 2 type: TYPE_ENUM type_name: ".x.</pre>\n<script>" label: LABEL_REPEATED }
}
enum_type { name: "</pre>\n<script>" value { name: "` + "```" + `\n# h" number: 1 } }
message_type { name: "" }
`

// pages are what the tests look at.
func pages(t testing.TB) map[string]func() (map[string]any, routedocs.Options) {
	return map[string]func() (map[string]any, routedocs.Options){
		"game": func() (map[string]any, routedocs.Options) {
			doc, descriptors := game(t, true)
			return doc, routedocs.Options{Title: "Game", Serializer: "json", Descriptors: descriptors}
		},
		"unnamed": func() (map[string]any, routedocs.Options) {
			doc, _ := game(t, false)
			return doc, routedocs.Options{Serializer: "msgpack"}
		},
		"quest": func() (map[string]any, routedocs.Options) {
			quest := descriptor(t, questFile)
			return decode(t, questDoc), routedocs.Options{
				Serializer:  "protobuf",
				Descriptors: [][]byte{quest, nil, descriptor(t, oldFile), quest, descriptor(t, timestampFile)},
			}
		},
		"hostile": func() (map[string]any, routedocs.Options) {
			x := descriptor(t, strings.Replace(hostileFile, `package: "x"`, ``, 1))
			return hostileDoc(), routedocs.Options{Title: hostile, Serializer: hostile, Descriptors: [][]byte{x}}
		},
		"empty": func() (map[string]any, routedocs.Options) {
			return decode(t, `{"handlers": {}, "remotes": {}}`), routedocs.Options{}
		},
	}
}

// TestPages compares pages with files.
func TestPages(t *testing.T) {
	for name, page := range pages(t) {
		t.Run(name, func(t *testing.T) {
			doc, o := page()
			md, err := routedocs.Markdown(doc, o)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, name+".md", md)
			checkMarkdown(t, md)
			page, err := routedocs.HTML(doc, o)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, name+".html", page)
			checkHTML(t, page)
		})
	}
}

func compare(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n")); bytes.Equal(got, want) {
		return
	}
	gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i, line := range gotLines {
		if i >= len(wantLines) || line != wantLines[i] {
			t.Errorf("%s differs from line %d on (go test ./internal/routedocs -update writes it):\n%s", name, i+1, line)
			return
		}
	}
	t.Errorf("%s has more lines", name)
}

// checkHTML checks that a page has no elements and attributes but its own, and that its links lead somewhere.
func checkHTML(t *testing.T, page []byte) {
	t.Helper()
	doc, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	elements := strings.Fields("html head meta title style body nav main section h1 h2 h3 p ul li a span code pre dl dt dd div " +
		"figure figcaption details summary table tbody tr th td")
	attributes := strings.Fields("lang charset name content class id href scope aria-label")
	ids, links := make(map[string]bool), make(map[string]bool)
	for n := range doc.Descendants() {
		if n.Type == html.CommentNode || n.Type == html.ElementNode && !slices.Contains(elements, n.Data) {
			t.Errorf("there is a %q", n.Data)
		}
		for _, a := range n.Attr {
			switch {
			case !slices.Contains(attributes, a.Key):
				t.Errorf("%s has the attribute %q", n.Data, a.Key)
			case a.Key == "href":
				links[a.Val] = true
			case a.Key == "id":
				if ids["#"+a.Val] {
					t.Errorf("two elements have the id %q", a.Val)
				}
				ids["#"+a.Val] = true
			}
		}
	}
	for link := range links {
		if !ids[link] {
			t.Errorf("the link to %q leads nowhere", link)
		}
	}
}

var (
	mdBlock  = regexp.MustCompile("(?s)\n(````*)[a-z]+\n.*?\n(````*)\n")
	mdSpan   = regexp.MustCompile("`[^`\n]+`")
	mdEscape = regexp.MustCompile(`\\[[:punct:]]`)
	mdID     = regexp.MustCompile(`<a id="([\w.-]+)"></a>`)
	mdHref   = regexp.MustCompile(`\[[^\[\]]*\]\(#([\w.-]+)\)`)
)

// checkMarkdown checks that a page has no markup but its own, and that its links lead somewhere.
func checkMarkdown(t *testing.T, page []byte) {
	t.Helper()
	text := string(page)
	for mdBlock.MatchString(text) {
		text = mdBlock.ReplaceAllStringFunc(text, func(s string) string {
			if m := mdBlock.FindStringSubmatch(s); m[1] != m[2] {
				t.Errorf("a block of code ends with other fences than it begins with: %q", s)
			}
			return "\n"
		})
	}
	text = mdEscape.ReplaceAllString(text, "")
	text = mdSpan.ReplaceAllString(text, "")
	ids := make(map[string]bool)
	for _, m := range mdID.FindAllStringSubmatch(text, -1) {
		if ids[m[1]] {
			t.Errorf("two headings have the id %q", m[1])
		}
		ids[m[1]] = true
	}
	for _, m := range mdHref.FindAllStringSubmatch(text, -1) {
		if !ids[m[1]] {
			t.Errorf("the link to %q leads nowhere", m[1])
		}
	}
	text = mdHref.ReplaceAllString(mdID.ReplaceAllString(text, ""), "")
	for line := range strings.Lines(text) {
		line = strings.TrimPrefix(line, "| Field | Type |")
		line = strings.TrimPrefix(line, "| --- | --- |")
		if strings.HasPrefix(line, "| ") {
			line = strings.Replace(strings.TrimSuffix(line, "|\n"), "|", "", 2)
		}
		line = strings.TrimLeft(line, "#")
		if strings.ContainsAny(line, "`<>*_[]|#~\\\x00") {
			t.Errorf("markup that is not the page's own: %q", line)
		}
	}
}

// TestDeterministic renders the same pages several times, from maps that are built in another order.
func TestDeterministic(t *testing.T) {
	for name, page := range pages(t) {
		var first [2][]byte
		for i := range 10 {
			doc, o := page()
			md, err1 := routedocs.Markdown(doc, o)
			page, err2 := routedocs.HTML(doc, o)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			if i == 0 {
				first = [2][]byte{md, page}
			} else if !bytes.Equal(md, first[0]) || !bytes.Equal(page, first[1]) {
				t.Fatalf("%s: not the same page again", name)
			}
		}
	}
}

// TestTypesOfOneName has types that only the place where they are used tells apart.
func TestTypesOfOneName(t *testing.T) {
	doc := decode(t, `{"handlers": {
		"g.s.a": {"input": {"*p.Same": {"x": "int"}}, "output": [{"*p.Same": {"x": "int"}}, "error"]},
		"g.s.b": {"input": {"*p.Case": {"x": "int"}}, "output": [{"*p.Case": {"X": "int"}}, "error"]},
		"g.s.c": {"input": {"*p.Two": {"x": "int"}}, "output": []},
		"g.s.d": {"input": {"*p.Two": {"y": "int"}}, "output": [{"*p.Deep": {"m": "map[int]p.Case", "case": {"*p.Case": {"X": "int"}}}}, "error"]},
		"g.s.e": {"input": {"*p.Deep": {"m": "map[int]p.Case", "case": {"*p.Case": {"x": "int"}}}}, "output": []},
		"g.s.f": {"input": {"*p.A": {"b": {"*p.B": {"a": "*p.A"}}}}, "output": [{"*p.B": {"a": {"*p.A": {"b": "*p.B"}}}}, "error"]}
	}, "remotes": {}}`)
	page, err := routedocs.Markdown(doc, routedocs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	_, types, _ := strings.Cut(string(page), "## Types\n")
	for line := range strings.Lines(types) {
		if name, ok := strings.CutPrefix(line, "### "); ok {
			got = append(got, strings.Trim(name, "`\n"))
		}
	}
	want := []string{"p.A", "p.B", "p.Case (argument)", "p.Case (result)", "p.Deep (argument)", "p.Deep (result)", "p.Same",
		"p.Two (argument) 1", "p.Two (argument) 2"}
	if !slices.Equal(got, want) {
		t.Errorf("types: got %q, want %q", got, want)
	}
	for _, want := range []string{
		"{ case: [p.Case](#type-p.Case--result), m: map\\[int\\][p.Case](#type-p.Case--result) }",
		"{ case: [p.Case](#type-p.Case--argument), m: map\\[int\\][p.Case](#type-p.Case--argument) }",
		"- Argument: [p.A](#type-p.A) { b: [p.B](#type-p.B) }\n- Result: [p.B](#type-p.B) { a: [p.A](#type-p.A) }\n",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %s\n%s", want, page)
		}
	}
}

func TestErrors(t *testing.T) {
	empty := `{"handlers": {}, "remotes": {}}`
	tests := []struct {
		name, doc  string
		descriptor []byte
		want       string
	}{
		{"no documentation", `{}`, nil, `no object "handlers"`},
		{"no remotes", `{"handlers": {}, "remotes": []}`, nil, `no object "remotes"`},
		{"a route that is none", `{"handlers": {"a.b.c": 1}, "remotes": {}}`, nil, `the documentation of "a.b.c": it is no object`},
		{"an output that is none", `{"handlers": {"a.b.c": {"output": "int"}}, "remotes": {}}`, nil, `the documentation of "a.b.c": its output is no list`},
		{"a descriptor that is not compressed", empty, []byte("x"), "descriptor 0: "},
		{"a descriptor that is cut off", empty, compressed([]byte("abcdefgh"))[:20], "descriptor 0: "},
		{"a descriptor that is none", empty, compressed([]byte("x")), "descriptor 0: "},
		{"a descriptor that explodes", empty, compressed(make([]byte, 65<<20)), "descriptor 0: the descriptors are too large"},
	}
	for _, test := range tests {
		o := routedocs.Options{}
		if test.descriptor != nil {
			o.Descriptors = [][]byte{test.descriptor}
		}
		for form, render := range map[string]func(map[string]any, routedocs.Options) ([]byte, error){"Markdown": routedocs.Markdown, "HTML": routedocs.HTML} {
			if _, err := render(decode(t, test.doc), o); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s of %s: got error %v, want one with %q", form, test.name, err, test.want)
			}
		}
	}
}

// TestDepth has what is nested far deeper than anything that is meant well.
func TestDepth(t *testing.T) {
	const n = 4000
	for name, text := range map[string]string{
		"lists":   strings.Repeat("[", n) + strings.Repeat("]", n),
		"objects": strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n),
		"types":   strings.Repeat(`{"*a":{"b":`, n) + "1" + strings.Repeat("}}", n),
	} {
		doc := decode(t, `{"handlers": {"a.b.c": {"input": `+text+`, "output": []}}, "remotes": {}}`)
		routedocs.Messages(doc)
		for form, render := range map[string]func(map[string]any, routedocs.Options) ([]byte, error){"Markdown": routedocs.Markdown, "HTML": routedocs.HTML} {
			page, err := render(doc, routedocs.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(page) > 1<<20 {
				t.Errorf("%s of %s: %d bytes", form, name, len(page))
			}
		}
	}
}

func TestMessages(t *testing.T) {
	doc := decode(t, `{"handlers": {"a.b.c": {"input": {"*b.B": {"x": [{"*a.A": {"b": "*b.B", "c": "*c.C"}}], "*": "int"}}, "output": []}},
		"remotes": {"a.b.c": {"input": {"*a.A": {}}, "output": [{"*d.D": {}}, "error"]}}}`)
	if got, want := routedocs.Messages(doc), []string{"a.A", "b.B", "d.D"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDescriptorsRoute(t *testing.T) {
	fits := map[string]any{
		"input":  map[string]any{"*protos.ProtoNames": map[string]any{"name": []any{"string"}}},
		"output": []any{map[string]any{"*protos.ProtoDescriptors": map[string]any{"desc": []any{"[]byte"}}}, "error"},
	}
	other := maps.Clone(fits)
	other["output"] = []any{"int", "error"}
	handlers := map[string]any{"z.docs.descriptors": fits, "b.docs.descriptors": fits, "a.docs.descriptors": other, "a.a.a": 1, "a.a.b": map[string]any{}}
	if got, want := routedocs.DescriptorsRoute(map[string]any{"handlers": handlers}), "b.docs.descriptors"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := routedocs.DescriptorsRoute(map[string]any{"remotes": handlers}); got != "" {
		t.Errorf("got %q of no handlers", got)
	}
}

func TestReadFile(t *testing.T) {
	got, err := routedocs.ReadFile(descriptor(t, `name: "a.proto" package: "p" dependency: "b.proto" dependency: "c/d.proto"
		message_type { name: "B" nested_type { name: "C" } } message_type { name: "A" }`))
	want := &routedocs.File{Path: "a.proto", Imports: []string{"b.proto", "c/d.proto"}, Messages: []string{"p.A", "p.B", "p.B.C"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if _, err := routedocs.ReadFile([]byte("x")); err == nil {
		t.Error("no error for what is no descriptor")
	}
}

func FuzzPage(f *testing.F) {
	for _, page := range pages(f) {
		doc, o := page()
		text, err := json.Marshal(doc)
		if err != nil {
			f.Fatal(err)
		}
		var plain []byte
		for _, d := range o.Descriptors {
			if len(d) == 0 {
				continue
			}
			r, err := gzip.NewReader(bytes.NewReader(d))
			if err != nil {
				f.Fatal(err)
			}
			var b bytes.Buffer
			if _, err := b.ReadFrom(r); err != nil {
				f.Fatal(err)
			}
			plain = b.Bytes()
		}
		f.Add(text, plain, o.Serializer)
	}
	f.Fuzz(func(t *testing.T, text, file []byte, serializer string) {
		var doc map[string]any
		if json.Unmarshal(text, &doc) != nil {
			return
		}
		o := routedocs.Options{Serializer: serializer, Descriptors: [][]byte{compressed(file)}}
		md, err := routedocs.Markdown(doc, o)
		page, err2 := routedocs.HTML(doc, o)
		if (err == nil) != (err2 == nil) {
			t.Fatalf("only one form fails: %v, %v", err, err2)
		}
		if err != nil {
			return
		}
		checkMarkdown(t, md)
		checkHTML(t, page)
	})
}
