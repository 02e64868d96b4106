package pitaya_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// scraped does what a registry does, with less of a text.
func scraped(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	switch {
	case r.Method == http.MethodPost:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "metrics can only be read", http.StatusMethodNotAllowed)
	case r.Header.Get("Accept-Encoding") != "": // the length is not told
		h.Set("Content-Encoding", "gzip")
		io.WriteString(w, "a")
		io.WriteString(w, "b")
	default:
		h.Set("Content-Type", "text/plain")
		h.Set("Vary", "Accept, Accept-Encoding")
		h.Set("Content-Length", "4")
		if r.Method != http.MethodHead {
			io.WriteString(w, "x 1\n")
		}
	}
}

// serveMetrics serves h on a listener in memory until the test ends.
func serveMetrics(t *testing.T, h http.Handler, log *slog.Logger) *pitaya.MemListener {
	l := pitaya.ListenMem()
	end := pitaya.ServeMetrics(l, h, log)
	t.Cleanup(func() {
		if err := end(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// exchange writes to a connection and reads answers to requests of that method until it is closed.
func exchange(t *testing.T, l *pitaya.MemListener, method, text string) (answers []*http.Response, bodies []string) {
	t.Helper()
	c, err := l.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	for {
		if _, err := br.Peek(1); err != nil {
			return answers, bodies
		}
		a, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		body, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		answers, bodies = append(answers, a), append(bodies, string(body))
	}
}

// TestMetricsListenerAnswers compares with an http.Server.
func TestMetricsListenerAnswers(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET /metrics HTTP/1.0\r\n\r\n",
		"GET http://a/metrics?x=y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"HEAD /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n",
		"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
		"GET /elsewhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"POST /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET /metrics HTTP/1.1\r\n\r\n",
		"GET /metrics HTTP/2.0\r\nHost: a\r\n\r\n",
		"GET /metrics\r\n\r\n",
		"\x16\x03\x01\r\n\r\n",
		"GET /metrics HTTP/1.1\r\nno field\r\n\r\n",
	} {
		method, _, _ := strings.Cut(text, " ")
		l := serveMetrics(t, http.HandlerFunc(scraped), slog.New(slog.DiscardHandler))
		got, bodies := exchange(t, l, method, text)

		ref := pitaya.ListenMem()
		mux := http.NewServeMux()
		mux.Handle("/metrics", http.HandlerFunc(scraped))
		server := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		done := make(chan error)
		go func() { done <- server.Serve(ref) }()
		want, wantBodies := exchange(t, ref, method, text)
		server.Close()
		<-done

		if len(got) != len(want) {
			t.Errorf("%q: %d answers, want %d", text, len(got), len(want))
			continue
		}
		for i, w := range want {
			g := got[i]
			if g.StatusCode != w.StatusCode || g.StatusCode < 400 && bodies[i] != wantBodies[i] || g.Close != w.Close {
				t.Errorf("%q: got %s %q, close %v, want %s %q, close %v", text, g.Status, bodies[i], g.Close, w.Status, wantBodies[i], w.Close)
			}
			for _, name := range []string{"Content-Type", "Content-Encoding", "Vary", "Allow"} {
				if g, w := g.Header.Values(name), w.Header.Values(name); !slices.Equal(g, w) && i < len(wantBodies) && want[i].StatusCode != http.StatusBadRequest && want[i].StatusCode != http.StatusHTTPVersionNotSupported {
					t.Errorf("%q: %s is %q, want %q", text, name, g, w)
				}
			}
			if _, err := http.ParseTime(g.Header.Get("Date")); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
}

// TestMetricsListenerBounds: what is too large is refused, and not read.
func TestMetricsListenerBounds(t *testing.T) {
	t.Parallel()
	head := "GET /metrics HTTP/1.1\r\nHost: a\r\n"
	for _, tt := range []struct {
		name, text string
		status     int
	}{
		{"header", head + "X: " + strings.Repeat("x", pitaya.MetricsMaxHeader) + "\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge},
		{"request line", "GET /" + strings.Repeat("x", pitaya.MetricsMaxHeader) + " HTTP/1.1\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge},
		{"body", head + fmt.Sprintf("Content-Length: %d\r\n\r\n", 4*pitaya.MetricsMaxBody) + strings.Repeat("x", 4*pitaya.MetricsMaxBody), http.StatusOK},
		{"body to be asked for", head + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", http.StatusOK},
	} {
		l := serveMetrics(t, http.HandlerFunc(scraped), slog.New(slog.DiscardHandler))
		c, err := l.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var writing sync.WaitGroup
		writing.Go(func() { io.WriteString(c, tt.text) }) // an error is what it has not read
		br := bufio.NewReader(c)
		a, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if io.Copy(io.Discard, a.Body); a.StatusCode != tt.status || !a.Close {
			t.Errorf("%s: got %s, close %v, want %d and the end", tt.name, a.Status, a.Close, tt.status)
		}
		if _, err := br.ReadByte(); err == nil {
			t.Errorf("%s: there is more", tt.name)
		}
		c.Close()
		writing.Wait()
	}
}

// TestMetricsListenerTimes: connections that are slow, or of no use, end.
func TestMetricsListenerTimes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		answers    int
		want       time.Duration
	}{
		{"nothing", "", 0, 10 * time.Second},
		{"half a request", "GET /met", 1, 10 * time.Second},
		{"half a body", "GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na", 1, 10 * time.Second},
		{"no more requests", "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 1, 5 * time.Minute},
		{"half of the second", "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\nGET ", 2, 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := pitaya.ListenMem()
				end := pitaya.ServeMetrics(l, http.HandlerFunc(scraped), slog.New(slog.DiscardHandler))
				start := time.Now()
				answers, _ := exchange(t, l, http.MethodGet, tt.text)
				if took := time.Since(start); len(answers) != tt.answers || took != tt.want {
					t.Errorf("%d answers in %v, want %d in %v", len(answers), took, tt.answers, tt.want)
				}
				if err := end(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestMetricsListenerEnd: who is being answered is waited for, for a time, and nobody else.
func TestMetricsListenerEnd(t *testing.T) {
	t.Parallel()
	for _, patient := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			at, release := make(chan bool, 1), make(chan bool)
			l := pitaya.ListenMem()
			end := pitaya.ServeMetrics(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				at <- true
				<-release
				io.WriteString(w, "late")
			}), slog.New(slog.DiscardHandler))
			idle, err := l.DialContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer idle.Close()
			var asking sync.WaitGroup
			asking.Go(func() {
				answers, bodies := exchange(t, l, http.MethodGet, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
				if patient && (len(answers) != 1 || bodies[0] != "late" || !answers[0].Close) || !patient && len(answers) > 0 {
					t.Errorf("patient: %v, got %q", patient, bodies)
				}
			})
			<-at
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			ended := make(chan error)
			go func() { ended <- end(ctx) }()
			synctest.Wait()
			if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("an idle connection: %v", err)
			}
			if !patient {
				<-ctx.Done()
				asking.Wait() // it is closed before its goroutine is back
			}
			close(release)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			asking.Wait()
			if _, err := l.DialContext(t.Context()); err == nil {
				t.Error("the listener is open")
			}
		})
	}
}

// TestMetricsListenerFails: errors of the listener pass, or are logged; a panic costs its connection.
func TestMetricsListenerFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		l := &failingListener{MemListener: pitaya.ListenMem(), failures: 3}
		start := time.Now()
		end := pitaya.ServeMetrics(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oops") }),
			slog.New(slog.NewTextHandler(&logs, nil)))
		for range 2 {
			if answers, _ := exchange(t, l.MemListener, http.MethodGet, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"); len(answers) > 0 {
				t.Errorf("got %v", answers)
			}
		}
		if took, want := time.Since(start), (5+10+20)*time.Millisecond; took != want {
			t.Errorf("it took %v, want %v", took, want)
		}
		l.MemListener.Close()
		synctest.Wait()
		if text := logs.String(); strings.Count(text, "oops") != 2 || strings.Count(text, "metrics are not served any more") != 1 || strings.Count(text, "\n") != 3 {
			t.Errorf("logged:\n%s", text)
		}
		if err := end(t.Context()); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

// A failingListener fails some times before it works.
type failingListener struct {
	*pitaya.MemListener
	failures int
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, errors.New("no descriptors are left")
	}
	return l.MemListener.Accept()
}

// FuzzMetricsListener: whatever comes, the answers are answers, and the connection ends.
func FuzzMetricsListener(f *testing.F) {
	f.Add([]byte("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\nHEAD /x HTTP/1.0\r\n\r\n"))
	f.Add([]byte("POST /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			l := pitaya.ListenMem()
			end := pitaya.ServeMetrics(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.Error(w, "no", http.StatusTeapot)
			}), slog.New(slog.DiscardHandler))
			c, err := l.DialContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var writing sync.WaitGroup
			writing.Go(func() { c.Write(b) })
			for br := bufio.NewReader(c); ; {
				if _, err := br.Peek(1); err != nil {
					break
				}
				a, err := http.ReadResponse(br, &http.Request{Method: http.MethodHead}) // bodies are read below
				if err != nil {
					t.Fatalf("%q: %v", b, err)
				}
				if _, err := br.Discard(int(max(a.ContentLength, 0))); err != nil && !bytes.Contains(b, []byte(http.MethodHead)) {
					t.Fatalf("%q: %s: %v", b, a.Status, err)
				}
				if bytes.Contains(b, []byte(http.MethodHead)) {
					break // its answer may be without a body
				}
			}
			c.Close()
			writing.Wait()
			if err := end(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
}
