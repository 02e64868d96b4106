package pitaya

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A healthCheck is one thing that a server needs to be ready.
type healthCheck struct {
	Name string
	Err  error // nil: it is all right
}

// MarshalJSON implements [json.Marshaler].
func (c healthCheck) MarshalJSON() ([]byte, error) {
	v := struct {
		Name  string `json:"name"`
		OK    bool   `json:"ok"`
		Error string `json:"error,omitempty"`
	}{Name: c.Name, OK: c.Err == nil}
	if c.Err != nil {
		v.Error = c.Err.Error()
	}
	return json.Marshal(v)
}

var (
	errStarting   = fmt.Errorf("%w: it is starting", ErrServerNotRunning)
	errNoListener = errors.New("pitaya: no listener is served")
)

// readiness returns the checks behind Readyz, in the order in which they are
// shown. It asks nobody and does not wait.
func (s *Server) readiness() []healthCheck {
	s.mu.Lock()
	state, listeners, failed := s.state, len(s.listeners), slices.Clone(s.failed)
	s.mu.Unlock()
	var running, draining error
	switch {
	case state == serverNew || state == serverEnded:
		running = ErrServerNotRunning
	case !s.IsRunning():
		running = errStarting
	}
	if state >= serverClosing {
		draining = ErrServerClosed
	}
	checks := []healthCheck{{"running", running}, {"not draining", draining}}
	if running != nil || draining != nil {
		return checks // the rest follows from that
	}
	if s.cfg.Frontend {
		var err error
		switch {
		case len(failed) > 0:
			err = fmt.Errorf("pitaya: listener failed: %s", strings.Join(failed, ", "))
		case listeners == 0:
			err = errNoListener
		}
		checks = append(checks, healthCheck{"listening", err})
	}
	if c := s.cluster; c != nil {
		checks = append(checks, healthCheck{"discovery", c.node.Discovery.Healthy()},
			healthCheck{"transport", c.node.Transport.Healthy()})
	}
	return checks
}

// listenerFailed notes that a listener of Config.Listeners has ended before the
// server.
func (s *Server) listenerFailed(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, addr)
}

// Readyz returns a handler for readiness probes. It answers 200 while the server
// can be given clients and work, and 503 with the reasons otherwise:
//
//	running        Run has come to serving, and has not returned
//	not draining   nobody has told it to end
//	listening      on a frontend: each of Config.Listeners is being accepted from, and there is a listener at all
//	discovery      in a cluster: etcd is connected, this server is listed and the others are seen
//	transport      in a cluster: NATS is connected, or gRPC calls are taken
//
// The body of a failure, and of any answer to a request with ?verbose, has a line
// for each check; it is JSON if the request's Accept header asks for
// application/json. The checks are in memory: they ask nobody, and take no time
// however often they are made. The handler takes GET and HEAD, may be made and
// used at any time, before Run and after it, and tells nothing about clients.
//
// An outage of etcd or NATS fails it, so that no new clients come to a frontend
// that cannot serve them fully; those that are there stay. It is no reason to end
// the server: for that, see [Server.Livez].
func (s *Server) Readyz() http.Handler {
	return healthHandler("ready", s.readiness)
}

// Livez returns a handler for liveness probes. It answers 200 as long as the
// process can answer at all and its server has not ended: before Run, while it
// starts, runs and drains; and 503 when Run has returned, and no process is of
// use that goes on without it. Its answers look like those of [Server.Readyz].
//
// It looks at nothing beside: not at etcd, NATS, other servers, listeners or
// load. Each of them may be away for a while and come back, and the server heals
// by itself; a process that is ended for it loses its clients, and all of them at
// once when the outage is everybody's.
func (s *Server) Livez() http.Handler {
	return healthHandler("alive", func() []healthCheck {
		var err error
		if s.hasEnded() {
			err = ErrServerClosed
		}
		return []healthCheck{{"not ended", err}}
	})
}

// healthHandler answers with the outcome of checks; what is the word for a good
// one.
func healthHandler(what string, checks func() []healthCheck) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !readOnly(w, r) {
			return
		}
		list := checks()
		status, word := http.StatusOK, what
		if slices.ContainsFunc(list, func(c healthCheck) bool { return c.Err != nil }) {
			status, word = http.StatusServiceUnavailable, "not "+what
		}
		var body bytes.Buffer
		kind := "text/plain; charset=utf-8"
		if wantsJSON(r) {
			kind = "application/json"
			answer := struct {
				Status string        `json:"status"`
				Checks []healthCheck `json:"checks"`
			}{word, list}
			json.NewEncoder(&body).Encode(answer) // texts and booleans: it cannot fail
		} else {
			fmt.Fprintln(&body, word)
			if r.URL.Query().Has("verbose") || status != http.StatusOK {
				for _, c := range list {
					if c.Err == nil {
						fmt.Fprintf(&body, "[+] %s\n", c.Name)
					} else {
						fmt.Fprintf(&body, "[-] %s: %s\n", c.Name, oneLine(c.Err.Error()))
					}
				}
			}
		}
		respond(w, r, status, kind, body.Bytes())
	})
}

// oneLine puts the lines of a text, such as that of joined errors, into one.
func oneLine(s string) string { return strings.Join(strings.FieldsFunc(s, isLineBreak), "; ") }

func isLineBreak(r rune) bool { return r == '\n' || r == '\r' }

// readOnly answers requests that are neither GET nor HEAD, and reports whether
// this one is.
func readOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, "GET or HEAD", http.StatusMethodNotAllowed)
	return false
}

// respond writes an answer that nobody keeps; that to HEAD has no body.
func respond(w http.ResponseWriter, r *http.Request, status int, kind string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(body) // a failure is the asker's
	}
}

// wantsJSON reports whether a request prefers JSON. It need not weigh the
// preferences of browsers and probes, which do not ask for it.
func wantsJSON(r *http.Request) bool {
	for _, header := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(header, ",") {
			kind, _, _ := strings.Cut(part, ";")
			switch strings.ToLower(strings.TrimSpace(kind)) {
			case "application/json", "application/*":
				return true
			case "text/plain", "text/html", "text/*":
				return false
			}
		}
	}
	return false
}
