package procstat

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is the child too: it uses memory and time, says so, collects its garbage at SIGUSR1, and ends with its input.
func TestMain(m *testing.M) {
	if os.Getenv("PROCSTAT_CHILD") == "" {
		os.Exit(m.Run())
	}
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	hold := make([]byte, 64<<20)
	for begin := time.Now(); time.Since(begin) < 100*time.Millisecond; {
		for i := range hold {
			hold[i]++
		}
	}
	os.Stdout.WriteString("ready\n")
	<-usr1
	hold = nil
	debug.FreeOSMemory()
	os.Stdout.WriteString("collected\n")
	io.Copy(io.Discard, os.Stdin)
}

func TestReadChild(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PROCSTAT_CHILD=1")
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	lines := bufio.NewReader(stdout)
	expect := func(want string) {
		t.Helper()
		if line, err := lines.ReadString('\n'); err != nil || line != want {
			t.Fatalf("the child says %q, %v", line, err)
		}
	}
	expect("ready\n")
	before, err := Sum([]int{cmd.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	if before.CPU() < 10*time.Millisecond || before.RSS < 64<<20 || before.Anon < 64<<20 || before.Anon > before.RSS {
		t.Errorf("a process that has worked and holds 64 MB: %+v", before)
	}
	twice, err := Sum([]int{cmd.Process.Pid, cmd.Process.Pid})
	if err != nil || twice.RSS < 2*before.Anon || twice.CPU() < 2*before.CPU() {
		t.Errorf("the same twice: %+v, %v", twice, err)
	}
	if err := Collect(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	expect("collected\n")
	after, err := Read(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if after.Anon > before.Anon-(32<<20) {
		t.Errorf("%d bytes before and %d after the collection", before.Anon, after.Anon)
	}
	if after.CPU() < before.CPU() {
		t.Errorf("processor time went from %v to %v", before.CPU(), after.CPU())
	}
}

func TestNoSuchProcess(t *testing.T) {
	t.Parallel()
	if _, err := Read(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := Sum([]int{os.Getpid(), 1 << 30}); err == nil || !strings.Contains(err.Error(), "process 1073741824") {
		t.Errorf("got %v", err)
	}
	if err := Collect(1 << 30); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("got %v", err)
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	const rest = " S 1 1 1 0 -1 4194560 9 0 0 0 250 37 0 0 20 0 9 0 1 2 3"
	for _, name := range []string{"(server)", "(a b) c)", "()"} {
		s, err := parseStat([]byte("12 " + name + rest))
		if err != nil || s.User != 2500*time.Millisecond || s.System != 370*time.Millisecond {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	for _, bad := range []string{"", "12", "12 (x) S 1", "12 (x) S 1 1 1 0 -1 4194560 9 0 0 0 u s 0"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is understood", bad)
		}
	}
}
