// Command compare measures servers against yardsticks and prints a table. The script bench/run builds it, and what it
// starts, and starts it.
//
//	compare -programs DIR [flags]
//
// A row is a case, a contender a server. For each row the contenders are measured in turn, several times: the server is
// started on one core, cmd/pitaya-load on another, and what the server's processes have needed for an operation comes from
// its report. The table has medians, and says for each bound whether it is met.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are what the command line says.
type options struct {
	bed
	timing
	runs     int
	rows     *regexp.Regexp
	list     bool
	check    bool
	jsonFile string
	profiles string
	jsonCost int
	command  string
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{rows: regexp.MustCompile("")}
	fs := flag.NewFlagSet("bench/run", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintln(stderr, "usage: bench/run [flags]\n\nflags:")
		fs.PrintDefaults()
	}
	fs.StringVar(&o.programs, "programs", "", "`folder` of the programs; bench/run sets it")
	fs.IntVar(&o.runs, "runs", 5, "`number` of runs of each contender")
	fs.DurationVar(&o.duration, "duration", 3*time.Second, "what is measured in each run")
	fs.DurationVar(&o.warmup, "warmup", 500*time.Millisecond, "load before what is measured")
	fs.IntVar(&o.serverCore, "server-core", 0, "`core` of the server")
	fs.IntVar(&o.loadCore, "load-core", 1, "`core` of the load generator")
	fs.Func("rows", "regular `expression` for the names of the rows to measure (default: all)", func(s string) (err error) {
		o.rows, err = regexp.Compile(s)
		return err
	})
	fs.BoolVar(&o.list, "list", false, "print the names of the rows, and measure nothing")
	fs.BoolVar(&o.check, "check", false, "exit with status 1 if a bound is not met")
	fs.StringVar(&o.jsonFile, "json", "", "`file` for the results as JSON, each run included")
	fs.StringVar(&o.profiles, "profile", "", "`folder` for processor profiles of our server, one for each row, from a run more")
	fs.IntVar(&o.jsonCost, "json-cost", 0, "measure encoding/json with a body of so many `bytes`, and nothing else; compare calls itself so")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	o.command = command(args)
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("there are flags only, and no %q", fs.Arg(0))
	case o.runs < 1:
		return nil, errors.New("-runs is at least 1")
	case o.duration <= 0 || o.warmup < 0:
		return nil, errors.New("-duration must be positive, -warmup not negative")
	case o.programs == "" && !o.list && o.jsonCost == 0:
		return nil, errors.New("-programs is missing: use bench/run")
	}
	return o, nil
}

// run is the program, up to its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err == nil && o.jsonCost > 0:
		err = measureJSON(stdout, o.jsonCost, o.duration)
	case err == nil && o.list:
		for _, r := range rows() {
			if o.rows.MatchString(r.name) {
				fmt.Fprintf(stdout, "%-20s %s\n", r.name, r.title)
			}
		}
	case err == nil:
		var missed []string
		if missed, err = o.compare(ctx, stdout, stderr); err == nil && o.check && len(missed) > 0 {
			fmt.Fprintf(stderr, "bench: %d bounds are not met:\n\t%s\n", len(missed), strings.Join(missed, "\n\t"))
			return 1
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	return 0
}

// compare measures the rows that are wanted and writes what it finds. It returns the bounds that are not met.
func (o *options) compare(ctx context.Context, stdout, stderr io.Writer) (missed []string, err error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("it needs Linux, where /proc tells what a process uses; this is %s", runtime.GOOS)
	}
	if err := o.exists(); err != nil {
		return nil, err
	}
	m := thisMachine()
	if err := o.canPin(ctx); err != nil {
		if o.check {
			return nil, fmt.Errorf("bounds are for a server and a load that have a core each: %w", err)
		}
		fmt.Fprintf(stderr, "bench: %v\nbench: nothing is pinned: figures disturb each other, and bounds say little\n", err)
		m.Pinned = "no, so bounds say little"
	} else {
		o.pinned = true
		m.Pinned = fmt.Sprintf("server on core %d, load on core %d", o.serverCore, o.loadCore)
	}
	list, err := choose(rows(), o.rows)
	if err != nil {
		return nil, err
	}
	res := newResults()
	for i, r := range list {
		fmt.Fprintf(stderr, "%d/%d %s\n", i+1, len(list), r.name)
		o.row(ctx, r, res, stderr)
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
	}
	rep := newReport(m, o.command, o.runs, list, res)
	if err := rep.writeTable(stdout); err != nil {
		return nil, err
	}
	if o.jsonFile != "" {
		if err := rep.writeJSON(o.jsonFile); err != nil {
			return nil, err
		}
	}
	return rep.missed(), o.profileRows(ctx, list, res, stderr)
}

// row measures the contenders of a row in turn. One that fails is noted.
func (o *options) row(ctx context.Context, r row, res *results, stderr io.Writer) {
	runs := o.runs
	if r.runs > 0 {
		runs = min(runs, r.runs)
	}
	for i := range runs {
		for _, c := range r.contenders {
			s, err := o.once(ctx, r, c, res, o.timing)
			if ctx.Err() != nil {
				return
			}
			k := ref{r.name, c.name}
			if err != nil {
				res.note(k, "a run has failed: "+err.Error())
				fmt.Fprintf(stderr, "  %d/%d %-16s %v\n", i+1, runs, c.name, err)
				continue
			}
			res.add(k, s)
			fmt.Fprintf(stderr, "  %d/%d %-16s %s %s\n", i+1, runs, c.name, number(r.figure.of(s)), r.figure.unit)
		}
	}
}

// choose takes the rows whose names match, and those that they need, in their order.
func choose(all []row, names *regexp.Regexp) (list []row, err error) {
	wanted := make(map[string]bool)
	for _, r := range all {
		if names.MatchString(r.name) {
			wanted[r.name] = true
			for _, n := range r.needs {
				wanted[n] = true
			}
		}
	}
	for _, r := range all {
		if wanted[r.name] {
			list = append(list, r)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no row matches %q (-list prints their names)", names)
	}
	return list, nil
}

// profileRows runs our servers once more, with a profile of the processor.
func (o *options) profileRows(ctx context.Context, list []row, res *results, stderr io.Writer) error {
	if o.profiles == "" {
		return nil
	}
	if err := os.MkdirAll(o.profiles, 0o777); err != nil {
		return err
	}
	b := o.bed
	for _, r := range list {
		for _, c := range r.contenders {
			if len(c.checks) == 0 || c.start == nil {
				continue
			}
			base := filepath.Join(o.profiles, r.name+"."+strings.Map(fileName, c.name))
			fmt.Fprintln(stderr, "profile", base)
			b.profile = base + ".cpu"
			if _, err := b.once(ctx, r, c, res, o.timing); err != nil {
				return fmt.Errorf("profile of %s: %w", r.name, err)
			}
			top, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", b.profile).CombinedOutput()
			if err != nil {
				return fmt.Errorf("go tool pprof: %w: %s", err, top)
			}
			if err := os.WriteFile(base+".txt", top, 0o666); err != nil {
				return err
			}
		}
	}
	return nil
}

// fileName is for strings.Map: letters and digits.
func fileName(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
		return r
	case r >= 'A' && r <= 'Z':
		return r - 'A' + 'a'
	case r == ' ':
		return '-'
	}
	return -1
}

// command is how the user has called bench/run, which puts the folder of programs first.
func command(args []string) string {
	if len(args) > 1 && args[0] == "-programs" {
		args = args[2:]
	}
	words := []string{"bench/run"}
	for _, a := range args {
		words = append(words, quoted(a))
	}
	return strings.Join(words, " ")
}

// quoted is a word for a shell.
func quoted(s string) string {
	if strings.ContainsAny(s, " \t'\"|()[]{}*?$&;<>\\^") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}
