// Chat is a game server in small: rooms, names, who is online and the last lines, for clients over TCP and WebSocket
// and for browsers, with the page and its JavaScript client built in.
//
//	go run ./examples/chat
//
// and then http://localhost:8080 in two browser tabs. The README beside this file is the tour.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/js"
)

//go:embed web/index.html web/style.css web/app.js web/icon.svg
var web embed.FS

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		slog.Error("chat", "err", err)
		os.Exit(1)
	}
}

// run is the program: it serves until ctx ends.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("chat", flag.ContinueOnError)
	tcpAddr := flags.String("tcp", ":3250", "`address` for game clients over TCP")
	wsAddr := flags.String("ws", ":3251", "`address` for game clients over WebSocket")
	httpAddr := flags.String("http", ":8080", "`address` of the web page")
	if err := flags.Parse(args); err != nil {
		return err
	}

	tcp, err := pitaya.ListenTCP(*tcpAddr, nil)
	if err != nil {
		return err
	}
	defer tcp.Close()
	ws, err := pitaya.ListenWS(*wsAddr, nil)
	if err != nil {
		return err
	}
	defer ws.Close()
	page, err := net.Listen("tcp", *httpAddr)
	if err != nil {
		return err
	}
	defer page.Close()

	srv, err := newServer(tcp, ws)
	if err != nil {
		return err
	}
	// A WSListener has two doors: its own port, and any mux it is mounted on. The page uses the second one, so that
	// one address serves page and socket, and one proxy or certificate does for both.
	mux := http.NewServeMux()
	mux.Handle("/", pageHandler())
	mux.Handle("/ws", ws)
	front := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	// All three are listening already: who connects from here on is served.
	fmt.Fprintf(out, "page      http://%s\nwebsocket ws://%s\ntcp       %s\n",
		hostPort(page.Addr()), hostPort(ws.Addr()), hostPort(tcp.Addr()))

	// If one of the two servers fails, the other one ends with it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		defer cancel()
		served <- front.Serve(page)
	}()
	err = srv.Run(ctx)
	front.Close() // sockets that came through /ws belong to srv, which has ended them
	if pageErr := <-served; !errors.Is(pageErr, http.ErrServerClosed) {
		err = errors.Join(err, pageErr)
	}
	return err
}

// newServer makes the game server, ready to run.
func newServer(listeners ...net.Listener) (*pitaya.Server, error) {
	srv, err := pitaya.NewServer(pitaya.Config{
		Type: "chat", Frontend: true, Listeners: listeners,
		// Who loses the connection stays in the room for a while, and gets what was said when it is back.
		Resume: pitaya.ResumeConfig{Window: 30 * time.Second},
	})
	if err != nil {
		return nil, err
	}
	// Routes are service.method: chat.join, chat.say, chat.leave and chat.rooms.
	err = srv.Register(newChat(srv), pitaya.WithName("chat"), pitaya.WithNameFunc(strings.ToLower))
	return srv, err
}

// pageHandler serves the embedded files and the client.
func pageHandler() http.Handler {
	files, err := fs.Sub(web, "web")
	if err != nil {
		panic(err) // "web" is a valid path
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServerFS(files))
	mux.Handle("/pitaya.js", js.Handler())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Nothing foreign is loaded, and nothing that users write can become code.
		w.Header().Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Cache-Control", "no-cache") // embedded files have no date to compare
		mux.ServeHTTP(w, r)
	})
}

// hostPort is addr as others on this machine reach it.
func hostPort(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
