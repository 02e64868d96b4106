package pitaya

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// configList is a list of texts, written as a JSON list or with commas.
type configList struct {
	p   *[]string
	def []string
}

func (v configList) kind() string { return "list" }
func (v configList) isZero() bool { return len(*v.p) == 0 }

func (v configList) value() []string {
	if len(*v.p) == 0 {
		return v.def
	}
	return *v.p
}

func (v configList) fill() { *v.p = slices.Clone(v.value()) }

func (v configList) text() string { return listText(v.value()) }

func (v configList) set(text string) error {
	list, err := parseList(text)
	if err != nil {
		return err
	}
	if len(list) == 0 && v.def != nil {
		return errors.New("must not be empty")
	}
	*v.p = list
	return v.check()
}

func (v configList) check() error {
	for _, s := range *v.p {
		if strings.TrimSpace(s) == "" {
			return errors.New("has an empty element")
		}
	}
	return nil
}

// listText writes a list with commas, or as JSON where commas would not give it back.
func listText(list []string) string {
	s := strings.Join(list, ",")
	if back, err := parseList(s); err != nil || !slices.Equal(back, list) {
		b, _ := json.Marshal(list) // cannot fail
		return string(b)
	}
	return s
}

func parseList(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if text[0] == '[' {
		// An IPv6 address may begin like a JSON list, but is none.
		var list []string
		if err := json.Unmarshal([]byte(text), &list); err == nil {
			return list, nil
		} else if json.Valid([]byte(text)) {
			return nil, errors.New("must be a list of texts")
		}
	}
	list := strings.Split(text, ",")
	for i, s := range list {
		list[i] = strings.TrimSpace(s)
		if list[i] == "" {
			return nil, errors.New("has an empty element")
		}
	}
	return list, nil
}

// configPrefixes is a list of networks; an address stands for itself.
type configPrefixes struct{ p *[]netip.Prefix }

func (v configPrefixes) kind() string { return "list of networks" }
func (v configPrefixes) isZero() bool { return len(*v.p) == 0 }
func (v configPrefixes) fill()        { *v.p = slices.Clone(*v.p) }

func (v configPrefixes) text() string {
	list := make([]string, len(*v.p))
	for i, p := range *v.p {
		list[i] = p.String()
	}
	return strings.Join(list, ",")
}

func (v configPrefixes) set(text string) error {
	list, err := parseList(text)
	if err != nil {
		return err
	}
	var prefixes []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil || a.Zone() != "" {
				return errors.New("must be networks such as 10.0.0.0/8, or addresses")
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		prefixes = append(prefixes, p)
	}
	*v.p = prefixes
	return v.check()
}

func (v configPrefixes) check() error {
	for _, p := range *v.p {
		if !p.IsValid() {
			return errors.New("has an invalid network")
		}
		if p != p.Masked() {
			return fmt.Errorf("%v has bits beyond its length; write %v", p, p.Masked())
		}
	}
	return nil
}

// configMap is a table of texts, written as a JSON object or as name=value with commas between. The names keep their
// case.
type configMap struct{ p *map[string]string }

func (v configMap) kind() string { return "map" }
func (v configMap) isZero() bool { return len(*v.p) == 0 }
func (v configMap) fill()        { *v.p = maps.Clone(*v.p) }

func (v configMap) text() string {
	s := make([]string, 0, len(*v.p))
	for _, k := range slices.Sorted(maps.Keys(*v.p)) {
		s = append(s, k+"="+(*v.p)[k])
	}
	text := strings.Join(s, ",")
	if back, err := parseMap(text); err != nil || !maps.Equal(back, *v.p) {
		b, _ := json.Marshal(*v.p) // cannot fail
		return string(b)
	}
	return text
}

func (v configMap) set(text string) error {
	m, err := parseMap(text)
	if err != nil {
		return err
	}
	*v.p = m
	return v.check()
}

func (v configMap) check() error {
	if _, ok := (*v.p)[""]; ok {
		return errors.New("has an empty name")
	}
	return nil
}

func parseMap(text string) (map[string]string, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	m := make(map[string]string)
	put := func(name, value string) error {
		if old, ok := m[name]; ok && old != value {
			return fmt.Errorf("has %q twice", name)
		}
		m[name] = value
		return nil
	}
	if text[0] == '{' {
		if !json.Valid([]byte(text)) {
			return nil, errors.New("not a JSON object")
		}
		for _, mem := range jsonMembers([]byte(text), 0) {
			value := string(mem.value)
			switch mem.value[0] {
			case '"':
				value = jsonText(mem.value)
			case '{', '[', 'n':
				return nil, fmt.Errorf("%q is not a text", mem.name)
			}
			if err := put(mem.name, value); err != nil {
				return nil, err
			}
		}
		return m, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, errors.New("must be name=value with commas between, or a JSON object")
		}
		if err := put(strings.TrimSpace(name), strings.TrimSpace(value)); err != nil {
			return nil, err
		}
	}
	return m, nil
}
