// Protobuf is a table of players whose clients speak protobuf: the messages are in rankpb/rank.proto, and the handlers in
// ranks.go take and return them. The server tells clients which messages it has, so that the command line client can speak
// to it in JSON, and writes a page about its routes.
//
//	go run ./examples/protobuf                          # the server
//	go run ./examples/protobuf -connect localhost:3250  # a client, in another terminal
//	go run ./examples/protobuf -docs > routes.md        # the page
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/protobuf/rankpb"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "protobuf:", err)
		os.Exit(1)
	}
}

// run is the program. It ends when ctx does; the client ends by itself.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("protobuf", flag.ContinueOnError)
	listen := flags.String("listen", "localhost:3250", "TCP `address` of the server")
	connect := flags.String("connect", "", "be a client of the server at this `address`")
	docs := flags.Bool("docs", false, "write a page about the routes, and nothing else")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *connect != "" {
		return play(ctx, *connect, out)
	}
	srv, err := pitaya.NewServer(pitaya.Config{Type: "game", Frontend: true, Serializer: pitaya.Protobuf{}})
	if err != nil {
		return err
	}
	err = errors.Join(
		srv.Register(&Ranks{server: srv}, pitaya.WithName("ranks"), pitaya.WithNameFunc(strings.ToLower)),
		srv.RegisterDocs(pitaya.DocsOptions{}), // docs.docs and docs.descriptors, for the command line client
	)
	if err != nil {
		return err
	}
	if *docs {
		page, err := srv.DocsMarkdown()
		if err != nil {
			return err
		}
		_, err = out.Write(page)
		return err
	}
	l, err := pitaya.ListenTCP(*listen, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := srv.AddListener(l); err != nil {
		return err
	}
	fmt.Fprintf(out, "The table is open. In another terminal:\n\n\tgo run ./examples/protobuf -connect %s\n", l.Addr())
	fmt.Fprintf(out, "\tgo run ./cmd/pitaya-cli -e 'request ranks.top {\"count\": 3}' %s\n\nCtrl-C ends it.\n", l.Addr())
	return srv.Run(ctx)
}

// play is the client.
func play(ctx context.Context, addr string, out io.Writer) error {
	client, err := pitaya.Dial(ctx, "tcp://"+addr, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	fmt.Fprintf(out, "the server speaks %s\n", client.Serializer().Name())
	leaders := make(chan string, 10)
	client.OnPush("onLeader", func(payload []byte) {
		var leader rankpb.Top_Entry
		if err := proto.Unmarshal(payload, &leader); err != nil {
			leaders <- err.Error()
			return
		}
		leaders <- fmt.Sprintf("%s leads with %d points", leader.Player, leader.Points)
	})
	points := func(n int64) *rankpb.Score_Points { return &rankpb.Score_Points{Points: n} }
	for _, score := range []*rankpb.Score{
		{Player: "ada", Result: points(120)},
		{Player: "bob", Result: points(99)},
		{Player: "cleo", Result: &rankpb.Score_GaveUp{GaveUp: true}},
		{Player: "dan"},
	} {
		var standing rankpb.Standing
		err := client.Request(ctx, "ranks.submit", score, &standing)
		var refused *pitaya.Error
		switch {
		case errors.As(err, &refused): // which is a protobuf message on the wire, too
			fmt.Fprintf(out, "%s: %s, %s\n", score.Player, refused.Code, refused.Message)
			continue
		case err != nil:
			return err
		}
		if standing.Rank == 1 {
			select {
			case leader := <-leaders:
				fmt.Fprintln(out, leader)
			case <-client.Done():
				return client.Err()
			}
		}
		fmt.Fprintf(out, "%s: rank %d, %v, %d points to the next league\n", score.Player, standing.Rank, standing.League, standing.GetMissing())
	}
	var top rankpb.Top
	if err := client.Request(ctx, "ranks.top", &rankpb.TopRequest{Count: 2}, &top); err != nil {
		return err
	}
	for i, e := range top.Entries {
		fmt.Fprintf(out, "%d. %s %d\n", i+1, e.Player, e.Points)
	}
	fmt.Fprintf(out, "%d in silver\n", top.Leagues[rankpb.League_LEAGUE_SILVER.String()])
	return nil
}
