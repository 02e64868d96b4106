package pitaya

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ReadConfig fills the Config that was bound to fs from the JSON object in r. A setting is a member with its key as
// name, or a member of objects that are named after the parts of the key, or anything between:
//
//	{"pitaya": {"heartbeat": {"interval": "10s"}, "conn.max": 5000}, "pitaya.session.unique": false}
//
// Names are compared without regard to case, except those inside of maps such as pitaya.metrics.constlabels. Values
// have the JSON type of the setting, or are texts as in flags; durations are texts with a unit. null leaves a setting as
// it is. Members outside of "pitaya" belong to the application and are ignored; unknown ones inside are errors that
// name the nearest key. All mistakes come back joined; what was right has been stored then.
//
// Several files can be read; the later one wins. If r has a Name method, as [os.File] has, messages begin with it.
func ReadConfig(fs *flag.FlagSet, r io.Reader) error {
	b, err := boundTo(fs)
	if err != nil {
		return err
	}
	file := "settings"
	if f, ok := r.(interface{ Name() string }); ok {
		file = f.Name()
	}
	data, err := io.ReadAll(io.LimitReader(r, maxConfigSize+1))
	switch {
	case err != nil:
		return fmt.Errorf("pitaya: settings: %w", err)
	case len(data) > maxConfigSize:
		return fmt.Errorf("pitaya: %s: more than %d bytes", file, maxConfigSize)
	}
	// Some editors mark UTF-8 so. Blanks keep the positions in messages right.
	if bytes.HasPrefix(data, []byte("\uFEFF")) {
		copy(data, "   ")
	}
	var root json.RawMessage
	if err := json.Unmarshal(data, &root); err != nil { // checks the whole, its depth too
		line := 1
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			line = configLine(data, int(syntax.Offset))
		}
		return fmt.Errorf("pitaya: %s:%d: %w", file, line, err)
	}
	start := len(data) - len(bytes.TrimLeft(data, " \t\r\n"))
	if root[0] != '{' {
		return fmt.Errorf("pitaya: %s:%d: not a JSON object", file, configLine(data, start))
	}

	w := configWalk{b: b, file: file, data: data}
	w.object(root, start, "")
	return errors.Join(b.setAll(OriginFile, w.given), errors.Join(w.errs...), joinUnknown(w.unknown))
}

func configLine(data []byte, offset int) int {
	return 1 + bytes.Count(data[:min(max(offset, 0), len(data))], []byte("\n"))
}

// A configWalk goes through a file and collects the settings in it.
type configWalk struct {
	b       *configBinding
	file    string
	data    []byte
	given   []configGiven
	errs    []error
	unknown []error

	seen, line int // the line at the offset that was seen last; offsets only rise
}

// source names the line at offset, for messages.
func (w *configWalk) source(offset int) string {
	w.line += bytes.Count(w.data[w.seen:offset], []byte("\n"))
	w.seen = offset
	return fmt.Sprintf("%s:%d", w.file, w.line+1)
}

// object goes through the members of obj, which is at offset of the file and whose members' names follow prefix. It
// calls itself only for groups of settings, so the table bounds the depth.
func (w *configWalk) object(obj json.RawMessage, offset int, prefix string) {
	for _, m := range jsonMembers(obj, offset) {
		full := prefix + m.name
		lower := strings.ToLower(full)
		if prefix == "" && lower+"." != configPrefix && !strings.HasPrefix(lower, configPrefix) {
			continue
		}
		source := w.source(m.offset)
		k, rest := w.b.find(full)
		switch {
		case k != nil && m.value[0] == 'n', k == nil && w.b.groups[lower] && m.value[0] == 'n':
			// null
		case k != nil && k.name == "config":
			w.errs = append(w.errs, fmt.Errorf("pitaya: %s: %sconfig cannot be set in a file", source, configPrefix))
		case k != nil:
			g := configGiven{key: k, name: strings.ToLower(full[:len(full)-len(rest)]), source: source}
			value := m.value
			if rest != "" {
				name, _ := json.Marshal(rest[1:]) // cannot fail
				value = slices.Concat([]byte("{"), name, []byte(":"), value, []byte("}"))
			}
			text, err := jsonAsText(k.value, value)
			if err != nil {
				w.errs = append(w.errs, k.error(configRecord{source: source}, string(value), err))
				continue
			}
			g.text = text
			w.given = append(w.given, g)
		case w.b.groups[lower] && m.value[0] == '{':
			w.object(m.value, m.offset, full+".")
		case w.b.groups[lower]:
			w.errs = append(w.errs, fmt.Errorf("pitaya: %s: %s is a group of settings, so it must be an object", source, full))
		default:
			w.unknown = append(w.unknown, w.b.unknown(source+": "+clipConfig(full), lower, len(w.unknown), nil))
		}
	}
}

// find returns the key with that name. A name that goes on below a map or an object names a part of it; rest is what
// goes on, with its dot.
func (b *configBinding) find(name string) (k *boundKey, rest string) {
	lower := strings.ToLower(name)
	if len(lower) != len(name) {
		return b.names[lower], "" // no name of ours; a few letters change their length
	}
	if k := b.names[lower]; k != nil {
		return k, ""
	}
	for i := range lower {
		if lower[i] != '.' {
			continue
		}
		if k := b.names[lower[:i]]; k != nil {
			switch k.value.(type) {
			case configMap:
				return k, name[i:]
			case configCustom:
				return k, lower[i:]
			}
			return nil, ""
		}
	}
	return nil, ""
}

// jsonAsText returns a JSON value in the form that v.set takes.
func jsonAsText(v configValue, value json.RawMessage) (string, error) {
	ok := false
	switch value[0] {
	case '"':
		return jsonText(value), nil
	case '[':
		switch v.(type) {
		case configList, configPrefixes:
			ok = true
		}
	case '{':
		switch v.(type) {
		case configMap, configCustom:
			ok = true
		}
	case 't', 'f':
		_, ok = v.(configBool)
	default: // a number
		switch v.(type) {
		case configInt, configShare, configDuration, configEnum[SerializerType]: // durations refuse it with a hint
			ok = true
		}
	}
	if !ok {
		return "", fmt.Errorf("wrong type, want %s", v.kind())
	}
	return string(value), nil
}

// jsonText returns the text of a JSON string that is known to be valid.
func jsonText(value json.RawMessage) string {
	var s string
	_ = json.Unmarshal(value, &s)
	return s
}

// A jsonMember is one member of a JSON object.
type jsonMember struct {
	name   string
	value  json.RawMessage
	offset int // of value
}

// jsonMembers lists the members of obj, a valid JSON object at offset of its file, in order and with those that have the
// same name.
func jsonMembers(obj json.RawMessage, offset int) []jsonMember {
	dec := json.NewDecoder(bytes.NewReader(obj))
	if _, err := dec.Token(); err != nil { // the brace
		return nil
	}
	var list []jsonMember
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return list
		}
		var m jsonMember
		m.name, _ = name.(string)
		if err := dec.Decode(&m.value); err != nil {
			return list
		}
		m.offset = offset + int(dec.InputOffset()) - len(m.value)
		list = append(list, m)
	}
	return list
}
