package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// A setting is what the command set shows and changes.
type setting struct {
	name  string
	usage string
	get   func(s *shell) string
	set   func(s *shell, value string) error
}

func settingsTable() []setting {
	text := func(name, usage string, at func(s *shell) *string) setting {
		return setting{name, usage,
			func(s *shell) string { return *at(s) },
			func(s *shell, value string) error { *at(s) = value; return nil },
		}
	}
	onOff := func(name, usage string, at func(s *shell) *bool) setting {
		return setting{name, usage,
			func(s *shell) string { return map[bool]string{true: "on", false: "off"}[*at(s)] },
			func(s *shell, value string) error {
				switch value {
				case "on", "true", "1":
					*at(s) = true
				case "off", "false", "0":
					*at(s) = false
				default:
					return usagef("%s is on or off", name)
				}
				return nil
			},
		}
	}
	return []setting{
		{"timeout", "how long requests and waits may take",
			func(s *shell) string { return s.set.timeout.String() },
			func(s *shell, value string) (err error) {
				d, err := parseTimeout(value)
				if err == nil {
					s.set.timeout = d
				}
				return err
			},
		},
		{"output", "text, quiet (answers only) or json (a line for each event)",
			func(s *shell) string { return styleNames[s.out.Style()] },
			func(s *shell, value string) error {
				for style, name := range styleNames {
					if name == value {
						s.out.SetStyle(style)
						return nil
					}
				}
				return usagef("output is text, quiet or json")
			},
		},
		{"shown", "bytes of a payload that are shown at most, but for json",
			func(s *shell) string { return strconv.Itoa(s.out.Shown()) },
			func(s *shell, value string) error {
				n, err := strconv.Atoi(value)
				if err != nil || n < 1 {
					return usagef("shown is a number of bytes")
				}
				s.out.SetShown(n)
				return nil
			},
		},
		onOff("keep-going", "a command that fails does not end a script", func(s *shell) *bool { return &s.set.keepGoing }),
		text("docs", "route of the server's documentation; off: it is not asked for it", func(s *shell) *string { return &s.set.docs }),
		{"connect-timeout", "how long each transport that is tried may take",
			func(s *shell) string { return s.set.dial.Timeout.String() },
			func(s *shell, value string) (err error) {
				d, err := parseTimeout(value)
				if err == nil {
					s.set.dial.Timeout = d
				}
				return err
			},
		},
		onOff("insecure", "any certificate is taken", func(s *shell) *bool { return &s.set.dial.Insecure }),
		text("ca", "file of certificates to trust, instead of the system's", func(s *shell) *string { return &s.set.dial.CA }),
		text("servername", "that the certificate must have, instead of the address's", func(s *shell) *string { return &s.set.dial.ServerName }),
		text("path", "of WebSocket, where the address has none", func(s *shell) *string { return &s.set.dial.Path }),
		text("serializer", "json or protobuf, instead of the one that the server names", func(s *shell) *string { return &s.set.dial.Serializer }),
		onOff("compress", "payloads that shrink by it are compressed", func(s *shell) *bool { return &s.set.dial.Compress }),
		onOff("resume", "a connection that is lost is made again, and the session goes on", func(s *shell) *bool { return &s.set.dial.Resume }),
	}
}

var styleNames = map[style]string{styleText: "text", styleQuiet: "quiet", styleJSON: "json"}

func settingsHelp() string {
	var b strings.Builder
	b.WriteString("Those of the connection hold from the next connect on. A value of - is the empty one.\n")
	for _, v := range settingsTable() {
		fmt.Fprintf(&b, "\n  %-16s %s", v.name, v.usage)
	}
	return b.String()
}

func (s *shell) cmdSet(_ context.Context, args string) error {
	name, value := cutWord(args)
	var b strings.Builder
	for _, v := range settingsTable() {
		switch {
		case name == "" || name == v.name && value == "":
			fmt.Fprintf(&b, "%-16s %s\n", v.name, escape(v.get(s), false))
		case name == v.name:
			if value == "-" {
				value = ""
			}
			return v.set(s, value)
		}
	}
	if b.Len() == 0 {
		return usagef("there is no setting %q", name)
	}
	text := b.String()
	s.out.Result(text, event{Event: "settings", Text: &text})
	return nil
}

func (s *shell) cmdHelp(_ context.Context, args string) error {
	var b strings.Builder
	if args != "" {
		v, ok := commandNamed(args)
		if !ok {
			return usagef("there is no command %q", args)
		}
		fmt.Fprintf(&b, "%s\n\n%s", strings.TrimSpace(v.name+" "+v.args), capital(v.short)+".")
		if len(v.aliases) > 0 {
			fmt.Fprintf(&b, " Also: %s.", strings.Join(v.aliases, ", "))
		}
		if v.long != "" {
			fmt.Fprintf(&b, "\n%s", v.long)
		}
	} else {
		for _, v := range verbs() {
			fmt.Fprintf(&b, "%-14s%s\n", v.name, v.short)
		}
		b.WriteString("\nhelp COMMAND tells more. ! before a command: it must fail. Several commands stand behind semicolons.")
	}
	text := b.String()
	s.out.Result(text, event{Event: "help", Text: &text})
	return nil
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (s *shell) cmdHistory(_ context.Context, args string) error {
	if s.history == nil {
		return usagef("there is a history at a terminal only")
	}
	var b strings.Builder
	for i, line := range s.history() {
		if strings.Contains(line, args) {
			fmt.Fprintf(&b, "%5d  %s\n", i+1, line)
		}
	}
	text := b.String()
	s.out.Result(escape(text, true), event{Event: "history", Text: &text})
	return nil
}
