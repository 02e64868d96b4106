package pitaya

import "bytes"

// MarshalLent marshals as for an answer, and gives the memory back.
func MarshalLent(s Serializer, v any) ([]byte, error) {
	l, _ := lends(s)
	b, err := l.marshalLent(v)
	if err != nil {
		return nil, err
	}
	defer b.free()
	return bytes.Clone(b.B), nil
}
