package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// matchJSON holds JSON that came against JSON that is expected, and says what differs, if anything. Objects may have more
// keys than is expected of them; all else must be equal. Numbers are equal if they are written alike or have one value.
func matchJSON(want, got []byte) error {
	w, err := decodeJSON(want)
	if err != nil {
		return usagef("what is expected is not JSON: %v", err)
	}
	g, err := decodeJSON(got)
	if err != nil {
		return fmt.Errorf("it is not JSON")
	}
	return matchValue("", w, g)
}

func decodeJSON(b []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF { // More takes a bracket for an end
		return nil, fmt.Errorf("there is something behind it")
	}
	return v, nil
}

func matchValue(path string, want, got any) error {
	at := strings.TrimPrefix(path, ".")
	if at == "" {
		at = "it"
	}
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is %s, not an object", at, briefly(got))
		}
		for _, key := range sortedKeys(want) {
			v, ok := g[key]
			if !ok {
				return fmt.Errorf("%s has no %q", at, key)
			}
			if err := matchValue(path+"."+key, want[key], v); err != nil {
				return err
			}
		}
		return nil
	case []any:
		g, ok := got.([]any)
		if !ok {
			return fmt.Errorf("%s is %s, not a list", at, briefly(got))
		}
		if len(g) != len(want) {
			return fmt.Errorf("%s has %d elements, not %d", at, len(g), len(want))
		}
		for i := range want {
			if err := matchValue(fmt.Sprintf("%s[%d]", path, i), want[i], g[i]); err != nil {
				return err
			}
		}
		return nil
	case json.Number:
		if g, ok := got.(json.Number); ok && sameNumber(want, g) {
			return nil
		}
	default: // string, bool, nil
		if want == got {
			return nil
		}
	}
	return fmt.Errorf("%s is %s, not %s", at, briefly(got), briefly(want))
}

func sameNumber(a, b json.Number) bool {
	if a == b {
		return true
	}
	if _, err := a.Int64(); err == nil {
		if _, err := b.Int64(); err == nil {
			return false // floats would take large ones for equal
		}
	}
	x, errX := a.Float64()
	y, errY := b.Float64()
	return errX == nil && errY == nil && x == y
}

// briefly is a JSON value in a message.
func briefly(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%T", v)
	}
	return cut(escape(string(b), false), 200)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
