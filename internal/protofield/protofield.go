// Package protofield takes protobuf messages apart for those who read them by hand.
package protofield

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Each calls f for each field of a message that is a varint, with nil as data, or bytes, which are never nil and part of b.
// Fields of other kinds are passed over. It ends with the first error: of f, or one that wraps malformed.
func Each(b []byte, malformed error, f func(num protowire.Number, v uint64, data []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", malformed, protowire.ParseError(n))
		}
		if num > protowire.MaxValidNumber {
			return fmt.Errorf("%w: field number %d", malformed, num)
		}
		b = b[n:]
		var v uint64
		var data []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			if data, n = protowire.ConsumeBytes(b); data == nil {
				data = []byte{}
			}
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: %w", malformed, protowire.ParseError(n))
		}
		b = b[n:]
		if typ != protowire.VarintType && typ != protowire.BytesType {
			continue
		}
		if err := f(num, v, data); err != nil {
			return err
		}
	}
	return nil
}
