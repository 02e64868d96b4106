package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Options are what the command line says.
type options struct {
	Addr      string
	Sources   []source // -e and -f, in their order
	Set       settings
	PushTypes map[string]string
	Style     style
	Shown     int
	History   string

	Docs       bool // the subcommand docs
	DocsFormat docsFormat
	DocsFile   string // empty: the standard output
}

// A source is where commands come from.
type source struct {
	Name string
	Text string // of -e
	File string // of -f; "-" is the standard input
}

// errHelp is returned by parseOptions once it has printed the help.
var errHelp = flag.ErrHelp

// docsOff is the value of -docs that asks no server for documentation.
const docsOff = "off"

// usageText is the head of the help of the flags.
const usageText = `usage: pitaya-cli [flags] [ADDRESS]
       pitaya-cli docs [flags] ADDRESS

ADDRESS is tcp://, tls://, ws:// or wss://host:port, or host:port, where wss, ws,
tls and tcp are tried. The command help lists what can be typed.

`

// parseOptions reads the command line. Flags may stand behind the address too.
func parseOptions(args []string, getenv func(string) string, output io.Writer) (*options, error) {
	o := &options{PushTypes: make(map[string]string), Shown: 64 << 10}
	o.Set.dial.Header = make(http.Header)
	fs := flag.NewFlagSet("pitaya-cli", flag.ContinueOnError)
	fs.SetOutput(output)
	fs.Usage = func() {
		io.WriteString(output, usageText)
		fs.PrintDefaults()
	}
	o.connectionFlags(fs)
	var html, raw, quiet bool
	if len(args) > 0 && args[0] == "docs" {
		o.Docs, args = true, args[1:]
		fs.BoolVar(&html, "html", false, "write HTML instead of Markdown")
		fs.BoolVar(&raw, "json", false, "write the documentation as the server sent it")
		fs.StringVar(&o.DocsFile, "o", "", "`file` to write to, instead of the standard output")
	} else {
		fs.Func("e", "`commands` to run, then leave; may be given again", func(value string) error {
			o.Sources = append(o.Sources, source{Name: "-e", Text: value})
			return nil
		})
		fs.Func("f", "`file` of commands to run, then leave; - is the standard input", func(value string) error {
			o.Sources = append(o.Sources, source{Name: value, File: value})
			return nil
		})
		fs.BoolVar(&o.Set.keepGoing, "keep-going", false, "go on behind a command that fails; the first failure decides the exit status")
		fs.BoolVar(&raw, "json", false, "write one JSON object on a line for each thing that happens")
		fs.BoolVar(&quiet, "q", false, "write answers and pushes that are waited for, and nothing else but errors")
		fs.IntVar(&o.Shown, "shown", o.Shown, "`bytes` of a payload that are shown at most, but for -json")
		fs.StringVar(&o.History, "history", getenv("PITAYA_CLI_HISTORY"),
			"`file` that keeps the lines typed; auto: in the state folder of the user; empty: none (environment: PITAYA_CLI_HISTORY)")
	}
	var positional []string
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, errHelp
			}
			return nil, &statusError{exitUsage, err}
		}
		if fs.NArg() == 0 {
			break
		}
		positional = append(positional, fs.Arg(0))
		args = fs.Args()[1:]
	}
	switch {
	case len(positional) > 1:
		return nil, wrong(output, "only one address can be given, not %q too", positional[1])
	case len(positional) == 1:
		o.Addr = positional[0]
	case o.Docs:
		return nil, wrong(output, "docs needs an address")
	}
	if o.Set.timeout <= 0 || o.Set.dial.Timeout <= 0 || o.Shown < 1 {
		return nil, wrong(output, "timeouts and -shown are positive")
	}
	if o.Docs {
		if html && raw {
			return nil, wrong(output, "-html or -json")
		}
		o.Style = styleQuiet
		switch {
		case html:
			o.DocsFormat = docsHTML
		case raw:
			o.DocsFormat = docsJSON
		}
		return o, nil
	}
	switch {
	case raw && quiet:
		return nil, wrong(output, "-q or -json")
	case raw:
		o.Style = styleJSON
	case quiet:
		o.Style = styleQuiet
	}
	return o, nil
}

// wrong prints what is wrong with the command line, as package flag does, and returns it.
func wrong(output io.Writer, format string, args ...any) error {
	err := usagef(format, args...)
	fmt.Fprintf(output, "pitaya-cli: %v\n", err)
	return err
}

// connectionFlags are those that all ways of calling have.
func (o *options) connectionFlags(fs *flag.FlagSet) {
	d := &o.Set.dial
	fs.DurationVar(&o.Set.timeout, "timeout", 10*time.Second, "how long requests and waits may take")
	fs.DurationVar(&d.Timeout, "connect-timeout", 5*time.Second, "how long each transport that is tried may take")
	fs.BoolVar(&d.Insecure, "insecure", false, "take any certificate")
	fs.StringVar(&d.CA, "ca", "", "`file` of certificates to trust instead of the system's")
	fs.StringVar(&d.ServerName, "servername", "", "`name` that the certificate must have, instead of the address's")
	fs.StringVar(&d.Path, "path", "", "`path` of WebSocket, where the address has none")
	fs.Func("header", "`'name: value'` to send with the upgrade to WebSocket; may be given again", func(value string) error {
		name, value, ok := strings.Cut(value, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return errors.New("a header is written as 'Name: value'")
		}
		d.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		return nil
	})
	fs.StringVar(&o.Set.docs, "docs", "", "`route` of the server's documentation (default "+defaultDocs+", asked if types are needed); off: none")
	fs.StringVar(&d.Serializer, "serializer", "", "json or protobuf, instead of the `one` that the server names")
	fs.BoolVar(&d.Compress, "compress", false, "compress payloads that shrink by it")
	fs.BoolVar(&d.Resume, "resume", false, "connect again when the connection is lost, and go on with the session if the server still has it")
	fs.Func("handshake", "`JSON` of what the client says about itself, or @FILE, as the command sethandshake takes it", func(value string) (err error) {
		o.Set.handshake, err = parseHandshake(value)
		return err
	})
	fs.Func("push", "`route=message`: pushes with that route are that protobuf message; may be given again", func(value string) error {
		route, name, ok := strings.Cut(value, "=")
		if !ok || route == "" || name == "" {
			return errors.New("it is written as route=message")
		}
		o.PushTypes[route] = strings.TrimPrefix(name, "*")
		return nil
	})
}
