package cli

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pitaya-go/pitaya"
)

// A value is a payload that came, as bytes and, if it is or stands for JSON, as JSON.
type value struct {
	Raw  []byte
	JSON []byte // nil if there is none
	Note string // why there is none where there should be
}

// maxPayloadFile bounds the files that payloads are read from; no packet holds more.
const maxPayloadFile = pitaya.MaxPacketSize

// form says how a payload is written on the command line.
type form struct {
	Raw  bool   // the text goes as it is
	Hex  bool   // it is hexadecimal digits
	Type string // it is the JSON of this protobuf message; empty: that of the route
}

// encode makes the payload of a message to a route of the text behind it on the command line. @FILE stands for what is in
// the file.
func (l *link) encode(routeName, text string, f form) ([]byte, error) {
	if name, ok := strings.CutPrefix(text, "@"); ok {
		b, err := readFile(name)
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	switch {
	case f.Hex:
		b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			return nil, usagef("not hexadecimal: %v", err)
		}
		return b, nil
	case f.Raw:
		return []byte(text), nil
	case f.Type != "":
		if !l.types().has(f.Type) {
			return nil, usagef("the server has shown no message %s", f.Type)
		}
		return l.encodeMessage(f.Type, text)
	case !l.protobuf():
		return encodeJSON(text)
	}
	r, known := l.route(routeName)
	switch {
	case text == "":
		return nil, nil
	case known && r.Input == rawBytes:
		return []byte(text), nil
	case known && r.Input == "":
		return nil, usagef("%s takes no argument", r.Name)
	case known && l.types().has(r.Input):
		return l.encodeMessage(r.Input, text)
	case known:
		return nil, usagef("%s takes a %s, of which the server has shown no descriptor; -hex sends bytes", r.Name, clean(r.Input))
	}
	return nil, usagef("the argument of %s is not known (%s); -type NAME says which message it is, -hex and -raw send bytes",
		routeName, l.whyUnknown())
}

func (l *link) encodeMessage(name, text string) ([]byte, error) {
	if text == "" {
		return nil, nil // the message with nothing set
	}
	return l.types().encode(name, []byte(text))
}

// encodeJSON checks what looks like JSON. All else may be for a handler that takes bytes.
func encodeJSON(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		var v json.RawMessage
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			at := ""
			if e, ok := errors.AsType[*json.SyntaxError](err); ok {
				at = fmt.Sprintf(" at byte %d", e.Offset)
			}
			return nil, usagef("not JSON%s: %v; -raw sends it as it is", at, err)
		}
	}
	return []byte(text), nil
}

// readFile reads a payload.
func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, usagef("%v", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxPayloadFile+1))
	if err != nil {
		return nil, usagef("%v", err)
	}
	if len(b) > maxPayloadFile {
		return nil, usagef("%s has more than %d bytes", name, maxPayloadFile)
	}
	return b, nil
}

// decode makes a value of a payload of a type, which is empty if it is not known.
func (l *link) decode(typ string, b []byte) value {
	v := value{Raw: b}
	switch {
	case !l.protobuf():
		if json.Valid(b) {
			v.JSON = b
		}
	case typ == rawBytes:
	case typ != "":
		text, err := l.types().decode(typ, b)
		if err != nil {
			v.Note = err.Error()
			break
		}
		v.JSON = text
	}
	return v
}

// show is a value for readers, in about max bytes.
func (v value) show(max int) string {
	s := "(empty)"
	switch {
	case v.JSON != nil:
		s = showJSON(v.JSON, max)
	case len(v.Raw) > 0:
		s = showBytes(v.Raw, max)
	}
	if v.Note != "" {
		s += " (" + clean(v.Note) + ")"
	}
	return s
}

// fields puts a value into a JSON object: payload if it is JSON, else text or base64.
func (v value) fields(into *event) {
	switch {
	case v.JSON != nil:
		into.Payload = v.JSON
	default:
		if text, ok := asText(v.Raw); ok {
			into.Text = &text
		} else {
			text := base64.StdEncoding.EncodeToString(v.Raw)
			into.Base64 = &text
		}
	}
	into.Note = v.Note
}
