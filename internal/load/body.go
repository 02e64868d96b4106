package load

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/pitaya-go/pitaya"
)

// Body makes a body of a shape and a size in bytes: "json" is {"name":"load","content":"x…"}, which the testing server
// echoes as it is; "json-nested" and "json-list" have objects in objects and a list in place of one long text; "protobuf"
// is a message whose field 1 is a text; "raw" is letters. It is an error if the shape cannot have the size.
func Body(shape string, size int) ([]byte, error) {
	if size < 0 || size > pitaya.MaxPacketSize {
		return nil, fmt.Errorf("a body of %d bytes: up to %d are possible", size, pitaya.MaxPacketSize)
	}
	var body []byte
	switch shape {
	case "json":
		body = filled(`{"name":"load","content":"`, size, `"}`)
	case "json-nested":
		const level = `{"a":1,"in":`
		n := max(size-len(`{"x":""}`), 0) / (len(level) + 1)
		body = filled(strings.Repeat(level, n)+`{"x":"`, size, `"}`+strings.Repeat("}", n))
	case "json-list":
		var list strings.Builder
		list.WriteString(`{"list":[0`)
		for i := 1; list.Len()+len(fmt.Sprint(i))+len(`,],"x":""}`) <= size; i++ {
			fmt.Fprintf(&list, ",%d", i)
		}
		body = filled(list.String()+`],"x":"`, size, `"}`)
	case "protobuf":
		return protobufText(size)
	case "raw":
		return filled("", size, ""), nil
	default:
		return nil, fmt.Errorf("there is no shape %q: json, json-nested, json-list, protobuf and raw", shape)
	}
	if body == nil || !json.Valid(body) {
		return nil, fmt.Errorf("shape %s is longer than %d bytes", shape, size)
	}
	return body, nil
}

// filled puts as many letters between two texts as make the size, nil if it is exceeded.
func filled(before string, size int, after string) []byte {
	n := size - len(before) - len(after)
	if n < 0 {
		return nil
	}
	return []byte(before + strings.Repeat("x", n) + after)
}

// protobufText is a message whose field 1 is a text, of a given length with all around it.
func protobufText(size int) ([]byte, error) {
	if size == 0 {
		return []byte{}, nil
	}
	for digits := 1; digits <= 4; digits++ {
		n := size - 1 - digits
		head := binary.AppendUvarint([]byte{1<<3 | 2}, uint64(max(n, 0)))
		if n >= 0 && len(head) == 1+digits {
			return append(head, strings.Repeat("x", n)...), nil
		}
	}
	return nil, fmt.Errorf("no protobuf message with one text has %d bytes", size)
}
