package pitaya_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Lobby is a component as Pitaya's documentation has them: it calls functions of
// the package, which work on one default server.
type Lobby struct{ pitaya.Base }

// Init runs before the first client comes.
func (*Lobby) Init() { pitaya.GroupCreate(context.Background(), "lobby") }

// Shutdown runs when the last one has gone.
func (*Lobby) Shutdown() { pitaya.GroupDelete(context.Background(), "lobby") }

// Join is the handler chat.lobby.join.
func (*Lobby) Join(ctx context.Context, name *string) (*int, error) {
	if err := pitaya.GetSessionFromCtx(ctx).Bind(ctx, *name); err != nil {
		return nil, err
	}
	if err := pitaya.GroupAddMember(ctx, "lobby", *name); err != nil {
		return nil, err
	}
	n, err := pitaya.GroupCountMembers(ctx, "lobby")
	return &n, err
}

// Say is the handler chat.lobby.say.
func (*Lobby) Say(ctx context.Context, text *string) {
	if err := pitaya.GroupBroadcast(ctx, "chat", "lobby", "onSay", text); err != nil {
		pitaya.GetDefaultLoggerFromCtx(ctx).Warn("say", "err", err)
	}
}

// A program with one server can do without the value: these functions are known
// to those who come from Pitaya. Only the listener is unlike that of a program.
func ExampleRun() {
	mem := pitaya.ListenMem()
	if err := pitaya.Configure(true, "chat", pitaya.Standalone, map[string]string{}, pitaya.Config{Logger: discard}); err != nil {
		fmt.Println(err)
		return
	}
	pitaya.AddAcceptor(mem)
	pitaya.SetSerializer(pitaya.JSON{})
	pitaya.SetDictionary(map[string]uint16{"onSay": 1})
	pitaya.OnSessionBind(func(_ context.Context, s *pitaya.Session) error {
		fmt.Println("binding", s.UID())
		return nil
	})
	pitaya.OnAfterSessionBind(func(_ context.Context, s *pitaya.Session) error {
		fmt.Println(s.UID(), "is bound:", pitaya.GetSessionByUID(s.UID()) == s, pitaya.GetSessionByID(s.ID()) == s)
		return nil
	})
	pitaya.OnSessionDetach(func(s *pitaya.Session) { fmt.Println(s.UID(), "is away") }) // with Config.Resume
	pitaya.OnSessionResume(func(s *pitaya.Session) { fmt.Println(s.UID(), "is back") })
	left := make(chan string, 1)
	pitaya.OnSessionClose(func(s *pitaya.Session) { left <- s.UID() })
	pitaya.Register(&Lobby{}, pitaya.WithName("lobby"), pitaya.WithNameFunc(strings.ToLower))

	ctx, stop := context.WithCancel(context.Background()) // or signal.NotifyContext
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- pitaya.Run(ctx) }() // what is wrong with all of the above, it returns
	<-pitaya.DefaultServer().Ready()
	fmt.Println(pitaya.GetServerType(), pitaya.IsRunning(), pitaya.IsReady())

	conn, err := mem.DialContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := pitaya.NewClient(ctx, conn, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	said := make(chan string)
	client.OnPush("onSay", func(payload []byte) { said <- string(payload) })
	var n int
	err = client.Request(ctx, "chat.lobby.join", "ann", &n)
	fmt.Println("members:", n, err, "clients:", pitaya.GetNumberOfConnectedClients())
	client.Notify(ctx, "chat.lobby.say", "hello")
	fmt.Println(<-said)

	members, err := pitaya.GroupMembers(ctx, "lobby")
	fmt.Println(members, err)
	found, err := pitaya.GroupContainsMember(ctx, "lobby", "bob")
	fmt.Println(found, err)
	notReached, err := pitaya.SendPushToUsers("onSay", "psst", []string{"ann"}, "chat")
	fmt.Println(<-said, notReached, err)
	notReached, err = pitaya.SendKickToUsers([]string{"ann"}, "chat")
	fmt.Println(<-left, notReached, err)
	stop()
	fmt.Println(<-ended)
	// Output:
	// chat true true
	// binding ann
	// ann is bound: true true
	// members: 1 <nil> clients: 1
	// "hello"
	// [ann] <nil>
	// false <nil>
	// "psst" [] <nil>
	// ann [] <nil>
	// <nil>
}

// The default server of a cluster. What it is and who else is there can be asked
// for, and calls go to others.
func ExampleConfigure() {
	cluster := pitaya.NewMemCluster() // etcd and NATS are what a program has, without a line of code
	discovery, transport := cluster.Node()
	err := pitaya.Configure(false, "room", pitaya.Cluster, map[string]string{"region": "eu"}, pitaya.Config{
		ID: "room-1", Logger: discard, Discovery: discovery, Transport: transport,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	pitaya.RegisterRemote(&Score{})
	pitaya.AddRoute("score", pitaya.RouteByUID)
	pitaya.RegisterModule(&Database{}, "database") // and RegisterModuleBefore, RegisterModuleAfter
	pitaya.SetTimerPrecision(time.Millisecond)
	ticks := make(chan string)
	timers := []*pitaya.Timer{
		pitaya.NewCountTimer(time.Millisecond, 1, func() { ticks <- "tick" }),
		pitaya.NewAfterTimer(time.Hour, func() {}),
		pitaya.NewTimer(time.Hour, func() {}),
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- pitaya.Run(ctx) }()
	<-pitaya.DefaultServer().Ready()
	fmt.Println(<-ticks)
	for _, timer := range timers {
		timer.Stop()
	}

	fmt.Println(pitaya.GetServerID(), pitaya.GetServer().Metadata["region"], len(pitaya.GetServers()))
	byID, err := pitaya.GetServerByID("room-1")
	fmt.Println(byID.Type, err)
	byType, err := pitaya.GetServersByType("score")
	fmt.Println(len(byType), err)
	module, err := pitaya.GetModule("database")
	fmt.Println(module.(*Database).Player("ann"), err)
	err = pitaya.RPC(ctx, "score.Score.Add", new(wrapperspb.Int64Value), nil)
	fmt.Println(pitaya.ErrorCode(err))
	fmt.Println(pitaya.RPCTo(ctx, "score-1", "score.Score.Add", new(wrapperspb.Int64Value), nil))
	stop()
	fmt.Println(<-ended)
	// Output:
	// database open
	// tick
	// room-1 eu 1
	// room <nil>
	// 0 no servers available of this type
	// ann, level 7 <nil>
	// PIT-500
	// server not found: pitaya: server unreachable
	// database closed
	// <nil>
}

// Groups by their names.
func ExampleGroupCreateWithTTL() {
	ctx := context.Background()
	if err := pitaya.Configure(true, "chat", pitaya.Standalone, nil, pitaya.Config{Logger: discard}); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(pitaya.GroupCreateWithTTL(ctx, "event", time.Hour))
	fmt.Println(pitaya.GroupAddMember(ctx, "event", "ann"), pitaya.GroupAddMember(ctx, "event", "bob"))
	fmt.Println(pitaya.GroupRenewTTL(ctx, "event"))
	fmt.Println(pitaya.GroupRemoveMember(ctx, "event", "ann"))
	n, err := pitaya.GroupCountMembers(ctx, "event")
	fmt.Println(n, err)
	fmt.Println(pitaya.GroupRemoveAll(ctx, "event"), pitaya.GroupDelete(ctx, "event"))
	pitaya.Shutdown()
	// Output:
	// <nil>
	// <nil> <nil>
	// <nil>
	// <nil>
	// 1 <nil>
	// <nil> <nil>
}
