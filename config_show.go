package pitaya

import (
	"fmt"
	"log/slog"
	"strings"
)

// An Origin says where a setting is from. Origins are in order: what has a later one replaces what has an earlier one.
type Origin int

const (
	OriginDefault Origin = iota // nobody set it
	OriginCode                  // a field of Config
	OriginFile                  // [ReadConfig]
	OriginEnv                   // [ReadEnv]
	OriginFlag                  // the flags, on the command line or by Set
)

// configOrigins holds, for each setting by its name, where it is from.
type configOrigins map[string]configRecord

type configRecord struct {
	origin Origin
	source string // "server.json:7", "PITAYA_HEARTBEAT_INTERVAL" or "-pitaya.heartbeat.interval"
	text   string // what it was then: a setting that has changed since was changed in code
}

// record notes the present values as defaults or as set in code.
func (c *Config) record() {
	c.origins = make(configOrigins)
	for k := range c.keys() {
		r := configRecord{text: k.value.text()}
		if !k.value.isZero() {
			r.origin = OriginCode
		}
		c.origins[k.name] = r
	}
}

// from says where k, a row of c's table, is from.
func (c *Config) from(k configKey) configRecord {
	r, ok := c.origins[k.name]
	switch {
	case !ok && k.value.isZero():
		return configRecord{}
	case !ok || r.text != k.value.text():
		return configRecord{origin: OriginCode}
	}
	return r
}

// A Setting is one setting of a [Config] in readable form.
type Setting struct {
	Key     string   // the full name, such as pitaya.heartbeat.interval
	Aliases []string // other names that are accepted
	Type    string   // what values look like, such as "duration"
	Help    string   // one line
	Default string   // the value where nothing is set
	Value   string   // the value in force; "***" stands for secrets
	Origin  Origin   // where the value is from
	Source  string   // which line, variable or flag it is from; empty for defaults and code
	Unused  bool     // the setting is accepted, and nothing in this version reads it
}

// String returns the setting as a line of the form "key = value (origin)".
func (s Setting) String() string {
	origin := s.Origin.String()
	if s.Source != "" {
		origin += " " + s.Source
	}
	return fmt.Sprintf("%s = %s (%s)", s.Key, s.Value, origin)
}

// Settings returns all settings with the values in force, in the order of the reference page. Passwords and tokens are
// hidden, also those in addresses.
func (c *Config) Settings() []Setting {
	var defaults []string
	for k := range new(Config).keys() {
		defaults = append(defaults, k.value.text())
	}
	settings := make([]Setting, 0, len(defaults))
	for k := range c.keys() {
		s := Setting{
			Key:     configPrefix + k.name,
			Type:    k.value.kind(),
			Help:    k.help,
			Default: defaults[len(settings)],
			Value:   k.show(k.value.text()),
			Unused:  k.unused,
		}
		for _, a := range k.aliases {
			s.Aliases = append(s.Aliases, configPrefix+a)
		}
		r := c.from(k)
		s.Origin, s.Source = r.origin, r.source
		settings = append(settings, s)
	}
	return settings
}

// String returns a line for each setting, in the form of [Setting.String].
func (c Config) String() string {
	var b strings.Builder
	for _, s := range c.Settings() {
		fmt.Fprintln(&b, s)
	}
	return b.String()
}

// LogValue implements [slog.LogValuer] with the settings that somebody has set.
func (c Config) LogValue() slog.Value {
	var attrs []slog.Attr
	for _, s := range c.Settings() {
		if s.Origin != OriginDefault {
			attrs = append(attrs, slog.String(s.Key, s.Value))
		}
	}
	return slog.GroupValue(attrs...)
}

// show returns text as others may see it.
func (k *configKey) show(text string) string {
	if k.secret && text != "" {
		return "***"
	}
	if !k.address || !strings.Contains(text, "@") {
		return text
	}
	// Whatever stands before the last "@" of an address is a user, a password or a token, be the address well formed or
	// not. A comma that no scheme follows may be part of a password.
	var parts []string
	for s := range strings.SplitSeq(text, ",") {
		if len(parts) > 0 && !strings.Contains(s, "://") {
			parts[len(parts)-1] += "," + s
		} else {
			parts = append(parts, s)
		}
	}
	for i, s := range parts {
		if at := strings.LastIndexByte(s, '@'); at >= 0 {
			scheme := 0
			if j := strings.Index(s[:at], "://"); j >= 0 {
				scheme = j + len("://")
			}
			parts[i] = s[:scheme] + "***" + s[at:]
		}
	}
	return strings.Join(parts, ",")
}
