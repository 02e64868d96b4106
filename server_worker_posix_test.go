//go:build unix

package pitaya_test

import (
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// stuckJobs starts a server whose settings of NATS name a file that is a pipe, and returns the end of it that is written:
// somebody is making the store of jobs then, and does not get on until the pipe is closed. What the call that makes it
// returns is sent.
func stuckJobs(t *testing.T) (s *pitayatest.Server, pipe *os.File, done <-chan error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	must(t, syscall.Mkfifo(name, 0o600))
	s = pitayatest.NewCluster(t).NewServer(t, pitaya.Config{
		Type: "room", NATSClient: pitaya.NATSConfig{TLS: pitaya.TLSFiles{CA: name}},
	}, nil)
	ended := make(chan error, 1)
	go func() {
		_, err := s.CountJobs(t.Context())
		ended <- err
	}()
	pipe, err := os.OpenFile(name, os.O_WRONLY, 0) // waits for somebody who reads
	must(t, err)
	t.Cleanup(func() { pipe.Close() })
	return s, pipe, ended
}

// Who waits for the files of the store of jobs holds up nobody else.
func TestJobStoreSlowFiles(t *testing.T) {
	t.Parallel()
	s, pipe, done := stuckJobs(t)
	if err := s.RegisterRPCJob(pitaya.NewRPCJob(s.Server)); err != nil {
		t.Errorf("registering meanwhile: %v", err)
	}
	must(t, pipe.Close())
	if err := <-done; err == nil || !strings.Contains(err.Error(), "no certificate in") {
		t.Errorf("an empty file: got %v", err)
	}
}

// A store of jobs that is made when the server has ended meanwhile is not used.
func TestJobStoreMadeTooLate(t *testing.T) {
	t.Parallel()
	s, pipe, done := stuckJobs(t)
	s.Stop()
	server, _ := testTLS(t)
	must(t, pem.Encode(pipe, &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificates[0].Certificate[0]}), pipe.Close())
	if err := <-done; !errors.Is(err, pitaya.ErrServerClosed) {
		t.Errorf("got %v, want %v", err, pitaya.ErrServerClosed)
	}
}
