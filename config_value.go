package pitaya

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A configValue is a setting's place in a Config together with its form as text. There is one implementation for each
// type of setting.
type configValue interface {
	// kind names the type in messages and documents.
	kind() string
	// set stores what text says, or says what is wrong with it and leaves the setting as it was or with the refused
	// value: callers try on a scratch Config first.
	set(text string) error
	// text is the value in force, defaults included, in a form that set accepts.
	text() string
	// isZero is whether the setting was left alone.
	isZero() bool
	// fill replaces zero by the default.
	fill()
	// check says what is wrong with a value that was set in code.
	check() error
}

// configZero says what zero means where it is written out, in a file, a variable or a flag. In the fields of a Config
// zero is always the default.
type configZero int

const (
	zeroRefused   configZero = iota // as a negative value
	zeroIsDefault                   // as a negative value: Pitaya reads both as the default
	zeroIsNone                      // stored as -1, since the field's zero is the default; negative values are none too
	zeroAsIs                        // the default is 0; negative values are refused
	zeroForEver                     // the default is 0 and means no end; so do negative values
)

// configNumber is what durations and whole numbers have in common.
type configNumber[T ~int | ~int64] struct {
	p    *T
	def  T
	zero configZero
	max  T // 0: none
}

func (v configNumber[T]) isZero() bool { return *v.p == 0 }

func (v configNumber[T]) fill() {
	switch {
	case *v.p == 0, *v.p < 0 && v.zero == zeroIsDefault:
		*v.p = v.def
	case *v.p < 0 && v.zero == zeroForEver:
		*v.p = 0
	}
}

// value is the number in force. None is 0, as it is written.
func (v configNumber[T]) value() T {
	switch {
	case *v.p > 0:
		return *v.p
	case *v.p == 0, v.zero == zeroIsDefault:
		return v.def
	case v.zero == zeroIsNone, v.zero == zeroForEver:
		return 0
	}
	return *v.p
}

// store stores n as it was written.
func (v configNumber[T]) store(n T) error {
	if n == 0 && v.zero == zeroRefused {
		return errors.New("must be above 0")
	}
	if n == 0 && v.zero == zeroIsNone {
		n = -1
	}
	*v.p = n
	return v.check()
}

func (v configNumber[T]) check() error {
	switch n := *v.p; {
	case n < 0 && v.zero == zeroRefused:
		return errors.New("must be above 0")
	case n < 0 && v.zero == zeroAsIs:
		return errors.New("must not be below 0")
	case v.max > 0 && n > v.max:
		return fmt.Errorf("must be at most %v", v.max)
	}
	return nil
}

type configDuration struct {
	configNumber[time.Duration]
	whole   bool // only whole seconds
	seconds bool // a number without unit counts seconds; documented as a number
}

func (v configDuration) kind() string {
	if v.seconds {
		return "duration or number of seconds"
	}
	return "duration"
}

func (v configDuration) set(text string) error {
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		if !v.seconds {
			return errors.New(`a duration needs a unit, such as "30s"`)
		}
		text += "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New(`not a duration such as "30s", "1m30s" or "500ms"`)
	}
	if err := v.store(d); err != nil {
		return err
	}
	return v.check()
}

func (v configDuration) check() error {
	if v.whole && *v.p > 0 && *v.p%time.Second != 0 {
		return errors.New("must be whole seconds")
	}
	return v.configNumber.check()
}

func (v configDuration) text() string {
	s := v.value().String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

type configInt struct {
	configNumber[int]
	bytes bool // may be written with a unit
}

func (v configInt) kind() string {
	if v.bytes {
		return "bytes"
	}
	return "number"
}

func (v configInt) set(text string) error {
	unit := 1
	if v.bytes {
		for _, u := range configUnits {
			if s, ok := strings.CutSuffix(text, u.name); ok {
				text, unit = strings.TrimSpace(s), u.size
				break
			}
		}
	}
	n, err := strconv.Atoi(text)
	switch {
	case err == nil && (n > math.MaxInt/unit || n < math.MinInt/unit), errors.Is(err, strconv.ErrRange):
		return errors.New("out of range")
	case err != nil && v.bytes:
		return errors.New(`not a whole number of bytes, such as 65536 or "64KiB"`)
	case err != nil:
		return errors.New("not a whole number")
	}
	return v.store(n * unit)
}

func (v configInt) text() string {
	n := v.value()
	if v.bytes && n != 0 {
		for _, u := range configUnits {
			if n%u.size == 0 {
				return strconv.Itoa(n/u.size) + u.name
			}
		}
	}
	return strconv.Itoa(n)
}

// configUnits are the units of sizes, the largest first.
var configUnits = [...]struct {
	name string
	size int
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// configShare is a number above 0 and up to 1. Zero is 1.
type configShare struct{ p *float64 }

func (v configShare) kind() string { return "number" }
func (v configShare) isZero() bool { return *v.p == 0 }
func (v configShare) text() string { return strconv.FormatFloat(v.value(), 'g', -1, 64) }
func (v configShare) fill()        { *v.p = v.value() }

func (v configShare) value() float64 {
	if *v.p == 0 {
		return 1
	}
	return *v.p
}

func (v configShare) set(text string) error {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return errors.New("not a number")
	}
	if n == 0 {
		return errors.New("must be above 0 and at most 1")
	}
	*v.p = n
	return v.check()
}

func (v configShare) check() error {
	if n := v.value(); !(n > 0 && n <= 1) { // not a number fails too
		return errors.New("must be above 0 and at most 1")
	}
	return nil
}

type configBool struct {
	p   *bool
	not bool // the field says the opposite, so that its zero is "on"
}

func (v configBool) kind() string { return "bool" }
func (v configBool) isZero() bool { return !*v.p }
func (v configBool) text() string { return strconv.FormatBool(*v.p != v.not) }
func (v configBool) fill()        {}
func (v configBool) check() error { return nil }

func (v configBool) set(text string) error {
	b, err := strconv.ParseBool(text)
	if err != nil {
		return errors.New("neither true nor false")
	}
	*v.p = b != v.not
	return nil
}

type configText struct {
	p   *string
	def string
	no  *bool // set by an empty text, since the field's zero is the default
	// valid is a further check of texts that are not empty; nil means none.
	valid func(string) error
}

func (v configText) kind() string { return "text" }
func (v configText) isZero() bool { return *v.p == "" && (v.no == nil || !*v.no) }

func (v configText) fill() {
	if v.isZero() {
		*v.p = v.def
	}
}

func (v configText) text() string {
	if v.isZero() {
		return v.def
	}
	return *v.p
}

func (v configText) set(text string) error {
	switch {
	case v.no != nil:
		*v.no = text == ""
	case text == "" && v.def != "":
		return errors.New("must not be empty")
	}
	*v.p = text
	return v.check()
}

func (v configText) check() error {
	switch {
	case v.no != nil && *v.no && *v.p != "":
		return errors.New("is set, and switched off by NoPrefix")
	case v.valid != nil && *v.p != "":
		return v.valid(*v.p)
	}
	return nil
}

// configEnum is one of a few words. The values of T count from first in the order of words.
type configEnum[T ~int] struct {
	p     *T
	first T
	words []string
	def   T // the value that zero means
}

func (v configEnum[T]) isZero() bool { return *v.p == 0 }

func (v configEnum[T]) kind() string {
	if v.first == 0 {
		return strings.Join(v.words, ", ")
	}
	s := make([]string, len(v.words))
	for i, w := range v.words {
		s[i] = fmt.Sprintf("%d or %s", int(v.first)+i, w)
	}
	return strings.Join(s, ", ")
}

func (v configEnum[T]) fill() {
	if *v.p == 0 {
		*v.p = v.def
	}
}

func (v configEnum[T]) text() string {
	n := *v.p
	if n == 0 {
		n = v.def
	}
	return enumWord(n, v.first, v.words)
}

func (v configEnum[T]) set(text string) error {
	for i, w := range v.words {
		n := v.first + T(i)
		// Numbers are for the settings that are documented with them.
		if strings.EqualFold(text, w) || v.first != 0 && text == strconv.Itoa(int(n)) {
			*v.p = n
			return nil
		}
	}
	return fmt.Errorf("must be one of: %s", v.kind())
}

func (v configEnum[T]) check() error {
	if n := *v.p; n != 0 && (n < v.first || int(n-v.first) >= len(v.words)) {
		return fmt.Errorf("must be one of: %s", v.kind())
	}
	return nil
}

// enumWord is the word for n, or its number.
func enumWord[T ~int](n, first T, words []string) string {
	if i := int(n) - int(first); i >= 0 && i < len(words) {
		return words[i]
	}
	return strconv.Itoa(int(n))
}
