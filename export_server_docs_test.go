package pitaya

import (
	"encoding/json"
	"reflect"
)

// DescribeType opens the documentation of a single type to the tests, which make types that no handler can be written for.
func DescribeType(t reflect.Type, output, pointerNames bool) any {
	return describe(t, output, pointerNames)
}

// MergeDocs adds to the documentation of a server what one of another type says of itself.
func MergeDocs(own, serverType, other string) (string, error) {
	c := &docsCollection{
		handlers: make(map[string]json.RawMessage),
		remotes:  make(map[string]json.RawMessage),
		messages: make(map[string]string),
	}
	if err := c.add(serverType, other); err != nil {
		return own, err
	}
	return c.mergeInto(own)
}
