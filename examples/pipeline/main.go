// Pipeline is a shop whose handler does nothing but sell. What all handlers of a game need, runs around them (pipeline.go):
// requests are validated, their time is taken, and errors become what clients may know.
//
//	go run ./examples/pipeline                          # the server
//	go run ./examples/pipeline -connect localhost:3250  # a client, in another terminal
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"

	"github.com/pitaya-go/pitaya"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "pipeline:", err)
		os.Exit(1)
	}
}

// run is the program. It ends when ctx does; the client ends by itself.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("pipeline", flag.ContinueOnError)
	listen := flags.String("listen", "localhost:3250", "TCP `address` of the server")
	connect := flags.String("connect", "", "be a client of the server at this `address`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *connect != "" {
		return buy(ctx, *connect, out)
	}
	l, err := pitaya.ListenTCP(*listen, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	srv, err := pitaya.NewServer(pitaya.Config{Type: "shop", Frontend: true, Listeners: []net.Listener{l}})
	if err != nil {
		return err
	}
	if err := errors.Join(addPipeline(srv, log.New(out, "", 0)), srv.Register(&Counter{gold: 100})); err != nil {
		return err
	}
	fmt.Fprintf(out, "The shop is open. In another terminal:\n\n\tgo run ./examples/pipeline -connect %s\n\nCtrl-C ends it.\n", l.Addr())
	return srv.Run(ctx)
}

// The errors of the game. It knows nothing of codes and clients.
var (
	errNoItem = errors.New("there is no such item")
	errNoGold = errors.New("not enough gold")
)

// Counter is where things are sold. All customers have one purse.
type Counter struct {
	pitaya.Base

	mu   sync.Mutex
	gold int
}

// An Order is a request.
type Order struct {
	Item  string `json:"item"`
	Count int    `json:"count"`
}

// Valid is for the function validate.
func (o *Order) Valid() error {
	if o.Count < 1 || o.Count > 1000 {
		return fmt.Errorf("cannot sell %d of anything", o.Count)
	}
	return nil
}

// A Receipt is the answer.
type Receipt struct {
	Left int `json:"left"`
}

// Buy is the handler shop.Counter.Buy.
func (c *Counter) Buy(ctx context.Context, in *Order) (*Receipt, error) {
	price, ok := map[string]int{"sword": 30, "apple": 1}[in.Item]
	switch {
	case in.Item == "magic lamp":
		return nil, errors.New("SELECT lamp: connection to db-7.internal refused")
	case !ok:
		return nil, fmt.Errorf("%q: %w", in.Item, errNoItem)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if cost := price * in.Count; cost > c.gold {
		return nil, fmt.Errorf("%w: %d for %d", errNoGold, cost, c.gold)
	}
	c.gold -= price * in.Count
	return &Receipt{Left: c.gold}, nil
}

// buy is the client.
func buy(ctx context.Context, addr string, out io.Writer) error {
	client, err := pitaya.Dial(ctx, "tcp://"+addr, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, order := range []Order{{"sword", 2}, {"sword", 2}, {"sword", -2}, {"dragon", 1}, {"magic lamp", 1}} {
		var receipt Receipt
		err := client.Request(ctx, "shop.Counter.Buy", &order, &receipt)
		var refused *pitaya.Error
		switch {
		case errors.As(err, &refused):
			fmt.Fprintf(out, "%d %s: %s, %s\n", order.Count, order.Item, refused.Code, refused.Message)
		case err != nil:
			return err
		default:
			fmt.Fprintf(out, "%d %s: %d gold left\n", order.Count, order.Item, receipt.Left)
		}
	}
	return nil
}
