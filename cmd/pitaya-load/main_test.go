package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/load"
)

type line struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// newServer starts a server that has what the testing server has for this program, and returns its addresses on TCP and
// WebSocket.
func newServer(t *testing.T, serializer pitaya.Serializer) (tcp, ws string) {
	t.Helper()
	l1, err1 := pitaya.ListenTCP("127.0.0.1:0", nil)
	l2, err2 := pitaya.ListenWS("127.0.0.1:0", nil)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	s, err := pitaya.NewServer(pitaya.Config{Type: "connector", Frontend: true, Listeners: []net.Listener{l1, l2}, Serializer: serializer,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	group := s.Group("all")
	raw := func(_ context.Context, in []byte) ([]byte, error) { return in, nil }
	err = errors.Join(
		group.Create(t.Context(), 0),
		pitaya.HandleRaw(s, "testsvc.testrequestreceivereturnsraw", raw),
		pitaya.HandleRaw(s, "interopsvc.getcount", raw),
		pitaya.HandleNotify(s, "interopsvc.count", func(_ context.Context, in *struct{ Key string }) {
			if in.Key != "load" {
				t.Errorf("count of %q", in.Key)
			}
		}),
		pitaya.HandleRaw(s, "interopsvc.join", func(ctx context.Context, in []byte) ([]byte, error) {
			session := pitaya.SessionFromContext(ctx)
			uid := fmt.Sprint("user", session.ID())
			return in, errors.Join(session.Bind(ctx, uid), group.Add(ctx, uid))
		}),
		pitaya.HandleRaw(s, "interopsvc.broadcast", func(ctx context.Context, in []byte) ([]byte, error) {
			var b struct{ Count, Size int }
			if err := json.Unmarshal(in, &b); err != nil {
				return nil, err
			}
			for range b.Count {
				group.Broadcast(ctx, "", "onbroadcast", make([]byte, b.Size)) // members of runs before have left
			}
			return []byte("ok"), nil
		}),
	)
	if serializer == nil {
		err = errors.Join(err, pitaya.Handle(s, "interopsvc.echo", func(_ context.Context, in *line) (*line, error) { return in, nil }))
	} else {
		err = errors.Join(err, pitaya.Handle(s, "testsvc.testrequestreturnsptr",
			func(_ context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) { return in, nil }))
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	<-s.Ready()
	t.Cleanup(func() {
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	return "tcp://" + l1.Addr().String(), "ws://" + l2.Addr().String()
}

// call runs the program.
func call(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, &out, &errs)
	return status, out.String(), errs.String()
}

// Each scenario works with the defaults.
func TestDefaults(t *testing.T) {
	t.Parallel()
	tcp, ws := newServer(t, nil)
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte("play\n  request connector.interopsvc.echo {\"name\":\"{{conn}}\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{tcp, ws, strings.TrimPrefix(tcp, "tcp://")} {
		for _, args := range []string{"-requests 50 -check", "-requests 50 -shape raw -size 1024 -inflight 8 -check", "-scenario notify -requests 50 -inflight 4",
			"-scenario broadcast -requests 3 -at-once 4", "-scenario connect -requests 20", "-scenario idle -duration 10ms", "-scenario mixed -requests 50 -script " + file,
			"-rate 2000 -arrival poisson -requests 50"} {
			status, stdout, stderr := call(t, append(strings.Fields("-conns 3 -json - "+args), addr)...)
			var rep load.Report
			if err := json.Unmarshal([]byte(stdout), &rep); err != nil {
				t.Fatalf("%s: %v: %s", args, err, stdout)
			}
			if status != 0 || stderr != "" || rep.ErrorSum != 0 || rep.Format != 1 {
				t.Errorf("%s: status %d, %q, errors %v", args, status, stderr, rep.Errors)
			}
			if rep.Measured.Count == 0 && rep.Scenario != "idle" {
				t.Errorf("%s: nothing was measured", args)
			}
		}
	}
}

func TestProtobuf(t *testing.T) {
	t.Parallel()
	tcp, _ := newServer(t, pitaya.Protobuf{})
	status, stdout, _ := call(t, "-shape", "protobuf", "-requests", "20", "-check", tcp)
	if status != 0 || !strings.Contains(stdout, "20 requests") || !strings.Contains(stdout, routeProtobuf) {
		t.Errorf("status %d: %s", status, stdout)
	}
}

// The forms of a report, and what else is printed.
func TestOutput(t *testing.T) {
	t.Parallel()
	tcp, _ := newServer(t, nil)
	dir := t.TempDir()
	jsonFile, svgFile, body := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.svg"), filepath.Join(dir, "body")
	if err := os.WriteFile(body, []byte(`{"name":"from a file"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := call(t, "-duration", "300ms", "-interval", "50ms", "-progress", "-json", jsonFile, "-svg", svgFile, "-body-file", body,
		"-pid", fmt.Sprint(os.Getpid()), tcp)
	if status != 0 || !strings.Contains(stdout, "body of 22 bytes") || !strings.Contains(stdout, "latency up to") {
		t.Errorf("status %d: %s", status, stdout)
	}
	if runtime.GOOS == "linux" != strings.Contains(stdout, "server CPU") {
		t.Errorf("the server's processor time: %s", stdout)
	}
	if lines := strings.Split(stderr, "\n"); len(lines) < 2 || !strings.Contains(stderr, "measure") || strings.Contains(stderr, "\r") {
		t.Errorf("progress %q", stderr)
	}
	b, err := os.ReadFile(jsonFile)
	if err != nil || !json.Valid(b) {
		t.Errorf("the JSON: %v", err)
	}
	if b, err = os.ReadFile(svgFile); err != nil || !bytes.HasPrefix(b, []byte("<svg")) {
		t.Errorf("the plot: %v", err)
	}
	if status, stdout, stderr = call(t, "-requests", "1", "-quiet", tcp); status != 0 || stdout+stderr != "" {
		t.Errorf("-quiet: status %d, %q", status, stdout+stderr)
	}
	if status, _, stderr = call(t, "-requests", "1", "-quiet", "-svg", filepath.Join(dir, "no", "r.svg"), tcp); status != 1 || stderr == "" {
		t.Errorf("a file that cannot be written: status %d, %q", status, stderr)
	}
}

func TestMaxErrors(t *testing.T) {
	t.Parallel()
	tcp, _ := newServer(t, nil)
	for limit, want := range map[string]int{"0": 3, "4": 3, "5": 0, "-1": 0} {
		status, stdout, _ := call(t, "-requests", "5", "-route", "connector.no.such", "-max-errors", limit, tcp)
		if status != want || !strings.Contains(stdout, "answer PIT-404") {
			t.Errorf("-max-errors %s: status %d, want %d: %s", limit, status, want, stdout)
		}
	}
}

// Ctrl-C ends a run with its report.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	tcp, _ := newServer(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var stdout bytes.Buffer
	progress := &signalWriter{first: cancel}
	if status := run(ctx, []string{"-duration", "1h", "-interval", "20ms", "-progress", tcp}, &stdout, progress); status != 0 {
		t.Errorf("status %d", status)
	}
	if !strings.Contains(stdout.String(), "interrupted") {
		t.Errorf("the report: %s", stdout.String())
	}
}

// A signalWriter calls a function at the first write of what is measured.
type signalWriter struct{ first func() }

func (w *signalWriter) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("measure")) {
		w.first()
	}
	return len(p), nil
}

func TestTerminalProgress(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	p := &progress{w: &b, on: true, terminal: true}
	p.show(load.Point{T: 1}, load.Progress{Phase: "connect", Open: 12345})
	p.show(load.Point{T: 2}, load.Progress{Phase: "connect"})
	p.end()
	for i, part := range strings.Split(b.String(), "\r")[1:] {
		if strings.Contains(part, "\n") || i == 1 && len(part) < len("connect     1.0s  12345 open  0 errors") {
			t.Errorf("part %d: %q", i, part)
		}
	}
	if !strings.HasSuffix(b.String(), "\r") {
		t.Errorf("the line is not cleared: %q", b.String())
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("{ jump"), 0o644); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"":                            "one address is needed",
		"a:1 b:1":                     "one address is needed",
		"-nonsense a:1":               "not defined",
		"-conns x a:1":                "invalid value",
		"-scenario x a:1":             "no scenario",
		"-arrival x a:1":              "constant or poisson",
		"-shape x a:1":                "no shape",
		"-size 3 a:1":                 "longer than 3 bytes",
		"-check -scenario idle a:1":   "-check is for scenario echo",
		"-at-once 2 a:1":              "-at-once is for scenario broadcast",
		"-body x -body-file y a:1":    "either",
		"-body-file " + bad + "x a:1": "no such file",
		"-handshake " + bad + " a:1":  "not JSON",
		"-scenario mixed a:1":         "needs a script",
		"-scenario mixed -script " + bad + " a:1": "line 1",
		"-ca " + bad + " a:1":                     "no certificates",
		"-pid 0 a:1":                              "process id",
		"-pid 1,x a:1":                            "process id",
		"-header x a:1":                           "Name: value",
		"http://a:1":                              "tcp://",
	} {
		status, stdout, stderr := call(t, strings.Fields(args)...)
		if runtime.GOOS == "windows" && want == "no such file" {
			want = "cannot find"
		}
		if status != 2 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: status %d, %q, %q; want %q", args, status, stdout, stderr, want)
		}
	}
	if status, _, stderr := call(t, "-help"); status != 0 || !strings.Contains(stderr, "-inflight") {
		t.Errorf("-help: status %d, %q", status, stderr)
	}
}

// The documentation names every field of the JSON form.
func TestDocumentedFields(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, format, _ := strings.Cut(string(doc), "the report for programs")
	var check func(v any)
	check = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, field := range v {
				if !regexp.MustCompile(`\b` + name + `\b`).MatchString(format) {
					t.Errorf("the field %s is not documented", name)
				}
				check(field)
			}
		case []any:
			for _, e := range v {
				check(e)
			}
		}
	}
	for _, name := range []string{"full", "broadcast", "closed"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "internal", "load", "testdata", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		check(v)
	}
}

// The flags and the package's documentation know of each other.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, _, usage := call(t, "-help")
	for word := range strings.FieldsSeq(string(doc)) {
		word = strings.Trim(word, "(),.;:")
		if len(word) > 2 && word[0] == '-' && word[1] >= 'a' && !strings.Contains(usage, "\n  "+word) && word != "-standalone" && word != "-serializer" &&
			word != "-port" && word != "-wsport" {
			t.Errorf("the documentation names %s, which is no flag", word)
		}
	}
}
