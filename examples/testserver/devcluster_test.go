package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// devcluster is a real etcd and a real NATS, in a process of their own.
type devcluster struct {
	Etcd string // URL
	NATS string // URL
	stop func() // ends them, and returns when they have
}

// startDevcluster starts them on free ports, without any data. They end with
// the test, and with the test binary, however that ends: their standard input
// is a pipe from it.
func startDevcluster(t *testing.T) *devcluster {
	t.Helper()
	if testing.Short() {
		t.Skip("no real etcd and NATS with -short")
	}
	binary, err := buildDevcluster()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-etcd", "127.0.0.1:0", "-nats", "127.0.0.1:0", "-data", t.TempDir(), "-stdin")
	cmd.Stderr = t.Output()
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
	d := new(devcluster)
	d.stop = sync.OnceFunc(func() {
		stdin.Close()
		io.Copy(io.Discard, stdout)
		cmd.Wait()
	})
	t.Cleanup(d.stop)
	line, err := bufio.NewReader(stdout).ReadBytes('\n') // devcluster gives up by itself
	if err != nil {
		t.Fatalf("devcluster: %v", err)
	}
	if err := json.Unmarshal(line, d); err != nil {
		t.Fatal(err)
	}
	return d
}

// buildDevcluster builds the program, as a tool that the go command keeps in
// its cache.
var buildDevcluster = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "tool", "-n", "devcluster")
	cmd.Dir = "../../internal/devcluster"
	cmd.Env = append(cmd.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", errors.Join(err, errors.New(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
})
