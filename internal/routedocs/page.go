package routedocs

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// maxDepth bounds how deep types are nested. What is deeper is cut off.
const maxDepth = 64

// A page is what both forms show.
type page struct {
	Title      string
	Serializer string
	Groups     []*group
	Types      []*typeEntry

	ids   map[string]int // that are taken, and the last number behind each
	types map[typeKey]*typeEntry
	order []*typeEntry        // of types, as they were found
	words map[word]*typeEntry // types by what they are called where they are used
	proto *protoTypes
}

// A group is the routes of one service.
type group struct {
	Name   string
	ID     string
	Routes []*routeEntry
}

// A routeEntry is one route.
type routeEntry struct {
	Route    string // not empty
	Short    string // method, if there is one
	ID       string
	Kind     routeKind
	In       *typeExpr // nil: none
	Out      *typeExpr
	Examples []example

	service string // with the server's type
}

type routeKind string

const (
	kindRequest routeKind = "request"
	kindNotify  routeKind = "notify"
	kindRemote  routeKind = "remote"
)

// title is the kind as a word of its own.
func (k routeKind) title() string { return strings.ToUpper(string(k[:1])) + string(k[1:]) }

// A typeEntry is a type with a section of its own.
type typeEntry struct {
	Name   string
	Label  string // Name, and what tells it from others of that name
	ID     string
	Fields []field
	Proto  *definition // nil: no protobuf type, or not known
	UsedBy []*routeEntry
	UsedIn []*typeEntry

	key    typeKey
	sameAs *typeEntry // that stands for it
}

// A word is the name of a type in an argument or a result.
type word struct {
	name   string
	result bool
}

// A typeKey is what tells types apart. Types have other fields as arguments than as results, and two packages can have a
// type of the same name.
type typeKey struct {
	name   string
	result bool
	shape  string // its fields, see shape
}

// A field is one of a struct.
type field struct {
	Name string
	Type *typeExpr
}

type exprKind uint8

const (
	exprWord   exprKind = iota // the name of a type without a section
	exprList                   // of Elem
	exprObject                 // of Fields, without a name
	exprMap                    // from Word to Elem
	exprNamed                  // the type Ref
)

// A typeExpr is the type of an argument, a result, a field or an element.
type typeExpr struct {
	Kind   exprKind
	Word   string // also of exprNamed, the name
	Elem   *typeExpr
	Fields []field
	Ref    *typeEntry
	Result bool
}

// rawBytes is the name of a slice of bytes. Arguments and results of that type are payloads as they are.
const rawBytes = "[]byte"

func (e *typeExpr) isRaw() bool { return e.Kind == exprWord && e.Word == rawBytes }

// newPage reads a documentation.
func newPage(doc map[string]any, o Options) (*page, error) {
	p := &page{
		Title:      cmp.Or(o.Title, "Routes"),
		Serializer: o.Serializer,
		ids:        map[string]int{typesID: 1},
		types:      make(map[typeKey]*typeEntry),
	}
	var err error
	if p.proto, err = readDescriptors(o.Descriptors); err != nil {
		return nil, err
	}
	var routes []*routeEntry
	for _, part := range []string{"handlers", "remotes"} {
		list, ok := doc[part].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("the documentation has no object %q", part)
		}
		for _, route := range slices.Sorted(maps.Keys(list)) {
			r, err := p.readRoute(route, list[route], part == "remotes")
			if err != nil {
				return nil, fmt.Errorf("the documentation of %s: %w", strconv.Quote(route), err)
			}
			routes = append(routes, r)
		}
	}
	p.joinTypes()
	p.resolveRefs(routes)
	p.addProtoTypes()
	p.group(routes)
	p.sortTypes()
	p.use(routes)
	p.examples(routes)
	return p, nil
}

// walk calls f for a type and all in it, but not for what types with names contain.
func (e *typeExpr) walk(f func(*typeExpr)) {
	if e == nil {
		return
	}
	f(e)
	e.Elem.walk(f)
	for _, field := range e.Fields {
		field.Type.walk(f)
	}
}

// group puts the routes into their services, in order.
func (p *page) group(routes []*routeEntry) {
	slices.SortStableFunc(routes, func(a, b *routeEntry) int {
		return cmp.Or(strings.Compare(a.service, b.service), strings.Compare(a.Route, b.Route))
	})
	for _, r := range routes {
		if n := len(p.Groups); n == 0 || p.Groups[n-1].Name != shown(r.service) {
			p.Groups = append(p.Groups, &group{Name: shown(r.service), ID: p.id("service-" + r.service)})
		}
		g := p.Groups[len(p.Groups)-1]
		prefix := "route-"
		if r.Kind == kindRemote {
			prefix = "remote-"
		}
		r.ID = p.id(prefix + r.Route)
		g.Routes = append(g.Routes, r)
	}
}

// sortTypes orders the types by name, and tells those of one name apart.
func (p *page) sortTypes() {
	p.Types = slices.Clone(p.order)
	slices.SortStableFunc(p.Types, func(a, b *typeEntry) int {
		result := func(t *typeEntry) int {
			if t.key.result {
				return 1
			}
			return 0
		}
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(result(a), result(b)), strings.Compare(a.key.shape, b.key.shape))
	})
	count, uses := make(map[string]int), make(map[string]int)
	for _, t := range p.Types {
		count[t.Name]++
		uses[t.use()]++
	}
	number := make(map[string]int)
	for _, t := range p.Types {
		switch {
		case count[t.Name] == 1:
			t.Label = shown(t.Name)
		case uses[t.use()] == 1:
			t.Label = t.use()
		default:
			number[t.use()]++
			t.Label = fmt.Sprintf("%s %d", t.use(), number[t.use()])
		}
		t.ID = p.id("type-" + t.Label)
	}
}

// isEnum reports whether a type is one of protobuf's enums.
func (t *typeEntry) isEnum() bool { return t.Proto != nil && t.Proto.Enum }

// refs returns the types that a type refers to, each once.
func (t *typeEntry) refs() (list []*typeEntry) {
	seen := make(map[*typeEntry]bool)
	t.refers(func(other *typeEntry) {
		if !seen[other] {
			seen[other] = true
			list = append(list, other)
		}
	})
	return list
}

// shown returns a name that can be seen.
func shown(name string) string { return cmp.Or(name, `""`) }

// use is the name of a type with what it is used as.
func (t *typeEntry) use() string {
	if t.key.result {
		return t.Name + " (result)"
	}
	return t.Name + " (argument)"
}

// use notes where types are used.
func (p *page) use(routes []*routeEntry) {
	for _, r := range routes {
		for _, e := range []*typeExpr{r.In, r.Out} {
			e.walk(func(e *typeExpr) {
				if t := e.Ref; t != nil {
					t.UsedBy = appendNew(t.UsedBy, r)
				}
			})
		}
	}
	for _, t := range p.Types {
		t.refers(func(other *typeEntry) {
			if other != t {
				other.UsedIn = appendNew(other.UsedIn, t)
			}
		})
	}
}

// appendNew appends what is not the last element already.
func appendNew[E comparable](list []E, e E) []E {
	if n := len(list); n > 0 && list[n-1] == e {
		return list
	}
	return append(list, e)
}

// refers calls f for the types that a type refers to, some of them several times.
func (t *typeEntry) refers(f func(*typeEntry)) {
	for _, field := range t.Fields {
		field.Type.walk(func(e *typeExpr) {
			if e.Ref != nil {
				f(e.Ref)
			}
		})
	}
	if t.Proto != nil {
		for _, s := range t.Proto.Text {
			if s.Ref != nil {
				f(s.Ref)
			}
		}
	}
}

// id returns an id for an element: letters, digits and what else needs no escape in a URL, and none that is taken.
func (p *page) id(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)), r == '.', r == '_', r == '-':
			b.WriteRune(r)
		default:
			b.WriteByte('-')
		}
		if b.Len() >= 200 {
			break
		}
	}
	base := strings.TrimRight(b.String(), "-.")
	id := base
	for p.ids[id] > 0 {
		p.ids[base]++
		id = fmt.Sprintf("%s-%d", base, p.ids[base])
	}
	p.ids[id]++
	return id
}
