package pitaya

import (
	"bytes"
	"encoding/json"
	"errors"
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
	s.changedLocked(key)
	return nil
}

// changedLocked notes a change of the data.
func (s *Session) changedLocked(key string) {
	s.encoded = nil
	if s.front == nil {
		return
	}
	if s.changed == nil {
		s.changed = make(map[string]bool)
	}
	s.changed[key] = true
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
// they were stored with until they come from another server: numbers are then
// a [json.Number], and everything else as encoding/json decodes it.
// [SessionValue] is Get with a type, and does not see the difference.
func (s *Session) Get(key string) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dataLocked()[key]
}

// settle stores a text under key if there is still the given one or none, and
// returns what is there then.
func (s *Session) settle(key, old, text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := s.dataLocked()
	if now, _ := data[key].(string); now != old {
		return now
	}
	data[key] = text
	s.changedLocked(key)
	return text
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
	s.changedLocked(key)
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
	s.replaceLocked(maps.Clone(data))
	s.replaced = s.front != nil
	return nil
}

// replaceLocked replaces the data.
func (s *Session) replaceLocked(data map[string]any) {
	if data == nil {
		data = make(map[string]any)
	}
	s.values, s.encoded = data, nil
}

// dataLocked returns the session's data. The map is made when it is first
// needed: most sessions never store anything, and on a backend most handlers do
// not look at what came along.
func (s *Session) dataLocked() map[string]any {
	switch {
	case s.values != nil:
	case s.front != nil:
		s.values, _ = decodeSessionData(s.encoded) // was checked
	default:
		s.values = map[string]any{ipVersionKey: s.ipVersion()}
	}
	return s.values
}

func (s *Session) ipVersion() string {
	if addr := s.RemoteAddr(); addr != nil && strings.Count(addr.String(), ":") > 1 {
		return "ipv6"
	}
	return "ipv4"
}

// Data that was never set, as JSON.
const (
	dataIPv4 = `{"` + ipVersionKey + `":"ipv4"}`
	dataIPv6 = `{"` + ipVersionKey + `":"ipv6"}`
)

// encodedData returns the data as it travels (cluster protocol, section 8). The
// bytes must not be changed.
func (s *Session) encodedData() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.encodedLocked()
}

func (s *Session) encodedLocked() []byte {
	if s.encoded != nil {
		return s.encoded
	}
	if s.values == nil && s.front == nil {
		if s.encoded = []byte(dataIPv4); s.ipVersion() == "ipv6" {
			s.encoded = []byte(dataIPv6)
		}
		return s.encoded
	}
	s.encoded = encodeSessionData(s.dataLocked())
	return s.encoded
}

// encodeSessionData makes JSON of session data. Each value was checked when it
// was stored; one that has become impossible since, because the application has
// changed what it points to, is left out.
func encodeSessionData(values map[string]any) []byte {
	b, err := json.Marshal(values)
	if err == nil {
		return b
	}
	good := make(map[string]any, len(values))
	for k, v := range values {
		if checkDataValue(k, v) == nil {
			good[k] = v
		}
	}
	if b, err = json.Marshal(good); err != nil {
		return []byte("{}")
	}
	return b
}

var errSessionData = errors.New("pitaya: session data is no JSON object")

// checkSessionData says whether another server's session data can be decoded.
// No bytes are no data.
func checkSessionData(b []byte) error {
	trimmed := bytes.TrimLeft(b, " \t\r\n")
	if len(trimmed) == 0 && len(b) == 0 || string(b) == "null" {
		return nil
	}
	if len(trimmed) == 0 || trimmed[0] != '{' || !json.Valid(b) {
		return errSessionData
	}
	return nil
}

// decodeSessionData reads the session data of another server. Numbers stay as
// they are written, so that none is rounded on its way.
func decodeSessionData(b []byte) (map[string]any, error) {
	if err := checkSessionData(b); err != nil {
		return nil, err
	}
	values := make(map[string]any)
	if len(b) == 0 {
		return values, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&values); err != nil {
		return nil, errSessionData
	}
	if values == nil { // null
		values = make(map[string]any)
	}
	return values, nil
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
