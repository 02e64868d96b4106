package pitaya

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
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

// configList is a list of texts, written as a JSON list or with commas.
type configList struct {
	p   *[]string
	def []string
}

func (v configList) kind() string { return "list" }
func (v configList) isZero() bool { return len(*v.p) == 0 }

func (v configList) value() []string {
	if len(*v.p) == 0 {
		return v.def
	}
	return *v.p
}

func (v configList) fill() { *v.p = slices.Clone(v.value()) }

func (v configList) text() string { return listText(v.value()) }

func (v configList) set(text string) error {
	list, err := parseList(text)
	if err != nil {
		return err
	}
	if len(list) == 0 && v.def != nil {
		return errors.New("must not be empty")
	}
	*v.p = list
	return v.check()
}

func (v configList) check() error {
	for _, s := range *v.p {
		if strings.TrimSpace(s) == "" {
			return errors.New("has an empty element")
		}
	}
	return nil
}

// listText writes a list with commas, or as JSON where commas would not give it back.
func listText(list []string) string {
	s := strings.Join(list, ",")
	if back, err := parseList(s); err != nil || !slices.Equal(back, list) {
		b, _ := json.Marshal(list) // cannot fail
		return string(b)
	}
	return s
}

func parseList(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if text[0] == '[' {
		// An IPv6 address may begin like a JSON list, but is none.
		var list []string
		if err := json.Unmarshal([]byte(text), &list); err == nil {
			return list, nil
		} else if json.Valid([]byte(text)) {
			return nil, errors.New("must be a list of texts")
		}
	}
	list := strings.Split(text, ",")
	for i, s := range list {
		list[i] = strings.TrimSpace(s)
		if list[i] == "" {
			return nil, errors.New("has an empty element")
		}
	}
	return list, nil
}

// configPrefixes is a list of networks; an address stands for itself.
type configPrefixes struct{ p *[]netip.Prefix }

func (v configPrefixes) kind() string { return "list of networks" }
func (v configPrefixes) isZero() bool { return len(*v.p) == 0 }
func (v configPrefixes) fill()        { *v.p = slices.Clone(*v.p) }

func (v configPrefixes) text() string {
	list := make([]string, len(*v.p))
	for i, p := range *v.p {
		list[i] = p.String()
	}
	return strings.Join(list, ",")
}

func (v configPrefixes) set(text string) error {
	list, err := parseList(text)
	if err != nil {
		return err
	}
	var prefixes []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil || a.Zone() != "" {
				return errors.New("must be networks such as 10.0.0.0/8, or addresses")
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		prefixes = append(prefixes, p)
	}
	*v.p = prefixes
	return v.check()
}

func (v configPrefixes) check() error {
	for _, p := range *v.p {
		if !p.IsValid() {
			return errors.New("has an invalid network")
		}
		if p != p.Masked() {
			return fmt.Errorf("%v has bits beyond its length; write %v", p, p.Masked())
		}
	}
	return nil
}

// configMap is a table of texts, written as a JSON object or as name=value with commas between. The names keep their
// case.
type configMap struct{ p *map[string]string }

func (v configMap) kind() string { return "map" }
func (v configMap) isZero() bool { return len(*v.p) == 0 }
func (v configMap) fill()        { *v.p = maps.Clone(*v.p) }

func (v configMap) text() string {
	s := make([]string, 0, len(*v.p))
	for _, k := range slices.Sorted(maps.Keys(*v.p)) {
		s = append(s, k+"="+(*v.p)[k])
	}
	text := strings.Join(s, ",")
	if back, err := parseMap(text); err != nil || !maps.Equal(back, *v.p) {
		b, _ := json.Marshal(*v.p) // cannot fail
		return string(b)
	}
	return text
}

func (v configMap) set(text string) error {
	m, err := parseMap(text)
	if err != nil {
		return err
	}
	*v.p = m
	return v.check()
}

func (v configMap) check() error {
	if _, ok := (*v.p)[""]; ok {
		return errors.New("has an empty name")
	}
	return nil
}

func parseMap(text string) (map[string]string, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	m := make(map[string]string)
	put := func(name, value string) error {
		if old, ok := m[name]; ok && old != value {
			return fmt.Errorf("has %q twice", name)
		}
		m[name] = value
		return nil
	}
	if text[0] == '{' {
		if !json.Valid([]byte(text)) {
			return nil, errors.New("not a JSON object")
		}
		for _, mem := range jsonMembers([]byte(text), 0) {
			value := string(mem.value)
			switch mem.value[0] {
			case '"':
				value = jsonText(mem.value)
			case '{', '[', 'n':
				return nil, fmt.Errorf("%q is not a text", mem.name)
			}
			if err := put(mem.name, value); err != nil {
				return nil, err
			}
		}
		return m, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, errors.New("must be name=value with commas between, or a JSON object")
		}
		if err := put(strings.TrimSpace(name), strings.TrimSpace(value)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// configCustom is the declaration of custom metrics, a JSON object.
type configCustom struct{ p *CustomMetrics }

func (v configCustom) kind() string { return "JSON object" }

func (v configCustom) isZero() bool {
	return len(v.p.Counters)+len(v.p.Gauges)+len(v.p.Histograms)+len(v.p.Summaries) == 0
}

func (v configCustom) fill() {
	for _, list := range v.p.lists() {
		*list.p = slices.Clone(*list.p)
	}
}

func (v configCustom) text() string {
	if v.isZero() {
		return ""
	}
	b, _ := json.Marshal(v.p) // fails on what check refuses
	return string(b)
}

func (v configCustom) set(text string) error {
	var m CustomMetrics
	if strings.TrimSpace(text) != "" {
		seen := make(map[string]bool)
		for _, mem := range jsonMembers([]byte(text), 0) {
			if name := strings.ToLower(mem.name); seen[name] {
				return fmt.Errorf("has %q twice", clipConfig(name))
			} else {
				seen[name] = true
			}
		}
		dec := json.NewDecoder(strings.NewReader(text))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&m); err != nil {
			return err
		}
		if dec.More() {
			return errors.New("has something after the JSON object")
		}
	}
	*v.p = m
	return v.check()
}

func (v configCustom) check() error {
	seen := make(map[string]bool)
	for _, list := range v.p.lists() {
		for _, m := range *list.p {
			name := strings.Trim(m.Subsystem+"_"+m.Name, "_")
			var err error
			switch {
			case !isMetricName(m.Name) || m.Subsystem != "" && !isMetricName(m.Subsystem):
				err = errors.New("the name may have letters, digits and _ only")
			case seen[name]:
				err = errors.New("declared twice")
			case len(m.Buckets) > 0 && list.name != "histograms":
				err = errors.New("only histograms have buckets")
			case len(m.Objectives) > 0 && list.name != "summaries":
				err = errors.New("only summaries have objectives")
			case slices.ContainsFunc(m.Labels, func(l string) bool { return !isMetricName(l) }):
				err = errors.New("labels may have letters, digits and _ only")
			}
			for i, b := range m.Buckets {
				if math.IsNaN(b) || math.IsInf(b, 0) || i > 0 && b <= m.Buckets[i-1] {
					err = errors.New("buckets must rise")
				}
			}
			for q, e := range m.Objectives {
				if !(q >= 0 && q <= 1 && e >= 0 && e <= 1) { // not a number fails too
					err = errors.New("objectives must be quantiles from 0 to 1 and their errors")
				}
			}
			if err != nil {
				return fmt.Errorf("%s: %q: %w", list.name, name, err)
			}
			seen[name] = true
		}
	}
	return nil
}

type customList struct {
	name string
	p    *[]CustomMetric
}

func (m *CustomMetrics) lists() []customList {
	return []customList{
		{"counters", &m.Counters}, {"gauges", &m.Gauges}, {"histograms", &m.Histograms}, {"summaries", &m.Summaries},
	}
}

// isMetricName is whether Prometheus takes s as the name of a label and as part of the name of a metric.
func isMetricName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9' || i == 0) {
			return false
		}
	}
	return s != ""
}

// Objectives are the quantiles of a summary and the error that each may have. In JSON the quantiles are the names of
// an object: {"0.5": 0.05, "0.99": 0.001}.
type Objectives map[float64]float64

// MarshalJSON implements [json.Marshaler].
func (o Objectives) MarshalJSON() ([]byte, error) {
	m := make(map[string]float64, len(o))
	for q, e := range o {
		m[strconv.FormatFloat(q, 'g', -1, 64)] = e
	}
	return json.Marshal(m)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (o *Objectives) UnmarshalJSON(b []byte) error {
	var m map[string]float64
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*o = make(Objectives, len(m))
	for s, e := range m {
		q, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fmt.Errorf("quantile %q is not a number", s)
		}
		(*o)[q] = e
	}
	return nil
}
