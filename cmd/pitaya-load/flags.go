package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pitaya-go/pitaya/internal/load"
	"github.com/pitaya-go/pitaya/internal/load/script"
)

// The routes of the testing server.
const (
	routeEcho      = "connector.interopsvc.echo"
	routeRaw       = "connector.testsvc.testrequestreceivereturnsraw"
	routeProtobuf  = "connector.testsvc.testrequestreturnsptr"
	routeCount     = "connector.interopsvc.count"
	routeSync      = "connector.interopsvc.getcount"
	routeJoin      = "connector.interopsvc.join"
	routeBroadcast = "connector.interopsvc.broadcast"
	routePush      = "onbroadcast"
)

// options are what the command line says.
type options struct {
	load.Config
	scenario   string
	shape      string
	size       int
	bodyFile   string
	body       string
	handshake  string
	arrival    string
	insecure   bool
	ca         string
	serverName string
	scriptFile string
	jsonFile   string
	svgFile    string
	quiet      bool
	progress   bool
	maxErrors  int64
	given      map[string]bool
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{given: make(map[string]bool)}
	fs := flag.NewFlagSet("pitaya-load", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintln(stderr, "usage: pitaya-load [flags] ADDRESS\n\nADDRESS is tcp://HOST:PORT, tls://, ws:// or wss://; without a scheme it is tcp.\n\nflags:")
		fs.PrintDefaults()
	}
	c := &o.Config
	fs.StringVar(&o.scenario, "scenario", "echo", "what connections do: echo, notify, broadcast, idle, connect or mixed")
	fs.IntVar(&c.Conns, "conns", 1, "`number` of connections; in scenario connect how many connect at the same time")
	fs.IntVar(&c.InFlight, "inflight", 1, "`number` of requests of each connection that wait at the same time")
	fs.Float64Var(&c.Rate, "rate", 0, "open load: operations per `second` in all, sent on a schedule; 0: closed load")
	fs.StringVar(&o.arrival, "arrival", "constant", "open load: `spacing` of the schedule, constant or poisson")
	fs.StringVar(&c.Route, "route", "", "`route` of requests or notifies (default: the testing server's for scenario and shape)")
	fs.StringVar(&c.Sync, "sync-route", routeSync, "scenario notify: `route` of the request behind a batch")
	fs.StringVar(&c.Join, "join-route", routeJoin, "scenario broadcast: `route` of the request that joins; \"\": none")
	fs.StringVar(&c.PushRoute, "push-route", routePush, "scenario broadcast: `route` of the pushes; \"\": any")
	fs.IntVar(&c.AtOnce, "at-once", 1, "scenario broadcast: `number` of broadcasts in each round")
	fs.StringVar(&o.shape, "shape", "json", "`shape` of bodies: json, json-nested, json-list, protobuf or raw")
	fs.IntVar(&o.size, "size", 64, "`bytes` of each body (scenario broadcast: of each push)")
	fs.StringVar(&o.body, "body", "", "`text` of the body, instead of -shape and -size")
	fs.StringVar(&o.bodyFile, "body-file", "", "`file` with the body, instead of -shape and -size")
	fs.BoolVar(&c.Check, "check", false, "scenario echo: an answer that is not the body of its request is an error")
	fs.StringVar(&o.scriptFile, "script", "", "scenario mixed: `file` with the script")
	fs.DurationVar(&c.Warmup, "warmup", 0, "load before what is measured")
	fs.DurationVar(&c.Duration, "duration", 0, "what is measured (default 10s, or until -requests are made)")
	fs.DurationVar(&c.Ramp, "ramp", 0, "`time` over which connections are opened; 0: as fast as possible, and all begin together")
	fs.DurationVar(&c.Interval, "interval", 0, "of progress and of the figures over time (default 1s)")
	fs.Int64Var(&c.Requests, "requests", 0, "`number` of operations at most, warm-up included; 0: no bound")
	fs.DurationVar(&c.Timeout, "timeout", 0, "of requests, connects, writes and rounds (default 10s)")
	fs.IntVar(&c.MaxPending, "max-pending", 0, "open load: `number` of requests of a connection that may wait (default 4096)")
	fs.BoolVar(&c.Reconnect, "reconnect", false, "open connections again that have ended")
	fs.IntVar(&c.Dialers, "dialers", 0, "`number` of connections that are opened at the same time (default 64)")
	fs.IntVar(&c.Sources, "sources", 0, "`number` of addresses 127.0.0.1, 127.0.0.2, ... to connect from (default: as many as needed)")
	fs.BoolVar(&c.Inflate, "inflate", false, "announce that compressed payloads are understood")
	fs.StringVar(&o.handshake, "handshake", "", "`file` with the JSON body of the handshake request")
	fs.BoolVar(&o.insecure, "insecure", false, "TLS: do not verify the server's certificate")
	fs.StringVar(&o.ca, "ca", "", "TLS: `file` with certificates (PEM) that are trusted beside the system's")
	fs.StringVar(&o.serverName, "server-name", "", "TLS: `name` to expect in the certificate (default: the host)")
	fs.Func("header", "`\"Name: value\"` of the WebSocket upgrade; can be repeated", func(v string) error {
		name, value, ok := strings.Cut(v, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return errors.New(`it is "Name: value"`)
		}
		if c.Header == nil {
			c.Header = make(http.Header)
		}
		c.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		return nil
	})
	fs.DurationVar(&c.Correct, "correct", 0, "closed load: also give latencies as if each connection had meant to send at this `interval`")
	fs.Func("pid", "process `id` of the server, for its CPU and memory; can be repeated, or a list with commas", func(v string) error {
		for f := range strings.SplitSeq(v, ",") {
			pid, err := strconv.Atoi(f)
			if err != nil || pid < 1 {
				return errors.New("it is a process id")
			}
			c.PIDs = append(c.PIDs, pid)
		}
		return nil
	})
	fs.BoolVar(&c.Collect, "gc", false, "send SIGUSR1 to the -pid processes before memory is looked at; one that does not handle it ends")
	fs.StringVar(&o.jsonFile, "json", "", "`file` for the report as JSON; -: standard output, in place of the text")
	fs.StringVar(&o.svgFile, "svg", "", "`file` for a plot of latency over time")
	fs.BoolVar(&o.progress, "progress", false, "print progress as plain lines, also where standard error is no terminal")
	fs.BoolVar(&o.quiet, "quiet", false, "print no progress and no text")
	fs.Int64Var(&o.maxErrors, "max-errors", 0, "exit with status 3 if there are more errors; -1: never")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	fs.Visit(func(f *flag.Flag) { o.given[f.Name] = true })
	if fs.NArg() != 1 {
		return nil, errors.New("one address is needed (see -help)")
	}
	c.URL = fs.Arg(0)
	return o, o.complete()
}

// complete works out what the options mean together.
func (o *options) complete() error {
	c := &o.Config
	c.Scenario = load.Scenario(o.scenario)
	if c.Duration == 0 && c.Requests == 0 {
		c.Duration = defaultDuration
	}
	switch o.arrival {
	case "constant":
	case "poisson":
		c.Poisson = true
	default:
		return fmt.Errorf("-arrival %q: constant or poisson", o.arrival)
	}
	for name, scenario := range map[string]load.Scenario{"check": load.Echo, "at-once": load.Broadcast, "script": load.Mixed,
		"sync-route": load.Notify, "join-route": load.Broadcast, "push-route": load.Broadcast} {
		if o.given[name] && scenario != c.Scenario {
			return fmt.Errorf("-%s is for scenario %s", name, scenario)
		}
	}
	if o.given["body"] && o.given["body-file"] {
		return errors.New("either -body or -body-file")
	}
	if err := o.routes(); err != nil {
		return err
	}
	if o.handshake != "" {
		b, err := os.ReadFile(o.handshake)
		if err != nil {
			return err
		}
		if !json.Valid(b) {
			return fmt.Errorf("-handshake %s: not JSON", o.handshake)
		}
		c.Handshake = b
	}
	if o.scriptFile != "" {
		b, err := os.ReadFile(o.scriptFile)
		if err != nil {
			return err
		}
		if c.Script, err = script.Parse(b, os.DirFS(filepath.Dir(o.scriptFile))); err != nil {
			return fmt.Errorf("%s: %w", o.scriptFile, err)
		}
	}
	return o.tls()
}

// routes fills in routes and bodies.
func (o *options) routes() error {
	c := &o.Config
	switch c.Scenario {
	case load.Echo:
		if c.Route == "" {
			c.Route = map[string]string{"raw": routeRaw, "protobuf": routeProtobuf}[o.shape]
		}
		if c.Route == "" {
			c.Route = routeEcho
		}
	case load.Notify:
		if c.Route == "" {
			c.Route = routeCount
			if !o.given["shape"] && !o.given["body"] && !o.given["body-file"] {
				o.body, o.given["body"] = `{"key":"load"}`, true
			}
		}
	case load.Broadcast:
		if c.Route == "" {
			c.Route = routeBroadcast
		}
		if !o.given["body"] && !o.given["body-file"] {
			c.Body = load.BroadcastBody(max(c.AtOnce, 1), o.size)
			return nil
		}
	default:
		return nil
	}
	var err error
	switch {
	case o.bodyFile != "":
		c.Body, err = os.ReadFile(o.bodyFile)
	case o.given["body"]:
		c.Body = []byte(o.body)
	default:
		c.Body, err = load.Body(o.shape, o.size)
	}
	return err
}

func (o *options) tls() error {
	cfg := &tls.Config{InsecureSkipVerify: o.insecure, ServerName: o.serverName}
	if o.ca != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil {
			return err
		}
		if cfg.RootCAs, err = x509.SystemCertPool(); err != nil {
			cfg.RootCAs = x509.NewCertPool()
		}
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("-ca %s: no certificates", o.ca)
		}
	}
	o.Config.TLS = cfg
	return nil
}

// run is the program, up to its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "pitaya-load:", err)
		return 2
	}
	p := newProgress(o, stderr)
	o.Progress = p.show
	rep, err := load.Run(ctx, o.Config)
	p.end()
	if err != nil {
		fmt.Fprintln(stderr, "pitaya-load:", err)
		return 2
	}
	if err := o.write(rep, stdout); err != nil {
		fmt.Fprintln(stderr, "pitaya-load:", err)
		return 1
	}
	if o.maxErrors >= 0 && rep.ErrorSum > o.maxErrors {
		return 3
	}
	return 0
}

// write writes the report in the forms that are wanted.
func (o *options) write(rep *load.Report, stdout io.Writer) error {
	var errs []error
	if o.jsonFile != "-" && !o.quiet {
		errs = append(errs, rep.WriteText(stdout))
	}
	switch o.jsonFile {
	case "":
	case "-":
		errs = append(errs, rep.WriteJSON(stdout))
	default:
		errs = append(errs, writeFile(o.jsonFile, rep.WriteJSON))
	}
	if o.svgFile != "" {
		errs = append(errs, writeFile(o.svgFile, rep.WriteSVG))
	}
	return errors.Join(errs...)
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
