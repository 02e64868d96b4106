package pitaya

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
)

const (
	maxConfigSize    = 16 << 20 // of a file; far more than any, so that a wrong file does not fill the memory
	maxConfigUnknown = 10       // unknown settings that are reported one by one
)

// Load fills c and checks it: the one call that a main function needs. It declares the settings as flags of fs (see
// [Config.Bind], unless that was done before), parses args, reads the environment, and reads the JSON file that the
// flag -pitaya.config, the variable PITAYA_CONFIG or the field File names, if one does. All mistakes come back at once,
// joined; c must not be used then. [flag.ErrHelp] comes back alone.
//
//	cfg := pitaya.Config{Type: "chat", Frontend: true}
//	if err := cfg.Load(flag.CommandLine, os.Args[1:], os.Environ()); err != nil {
//		log.Fatal(err)
//	}
func (c *Config) Load(fs *flag.FlagSet, args, environ []string) error {
	b, err := boundTo(fs)
	if err != nil || b.config != c {
		c.Bind(fs)
		if b, err = boundTo(fs); err != nil {
			return err
		}
	}
	if args, err = b.checkArgs(fs, args); err != nil {
		return err
	}
	// A value that is refused must not end the parsing: the flag package would print the whole usage, and the other
	// mistakes would stay unknown.
	var flagErrs []error
	b.flagErrs = &flagErrs
	err = fs.Parse(args)
	b.flagErrs = nil
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	if err != nil {
		err = fmt.Errorf("pitaya: %w", err)
	}
	errs := append(flagErrs, err, ReadEnv(fs, environ), c.readFile(fs), c.Validate())
	return errors.Join(errs...)
}

func (c *Config) readFile(fs *flag.FlagSet) error {
	if c.File == "" {
		return nil
	}
	f, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("pitaya: settings: %w", err)
	}
	defer f.Close()
	return ReadConfig(fs, f)
}

// A configBinding connects a Config with the flag set that it was bound to.
type configBinding struct {
	config *Config
	keys   []*boundKey
	names  map[string]*boundKey // by each name in lower case, with configPrefix
	groups map[string]bool      // names that names begin with, such as "pitaya.metrics"
	env    map[string]*boundKey // by the name of the variable
	flags  map[string]string    // the name by which each key was set as a flag

	flagErrs *[]error // where refused flags are noted; nil: they end the parsing
}

// A boundKey is a row of the table of a Config that is bound.
type boundKey struct {
	configKey
	scratch configValue // the same row of another Config, to try values on
}

func (b *configBinding) declare(fs *flag.FlagSet, k *boundKey, name string, alias bool) {
	full := configPrefix + name
	v := &configFlag{b: b, k: k, name: full, alias: alias}
	usage := k.help
	if alias {
		usage = "same as -" + configPrefix + k.name
	}
	fs.Var(v, full, usage)

	lower := strings.ToLower(full)
	b.names[lower] = k
	b.env[envName(lower)] = k
	for i := range lower {
		if lower[i] == '.' {
			b.groups[lower[:i]] = true
		}
	}
}

func envName(key string) string { return strings.ToUpper(strings.ReplaceAll(key, ".", "_")) }

// set stores text in k, unless it has been set from a source that goes before origin. A value that is wrong is an error
// all the same; the error is the bare reason.
func (b *configBinding) set(k *boundKey, origin Origin, source, text string) error {
	if err := k.scratch.set(text); err != nil {
		return err
	}
	if origin < b.config.origins[k.name].origin {
		return nil
	}
	if err := k.value.set(text); err != nil {
		return err
	}
	b.config.origins[k.name] = configRecord{origin: origin, source: source, text: k.value.text()}
	return nil
}

// A configFlag is a setting as a flag, under one of its names.
type configFlag struct {
	b     *configBinding // nil in the zero value, which package flag makes to learn about defaults
	k     *boundKey
	name  string
	alias bool
}

// String is the value as package flag shows it; that of another name is shown under the first.
func (f *configFlag) String() string {
	if f.k == nil || f.alias {
		return ""
	}
	return f.k.show(f.k.value.text())
}

// IsBoolFlag lets switches stand without a value.
func (f *configFlag) IsBoolFlag() bool {
	if f.k == nil {
		return false
	}
	_, ok := f.k.value.(configBool)
	return ok
}

func (f *configFlag) Set(text string) error {
	err := f.set(text)
	if err != nil && f.b.flagErrs != nil {
		*f.b.flagErrs = append(*f.b.flagErrs, f.k.error(configRecord{origin: OriginFlag, source: "-" + f.name}, text, err))
		return nil
	}
	return err
}

func (f *configFlag) set(text string) error {
	if other := f.b.flags[f.k.name]; other != "" && other != f.name {
		if err := f.k.scratch.set(text); err == nil && f.k.scratch.text() != f.k.value.text() {
			return fmt.Errorf("differs from -%s, which is the same setting", other)
		}
	}
	if err := f.b.set(f.k, OriginFlag, "-"+f.name, text); err != nil {
		return err
	}
	f.b.flags[f.k.name] = f.name
	return nil
}

// boundTo finds what a Config left in fs.
func boundTo(fs *flag.FlagSet) (*configBinding, error) {
	if f := fs.Lookup(configPrefix + "config"); f != nil {
		if v, ok := f.Value.(*configFlag); ok {
			return v.b, nil
		}
	}
	return nil, errors.New("pitaya: the flag set has no settings: call Config.Bind first")
}

// ReadEnv fills the Config that was bound to fs from environ, which is in the form of [os.Environ]. The variable of a
// setting is its key in upper case with underscores for the dots: PITAYA_HEARTBEAT_INTERVAL. Values are written as in
// flags; an empty one counts as not set.
//
// Variables whose name begins with PITAYA_ and is that of no setting are errors, except those that Kubernetes makes for
// services with such a name (PITAYA_SERVICE_HOST, PITAYA_PORT_3250_TCP, …). All mistakes come back joined.
func ReadEnv(fs *flag.FlagSet, environ []string) error {
	b, err := boundTo(fs)
	if err != nil {
		return err
	}
	vars := make(map[string]string) // the last of several with one name counts, as in os/exec
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, configEnvPrefix) && !isServiceLink(name, value) {
			vars[name] = value
		}
	}
	var given []configGiven
	var unknown []error
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		k := b.env[name]
		switch {
		case k == nil:
			unknown = append(unknown, b.unknown(name, name, len(unknown), envName))
		case vars[name] != "":
			given = append(given, configGiven{key: k, name: name, source: name, text: vars[name]})
		}
	}
	return errors.Join(b.setAll(OriginEnv, given), joinUnknown(unknown))
}

// isServiceLink is whether a variable is one of those that Kubernetes sets for each service of the namespace: for a
// service NAME with port 80 these are NAME_SERVICE_HOST, NAME_SERVICE_PORT, one more for each port that has a name,
// NAME_PORT with an address, NAME_PORT_80_TCP, and that with _PROTO, _PORT and _ADDR.
func isServiceLink(name, value string) bool {
	if strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") {
		return true
	}
	base := name
	for _, part := range []string{"_PROTO", "_PORT", "_ADDR"} {
		if s, ok := strings.CutSuffix(name, part); ok {
			base = s
			break
		}
	}
	for _, proto := range []string{"TCP", "UDP", "SCTP"} {
		if strings.HasSuffix(name, "_PORT") && strings.HasPrefix(value, strings.ToLower(proto)+"://") {
			return true
		}
		if s, ok := strings.CutSuffix(base, "_"+proto); ok {
			port := s[strings.LastIndexByte(s, '_')+1:]
			if strings.HasSuffix(strings.TrimSuffix(s, port), "_PORT_") && strings.Trim(port, "0123456789") == "" {
				return true
			}
		}
	}
	return false
}

// A configGiven is a setting found in a file or the environment.
type configGiven struct {
	key    *boundKey
	name   string // under which it was found
	source string
	text   string
}

// setAll stores what was given by one source. A setting that was given more than once, under one name or several, must
// have been given the same value each time; parts of one map are put together.
func (b *configBinding) setAll(origin Origin, given []configGiven) error {
	var errs []error
	byKey := make(map[*boundKey][]configGiven)
	for _, g := range given {
		byKey[g.key] = append(byKey[g.key], g)
	}
	for _, k := range b.keys {
		all := mergeGiven(byKey[k])
		var first configGiven
		var text string
		for i, g := range all {
			err := b.set(k, origin, g.source, g.text)
			if err == nil && i == 0 {
				first, text = g, k.scratch.text()
			} else if err == nil && k.scratch.text() != text {
				err = fmt.Errorf("differs from %s at %s, which is the same setting", first.name, first.source)
			}
			if err != nil {
				errs = append(errs, k.error(configRecord{origin: origin, source: g.source}, g.text, err))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// mergeGiven puts together the parts of maps that were given under one name.
func mergeGiven(given []configGiven) []configGiven {
	if len(given) < 2 {
		return given
	}
	switch given[0].key.value.(type) {
	case configMap, configCustom:
	default:
		return given
	}
	var merged []configGiven
	parts := make(map[string][]string) // the members of the objects, by the name
	for _, g := range given {
		text := strings.TrimSpace(g.text)
		if !strings.HasPrefix(text, "{") || !json.Valid([]byte(text)) { // of the form name=value, or wrong
			merged = append(merged, g)
			continue
		}
		if _, ok := parts[g.name]; !ok {
			parts[g.name] = nil
			g.text = ""
			merged = append(merged, g)
		}
		if body := strings.TrimSpace(text[1 : len(text)-1]); body != "" {
			parts[g.name] = append(parts[g.name], body)
		}
	}
	for i, g := range merged {
		if g.text == "" {
			merged[i].text = "{" + strings.Join(parts[g.name], ",") + "}"
		}
	}
	return merged
}

// checkArgs reports the flags below "pitaya." that do not exist, with the nearest that does: package flag would print
// the usage of all of them. Those that exist, but not in that case, are put right.
func (b *configBinding) checkArgs(fs *flag.FlagSet, args []string) ([]string, error) {
	args = slices.Clone(args)
	var unknown []error
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, ok := strings.CutPrefix(arg, "-")
		if !ok {
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		lower := strings.ToLower(name)
		switch {
		case !strings.HasPrefix(lower, configPrefix) || fs.Lookup(name) != nil:
		case b.names[lower] != nil:
			args[i] = "-" + configPrefix + b.names[lower].name
			if hasValue {
				args[i] += "=" + value
			}
		default:
			unknown = append(unknown, b.unknown("-"+clipConfig(name), lower, len(unknown), nil))
		}
	}
	return args, joinUnknown(unknown)
}

// unknown says that a name, found as what says, is not that of a setting. There are n such names before it. If form is
// not nil, the name is in that form of a key.
func (b *configBinding) unknown(what, name string, n int, form func(string) string) error {
	if n >= maxConfigUnknown {
		return nil // is only counted
	}
	nearest, best := "", math.Inf(1)
	for _, k := range b.keys {
		for _, other := range append([]string{k.name}, k.aliases...) {
			other, key := configPrefix+strings.ToLower(other), configPrefix+k.name
			if form != nil {
				other, key = form(other), form(key)
			}
			if len(name) > 2*len(other) {
				continue // also keeps the search short, whatever comes in
			}
			if d := keyDistance(name, other); d < best {
				nearest, best = key, d
			}
		}
	}
	if nearest == "" {
		return fmt.Errorf("pitaya: %s is no setting", what)
	}
	return fmt.Errorf("pitaya: %s is no setting; the nearest is %s", what, nearest)
}

// joinUnknown joins the errors made by unknown.
func joinUnknown(errs []error) error {
	if more := len(errs) - maxConfigUnknown; more > 0 {
		errs = append(errs[:maxConfigUnknown:maxConfigUnknown], fmt.Errorf("pitaya: %d more names are no settings", more))
	}
	return errors.Join(errs...)
}

// keyDistance says how far a name is from a key. It compares them part by part: in a key of several parts one that is
// right is worth more than the same letters somewhere. Two parts are as far from each other as they differ, up to 1, and a
// part that the other does not have counts half.
func keyDistance(a, b string) float64 {
	split := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == '.' || r == '_' })
	}
	const missing = 0.5
	from, to := split(a), split(b)
	// As in editDistance, with parts for bytes.
	last, row := make([]float64, len(to)+1), make([]float64, len(to)+1)
	for j := range row {
		row[j] = missing * float64(j)
	}
	for i, part := range from {
		last, row = row, last
		row[0] = missing * float64(i+1)
		for j, other := range to {
			d := float64(editDistance(part, other)) / float64(max(len(part), len(other)))
			row[j+1] = min(last[j]+d, last[j+1]+missing, row[j]+missing)
		}
	}
	return row[len(to)]
}

// editDistance is how many bytes must be put in, taken out, replaced, or swapped with their neighbour to make b of a.
func editDistance(a, b string) int {
	// Row i has the distances of a[:i] from all beginnings of b; three rows are enough.
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			d := last[j-1]
			if a[i-1] != b[j-1] {
				d++
			}
			d = min(d, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, before[j-2]+1)
			}
			row[j] = d
		}
	}
	return row[len(b)]
}
