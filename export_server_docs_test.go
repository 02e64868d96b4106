package pitaya

import "reflect"

// DescribeType opens the documentation of a single type to the tests, which make types that no handler can be written for.
func DescribeType(t reflect.Type, output, pointerNames bool) any {
	return describe(t, output, pointerNames)
}
