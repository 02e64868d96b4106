package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/pitaya-go/pitaya"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// An exampleCluster is servers in memory that end together. In a program each
// runs in a process of its own, with etcd and NATS between them.
type exampleCluster struct {
	*pitaya.MemCluster
	end  []func()
	gate *pitaya.MemListener // of the server of type "gate", if there is one
}

func newExampleCluster() *exampleCluster { return &exampleCluster{MemCluster: pitaya.NewMemCluster()} }

// start starts a server whose id is its type and a number. One of type gate has
// clients.
func (c *exampleCluster) start(serverType, id string, setUp func(s *pitaya.Server) error) *pitaya.Server {
	discovery, transport := c.Node()
	s, err := pitaya.NewServer(pitaya.Config{
		Type: serverType, ID: id, Frontend: serverType == "gate", Cluster: true,
		Discovery: discovery, Transport: transport, Logger: discard,
	})
	if err != nil {
		panic(err)
	}
	if serverType == "gate" {
		c.gate = pitaya.ListenMem()
		err = s.AddListener(c.gate)
	}
	if err = errors.Join(err, setUp(s)); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-s.Ready()
	c.end = append(c.end, sync.OnceFunc(func() {
		cancel()
		<-ended
	}))
	return s
}

// stop ends all servers, the last one first.
func (c *exampleCluster) stop() {
	for i := len(c.end); i > 0; i-- {
		c.end[i-1]()
	}
}

// client connects a client to the gate.
func (c *exampleCluster) client() *pitaya.Client {
	conn, err := c.gate.DialContext(context.Background())
	if err != nil {
		panic(err)
	}
	client, err := pitaya.NewClient(context.Background(), conn, nil)
	if err != nil {
		panic(err)
	}
	return client
}

// nothing sets a server up with nothing.
func nothing(*pitaya.Server) error { return nil }

// A frontend and a backend, which find each other. The client talks to the
// frontend, and does not notice that another server answers.
func ExampleMemCluster() {
	cluster := newExampleCluster()
	defer cluster.stop()
	cluster.start("room", "room-1", func(s *pitaya.Server) error {
		return pitaya.Handle(s, "chat.say", func(ctx context.Context, text *string) (*string, error) {
			session := pitaya.SessionFromContext(ctx)
			return new(fmt.Sprintf("%s says %s; here: %v, there: %s, %v", s.ID(), *text, session.IsFrontend(), session.FrontendID(), session.FrontendSessionID() != 0)), nil
		})
	})
	cluster.start("gate", "gate-1", nothing)
	fmt.Println(cluster.Servers())

	client := cluster.client()
	defer client.Close()
	var text string
	err := client.Request(context.Background(), "room.chat.say", "hello", &text)
	fmt.Println(text, err)
	// Output:
	// [gate-1 room-1]
	// room-1 says hello; here: false, there: gate-1, true <nil>
}

// Score is a component with a remote: other servers call it, and no client can.
type Score struct {
	pitaya.Base
	points int64
}

// Add takes and returns protobuf messages.
func (s *Score) Add(ctx context.Context, in *wrapperspb.Int64Value) (*wrapperspb.Int64Value, error) {
	if in.Value < 0 {
		return nil, pitaya.Errorf("SCORE-1", "points are not taken away")
	}
	s.points += in.Value
	return wrapperspb.Int64(s.points), nil
}

// Servers call each other's remotes, by type or by id.
func ExampleServer_RPC() {
	cluster := newExampleCluster()
	defer cluster.stop()
	cluster.start("score", "score-1", func(s *pitaya.Server) error { return s.RegisterRemote(&Score{}) })
	room := cluster.start("room", "room-1", nothing)
	ctx := context.Background()

	var points wrapperspb.Int64Value
	err := room.RPC(ctx, "score.Score.Add", &points, wrapperspb.Int64(3)) // any server of the type
	fmt.Println(points.Value, err)
	err = room.RPCTo(ctx, "score-1", "score.Score.Add", &points, wrapperspb.Int64(4)) // this one
	fmt.Println(points.Value, err)
	total, err := pitaya.Call[wrapperspb.Int64Value](ctx, room, "score.Score.Add", nil) // makes the reply
	fmt.Println(total.GetValue(), err)

	// Errors of remotes arrive with their codes.
	err = room.RPC(ctx, "score.Score.Add", &points, wrapperspb.Int64(-1))
	fmt.Println(pitaya.ErrorCode(err), err)
	err = room.RPC(ctx, "shop.Shop.Buy", &points, nil)
	fmt.Println(pitaya.ErrorCode(err), err)
	// Output:
	// 3 <nil>
	// 7 <nil>
	// 7 <nil>
	// SCORE-1 points are not taken away
	// PIT-500 no servers available of this type
}

// A server that is in no cluster has nobody to call.
func ExampleServer_RPC_alone() {
	server, err := pitaya.NewServer(pitaya.Config{Type: "room", Frontend: true, Logger: discard})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = server.RPC(context.Background(), "score.Score.Add", new(wrapperspb.Int64Value), nil)
	fmt.Println(errors.Is(err, pitaya.ErrServerNotRunning), errors.Is(err, pitaya.ErrNoCluster))
	_, stop := runExample(pitaya.Config{}, func(s *pitaya.Server) error {
		server = s
		return nil
	})
	defer stop()
	err = server.RPC(context.Background(), "score.Score.Add", new(wrapperspb.Int64Value), nil)
	fmt.Println(errors.Is(err, pitaya.ErrServerNotRunning), errors.Is(err, pitaya.ErrNoCluster))
	// Output:
	// true false
	// false true
}

// Who is there, and who comes and goes.
func ExampleServer_OnServerChange() {
	cluster := newExampleCluster()
	defer cluster.stop()
	news := make(chan string)
	gate := cluster.start("gate", "gate-1", func(s *pitaya.Server) error {
		return s.OnServerChange(func(e pitaya.DiscoveryEvent) {
			if e.Server.Type != "room" {
				return // itself
			}
			switch e.Change {
			case pitaya.ServerJoined:
				news <- e.Server.ID + " has come"
			case pitaya.ServerUpdated:
				news <- fmt.Sprintf("%s drains: %v", e.Server.ID, e.Server.Draining())
			case pitaya.ServerLeft:
				news <- e.Server.ID + " has gone"
			}
		})
	})
	started := make(chan struct{})
	go func() {
		cluster.start("room", "room-1", nothing)
		close(started)
	}()
	fmt.Println(<-news)
	<-started
	for _, server := range gate.Servers("room") {
		fmt.Println(server.Type, server.ID, server.Frontend)
	}
	fmt.Println(gate.ServerByID("gate-1").Frontend, gate.ServerByID("gate-2") == nil, gate.Info().ID)

	go cluster.end[1]()
	fmt.Println(<-news)
	fmt.Println(<-news)
	cluster.end[1]()
	// Output:
	// room-1 has come
	// room room-1 false
	// true true gate-1
	// room-1 drains: true
	// room-1 has gone
}

// Players are reached wherever they are connected, and servers without clients
// learn of those that come and go.
func ExampleServer_OnSessionEvent() {
	cluster := newExampleCluster()
	defer cluster.stop()
	events := make(chan pitaya.SessionEvent)
	room := cluster.start("room", "room-1", func(s *pitaya.Server) error {
		return errors.Join(
			s.OnSessionEvent(func(e pitaya.SessionEvent) { events <- e }),
			pitaya.Handle(s, "player.login", func(ctx context.Context, name *string) (*string, error) {
				return name, pitaya.SessionFromContext(ctx).Bind(ctx, *name) // on the frontend too
			}),
		)
	})
	cluster.start("gate", "gate-1", nothing)

	client := cluster.client()
	defer client.Close()
	news := make(chan string)
	client.OnPush("onNews", func(payload []byte) { news <- string(payload) })
	done := make(chan error)
	go func() { done <- client.Request(context.Background(), "room.player.login", "ann", nil) }()
	e := <-events
	fmt.Println(e.Kind == pitaya.SessionBound, e.UID, e.FrontendID, <-done)

	err := room.Push(context.Background(), "gate", []string{"ann"}, "onNews", "dinner")
	fmt.Println(<-news, err)
	err = room.Kick(context.Background(), "gate", []string{"ann"})
	fmt.Println(err)
	e = <-events
	fmt.Println(e.Kind == pitaya.SessionEnded, e.UID, e.Reason)
	// Output:
	// true ann gate-1 <nil>
	// "dinner" <nil>
	// <nil>
	// true ann pitaya: kicked
}

// A backend has a copy of the session, and its changes of the data reach the
// frontend, and so all other servers, by PushToFront.
func ExampleSession_PushToFront() {
	cluster := newExampleCluster()
	defer cluster.stop()
	cluster.start("room", "room-1", func(s *pitaya.Server) error {
		return pitaya.Handle(s, "table.sit", func(ctx context.Context, table *int) (*int, error) {
			session := pitaya.SessionFromContext(ctx)
			if err := session.Set("table", *table); err != nil {
				return nil, err
			}
			// What needs the connection itself is for frontends only.
			fmt.Println(errors.Is(session.Close(), pitaya.ErrBackendSession))
			return table, session.PushToFront(ctx)
		})
	})
	cluster.start("gate", "gate-1", func(s *pitaya.Server) error {
		return pitaya.Handle(s, "table.mine", func(ctx context.Context, _ *struct{}) (*int, error) {
			session := pitaya.SessionFromContext(ctx)
			fmt.Println(errors.Is(session.PushToFront(ctx), pitaya.ErrFrontendSession)) // it is here
			table, _ := pitaya.SessionValue[int](session, "table")
			return &table, nil
		})
	})

	client := cluster.client()
	defer client.Close()
	err := client.Request(context.Background(), "room.table.sit", 7, nil)
	fmt.Println(err)
	var table int
	err = client.Request(context.Background(), "gate.table.mine", struct{}{}, &table)
	fmt.Println(table, err)
	// Output:
	// true
	// <nil>
	// true
	// 7 <nil>
}

// Values travel with calls, and with those that they lead to.
func ExampleAddToPropagateCtx() {
	cluster := newExampleCluster()
	defer cluster.stop()
	cluster.start("score", "score-1", func(s *pitaya.Server) error {
		return errors.Join(
			s.RegisterRemote(&Score{}),
			s.BeforeRemote(func(ctx context.Context, in any) (context.Context, any, error) {
				fmt.Println(pitaya.GetFromPropagateCtx(ctx, "season"), "by", pitaya.GetFromPropagateCtx(ctx, "peer.id"))
				return ctx, in, nil
			}),
			s.AfterRemote(func(ctx context.Context, out any, err error) (any, error) {
				fmt.Println(pitaya.RouteFromContext(ctx), pitaya.ErrorCode(err))
				return out, err
			}),
		)
	})
	room := cluster.start("room", "room-1", nothing)

	ctx := pitaya.AddToPropagateCtx(context.Background(), "season", "winter")
	_, err := pitaya.Call[wrapperspb.Int64Value](ctx, room, "score.Score.Add", wrapperspb.Int64(-1))
	fmt.Println(err)
	// Output:
	// winter by room-1
	// score.Score.Add SCORE-1
	// points are not taken away
}

// A cluster in memory can be told to fail, as networks and machines do.
func ExampleMemCluster_Cut() {
	cluster := newExampleCluster()
	defer cluster.stop()
	cluster.start("score", "score-1", func(s *pitaya.Server) error { return s.RegisterRemote(&Score{}) })
	room := cluster.start("room", "room-1", nothing)
	add := func() {
		_, err := pitaya.Call[wrapperspb.Int64Value](context.Background(), room, "score.Score.Add", wrapperspb.Int64(1))
		fmt.Println(errors.Is(err, pitaya.ErrUnreachable), len(room.Servers("score")))
	}
	add()
	cluster.Cut("room-1", "score-1") // calls fail, and both are listed
	add()
	cluster.Heal("room-1", "score-1")
	add()
	cluster.Expire("score-1") // its lease has run out, and it goes on
	fmt.Println(cluster.Servers())
	cluster.Restore("score-1")
	fmt.Println(cluster.Servers())
	cluster.Kill("score-1") // it has crashed
	fmt.Println(cluster.Servers())
	// Output:
	// false 1
	// true 1
	// false 1
	// [room-1]
	// [room-1 score-1]
	// [room-1]
}
