package main

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/pitaya-go/pitaya/examples/internal/selfsigned"
)

// A Reloader has the certificate of a server from two files, and notices when they change: certificates are renewed every few
// months, and a game server should not have to end for that. Connections that are open go on as they are.
type Reloader struct {
	cert, key string
	now       atomic.Pointer[loaded]
}

// loaded is what the files had when they were read.
type loaded struct {
	pair  *tls.Certificate
	files [2]os.FileInfo
}

// NewReloader reads the files. At the start, what is wrong with them is an error.
func NewReloader(cert, key string) (*Reloader, error) {
	r := &Reloader{cert: cert, key: key}
	l, err := r.load()
	r.now.Store(l)
	return r, err
}

// GetCertificate is for tls.Config. It is called in each handshake, by any number of goroutines, and looks whether the files
// are those that it knows.
func (r *Reloader) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := r.now.Load()
	if files, err := r.stat(); err == nil && same(files, now.files) {
		return now.pair, nil
	}
	next, err := r.load()
	if err != nil {
		// A renewal may be half done: one file is new and the other one is not yet. What was good so far is better than
		// nothing, and the next handshake tries again.
		slog.Warn("certificate not reloaded", "file", r.cert, "err", err)
		return now.pair, nil
	}
	if r.now.CompareAndSwap(now, next) { // else another handshake was faster
		slog.Info("certificate reloaded", "file", r.cert, "until", next.pair.Leaf.NotAfter)
	}
	return next.pair, nil
}

// load reads the files. They are looked at before: what changes meanwhile is found to be different by the next handshake.
func (r *Reloader) load() (*loaded, error) {
	files, err := r.stat()
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(r.cert, r.key) // which also checks that the two belong together
	if err != nil {
		return nil, err
	}
	return &loaded{pair: &pair, files: files}, nil
}

func (r *Reloader) stat() (files [2]os.FileInfo, err error) {
	for i, name := range []string{r.cert, r.key} {
		if files[i], err = os.Stat(name); err != nil {
			return files, err
		}
	}
	return files, nil
}

// same reports whether nobody has written to the files or put others in their place.
func same(a, b [2]os.FileInfo) bool {
	for i := range a {
		if !os.SameFile(a[i], b[i]) || !a[i].ModTime().Equal(b[i].ModTime()) || a[i].Size() != b[i].Size() {
			return false
		}
	}
	return true
}

// renew makes a new certificate for this machine. A file is written beside its place and then moved there, so nobody reads
// half of one.
func renew(cert, key, name string) error {
	certPEM, keyPEM, err := selfsigned.New(name)
	if err != nil {
		return err
	}
	for file, b := range map[string][]byte{key: keyPEM, cert: certPEM} {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(file+".new", b, 0o600); err != nil {
			return err
		}
		if err := os.Rename(file+".new", file); err != nil {
			return err
		}
	}
	return nil
}
