// Embed is a game server inside a web server that was there before: on its port, beside its pages, and ended in order with it.
//
//	go run ./examples/embed   # prints what to open, and how to be a player
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pitaya-go/pitaya"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

// run is the program. It ends when ctx does; a player also with the connection.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("embed", flag.ContinueOnError)
	listen := flags.String("listen", "localhost:8080", "`address` of the web server")
	connect := flags.String("connect", "", "be a player on the server at this `URL`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *connect != "" {
		return play(ctx, *connect, out)
	}

	// The game has no port: its listener gives it the connections that come to the handler of the same name below.
	players, err := pitaya.ListenWS("", nil)
	if err != nil {
		return err
	}
	defer players.Close()
	metrics, err := pitaya.NewMetrics("game", pitaya.MetricsConfig{})
	if err != nil {
		return err
	}
	srv, err := pitaya.NewServer(pitaya.Config{
		Type: "game", Frontend: true, Listeners: []net.Listener{players}, Reporters: []pitaya.Reporter{metrics},
	})
	if err != nil {
		return err
	}
	if err := pitaya.Handle(srv, "hello.greet", greet); err != nil {
		return err
	}

	// The web server as it was, and what the game adds to it.
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", page)
	mux.Handle("/game", players)
	mux.HandleFunc("POST /announce", announce(srv))
	// These three are for those who run the server. A proxy in front of it does not pass them on, or they have a listener of
	// their own, as in examples/operate.
	mux.Handle("/readyz", srv.Readyz())
	mux.Handle("/livez", srv.Livez())
	mux.Handle("/metrics", metrics)
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	return serve(ctx, web, l, srv, func() {
		fmt.Fprintf(out, "The page is http://%s/ and the game is on its port. In another terminal:\n\n"+
			"\tgo run ./examples/embed -connect ws://%[1]s/game\n\nand in a third one:\n\n"+
			"\tcurl -d text=hello http://%[1]s/announce\n\tcurl http://%[1]s/readyz?verbose\n\nCtrl-C ends the server.\n", l.Addr())
	})
}

// serve runs both servers, and ends them in this order:
//
//  1. The context ends, and Run with it. From now on /readyz says 503, so that load balancers send nobody. Nobody new gets
//     into the game. What players have asked for is answered, and their connections are closed.
//  2. Meanwhile the web server goes on: probes and scrapers see how the game ends, and pages are served.
//  3. Run has returned. The web server takes no new requests, those under way are finished, and it ends. It does not know of
//     the connections of players, which is why it has to come second.
//
// If the web server fails, the game ends as well. ready is called when both serve.
func serve(ctx context.Context, web *http.Server, l net.Listener, srv *pitaya.Server, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		defer cancel()
		served <- web.Serve(l)
	}()
	ran := make(chan error, 1)
	go func() { ran <- srv.Run(ctx) }()
	select {
	case <-srv.Ready():
		ready()
	case err := <-ran: // it did not start
		ran <- err
	}
	err := <-ran

	patience, enough := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer enough()
	if late := web.Shutdown(patience); late != nil {
		err = errors.Join(err, late, web.Close())
	}
	if webErr := <-served; !errors.Is(webErr, http.ErrServerClosed) {
		err = errors.Join(err, webErr)
	}
	return err
}

// greet is a handler of the game.
func greet(_ context.Context, name *string) (*string, error) {
	return new("Hello, " + *name + "!"), nil
}

// page is a page of the web server.
func page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, `<!doctype html>
<title>Embed</title>
<p>A page like others. The game is on <code>/game</code>.
<form method="post" action="/announce"><input name="text" value="hello"> <button>tell all players</button></form>
`)
}

// announce is a page that talks to the game: handlers of both may use the server at any time.
func announce(srv *pitaya.Server) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text := r.FormValue("text")
		if text == "" || len(text) > 1000 {
			http.Error(w, "text has 1 to 1000 bytes", http.StatusBadRequest)
			return
		}
		n := 0
		for session := range srv.Sessions() {
			if session.Push(r.Context(), "onAnnounce", text) == nil { // else the player is just leaving
				n++
			}
		}
		fmt.Fprintf(w, "%d players were told\n", n)
	}
}
