package pitaya_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// noclusterSize bounds examples/hello, stripped, with the tag nocluster: what it is, and a little room. The clients of etcd
// and NATS would add 6 MB; a call of Register, or of anything else that finds methods by reflection, 2.6 MB; generated
// protobuf messages 1.5 MB; an http.Server 0.5 MB; html/template 0.25 MB. What only some programs use, such as workers, the
// debug page and the documentation, belongs behind a function or an interface that is set by the call that asks for it.
// To see why something is part of the program, build it with -ldflags=-dumpdep.
const noclusterSize = 7_900_000

// outside are the beginnings of the packages that the tag nocluster leaves out.
var outside = []string{"go.etcd.io/", "github.com/nats-io/", "google.golang.org/grpc", "go.uber.org/", "github.com/coreos/"}

// TestNoClusterPackages: the tag leaves the clients of etcd and NATS out, and they are there without it.
func TestNoClusterPackages(t *testing.T) {
	t.Parallel()
	for _, tags := range []string{"", "nocluster"} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", tags, "./examples/hello").Output()
		if err != nil {
			t.Fatal(err)
		}
		packages := strings.Fields(string(out))
		for _, prefix := range outside {
			found := slices.ContainsFunc(packages, func(p string) bool { return strings.HasPrefix(p, prefix) })
			if found != (tags == "") {
				t.Errorf("with the tags %q: packages of %s are there: %v", tags, prefix, found)
			}
		}
	}
}

// TestNoClusterAPI: code that compiles without the tag compiles with it.
func TestNoClusterAPI(t *testing.T) {
	t.Parallel()
	files, platform := sourceFiles(t), layerPlatform("linux", "amd64", "nocluster")
	var names []string
	for name := range files {
		if ok, err := builds(platform, name, files[name]); err != nil {
			t.Fatal(err)
		} else if ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	src, err := checkFiles("github.com/pitaya-go/pitaya", names, files, exportData(t))
	if src.Pkg == nil {
		t.Fatal(err)
	}
	want, got := apiLines(checkSource(t).Pkg), apiLines(src.Pkg)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("the tag takes away: %s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("only with the tag: %s", line)
		}
	}
}

// buildNoCluster builds a program of this module with the tag, and returns its file.
func buildNoCluster(t *testing.T, dir string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds a program")
	}
	program := filepath.Join(t.TempDir(), "program.exe")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "nocluster", "-ldflags=-s -w", "-o", program, dir)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// TestNoClusterSize: a server that runs alone need not carry what clusters need.
func TestNoClusterSize(t *testing.T) {
	t.Parallel()
	info, err := os.Stat(buildNoCluster(t, "./examples/hello"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", info.Size())
	if info.Size() > noclusterSize {
		t.Errorf("examples/hello with the tag has %d bytes, at most %d are allowed", info.Size(), noclusterSize)
	}
}

// TestNoClusterProgram: what a program with the tag does when it is asked for what it does not have, and that all the rest works.
func TestNoClusterProgram(t *testing.T) {
	t.Parallel()
	program := buildNoCluster(t, "./internal/nocluster")
	for _, tt := range []struct {
		name string
		args []string
		want []string // in what it prints
	}{
		{"cluster", []string{"-pitaya.server.cluster"}, []string{"Config.Discovery", "Config.Transport"}},
		{"etcd", []string{"-pitaya.cluster.sd.etcd.endpoints=localhost:1"}, []string{"pitaya.cluster.sd.etcd.endpoints"}},
		{"groups", []string{"-pitaya.groups.etcd.prefix=x/"}, []string{"pitaya.groups.etcd.prefix"}},
		{"bindings", []string{"-pitaya.modules.bindingstorage.etcd.user=x"}, []string{"pitaya.modules.bindingstorage.etcd.user"}},
		{"NATS", []string{"-pitaya.cluster.rpc.server.nats.connect=nats://localhost:1", "-pitaya.cluster.rpc.client.nats.connect=nats://localhost:1"},
			[]string{"pitaya.cluster.rpc.server.nats.connect", "pitaya.cluster.rpc.client.nats.connect"}},
		{"constructors", []string{"-constructors"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out, err := exec.CommandContext(t.Context(), program, tt.args...).CombinedOutput()
			if err == nil {
				t.Fatalf("no error\n%s", out)
			}
			for _, want := range append(tt.want, "left out: true\n", "tag nocluster") {
				if !strings.Contains(string(out), want) {
					t.Errorf("it does not print %q:\n%s", want, out)
				}
			}
		})
	}
	for _, tt := range []struct {
		name string
		args []string
		want []string
	}{
		{"alone", nil, nil},
		{"timeout", []string{"-pitaya.cluster.rpc.client.nats.requesttimeout=3s"}, nil},
		{"features", []string{"-features"}, []string{
			"request: 42 <nil>", "error: X-1 why map[k:v]", "docs: true <nil>", "descriptors: true <nil> <nil>", "documentation page: true",
			"debug page: true", "metrics: true", "metrics over HTTP: true <nil>", "job: all.calc.credit *wrapperspb.Int64Value",
		}},
		{"in memory", []string{"-mem"}, []string{"doubled: 42 <nil>", "jobs: true"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			serveNoCluster(t, exec.CommandContext(t.Context(), program, tt.args...), tt.want)
		})
	}
}

// serveNoCluster runs the program until it has answered a client, and looks for lines that it prints before it listens.
func serveNoCluster(t *testing.T, cmd *exec.Cmd, want []string) {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	address := ""
	for in := bufio.NewScanner(stdout); address == "" && in.Scan(); {
		lines = append(lines, in.Text())
		address, _ = strings.CutPrefix(in.Text(), "listening: ")
		if address == in.Text() {
			address = ""
		}
	}
	if address != "" {
		greetNoCluster(t, address)
	} else {
		t.Errorf("it does not listen: %q", lines)
	}
	for _, line := range want {
		if !slices.Contains(lines, line) {
			t.Errorf("it does not print %q: %q", line, lines)
		}
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

func greetNoCluster(t *testing.T, address string) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := pitaya.Dial(ctx, "tcp://"+address, nil)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	var reply struct{ Text string }
	if err := c.Request(ctx, "echo.Echo.Say", struct{ Text string }{"hi"}, &reply); err != nil || reply.Text != "hi" {
		t.Errorf("got %q, %v", reply.Text, err)
	}
}
