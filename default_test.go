package pitaya_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// ChatRoom is a handler as tutorials for Pitaya have them, with its imports
// changed, and the context that Push takes here: it keeps such code compiling.
type ChatRoom struct {
	pitaya.Base
	timer  *pitaya.Timer
	counts []int
	joined int
}

type (
	// ChatMessage is sent by clients, and to them.
	ChatMessage struct {
		Name    string `json:"name"`
		Content string `json:"content"`
	}
	// ChatJoined is the answer to join.
	ChatJoined struct {
		Result string `json:"result"`
	}
	// ChatMembers is pushed on onMembers.
	ChatMembers struct {
		Members []string `json:"members"`
	}
)

// Init creates the room.
func (r *ChatRoom) Init() {
	pitaya.GroupCreate(context.Background(), "room")
}

// AfterInit counts the members once a minute.
func (r *ChatRoom) AfterInit() {
	r.timer = pitaya.NewTimer(time.Minute, func() {
		count, _ := pitaya.GroupCountMembers(context.Background(), "room")
		r.counts = append(r.counts, count)
	})
}

// BeforeShutdown stops counting.
func (r *ChatRoom) BeforeShutdown() {
	r.timer.Stop()
}

// Join is a request.
func (r *ChatRoom) Join(ctx context.Context, msg []byte) (*ChatJoined, error) {
	logger := pitaya.GetDefaultLoggerFromCtx(ctx)
	s := pitaya.GetSessionFromCtx(ctx)
	r.joined++
	if err := s.Bind(ctx, "player"+strconv.Itoa(r.joined)); err != nil {
		return nil, pitaya.NewError(err, "RH-000", map[string]string{"failed": "bind"})
	}
	uids, err := pitaya.GroupMembers(ctx, "room")
	if err != nil {
		return nil, err
	}
	s.Push(ctx, "onMembers", &ChatMembers{Members: uids})
	pitaya.GroupBroadcast(ctx, "chat", "room", "onNewUser", &ChatMessage{Content: s.UID()})
	if err := pitaya.GroupAddMember(ctx, "room", s.UID()); err != nil {
		return nil, err
	}
	s.OnClose(func() {
		pitaya.GroupRemoveMember(ctx, "room", s.UID())
	})
	logger.Info("joined")
	return &ChatJoined{Result: "success"}, nil
}

// Message is a notify.
func (r *ChatRoom) Message(ctx context.Context, msg *ChatMessage) {
	if err := pitaya.GroupBroadcast(ctx, "chat", "room", "onMessage", msg); err != nil {
		pitaya.GetDefaultLoggerFromCtx(ctx).Error("broadcast", "err", err)
	}
}

// startDefault runs the default server until the function returned is called.
func startDefault(t testing.TB) (stop func()) {
	t.Helper()
	ran := make(chan error, 1)
	ready := pitaya.DefaultServer().Ready()
	go func() { ran <- pitaya.Start() }()
	select {
	case <-ready:
	case err := <-ran:
		t.Fatalf("Start: %v", err)
	}
	return sync.OnceFunc(func() {
		t.Helper()
		pitaya.Shutdown()
		if err := <-ran; err != nil {
			t.Errorf("Start: %v", err)
		}
	})
}

// TestDefaultChat is the documentation's chat, with the configuration last as
// in its first version.
func TestDefaultChat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pitaya.Configure(true, "", pitaya.Standalone, nil) // forget what other tests left
		mem := pitaya.ListenMem()
		room := &ChatRoom{}
		pitaya.SetSerializer(pitaya.JSON{})
		pitaya.Register(room,
			pitaya.WithName("room"),
			pitaya.WithNameFunc(strings.ToLower),
		)
		pitaya.AddAcceptor(mem)
		var log strings.Builder
		pitaya.Configure(true, "chat", pitaya.Standalone, map[string]string{},
			pitaya.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		stop := startDefault(t)
		defer stop()
		if got := pitaya.GetServerType(); got != "chat" {
			t.Errorf("the server is of type %q", got)
		}
		if !pitaya.IsRunning() {
			t.Error("the server does not say that it is running")
		}

		type player struct {
			*pitaya.Client
			pushes []string
		}
		join := func() *player {
			p := &player{}
			conn, err := mem.DialContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			p.Client, err = pitaya.NewClient(t.Context(), conn, &pitaya.ClientConfig{
				OnAnyPush: func(route string, payload []byte) { p.pushes = append(p.pushes, route+" "+string(payload)) },
			})
			if err != nil {
				t.Fatal(err)
			}
			var reply ChatJoined
			if err := p.Request(t.Context(), "room.join", nil, &reply); err != nil || reply.Result != "success" {
				t.Fatalf("join: %+v, %v", reply, err)
			}
			return p
		}
		want := func(p *player, pushes ...string) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(p.pushes, pushes) {
				t.Errorf("pushes\n got %q\nwant %q", p.pushes, pushes)
			}
			p.pushes = nil
		}
		ann := join()
		bob := join()
		want(bob, `onMembers {"members":["player1"]}`)
		want(ann, `onMembers {"members":[]}`, `onNewUser {"name":"","content":"player2"}`)
		if err := bob.Notify(t.Context(), "chat.room.message", &ChatMessage{Name: "bob", Content: "hello"}); err != nil {
			t.Fatal(err)
		}
		want(ann, `onMessage {"name":"bob","content":"hello"}`)
		want(bob, `onMessage {"name":"bob","content":"hello"}`)
		err := bob.Request(t.Context(), "room.join", nil, nil)
		var coded *pitaya.Error
		if !errors.As(err, &coded) || coded.Code != "RH-000" || coded.Metadata["failed"] != "bind" {
			t.Errorf("second join: %v", err)
		}

		time.Sleep(90 * time.Second)
		bob.Close()
		synctest.Wait()
		if members, err := pitaya.GroupMembers(t.Context(), "room"); err != nil || !slices.Equal(members, []string{"player1"}) {
			t.Errorf("members %v, %v", members, err)
		}
		time.Sleep(time.Minute)
		ann.Close()
		stop()
		if !slices.Equal(room.counts, []int{2, 1}) {
			t.Errorf("the timer counted %v", room.counts)
		}
		if pitaya.IsRunning() {
			t.Error("the server says that it is running still")
		}
		if !strings.Contains(log.String(), "msg=joined session.id=1 session.uid=\"\" route=chat.room.join request=") {
			t.Errorf("log\n%s", log.String())
		}
	})
}

// TestDefaultCalls makes each call on the package at least once.
func TestDefaultCalls(t *testing.T) {
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	mem := pitaya.ListenMem()
	must(pitaya.Configure(true, "conn", pitaya.Standalone, map[string]string{"zone": "1"}, pitaya.Config{
		ID: "conn-1", Metadata: map[string]string{"zone": "2"}, Logger: testLogger(t), Listeners: []net.Listener{mem},
	}))
	server := pitaya.DefaultServer()
	if info := pitaya.GetServer(); info.ID != "conn-1" || info.Type != "conn" || !info.Frontend || info.Metadata["zone"] != "1" {
		t.Errorf("server %+v", info)
	}
	if got := pitaya.GetServerID(); got != "conn-1" {
		t.Errorf("id %q", got)
	}
	must(pitaya.Register(&BindRoom{}, pitaya.WithNameFunc(strings.ToLower)))
	must(pitaya.SetDictionary(map[string]uint16{"conn.BindRoom.bind": 1}))
	var calls []string
	note := func(what string) func(context.Context, *pitaya.Session) error {
		return func(_ context.Context, s *pitaya.Session) error {
			calls = append(calls, what+" "+s.UID())
			return nil
		}
	}
	closed := make(chan struct{})
	must(pitaya.OnSessionBind(note("bind")))
	must(pitaya.OnAfterSessionBind(note("bound")))
	must(pitaya.OnSessionClose(func(*pitaya.Session) { close(closed) }))
	must(pitaya.AddModule("b", pitaya.ModuleBase{}))
	must(pitaya.RegisterModule(pitaya.ModuleBase{}, "c"))
	must(pitaya.RegisterModuleAfter(pitaya.ModuleBase{}, "d"))
	must(pitaya.RegisterModuleBefore(pitaya.ModuleBase{}, "a"))
	if _, err := pitaya.GetModule("a"); err != nil {
		t.Error(err)
	}
	if m, err := pitaya.GetModule("z"); err == nil {
		t.Errorf("there is a module %v that nobody added", m)
	}
	must(pitaya.SetTimerPrecision(time.Millisecond))
	fired := make(chan string, 8)
	after := func(name string) func() { return func() { fired <- name } }
	pitaya.NewAfterTimer(time.Millisecond, after("after"))
	pitaya.NewCountTimer(time.Millisecond, 1, after("count"))
	cond, err := pitaya.NewCondTimer(conditionTrue{}, func() {})
	must(err)
	stop := startDefault(t)
	if got := []string{<-fired, <-fired}; got[0] == got[1] {
		t.Errorf("one timer fired twice: %v", got)
	}
	cond.Stop()

	conn, err := mem.DialContext(ctx)
	must(err)
	pushed := make(chan string, 8)
	client, err := pitaya.NewClient(ctx, conn, &pitaya.ClientConfig{
		OnAnyPush: func(route string, payload []byte) { pushed <- route + " " + string(payload) },
	})
	must(err)
	var id int64
	must(client.Request(ctx, "BindRoom.bind", "ann", &id))
	if want := []string{"bind ann", "bound ann"}; !slices.Equal(calls, want) {
		t.Errorf("callbacks %q, want %q", calls, want)
	}
	s := pitaya.GetSessionByUID("ann")
	if s == nil || s != pitaya.GetSessionByID(id) {
		t.Errorf("session of ann %v, session %d %v", s, id, pitaya.GetSessionByID(id))
	}
	if n := pitaya.GetNumberOfConnectedClients(); n != 1 {
		t.Errorf("%d clients", n)
	}

	must(pitaya.GroupCreateWithTTL(ctx, "g", time.Hour))
	must(pitaya.GroupRenewTTL(ctx, "g"))
	must(pitaya.GroupAddMember(ctx, "g", "ann"))
	must(pitaya.GroupAddMember(ctx, "g", "bob"))
	must(pitaya.GroupRemoveMember(ctx, "g", "bob"))
	if ok, err := pitaya.GroupContainsMember(ctx, "g", "ann"); !ok || err != nil {
		t.Errorf("ann is a member: %v, %v", ok, err)
	}
	must(pitaya.GroupBroadcast(ctx, "conn", "g", "to.group", "hi"))
	if got, want := <-pushed, `to.group "hi"`; got != want {
		t.Errorf("pushed %q, want %q", got, want)
	}
	must(pitaya.GroupRemoveAll(ctx, "g"))
	if n, err := pitaya.GroupCountMembers(ctx, "g"); n != 0 || err != nil {
		t.Errorf("%d members, %v", n, err)
	}
	must(pitaya.GroupDelete(ctx, "g"))
	if err := pitaya.GroupBroadcast(ctx, "conn", "g", "to.group", "hi"); !errors.Is(err, pitaya.ErrGroupNotFound) {
		t.Errorf("broadcast to a group that is gone: %v", err)
	}

	for _, tt := range []struct {
		name     string
		send     func() ([]string, error)
		failed   []string
		notFound bool
	}{
		{"push", func() ([]string, error) {
			return pitaya.SendPushToUsers("to.users", "hi", []string{"ann", "bob"}, "conn")
		}, []string{"bob"}, true},
		{"push of a value that cannot be encoded", func() ([]string, error) {
			return pitaya.SendPushToUsers("to.users", make(chan int), []string{"ann", "bob"}, "conn")
		}, []string{"ann", "bob"}, false},
		{"push to servers of another type", func() ([]string, error) {
			return pitaya.SendPushToUsers("to.users", "hi", []string{"ann"}, "other")
		}, []string{"ann"}, true},
		{"kick", func() ([]string, error) {
			return pitaya.SendKickToUsers([]string{"ann", "bob"}, "conn")
		}, []string{"bob"}, true},
	} {
		failed, err := tt.send()
		if !slices.Equal(failed, tt.failed) || errors.Is(err, pitaya.ErrUserNotFound) != tt.notFound || err == nil {
			t.Errorf("%s: failed %q with %v, want %q", tt.name, failed, err, tt.failed)
		}
	}
	<-client.Done()
	if got := client.KickReason(); got != "kicked" {
		t.Errorf("the client was kicked for %q", got)
	}
	<-closed
	stop()

	if err := pitaya.Register(&BindRoom{}); !errors.Is(err, pitaya.ErrServerClosed) {
		t.Errorf("Register behind the end: %v", err)
	}
	if err := pitaya.Run(ctx); !errors.Is(err, pitaya.ErrServerClosed) {
		t.Errorf("Run behind the end: %v", err)
	}
	must(pitaya.Configure(false, "", pitaya.Cluster, nil))
	if pitaya.DefaultServer() == server {
		t.Error("Configure keeps a server that has ended")
	}
	pitaya.Shutdown()
	if err := pitaya.Start(); !errors.Is(err, pitaya.ErrServerClosed) {
		t.Errorf("Start behind Shutdown: %v", err)
	}
}

// BindRoom binds sessions.
type BindRoom struct{}

func (*BindRoom) Bind(ctx context.Context, uid *string) (*int64, error) {
	s := pitaya.GetSessionFromCtx(ctx)
	return new(s.ID()), s.Bind(ctx, *uid)
}

type conditionTrue struct{}

func (conditionTrue) Check(time.Time) bool { return true }

// TestDefaultMistakes finds that Run returns what the calls before it returned.
func TestDefaultMistakes(t *testing.T) {
	const backend = "pitaya: a backend has no listeners for clients"
	for _, tt := range []struct {
		name  string
		setUp func() error
		want  string
	}{
		{"mode", func() error {
			return pitaya.Configure(true, "conn", 0, nil)
		}, "pitaya: no server mode 0"},
		{"two configurations", func() error {
			return pitaya.Configure(true, "conn", pitaya.Standalone, nil, pitaya.Config{}, pitaya.Config{})
		}, "pitaya: Configure takes one Config, not 2"},
		{"acceptor of a backend", func() error {
			pitaya.Configure(false, "conn", pitaya.Standalone, nil)
			return pitaya.AddAcceptor(pitaya.ListenMem())
		}, backend},
		{"backend with an acceptor", func() error {
			pitaya.AddAcceptor(pitaya.ListenMem())
			return pitaya.Configure(false, "conn", pitaya.Standalone, nil)
		}, backend},
		{"no acceptor", func() error { return pitaya.AddAcceptor(nil) }, "pitaya: no listener given"},
		{"type too long for a route", func() error {
			pitaya.Register(&BindRoom{}, pitaya.WithName(strings.Repeat("s", 150)))
			return pitaya.Configure(true, strings.Repeat("t", 100), pitaya.Standalone, nil)
		}, `pitaya: server type "` + strings.Repeat("t", 100) + `": route of 256 bytes, at most 255 fit`},
		{"timers", func() error {
			pitaya.NewTimer(0, func() {}).Stop()
			pitaya.NewCountTimer(time.Second, 0, func() {})
			pitaya.NewAfterTimer(time.Second, nil)
			return errors.New("pitaya: timer interval 0s is not positive\npitaya: timer count 0 is not positive\npitaya: nil timer function")
		}, "pitaya: timer interval 0s is not positive\npitaya: timer count 0 is not positive\npitaya: nil timer function"},
		{"route", func() error { return pitaya.AddRoute("room", nil) },
			`pitaya: routing to servers of type "room": no function given`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := pitaya.Configure(true, "conn", pitaya.Standalone, nil); err != nil {
				t.Fatal(err)
			}
			defer pitaya.Shutdown()
			if err := tt.setUp(); err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if err := pitaya.Start(); err == nil || err.Error() != tt.want {
				t.Errorf("Start: got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

// TestDefaultRename configures the type behind the registration.
func TestDefaultRename(t *testing.T) {
	if err := pitaya.Configure(true, "first", pitaya.Standalone, nil); err != nil {
		t.Fatal(err)
	}
	mem := pitaya.ListenMem()
	echo := func(ctx context.Context, in *json.RawMessage) (*string, error) {
		return new(pitaya.RouteFromContext(ctx)), nil
	}
	err := errors.Join(
		pitaya.Handle(pitaya.DefaultServer(), "first.echo.route", echo),
		pitaya.AddAcceptor(mem),
		pitaya.Configure(true, "second", pitaya.Standalone, nil, pitaya.Config{Logger: testLogger(t)}),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer startDefault(t)()
	conn, err := mem.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client, err := pitaya.NewClient(t.Context(), conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for route, want := range map[string]string{
		"echo.route":        "",
		"second.echo.route": "",
		"first.echo.route":  pitaya.CodeInternal,
	} {
		var got string
		err := client.Request(t.Context(), route, 1, &got)
		if code := pitaya.ErrorCode(err); code != want || err == nil && got != "second.echo.route" {
			t.Errorf("%s: %q, %v", route, got, err)
		}
	}
}
