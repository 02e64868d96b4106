package pitaya_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pitaya-go/pitaya"
)

// securityBlock returns the block of docs/security.md that is marked "text KIND".
func securityBlock(t testing.TB, kind string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash("docs/security.md"))
	must(t, err)
	for _, b := range codeBlocks(string(text)) {
		if slices.Equal(b.Words, []string{"text", kind}) {
			return b.Text
		}
	}
	t.Fatalf("docs/security.md has no block for %s", kind)
	return ""
}

// grantRoles does to etcd what lines of etcdctl say.
func grantRoles(t testing.TB, c *clientv3.Client, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		words := strings.Fields(line)
		prefix := slices.Index(words, "--prefix=true")
		if prefix >= 0 {
			words = slices.Delete(words, prefix, prefix+1)
		}
		var err error
		switch command := strings.Join(words[:2], " "); command {
		case "role add":
			_, err = c.RoleAdd(t.Context(), words[2])
		case "role grant-permission":
			end := ""
			if prefix >= 0 {
				end = clientv3.GetPrefixRangeEnd(words[4])
			}
			kind := map[string]clientv3.PermissionType{"read": clientv3.PermissionType(clientv3.PermRead), "readwrite": clientv3.PermissionType(clientv3.PermReadWrite)}
			p, ok := kind[words[3]]
			if !ok {
				t.Fatalf("no permission %q", words[3])
			}
			_, err = c.RoleGrantPermission(t.Context(), words[2], words[4], end, p)
		case "user add":
			name, password, _ := strings.Cut(words[2], ":")
			_, err = c.UserAdd(t.Context(), name, password)
		case "user grant-role":
			_, err = c.UserGrantRole(t.Context(), words[2], words[3])
		default:
			t.Fatalf("no command %q", command)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
}

// TestSecurityExample runs a cluster under the permissions of docs/security.md, and lets one of its servers, and a stranger,
// do what they must not.
func TestSecurityExample(t *testing.T) {
	t.Parallel()
	natsServer := startNATS(t, "-nats-config", writeFile(t, "nats.conf", securityBlock(t, "nats")))
	etcd := startEtcd(t, "-user", "admin", "-password", "secret")
	admin, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.URL()}, Username: "admin", Password: "secret"})
	must(t, err)
	defer admin.Close()
	grantRoles(t, admin, securityBlock(t, "etcd"))
	natsAs := func(user, password string) string {
		u, err := url.Parse(natsServer.URL())
		must(t, err)
		u.User = url.UserPassword(user, password)
		return u.String()
	}
	run := func(id, password string, setup func(*pitaya.Server)) *testServer {
		typ, _, _ := strings.Cut(id, "-")
		cfg := pitaya.Config{Type: typ, ID: id, Cluster: true, Etcd: etcdConfig(etcd.URL())}
		cfg.Etcd.User, cfg.Etcd.Password = id, password
		cfg.NATSClient = natsAt(natsQuick, natsAs(id, password))
		cfg.NATSServer = cfg.NATSClient
		return startClustered(t, cfg, setup)
	}
	run("room-1", "r1", func(s *pitaya.Server) {
		must(t, pitaya.HandleRaw(s, "h.echo", sleeper(0)), pitaya.HandleRaw(s, "h.bind", bindHandler),
			pitaya.HandleRaw(s, "h.push", func(ctx context.Context, b []byte) ([]byte, error) {
				return []byte{}, s.Push(ctx, "connector", []string{string(b)}, "news", []byte("for "+string(b)))
			}),
			pitaya.HandleRaw(s, "h.kick", func(ctx context.Context, b []byte) ([]byte, error) {
				return []byte{}, s.Kick(ctx, "connector", []string{string(b)})
			}))
	})
	fronts := []*testServer{run("connector-1", "c1", nil), run("connector-2", "c2", nil)}
	var clients []*pitaya.Client
	pushed := make(chan string, 10)
	for i, s := range fronts {
		until(t, "the servers know each other", func() bool { return len(s.Servers("room")) == 1 && len(s.Servers("connector")) == 2 })
		conn, err := s.Mem.DialContext(t.Context())
		must(t, err)
		c, err := pitaya.NewClient(t.Context(), conn, &pitaya.ClientConfig{OnAnyPush: func(_ string, b []byte) { pushed <- string(b) }})
		must(t, err)
		defer c.Close()
		clients = append(clients, c)
		uid := []string{"ann", "bob"}[i]
		if got, err := c.RequestRaw(t.Context(), "room.h.echo", []byte("x")); err != nil || string(got) != "x" {
			t.Fatalf("forwarded through %s: %q, %v", s.Info().ID, got, err)
		}
		if _, err := c.RequestRaw(t.Context(), "room.h.bind", []byte(uid)); err != nil {
			t.Fatal(err)
		}
	}
	for _, uid := range []string{"ann", "bob"} {
		_, err := clients[0].RequestRaw(t.Context(), "room.h.push", []byte(uid))
		must(t, err)
		if got := <-pushed; got != "for "+uid {
			t.Errorf("pushed %q", got)
		}
	}

	// A room that was broken into.
	for _, tt := range []struct {
		name, user, password string
		publish, subscribe   string
	}{
		{"announces a bind", "room-1", "r1", "pitaya/connector/bindings", ""},
		{"hears calls of a frontend", "room-1", "r1", "", "pitaya/servers/connector/connector-1"},
		{"hears pushes", "room-1", "r1", "", "pitaya/connector/user/ann/push"},
		{"hears everything", "room-1", "r1", "", ">"},
		{"answers what nobody asked", "room-1", "r1", "_INBOX.a.b", ""},
		{"frontend takes the calls of another", "connector-1", "c1", "", "pitaya/servers/connector/connector-2"},
		{"frontend pushes to a user elsewhere", "connector-1", "c1", "pitaya/connector/user/bob/push", ""},
		{"frontend is a room", "connector-1", "c1", "", "pitaya/servers/room/room-1"},
	} {
		refused := make(chan error, 10)
		nc, err := nats.Connect(natsAs(tt.user, tt.password), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
		must(t, err)
		if tt.publish != "" {
			must(t, nc.Publish(tt.publish, []byte("x")))
		} else {
			_, err := nc.SubscribeSync(tt.subscribe)
			must(t, err)
		}
		must(t, nc.Flush())
		select {
		case err := <-refused:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", tt.name, err)
			}
		case <-time.After(realTime):
			t.Errorf("%s: nobody objects", tt.name)
		}
		nc.Close()
	}
	// Another program that shares NATS neither hears nor is heard.
	nc, err := nats.Connect(natsAs("other", "o"))
	must(t, err)
	defer nc.Close()
	heard, err := nc.SubscribeSync(">")
	must(t, err)
	must(t, nc.Publish("pitaya/connector/user/ann/kick", []byte("x")), nc.Flush())
	_, err = clients[0].RequestRaw(t.Context(), "room.h.push", []byte("ann"))
	must(t, err)
	<-pushed
	must(t, nc.Flush())
	if n, _, _ := heard.Pending(); n != 1 {
		t.Errorf("a stranger has heard %d messages, want its own", n)
	}
	// Nor can a server write the entry of another.
	keys, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.URL()}, Username: "room-1", Password: "r1"})
	must(t, err)
	defer keys.Close()
	for _, key := range []string{"pitaya/servers/connector/connector-1", "pitaya/servers/room/room-2", "pitaya/bindings/connector/ann", "elsewhere"} {
		if _, err := keys.Put(t.Context(), key, "x"); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("writing %s: %v", key, err)
		}
		if _, err := keys.Delete(t.Context(), key); err == nil {
			t.Errorf("deleting %s: allowed", key)
		}
	}
	// And after all that, the room kicks whom it may.
	_, err = clients[0].RequestRaw(t.Context(), "room.h.kick", []byte("bob"))
	must(t, err)
	within(t, "kick", clients[1].Done())
	if err := clients[1].Err(); !errors.Is(err, pitaya.ErrKicked) {
		t.Errorf("bob has ended with %v", err)
	}
}

// startClustered runs a server of a cluster, with a listener in memory where it is a frontend.
func startClustered(t testing.TB, cfg pitaya.Config, setup func(*pitaya.Server)) *testServer {
	t.Helper()
	if cfg.Type != "room" {
		return startServer(t, cfg, setup)
	}
	cfg.Logger = testLogger(t)
	s, err := pitaya.NewServer(cfg)
	must(t, err)
	setup(s)
	ctx, cancel := context.WithCancel(context.Background())
	ts := &testServer{Server: s, end: cancel, ran: make(chan error, 1)}
	go func() { ts.ran <- s.Run(ctx) }()
	t.Cleanup(func() { ts.stop(t) })
	select {
	case <-s.Ready():
	case err := <-ts.ran:
		ts.ran <- err
		t.Fatalf("Run: %v", err)
	}
	return ts
}
