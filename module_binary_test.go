package pitaya_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// binaryChildEnv tells the test binary to be a child process of the kind that it names.
const binaryChildEnv = "PITAYA_TEST_BINARY_CHILD"

// TestBinaryChild is not a test: it is what the child processes of the tests below run.
func TestBinaryChild(t *testing.T) {
	mode, arg, _ := strings.Cut(os.Getenv(binaryChildEnv), ":")
	if mode == "" {
		return
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, os.Interrupt, syscall.SIGTERM)
	// A child that its test has forgotten must not stay.
	time.AfterFunc(time.Minute, func() { os.Exit(9) })
	switch mode {
	case "exit":
		status, _ := strconv.Atoi(arg)
		os.Exit(status)
	case "where":
		dir, _ := os.Getwd()
		fmt.Println(dir)
		fmt.Println(strings.Join(os.Args[1:], " "))
		n, err := os.Stdin.Read(make([]byte, 1))
		fmt.Println("stdin", n, err)
	case "polite":
		fmt.Println("ready")
		<-terminated
		fmt.Fprint(os.Stderr, "going")
	case "stubborn":
		fmt.Println("ready")
		<-terminated
		fmt.Println("no")
		select {}
	case "output":
		var line bytes.Buffer
		for i := range 2000 {
			fmt.Println("out", i)
			fmt.Fprintln(os.Stderr, "err", i)
		}
		line.WriteString(strings.Repeat("x", 200<<10))
		line.WriteString("end\nlast\nwithout end")
		io.Copy(os.Stdout, &line)
	case "parent":
		// Leaves its output to a process that lives on.
		heir := childCommand("stubborn")
		heir.Stdout = os.Stdout
		if err := heir.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("heir", heir.Process.Pid)
	}
	os.Exit(0)
}

// childEnv is an environment that makes the test binary a child, which under the race detector does not take the second that
// it otherwise takes to exit.
func childEnv(mode string) []string {
	return append(os.Environ(), binaryChildEnv+"="+mode, "GORACE=atexit_sleep_ms=0")
}

// childArgs make the test binary run nothing but TestBinaryChild.
var childArgs = []string{"-test.run=^TestBinaryChild$"}

func childCommand(mode string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], childArgs...)
	cmd.Env = childEnv(mode)
	return cmd
}

type childRecord struct {
	Level     string `json:"level"`
	Msg       string `json:"msg"`
	Binary    string `json:"binary"`
	PID       int    `json:"pid"`
	Line      string `json:"line"`
	Continued bool   `json:"continued"`
}

// childLog takes what a Binary logs.
type childLog struct {
	t       testing.TB
	mu      sync.Mutex
	records []childRecord
	changed chan struct{} // closed and replaced at each record
}

func newChildLog(t testing.TB) (*childLog, *slog.Logger) {
	l := &childLog{t: t, changed: make(chan struct{})}
	return l, slog.New(slog.NewJSONHandler(l, nil))
}

func (l *childLog) Write(p []byte) (int, error) {
	var r childRecord
	if err := json.Unmarshal(p, &r); err != nil {
		l.t.Errorf("log record %q: %v", p, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
	close(l.changed)
	l.changed = make(chan struct{})
	return len(p), nil
}

// wait returns the first record whose line begins with prefix, and waits for it while the child runs.
func (l *childLog) wait(b *pitaya.Binary, prefix string) childRecord {
	l.t.Helper()
	for ended := false; ; {
		l.mu.Lock()
		changed := l.changed
		i := slices.IndexFunc(l.records, func(r childRecord) bool { return strings.HasPrefix(r.Line, prefix) })
		if i >= 0 {
			defer l.mu.Unlock()
			return l.records[i]
		}
		l.mu.Unlock()
		if ended {
			l.t.Fatalf("the child has ended (%v) and said nothing that begins with %q", b.Err(), prefix)
		}
		select {
		case <-changed:
		case <-b.Done():
			ended = true
		}
	}
}

// lines returns all lines of a level. Call it when the child has ended.
func (l *childLog) lines(level slog.Level) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for _, r := range l.records {
		if r.Level == level.String() {
			lines = append(lines, r.Line)
		}
	}
	return lines
}

// startChild starts the test binary as a Binary, which is ended by the end of the test.
func startChild(t *testing.T, mode string, o pitaya.BinaryOptions) (*pitaya.Binary, *childLog) {
	log, logger := newChildLog(t)
	o.Logger, o.Env = logger, childEnv(mode)
	b := pitaya.NewBinary(os.Args[0], childArgs, &o)
	b.SetOutputDelay(100 * time.Millisecond)
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		b.Shutdown(ctx)
	})
	return b, log
}

func TestBinaryShutdown(t *testing.T) {
	b, log := startChild(t, "polite", pitaya.BinaryOptions{})
	r := log.wait(b, "ready")
	if want := (childRecord{"INFO", "binary output", filepath.Base(os.Args[0]), r.PID, "ready", false}); r != want {
		t.Errorf("got record %+v, want %+v", r, want)
	}
	select {
	case <-b.Done():
		t.Error("done while the child runs")
	default:
	}
	if err := b.Err(); err != nil {
		t.Errorf("while the child runs: %v", err)
	}
	for range 2 {
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	<-b.Done()
	if err := b.Err(); err != nil {
		t.Error(err)
	}
	if got := log.lines(slog.LevelError); !slices.Equal(got, []string{"going"}) {
		t.Errorf("standard error: got %q", got)
	}
	if err := b.Init(t.Context()); err == nil {
		t.Error("a Binary can be started twice")
	}
	wantReaped(t, r.PID)
}

// wantReaped checks that a child is not even a zombie any more.
func wantReaped(t *testing.T, pid int) {
	t.Helper()
	if pid <= 0 {
		t.Fatalf("pid %d", pid)
	}
	if runtime.GOOS == "windows" {
		return // it has no zombies
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	if err := p.Signal(syscall.Signal(0)); err == nil {
		t.Errorf("process %d is still there", pid)
	}
}

func TestBinaryKilled(t *testing.T) {
	t.Run("grace period", func(t *testing.T) {
		b, log := startChild(t, "stubborn", pitaya.BinaryOptions{Grace: 20 * time.Millisecond})
		pid := log.wait(b, "ready").PID
		err := b.Shutdown(t.Context())
		if err == nil || !strings.Contains(err.Error(), "killed: it did not end within the grace period") {
			t.Errorf("got %v", err)
		}
		wantKilled(t, b)
		wantReaped(t, pid)
	})
	t.Run("context", func(t *testing.T) {
		b, log := startChild(t, "stubborn", pitaya.BinaryOptions{Grace: time.Hour})
		pid := log.wait(b, "ready").PID
		cause := errors.New("no time left")
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Shutdown(ctx) }()
		log.wait(b, "no") // it had its SIGTERM
		cancel(cause)
		if err := <-ended; !errors.Is(err, cause) || !strings.Contains(err.Error(), "killed") {
			t.Errorf("got %v", err)
		}
		wantKilled(t, b)
		wantReaped(t, pid)
	})
}

func wantKilled(t *testing.T, b *pitaya.Binary) {
	t.Helper()
	select {
	case <-b.Done():
	default:
		t.Error("Shutdown returns before the child is gone")
	}
	if exit, ok := errors.AsType[*exec.ExitError](b.Err()); !ok || exit.Exited() {
		t.Errorf("got %v, want the error of a killed process", b.Err())
	}
}

func TestBinaryExit(t *testing.T) {
	for _, status := range []int{0, 3} {
		t.Run(fmt.Sprint("status ", status), func(t *testing.T) {
			b, _ := startChild(t, fmt.Sprint("exit:", status), pitaya.BinaryOptions{})
			<-b.Done()
			err := b.Err()
			if status == 0 && err != nil {
				t.Error(err)
			}
			if exit, ok := errors.AsType[*exec.ExitError](err); status != 0 && (!ok || exit.ExitCode() != status) {
				t.Errorf("got %v", err)
			}
			if err := b.Shutdown(t.Context()); err != nil {
				t.Errorf("shutdown after the end of the child: %v", err)
			}
		})
	}
}

func TestBinaryInitFails(t *testing.T) {
	b := pitaya.NewBinary(filepath.Join(t.TempDir(), "none"), nil, nil)
	if err := b.Shutdown(t.Context()); err != nil {
		t.Errorf("shutdown before init: %v", err)
	}
	err := b.Init(t.Context())
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want an error about a missing file", err)
	}
	<-b.Done()
	if b.Err() != err {
		t.Errorf("got %v from Err, want that of Init, %v", b.Err(), err)
	}
	if err := b.Shutdown(t.Context()); err != nil {
		t.Errorf("shutdown after a failed init: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b = pitaya.NewBinary(os.Args[0], childArgs, &pitaya.BinaryOptions{Env: childEnv("exit:0")})
	if err := b.Init(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: got %v", err)
	}
}

func TestBinaryDir(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	log, logger := newChildLog(t)
	b := pitaya.NewBinary(path, childArgs, &pitaya.BinaryOptions{Dir: dir, Env: childEnv("where"), Logger: logger})
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-b.Done()
	if err := b.Err(); err != nil {
		t.Error(err)
	}
	want := []string{dir, childArgs[0], "stdin 0 EOF"}
	if got := log.lines(slog.LevelInfo); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBinaryOutput(t *testing.T) {
	b, log := startChild(t, "output", pitaya.BinaryOptions{})
	<-b.Done()
	if err := b.Err(); err != nil {
		t.Fatal(err)
	}
	out, errs := log.lines(slog.LevelInfo), log.lines(slog.LevelError)
	for i := range 2000 {
		if got, want := out[i], fmt.Sprint("out ", i); got != want {
			t.Fatalf("line %d of standard output: got %q, want %q", i, got, want)
		}
		if got, want := errs[i], fmt.Sprint("err ", i); got != want {
			t.Fatalf("line %d of standard error: got %q, want %q", i, got, want)
		}
	}
	tail := out[2000:]
	var long strings.Builder
	for len(tail) > 2 {
		if len(tail[0]) > 64<<10 {
			t.Errorf("a piece of %d bytes is logged", len(tail[0]))
		}
		long.WriteString(tail[0])
		tail = tail[1:]
	}
	if got := long.String(); got != strings.Repeat("x", 200<<10)+"end" {
		t.Errorf("the long line has %d bytes and ends in %q", len(got), got[max(0, len(got)-10):])
	}
	if want := []string{"last", "without end"}; !slices.Equal(tail, want) {
		t.Errorf("after the long line: got %q, want %q", tail, want)
	}
}

// TestBinaryOutputStaysOpen has a child whose own child keeps the pipes: nobody may read them for ever.
func TestBinaryOutputStaysOpen(t *testing.T) {
	b, log := startChild(t, "parent", pitaya.BinaryOptions{})
	var heir int
	if _, err := fmt.Sscanf(log.wait(b, "heir").Line, "heir %d", &heir); err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(heir)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	<-b.Done()
	if err := b.Err(); err != nil {
		t.Errorf("got %v, want none for a child that exits with 0", err)
	}
	if got := log.records[len(log.records)-1]; got.Level != "WARN" {
		t.Errorf("the last record is %+v, want a warning", got)
	}
}

func TestBinaryLines(t *testing.T) {
	const most = 64 << 10
	full := strings.Repeat("a", most)
	tests := []struct {
		name   string
		writes []string
		want   []string // continued pieces end in +
	}{
		{"nothing", nil, nil},
		{"lines", []string{"a\nb\n"}, []string{"a", "b"}},
		{"empty lines", []string{"\n\n"}, []string{"", ""}},
		{"carriage return", []string{"a\r\nb\r", "\n"}, []string{"a", "b"}},
		{"cut anywhere", []string{"a", "b\nc", "", "d", "\n", "e\n"}, []string{"ab", "cd", "e"}},
		{"without end", []string{"a\nb"}, []string{"a", "b"}},
		{"longest", []string{full + "\nb\n"}, []string{full, "b"}},
		{"longest in two", []string{full, "\nb\n"}, []string{full, "b"}},
		{"longest without end", []string{full}, []string{full}},
		{"one too long", []string{full + "b\nc\n"}, []string{full + "+", "b", "c"}},
		{"one too long in two", []string{full, "b\n"}, []string{full + "+", "b"}},
		{"twice too long", []string{full + full + "\n"}, []string{full + "+", full}},
		{"not text", []string{"\xff\x00\n"}, []string{"\ufffd\x00"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log, logger := newChildLog(t)
			pitaya.LogLines(logger, tt.writes...)
			var got []string
			for _, r := range log.records {
				if r.Continued {
					r.Line += "+"
				}
				got = append(got, r.Line)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %.20q, want %.20q", got, tt.want)
			}
		})
	}
}
