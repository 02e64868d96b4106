package pitaya

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"strings"
)

// ipVersionKey is the session value that tells how the client is connected
// (client protocol, section 5.3).
const ipVersionKey = "ipversion"

// Set stores a value under key in the session's data, which lives as long as
// the session. A value that JSON cannot express is refused and not stored,
// since session data travels between servers as JSON. Set may be called from
// any goroutine.
func (s *Session) Set(key string, v any) error {
	if err := checkDataValue(key, v); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dataLocked()[key] = v
	return nil
}

func checkDataValue(key string, v any) error {
	switch v.(type) {
	case nil, bool, string, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
		return nil
	}
	if _, err := json.Marshal(v); err != nil {
		return fmt.Errorf("pitaya: session value %q: %w", key, err)
	}
	return nil
}

// Get returns the value stored under key, or nil. Values keep the type that
// they were stored with; [SessionValue] is Get with a type.
func (s *Session) Get(key string) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dataLocked()[key]
}

// Has reports whether there is a value under key, which may be nil.
func (s *Session) Has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.dataLocked()[key]
	return ok
}

// Delete removes the value stored under key.
func (s *Session) Delete(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dataLocked(), key)
}

// Data returns a copy of the session's data.
func (s *Session) Data() map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.dataLocked())
}

// SetData replaces all of the session's data by a copy of data. If one of the
// values cannot be expressed in JSON nothing is changed.
func (s *Session) SetData(data map[string]any) error {
	for k, v := range data {
		if err := checkDataValue(k, v); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values = maps.Clone(data); s.values == nil {
		s.values = make(map[string]any)
	}
	return nil
}

// dataLocked returns the session's data. The map is made when it is first
// needed: most sessions never store anything.
func (s *Session) dataLocked() map[string]any {
	if s.values == nil {
		version := "ipv4"
		if addr := s.conn.remoteAddr(); addr != nil && strings.Count(addr.String(), ":") > 1 {
			version = "ipv6"
		}
		s.values = map[string]any{ipVersionKey: version}
	}
	return s.values
}

// SessionValue returns the value that is stored under key, as a T. It reports
// false if there is none, or if it is no T: a number is given as any numeric
// type that can hold exactly its value, whatever type it was stored with, and
// nothing else is converted. So an int64 that has been through other servers
// as JSON is still that int64, and is never a rounded one.
func SessionValue[T any](s *Session, key string) (T, bool) {
	v := s.Get(key)
	if t, ok := v.(T); ok {
		return t, true
	}
	var zero T
	if v == nil {
		return zero, false
	}
	out := reflect.ValueOf(&zero).Elem()
	if !convertNumber(out, v) {
		var none T
		return none, false
	}
	return zero, true
}

// convertNumber stores v in out if both are numbers and out can hold v exactly.
func convertNumber(out reflect.Value, v any) bool {
	if n, ok := v.(json.Number); ok {
		return convertText(out, n)
	}
	in := reflect.ValueOf(v)
	switch {
	case in.CanInt():
		return setInt(out, in.Int())
	case in.CanUint():
		return setUint(out, in.Uint())
	case in.CanFloat():
		return setFloat(out, in.Float())
	}
	return false
}

func convertText(out reflect.Value, n json.Number) bool {
	if i, err := n.Int64(); err == nil {
		return setInt(out, i)
	}
	var u uint64
	if err := json.Unmarshal([]byte(n), &u); err == nil {
		return setUint(out, u)
	}
	f, err := n.Float64()
	if err != nil || !out.CanFloat() && math.Abs(f) >= 1<<53 {
		return false // 9007199254740993.0 is a number that f is not
	}
	return setFloat(out, f)
}

func setInt(out reflect.Value, i int64) bool {
	switch {
	case out.CanInt():
		out.SetInt(i)
		return out.Int() == i
	case out.CanUint():
		if i < 0 {
			return false
		}
		return setUint(out, uint64(i))
	case out.CanFloat():
		// Within float64, 2^63 is no int64: the conversion back would not
		// be defined.
		out.SetFloat(float64(i))
		f := out.Float()
		return f < math.MaxInt64 && int64(f) == i
	}
	return false
}

func setUint(out reflect.Value, u uint64) bool {
	switch {
	case out.CanUint():
		out.SetUint(u)
		return out.Uint() == u
	case out.CanInt():
		return u <= math.MaxInt64 && setInt(out, int64(u))
	case out.CanFloat():
		out.SetFloat(float64(u))
		f := out.Float()
		return f < math.MaxUint64 && uint64(f) == u
	}
	return false
}

func setFloat(out reflect.Value, f float64) bool {
	switch {
	case out.CanFloat():
		out.SetFloat(f)
		return out.Float() == f || math.IsNaN(f)
	case f != math.Trunc(f):
		return false
	case f >= math.MinInt64 && f < math.MaxInt64:
		return setInt(out, int64(f))
	case f >= 0 && f < math.MaxUint64:
		return setUint(out, uint64(f))
	}
	return false
}
