package pitaya

import "bytes"

// MarshalLent marshals as for an answer, and gives the memory back.
func MarshalLent(s Serializer, v any) ([]byte, error) {
	b, err := s.(lender).marshalLent(v)
	if err != nil {
		return nil, err
	}
	defer b.free()
	return bytes.Clone(b.B), nil
}
