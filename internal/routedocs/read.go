package routedocs

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// readRoute reads what stands under a route.
func (p *page) readRoute(route string, v any, remote bool) (*routeEntry, error) {
	entry, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("it is no object")
	}
	r := &routeEntry{Route: shown(route), Kind: kindRequest}
	parts := strings.SplitN(route, ".", 3)
	r.Short = shown(parts[len(parts)-1])
	r.service = strings.Join(parts[:len(parts)-1], ".")
	if in := entry["input"]; in != nil {
		r.In = p.read(in, false, nil)
	}
	out, ok := entry["output"].([]any)
	switch {
	case !ok && entry["output"] != nil:
		return nil, errors.New("its output is no list")
	case len(out) > 0:
		r.Out = p.read(out[0], true, nil)
	default:
		r.Kind = kindNotify
	}
	if remote {
		r.Kind = kindRemote
	}
	return r, nil
}

// named takes apart an object that gives a type its name.
func named(v any) (name string, fields map[string]any, ok bool) {
	object, _ := v.(map[string]any)
	if len(object) != 1 {
		return "", nil, false
	}
	for key, value := range object {
		name, ok = strings.CutPrefix(key, "*")
		if fields, _ = value.(map[string]any); !ok || name == "" || fields == nil {
			return "", nil, false
		}
	}
	return name, fields, true
}

// read reads a type. open are the types that it is in, from the inside out.
func (p *page) read(v any, result bool, open []*typeEntry) *typeExpr {
	if len(open) > maxDepth {
		return &typeExpr{Word: "…"}
	}
	return p.readDeep(v, result, open, 0)
}

func (p *page) readDeep(v any, result bool, open []*typeEntry, depth int) *typeExpr {
	if depth > maxDepth {
		return &typeExpr{Word: "…"}
	}
	switch v := v.(type) {
	case string:
		name, pointer := strings.CutPrefix(v, "*")
		if !pointer || name == "" {
			return &typeExpr{Word: v, Result: result}
		}
		e := &typeExpr{Kind: exprNamed, Word: name, Result: result}
		for _, t := range open {
			if t.Name == name {
				e.Ref = t
				break
			}
		}
		return e // without one it is found when all types are known
	case []any:
		if len(v) == 1 {
			return &typeExpr{Kind: exprList, Elem: p.readDeep(v[0], result, open, depth+1)}
		}
	case map[string]any:
		name, fields, ok := named(v)
		if !ok {
			return &typeExpr{Kind: exprObject, Fields: p.readFields(v, result, open, depth)}
		}
		key := typeKey{name, result, shape(fields, 0)}
		t := p.types[key]
		if t == nil {
			t = &typeEntry{Name: name, key: key}
			p.types[key] = t
			p.order = append(p.order, t)
			if len(open) >= maxDepth {
				return &typeExpr{Kind: exprNamed, Word: name, Ref: t, Result: result}
			}
			t.Fields = p.readFields(fields, result, append([]*typeEntry{t}, open...), 0)
		}
		return &typeExpr{Kind: exprNamed, Word: name, Ref: t, Result: result}
	}
	return &typeExpr{Word: "?"}
}

func (p *page) readFields(fields map[string]any, result bool, open []*typeEntry, depth int) []field {
	list := make([]field, 0, len(fields))
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		list = append(list, field{name, p.readDeep(fields[name], result, open, depth+1)})
	}
	return list
}

// shape is a type as text, in which types with names stand for what is in them.
func shape(v any, depth int) string {
	if depth > maxDepth {
		return "…"
	}
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case []any:
		var b strings.Builder
		for _, elem := range v {
			b.WriteString("[" + shape(elem, depth+1) + "]")
		}
		return b.String()
	case map[string]any:
		if name, _, ok := named(v); ok && depth > 0 {
			return strconv.Quote("*" + name)
		}
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(v)) {
			b.WriteString(strconv.Quote(name) + ":" + shape(v[name], depth+1) + ";")
		}
		return "{" + b.String() + "}"
	}
	return "?"
}

// joinTypes makes one type of those that look the same as argument and as result, all that they contain included, and of
// those that are one message of the descriptors.
func (p *page) joinTypes() {
	messages := make(map[string]*typeEntry)
	for _, t := range p.order {
		if p.proto.messages[t.Name] == nil {
			continue
		}
		if first := messages[t.Name]; first != nil {
			t.sameAs = first
		} else {
			messages[t.Name] = t
		}
	}
	for _, t := range p.order {
		if !t.key.result || messages[t.Name] != nil {
			continue
		}
		other := p.types[typeKey{t.key.name, false, t.key.shape}]
		if other != nil && sameType(t, other, make(map[[2]*typeEntry]bool)) {
			t.sameAs = other
		}
	}
	p.order = slices.DeleteFunc(p.order, func(t *typeEntry) bool { return t.sameAs != nil })
}

// root returns the type that stands for t, or t itself.
func (t *typeEntry) root() *typeEntry {
	for t.sameAs != nil {
		t = t.sameAs
	}
	return t
}

// sameType compares two types of the same shape. Those in assumed are being compared, further out.
func sameType(a, b *typeEntry, assumed map[[2]*typeEntry]bool) bool {
	a, b = a.root(), b.root()
	pair := [2]*typeEntry{a, b}
	if a == b || assumed[pair] {
		return true
	}
	if a.Name != b.Name || a.key.shape != b.key.shape || len(a.Fields) != len(b.Fields) {
		return false
	}
	assumed[pair] = true
	return sameFields(a.Fields, b.Fields, assumed)
}

func sameFields(a, b []field, assumed map[[2]*typeEntry]bool) bool {
	return slices.EqualFunc(a, b, func(a, b field) bool { return a.Name == b.Name && sameExpr(a.Type, b.Type, assumed) })
}

func sameExpr(a, b *typeExpr, assumed map[[2]*typeEntry]bool) bool {
	if a.Kind != b.Kind || a.Word != b.Word {
		return false
	}
	switch a.Kind {
	case exprList:
		return sameExpr(a.Elem, b.Elem, assumed)
	case exprObject:
		return sameFields(a.Fields, b.Fields, assumed)
	case exprNamed:
		if a.Ref == nil || b.Ref == nil {
			return a.Ref == b.Ref
		}
		return sameType(a.Ref, b.Ref, assumed)
	}
	return true
}

// resolveRefs leads all references to types that remain, and names without a type to one of that name.
func (p *page) resolveRefs(routes []*routeEntry) {
	p.words = make(map[word]*typeEntry)
	for _, result := range []bool{false, true} { // those that are used so come first
		for _, fits := range []bool{true, false} {
			for _, t := range p.order {
				if w := (word{t.Name, result}); p.words[w] == nil && (t.key.result == result) == fits {
					p.words[w] = t
				}
			}
		}
	}
	resolve := func(e *typeExpr) {
		if e.Kind != exprNamed {
			return
		}
		if e.Ref == nil {
			e.Ref = p.byName(e.Word, e.Result)
		}
		if e.Ref != nil {
			e.Ref = e.Ref.root()
		}
	}
	for _, r := range routes {
		r.In.walk(resolve)
		r.Out.walk(resolve)
	}
	for _, t := range p.order {
		for _, f := range t.Fields {
			f.Type.walk(resolve)
		}
	}
}

// byName finds a type, if possible one that is used as an argument or as a result. It returns nil if there is none.
func (p *page) byName(name string, result bool) *typeEntry { return p.words[word{name, result}] }
