// Server is what the tests of pitaya.js talk to: three game servers on ports of their own, and a page that loads the
// client. It prints their addresses as a line of JSON and ends when its standard input does, so that it outlives no test.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/js"
)

// addresses is what the tests are told.
type addresses struct {
	JSON     string `json:"json"`     // all that this library has
	Plain    string `json:"plain"`    // no dictionary, no resume
	Protobuf string `json:"protobuf"` // another serializer
	Page     string `json:"page"`
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		slog.Error("server", "err", err)
		os.Exit(1)
	}
}

// run serves until in ends or a server has failed.
func run(args []string, in io.Reader, out io.Writer) (err error) {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	listen := flags.String("json", "127.0.0.1:0", "`address` of the JSON server")
	window := flags.Duration("window", 30*time.Second, "how `long` it keeps sessions without a connection")
	kept := flags.Int("kept", 0, "how many pushes it keeps for a client")
	if err := flags.Parse(args); err != nil {
		return err
	}

	ctx, stop := context.WithCancel(context.Background())
	s := servers{failed: make(chan error, 4)}
	defer s.running.Wait()
	defer stop()

	var told addresses
	full := pitaya.Config{Resume: pitaya.ResumeConfig{Window: *window, Messages: *kept}}
	if told.JSON, err = s.game(ctx, *listen, full, map[string]uint16{"test.echo": 1, "onTick": 2, "test.größe": 300}); err != nil {
		return err
	}
	if told.Plain, err = s.game(ctx, "127.0.0.1:0", pitaya.Config{}, nil); err != nil {
		return err
	}
	if told.Protobuf, err = s.game(ctx, "127.0.0.1:0", pitaya.Config{Serializer: pitaya.Protobuf{}}, nil); err != nil {
		return err
	}
	if told.Page, err = s.page(ctx); err != nil {
		return err
	}

	if err := json.NewEncoder(out).Encode(told); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, in)
		done <- err
	}()
	select {
	case err = <-done:
	case err = <-s.failed:
	}
	return err
}

// servers are what runs, until the context ends that they were started with.
type servers struct {
	running sync.WaitGroup
	failed  chan error // has room for one of each
}

// game starts a game server and returns its address.
func (s *servers) game(ctx context.Context, addr string, cfg pitaya.Config, dictionary map[string]uint16) (string, error) {
	ws, err := pitaya.ListenWS(addr, nil)
	if err != nil {
		return "", err
	}
	cfg.Type, cfg.Frontend, cfg.Listeners = "test", true, []net.Listener{ws}
	cfg.Heartbeat = time.Second // the shortest
	srv, err := pitaya.NewServer(cfg)
	if err != nil {
		ws.Close()
		return "", err
	}
	t := &Service{
		ending: ctx.Done(), ended: make(map[int64]chan struct{}),
		held: make(map[string]chan struct{}), holds: make(map[string]chan struct{}),
	}
	var handler any = t
	if cfg.Serializer != nil {
		handler = &t.Bytes
	}
	err = errors.Join(
		srv.Register(handler, pitaya.WithName("test"), pitaya.WithNameFunc(strings.ToLower)),
		srv.SetDictionary(dictionary),
		srv.OnSessionClose(t.close))
	if err != nil {
		ws.Close()
		return "", err
	}
	s.running.Go(func() {
		if err := srv.Run(ctx); err != nil {
			s.failed <- err
		}
	})
	return "ws://" + ws.Addr().String(), nil
}

// page serves the page that loads the client, and returns its address.
func (s *servers) page(ctx context.Context) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.Handle("/pitaya.js", js.Handler())
	mux.HandleFunc("/favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, page)
	})
	front := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	s.running.Go(func() {
		<-ctx.Done()
		front.Close()
	})
	s.running.Go(func() {
		if err := front.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	})
	return "http://" + l.Addr().String(), nil
}

const page = `<!doctype html>
<html lang="en"><title>pitaya.js</title><meta name="viewport" content="width=device-width">
<script type="module">import * as pitaya from "/pitaya.js"; globalThis.pitaya = pitaya; document.body.textContent = "loaded";</script>
<body></body>
`

// Bytes has the handlers that serve any serializer.
type Bytes struct{ pitaya.Base }

// Echo answers with what it gets.
func (*Bytes) Echo(_ context.Context, in []byte) ([]byte, error) { return in, nil }

// Größe tests routes beyond ASCII.
func (*Bytes) Größe(_ context.Context, in []byte) ([]byte, error) { return in, nil }

// Note pushes what it gets as onNote: what became of a notify.
func (*Bytes) Note(ctx context.Context, in []byte) {
	if err := pitaya.SessionFromContext(ctx).Push(ctx, "onNote", in); err != nil {
		pitaya.LoggerFromContext(ctx).Error("no push", "err", err)
	}
}

// Fail answers with an error.
func (*Bytes) Fail(context.Context, []byte) ([]byte, error) {
	return nil, pitaya.NewError(errors.New("on purpose"), "TEST-1", map[string]string{"why": "asked for"})
}

// Service has what else the tests ask for.
type Service struct {
	Bytes

	ending <-chan struct{} // closed when the server has been told to end

	mu    sync.Mutex
	ended map[int64]chan struct{}  // by session; closed when the session has ended
	held  map[string]chan struct{} // by key; closed by Release
	holds map[string]chan struct{} // by key; closed when Hold has it
}

func (s *Service) close(session *pitaya.Session) { close(s.end(session.ID())) }

// end returns the channel of a session.
func (s *Service) end(id int64) chan struct{} { return channel(s, s.ended, id) }

// channel returns the one of that key.
func channel[K comparable](s *Service, m map[K]chan struct{}, key K) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m[key] == nil {
		m[key] = make(chan struct{})
	}
	return m[key]
}

// Big answers with size letters, which compress well.
func (*Service) Big(_ context.Context, in *struct{ Size int }) (*string, error) {
	text := strings.Repeat("a", in.Size)
	return &text, nil
}

// Push pushes as often as it is told: {n: 1, text}, {n: 2, text} and so on. With Big every third text is a long one.
func (*Service) Push(ctx context.Context, in *struct {
	Route string
	Count int
	Big   int
}) (*struct{}, error) {
	for n := 1; n <= in.Count; n++ {
		p := tick{N: n}
		if n%3 == 0 {
			p.Text = strings.Repeat("b", in.Big)
		}
		if err := pitaya.SessionFromContext(ctx).Push(ctx, in.Route, &p); err != nil {
			return nil, err
		}
	}
	return &struct{}{}, nil
}

type tick struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

// Tick pushes onTick, numbered from 1, every millisecond until the key is released, and then onTicked with the last
// number. It answers at once.
func (s *Service) Tick(ctx context.Context, in *struct{ Key string }) (*struct{}, error) {
	session := pitaya.SessionFromContext(ctx)
	stop := channel(s, s.held, in.Key)
	go func() {
		ctx := session.Context()
		every := time.NewTicker(time.Millisecond)
		defer every.Stop()
		n := 0
		for {
			select {
			case <-every.C:
				n++
				p := tick{N: n}
				if n%50 == 0 {
					p.Text = strings.Repeat("c", 4000) // compressed, and cut in the middle more often
				}
				if err := session.Push(ctx, "onTick", &p); err != nil {
					return
				}
			case <-stop:
				session.Push(ctx, "onTicked", &tick{N: n})
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return &struct{}{}, nil
}

// Hold answers when the key is released. A key is held once.
func (s *Service) Hold(ctx context.Context, in *struct{ Key string }) (*string, error) {
	close(channel(s, s.holds, in.Key))
	if err := pitaya.SessionFromContext(ctx).Push(ctx, "onHold", in); err != nil {
		return nil, err
	}
	select {
	case <-channel(s, s.held, in.Key):
		return &in.Key, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Holding answers when Hold has the key.
func (s *Service) Holding(ctx context.Context, in *struct{ Key string }) (*struct{}, error) {
	select {
	case <-channel(s, s.holds, in.Key):
		return &struct{}{}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Release lets Hold and Tick go on.
func (s *Service) Release(_ context.Context, in *struct{ Key string }) (*struct{}, error) {
	close(channel(s, s.held, in.Key))
	return &struct{}{}, nil
}

// Last pushes onHold and answers when the server has been told to end.
func (s *Service) Last(ctx context.Context) (*string, error) {
	if err := pitaya.SessionFromContext(ctx).Push(ctx, "onHold", nil); err != nil {
		return nil, err
	}
	select {
	case <-s.ending:
		return new("last"), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Kick ends the session of the caller.
func (*Service) Kick(ctx context.Context, in *struct{ Reason string }) (*struct{}, error) {
	return nil, pitaya.SessionFromContext(ctx).KickReason(ctx, in.Reason)
}

// Session answers with the id of the caller's session.
func (*Service) Session(ctx context.Context) (*struct{ ID int64 }, error) {
	return &struct{ ID int64 }{pitaya.SessionFromContext(ctx).ID()}, nil
}

// User answers with the user data of the caller's handshake.
func (*Service) User(ctx context.Context) (*map[string]any, error) {
	data := pitaya.SessionFromContext(ctx).HandshakeData()
	if data == nil {
		return nil, errors.New("no handshake")
	}
	return &data.User, nil
}

// Ended answers when that session has ended.
func (s *Service) Ended(ctx context.Context, in *struct{ ID int64 }) (*struct{}, error) {
	select {
	case <-s.end(in.ID):
		return &struct{}{}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
