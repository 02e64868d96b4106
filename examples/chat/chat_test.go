package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
)

// In a bubble the tests have a clock of their own, which stands at this moment until everybody waits.
const bubbleStart = 946684800000 // 2000-01-01 in milliseconds

// serve runs a chat server in memory until the test's end.
func serve(t *testing.T) *pitaya.MemListener {
	t.Helper()
	l := pitaya.ListenMem()
	srv, err := newServer(l)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return l
}

// A peer is one person's client. It notes the pushes that come.
type peer struct {
	*pitaya.Client
	t *testing.T

	mu     sync.Mutex // guards pushes
	pushes []string
}

// dial connects a client, with the key of a page or without one.
func dial(t *testing.T, l *pitaya.MemListener, key string) *peer {
	t.Helper()
	conn, err := l.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg := new(pitaya.ClientConfig)
	if key != "" {
		cfg.Handshake = &pitaya.HandshakeData{User: map[string]any{"key": key}}
	}
	return dialOn(t, conn, cfg)
}

// dialOn is dial on a connection that there is.
func dialOn(t *testing.T, conn net.Conn, cfg *pitaya.ClientConfig) *peer {
	t.Helper()
	p := &peer{t: t}
	cfg.OnAnyPush = func(route string, payload []byte) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.pushes = append(p.pushes, route+" "+string(payload))
	}
	var err error
	if p.Client, err = pitaya.NewClient(t.Context(), conn, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// pushed returns the pushes since the last call, once all is quiet. The list of rooms comes often and is left out unless
// it is asked for.
func (p *peer) pushed(routes ...string) []string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	var got []string
	for _, push := range p.pushes {
		route, _, _ := strings.Cut(push, " ")
		if len(routes) == 0 && route != "onRooms" || slices.Contains(routes, route) {
			got = append(got, push)
		}
	}
	p.pushes = nil
	return got
}

func (p *peer) join(room, name string) *JoinReply {
	p.t.Helper()
	reply := new(JoinReply)
	if err := p.Request(p.t.Context(), "chat.join", &JoinRequest{Room: room, Name: name}, reply); err != nil {
		p.t.Fatalf("%s joins %s: %v", name, room, err)
	}
	return reply
}

func (p *peer) say(text string) Line {
	p.t.Helper()
	var line Line
	if err := p.Request(p.t.Context(), "chat.say", &SayRequest{Text: text}, &line); err != nil {
		p.t.Fatalf("say %q: %v", text, err)
	}
	return line
}

func (p *peer) rooms() []RoomInfo {
	p.t.Helper()
	var list RoomList
	if err := p.Request(p.t.Context(), "chat.rooms", nil, &list); err != nil {
		p.t.Fatal(err)
	}
	return list.Rooms
}

func wantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\n got: %+v\nwant: %+v", what, got, want)
	}
}

func wantCode(t *testing.T, what string, err error, want string) {
	t.Helper()
	if got := pitaya.ErrorCode(err); got != want {
		t.Errorf("%s: error %v with code %q, want %q", what, err, got, want)
	}
}

func TestTalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serve(t)
		ada, grace := dial(t, l, ""), dial(t, l, "")

		wantEqual(t, "answer to Ada", ada.join(" lobby ", "Ada  L."),
			&JoinReply{You: "Ada L.", Room: "lobby", Members: []string{"Ada L."}, History: []Line{}})
		hello := Line{At: bubbleStart, Name: "Ada L.", Text: "hello"}
		wantEqual(t, "Ada's line", ada.say(" hello\n"), hello)
		wantEqual(t, "answer to Grace", grace.join("LOBBY", "Grace"),
			&JoinReply{You: "Grace", Room: "lobby", Members: []string{"Ada L.", "Grace"}, History: []Line{hello}})
		grace.say("good morning\nAda")
		ada.say("👩‍🚀")

		both := []string{
			`onMessage {"room":"lobby","at":946684800001,"name":"Grace","text":"good morning\nAda"}`,
			`onMessage {"room":"lobby","at":946684800002,"name":"Ada L.","text":"👩‍🚀"}`,
		}
		wantEqual(t, "pushes to Grace", grace.pushed(), both)
		wantEqual(t, "pushes to Ada", ada.pushed(), slices.Concat([]string{
			`onMessage {"room":"lobby","at":946684800000,"name":"Ada L.","text":"hello"}`,
			`onJoin {"room":"lobby","name":"Grace"}`,
		}, both))
	})
}

func TestMoveAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serve(t)
		ada, grace, watcher := dial(t, l, ""), dial(t, l, ""), dial(t, l, "")
		wantEqual(t, "rooms at first", watcher.rooms(), []RoomInfo{})
		ada.join("lobby", "Ada")
		grace.join("lobby", "Grace")
		ada.pushed()

		grace.join("garden", "Grace")
		ada.say("gone?")
		wantEqual(t, "pushes to Grace in the garden", grace.pushed(), []string(nil))
		wantEqual(t, "rooms", watcher.rooms(), []RoomInfo{{"garden", 1}, {"lobby", 1}})
		grace.join("lobby", "Amazing Grace")
		wantEqual(t, "rooms", watcher.rooms(), []RoomInfo{{"lobby", 2}, {"garden", 0}})
		grace.join("lobby", "Amazing Grace") // nothing new for Ada

		var left LeaveReply
		for _, want := range []string{"lobby", ""} {
			if err := grace.Request(t.Context(), "chat.leave", nil, &left); err != nil || left.Room != want {
				t.Errorf("leave = %+v, %v; want %q", left, err, want)
			}
		}
		wantCode(t, "say after leaving", grace.Request(t.Context(), "chat.say", &SayRequest{"hello?"}, nil), CodeNotInRoom)
		wantEqual(t, "pushes to Ada", ada.pushed(), []string{
			`onLeave {"room":"lobby","name":"Grace"}`,
			`onMessage {"room":"lobby","at":946684800000,"name":"Ada","text":"gone?"}`,
			`onJoin {"room":"lobby","name":"Amazing Grace"}`,
			`onLeave {"room":"lobby","name":"Amazing Grace"}`,
		})
		wantEqual(t, "changes of the list", watcher.pushed("onRooms"), []string{
			`onRooms {"rooms":[{"name":"lobby","members":1}]}`,
			`onRooms {"rooms":[{"name":"lobby","members":2}]}`,
			`onRooms {"rooms":[{"name":"garden","members":1},{"name":"lobby","members":1}]}`,
			`onRooms {"rooms":[{"name":"lobby","members":2},{"name":"garden","members":0}]}`,
			`onRooms {"rooms":[{"name":"lobby","members":1},{"name":"garden","members":0}]}`,
		})
	})
}

func TestNamesAreUniqueInTheirRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serve(t)
		ada, other := dial(t, l, ""), dial(t, l, "")
		ada.join("lobby", "Ada")
		other.join("garden", "ada") // another room
		err := other.Request(t.Context(), "chat.join", &JoinRequest{"lobby", "ADA"}, nil)
		wantCode(t, "join under a taken name", err, CodeNameTaken)
		other.say("still in the garden")
		ada.join("lobby", "ADA") // one's own name in another spelling is free
		other.join("lobby", "Ada 2")
		ada.Close()
		synctest.Wait()
		other.join("lobby", "Ada")
	})
}

func TestCloseLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serve(t)
		ada, grace := dial(t, l, ""), dial(t, l, "")
		ada.join("lobby", "Ada")
		grace.join("lobby", "Grace")
		line := grace.say("I will be back")
		ada.pushed()
		grace.Close()
		wantEqual(t, "pushes to Ada", ada.pushed("onLeave", "onRooms"), []string{
			`onLeave {"room":"lobby","name":"Grace"}`,
			`onRooms {"rooms":[{"name":"lobby","members":1}]}`,
		})
		ada.Close()
		synctest.Wait()
		back := dial(t, l, "").join("lobby", "Grace")
		wantEqual(t, "members of the room left empty", back.Members, []string{"Grace"})
		wantEqual(t, "its history", back.History, []Line{line})
	})
}

// A page whose connection broke comes back before the server has noticed.
func TestComeBackWithKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serve(t)
		ada, grace := dial(t, l, "a secret"), dial(t, l, "another")
		ada.join("lobby", "Ada")
		grace.join("lobby", "Grace")

		again := dial(t, l, "a secret")
		reply := again.join("lobby", "Ada")
		wantEqual(t, "members", reply.Members, []string{"Ada", "Grace"})
		<-ada.Done()
		synctest.Wait()
		again.say("here again")
		wantEqual(t, "rooms", again.rooms(), []RoomInfo{{"lobby", 2}})
		got := grace.pushed("onMessage")
		wantEqual(t, "pushes to Grace", got, []string{
			`onMessage {"room":"lobby","at":946684800000,"name":"Ada","text":"here again"}`,
		})
	})
}

func TestHistoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serve(t)
		ada := dial(t, l, "")
		ada.join("lobby", "Ada")
		for i := range historyLines + 7 {
			ada.say(fmt.Sprint(i))
		}
		time.Sleep(time.Second) // of the bubble's clock
		ada.say("last")
		history := ada.join("lobby", "Ada").History
		if len(history) != historyLines {
			t.Fatalf("%d lines, want %d", len(history), historyLines)
		}
		wantEqual(t, "first line", history[0], Line{At: bubbleStart + 8, Name: "Ada", Text: "8"})
		wantEqual(t, "last line", history[historyLines-1], Line{At: bubbleStart + 1000, Name: "Ada", Text: "last"})
		for i := range historyLines - 1 {
			if history[i].At >= history[i+1].At {
				t.Errorf("lines %d and %d are at %d and %d", i, i+1, history[i].At, history[i+1].At)
			}
		}
	})
}

func TestRoomsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serve(t)
		peers := make([]*peer, maxRooms)
		for i := range peers {
			peers[i] = dial(t, l, "")
			peers[i].join(fmt.Sprint("room ", i), "Ada")
		}
		late := dial(t, l, "")
		err := late.Request(t.Context(), "chat.join", &JoinRequest{"one more", "Ada"}, nil)
		wantCode(t, "one room too many", err, CodeNoMoreRoom)

		for _, i := range []int{7, 3} {
			time.Sleep(time.Second)
			peers[i].Close()
			synctest.Wait()
		}
		late.join("one more", "Ada")
		rooms := late.rooms()
		if len(rooms) != maxRooms || slices.ContainsFunc(rooms, func(r RoomInfo) bool { return r.Name == "room 7" }) ||
			!slices.Contains(rooms, RoomInfo{"room 3", 0}) {
			t.Errorf("%d rooms, want %d with room 3 and without room 7: %v", len(rooms), maxRooms, rooms)
		}
	})
}

func TestRefusals(t *testing.T) {
	long := strings.Repeat("ä", 1001)
	tests := []struct {
		name  string
		route string
		arg   any
		want  string
	}{
		{"empty name", "chat.join", &JoinRequest{"lobby", ""}, pitaya.CodeBadRequest},
		{"blank name", "chat.join", &JoinRequest{"lobby", " \t\n"}, pitaya.CodeBadRequest},
		{"longest name", "chat.join", &JoinRequest{"lobby", long[:2*maxName]}, ""},
		{"long name", "chat.join", &JoinRequest{"lobby", long[:2*maxName+2]}, pitaya.CodeBadRequest},
		{"name with a control character", "chat.join", &JoinRequest{"lobby", "A\x00da"}, pitaya.CodeBadRequest},
		{"name that turns the direction", "chat.join", &JoinRequest{"lobby", "A\u202eda"}, pitaya.CodeBadRequest},
		{"empty room", "chat.join", &JoinRequest{"", "Ada"}, pitaya.CodeBadRequest},
		{"long room", "chat.join", &JoinRequest{long[:2*maxRoom+2], "Ada"}, pitaya.CodeBadRequest},
		{"no argument", "chat.join", nil, pitaya.CodeBadRequest},
		{"empty text", "chat.say", &SayRequest{" "}, pitaya.CodeBadRequest},
		{"longest text", "chat.say", &SayRequest{long[:2*maxText]}, ""},
		{"long text", "chat.say", &SayRequest{long}, pitaya.CodeBadRequest},
		{"text with an escape", "chat.say", &SayRequest{"\x1b[2J"}, pitaya.CodeBadRequest},
		{"text with lines and tabs", "chat.say", &SayRequest{"a\n\tb"}, ""},
		{"unknown method", "chat.shout", &SayRequest{"a"}, pitaya.CodeNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ada := dial(t, serve(t), "")
				ada.join("garden", "Ada")
				wantCode(t, tt.route, ada.Request(t.Context(), tt.route, tt.arg, nil), tt.want)
			})
		})
	}
}

// lines is a writer that passes on what is written to it.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

func TestProgram(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := make(lines, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-tcp=127.0.0.1:0", "-ws=127.0.0.1:0", "-http=127.0.0.1:0"}, out)
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run = %v", err)
		}
	}()
	var text string
	select {
	case text = <-out:
	case err := <-ended:
		ended <- err
		t.Fatal("the program has ended")
	}
	addrs := regexp.MustCompile(`^page +http://(\S+)\nwebsocket ws://(\S+)\ntcp +(\S+)\n$`).FindStringSubmatch(text)
	if addrs == nil {
		t.Fatalf("output %q", text)
	}

	t.Run("page", func(t *testing.T) {
		for path, want := range map[string]string{
			"/":          "text/html",
			"/app.js":    "text/javascript",
			"/style.css": "text/css",
			"/icon.svg":  "image/svg+xml",
			"/pitaya.js": "text/javascript",
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addrs[1]+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != http.StatusOK || len(body) == 0 {
				t.Errorf("%s: status %d, %d bytes, %v", path, res.StatusCode, len(body), err)
			}
			if got := res.Header.Get("Content-Type"); !strings.HasPrefix(got, want) {
				t.Errorf("%s: content type %q, want %q", path, got, want)
			}
			if res.Header.Get("Content-Security-Policy") == "" {
				t.Errorf("%s: no content security policy", path)
			}
		}
		http.DefaultClient.CloseIdleConnections()
	})
	for i, url := range []string{"ws://" + addrs[1] + "/ws", "ws://" + addrs[2], "tcp://" + addrs[3]} {
		t.Run(url[:strings.Index(url, ":")]+fmt.Sprint(i), func(t *testing.T) {
			c, err := pitaya.Dial(t.Context(), url, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var reply JoinReply
			if err := c.Request(t.Context(), "chat.join", &JoinRequest{"lobby", fmt.Sprint("Ada ", i)}, &reply); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Who loses the connection stays in the room for half a minute, and has missed nothing when it is back.
func TestConnectionLost(t *testing.T) {
	for _, test := range []struct {
		name  string
		after time.Duration
		left  bool
	}{
		{"back in time", 29 * time.Second, false},
		{"away for too long", 31 * time.Second, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := serve(t)
				conn, err := l.DialContext(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				network := make(chan struct{}) // closed when there is one again
				ada := dialOn(t, conn, &pitaya.ClientConfig{Resume: true, Redial: func(ctx context.Context) (net.Conn, error) {
					select {
					case <-network:
						return l.DialContext(ctx)
					case <-ctx.Done():
						return nil, context.Cause(ctx)
					}
				}})
				grace := dial(t, l, "")
				ada.join("lobby", "Ada")
				grace.join("lobby", "Grace")
				ada.pushed()

				conn.Close()
				line := grace.say("Ada?")
				time.Sleep(test.after)
				if left := slices.Contains(grace.pushed(), `onLeave {"room":"lobby","name":"Ada"}`); left != test.left {
					t.Fatalf("Grace is told that Ada left: %v, want %v", left, test.left)
				}
				if test.left {
					return
				}
				close(network)
				time.Sleep(20 * time.Second) // the most that a client waits between two attempts
				want := []string{fmt.Sprintf(`onMessage {"room":"lobby","at":%d,"name":"Grace","text":"Ada?"}`, line.At)}
				if got := ada.pushed(); !slices.Equal(got, want) {
					t.Errorf("pushed to Ada: %q, want %q", got, want)
				}
				ada.say("Here I am.")
				if got := grace.pushed("onLeave", "onJoin"); len(got) > 0 {
					t.Errorf("pushed to Grace: %q", got)
				}
			})
		})
	}
}

func TestProgramMistakes(t *testing.T) {
	for _, args := range [][]string{
		{"-tcp=nonsense"}, {"-tcp=127.0.0.1:0", "-ws=nonsense"}, {"-tcp=127.0.0.1:0", "-ws=127.0.0.1:0", "-http=nonsense"},
	} {
		if err := run(t.Context(), args, io.Discard); err == nil {
			t.Errorf("run(%q) succeeded", args)
		}
	}
}
