// Command devcluster runs a real etcd and a real NATS server, for tests and for developing on one machine. README.md
// has its use.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc/grpclog"
)

// startTimeout bounds the start of a server. It is long, because a folder of data that has been in use takes a while to
// read, and machines that run tests are slow.
const startTimeout = time.Minute

// settings are what the flags say. Zero values leave the servers' own defaults.
type settings struct {
	etcdAddr, natsAddr        string // host:port; "" does not run that server
	data                      string
	user, password            string
	tlsCert, tlsKey, tlsCA    string
	natsConfig                string
	jetStream, stdin, verbose bool
}

// addresses is the line of JSON on standard output.
type addresses struct {
	Etcd string `json:"etcd,omitempty"` // URL for clients
	NATS string `json:"nats,omitempty"` // URL for clients
}

// A component is a server that runs.
type component interface {
	url() string
	// command makes the server end by itself in the way that a line on standard input asks for. It reports false
	// if this is nothing the server knows.
	command(line string) bool
	// done is closed when the server has ended by itself.
	done() <-chan struct{}
	stop()
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "devcluster:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	set, err := parse(args)
	if err != nil {
		return err
	}
	// Before the servers start: a signal during that ends the process as well.
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	var lines <-chan string
	if set.stdin {
		lines = commands(ctx, in, cancel)
	}
	if !set.verbose {
		grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	}
	if set.data == "" {
		dir, err := os.MkdirTemp("", "devcluster-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		set.data = dir
	}

	var addrs addresses
	var parts []component
	ended := make(chan error, 2)
	start := func(name string, addr string, f func(context.Context, settings) (component, error)) (string, error) {
		if addr == "" {
			return "", nil
		}
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		c, err := f(ctx, set)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		parts = append(parts, c)
		go func() {
			<-c.done()
			ended <- fmt.Errorf("%s ended by itself", name)
		}()
		return c.url(), nil
	}
	defer func() {
		for _, c := range parts {
			c.stop()
		}
	}()
	if addrs.Etcd, err = start("etcd", set.etcdAddr, startEtcd); err != nil {
		return ignoreIfDone(ctx, err)
	}
	if addrs.NATS, err = start("nats", set.natsAddr, startNATS); err != nil {
		return ignoreIfDone(ctx, err)
	}
	if err := json.NewEncoder(out).Encode(addrs); err != nil {
		return err
	}
	return wait(ctx, parts, ended, lines)
}

// commands returns the lines of in. At their end it calls end.
func commands(ctx context.Context, in io.Reader, end func()) <-chan string {
	lines := make(chan string)
	go func() {
		defer end()
		for s := bufio.NewScanner(in); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

// wait returns when ctx ends, or one of the parts does, and passes commands on until then.
func wait(ctx context.Context, parts []component, ended <-chan error, lines <-chan string) error {
	leaving := false // a server was told to end by itself
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if leaving {
				return nil
			}
			return err
		case line := <-lines:
			leaving = false
			for _, c := range parts {
				leaving = c.command(line) || leaving
			}
			if !leaving {
				return fmt.Errorf("unknown command %q", line)
			}
		}
	}
}

// ignoreIfDone returns nil instead of an error that comes from being told to end.
func ignoreIfDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func parse(args []string) (settings, error) {
	var s settings
	fs := flag.NewFlagSet("devcluster", flag.ContinueOnError)
	fs.StringVar(&s.etcdAddr, "etcd", "", "run etcd on this `address`; port 0 chooses a free one")
	fs.StringVar(&s.natsAddr, "nats", "", "run NATS on this `address`; port 0 chooses a free one")
	fs.StringVar(&s.data, "data", "", "keep the data in this `folder`; without it a temporary one is used and removed")
	fs.StringVar(&s.user, "user", "", "let in only this `user`, and in etcd also root, with -password")
	fs.StringVar(&s.password, "password", "", "`password` of -user and of etcd's root")
	fs.StringVar(&s.tlsCert, "tls-cert", "", "encrypt, with the certificate in this PEM `file`")
	fs.StringVar(&s.tlsKey, "tls-key", "", "PEM `file` with the key of -tls-cert")
	fs.StringVar(&s.tlsCA, "tls-ca", "", "ask clients for certificates of the authorities in this PEM `file`")
	fs.StringVar(&s.natsConfig, "nats-config", "", "read this `file` of nats-server's own settings first")
	fs.BoolVar(&s.jetStream, "jetstream", false, "run NATS with JetStream")
	fs.BoolVar(&s.stdin, "stdin", false, "end with the standard input, and take commands from it")
	fs.BoolVar(&s.verbose, "v", false, "log to standard error what the servers log")
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), "usage: devcluster [flags]\n\nWithout -etcd and -nats both run, on ",
			defaultEtcd, " and ", defaultNATS, ".\n\n")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	switch {
	case fs.NArg() > 0:
		return s, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case (s.user == "") != (s.password == ""):
		return s, errors.New("-user and -password belong together")
	case (s.tlsCert == "") != (s.tlsKey == ""):
		return s, errors.New("-tls-cert and -tls-key belong together")
	case s.tlsCA != "" && s.tlsCert == "":
		return s, errors.New("-tls-ca needs -tls-cert")
	}
	if s.etcdAddr == "" && s.natsAddr == "" {
		s.etcdAddr, s.natsAddr = defaultEtcd, defaultNATS
	}
	return s, nil
}

// folder returns the place of one server's data.
func (s *settings) folder(name string) string { return filepath.Join(s.data, name) }
