package pitaya_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// What a peer writes reaches a transport through NATS, which looks at nothing but subjects; and names that peers have chosen
// stand in the subjects that a transport writes. Both are fuzzed against a NATS server of a hundred lines, which takes
// nothing that NATS would end a connection for.

// A wireNATS is that server. It has one connection, and hands on what comes in there.
type wireNATS struct {
	l    net.Listener
	got  chan wireMessage
	conn net.Conn // set before the first message is handed on

	handled atomic.Int64 // number of markers
}

// A wireMessage is a line of a client, or what was wrong with it.
type wireMessage struct {
	verb, subject, reply, sid string
	body                      []byte
	err                       error
}

func (m wireMessage) String() string {
	return fmt.Sprintf("%s %q %q %q", m.verb, m.subject, m.reply, m.body)
}

// newWireNATS starts one, and a transport that is connected to it, which listens as server "r" of type "room" and has the
// users of wireUsers.
func newWireNATS(f *testing.F, h pitaya.TransportHandler) (*wireNATS, *pitaya.NATSTransport, map[string]string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	w := &wireNATS{l: l, got: make(chan wireMessage, 1024)}
	served := make(chan struct{})
	go func() {
		defer close(served)
		w.serve()
	}()
	cfg := pitaya.NATSConfig{URL: l.Addr().String()}
	tr, err := pitaya.NewNATSTransport(cfg, cfg, slog.New(slog.NewTextHandler(wirePanics{f}, nil)))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		tr.Close(context.Background())
		l.Close()
		<-served
	})
	ctx := f.Context()
	waiting, cancel := context.WithTimeout(ctx, transporttest.Patience)
	defer cancel()
	if err := tr.Listen(waiting, &pitaya.ServerInfo{Type: "room", ID: "r", Frontend: true}, h); err != nil {
		f.Fatal(err)
	}
	for _, uid := range wireUsers {
		if err := tr.Bind(ctx, uid); err != nil {
			f.Fatal(err)
		}
	}
	sids := make(map[string]string)
	for _, m := range w.until(f, tr) {
		sids[m.subject] = m.sid
	}
	return w, tr, sids
}

var wireUsers = [...]string{"u", "a.b", "x/push"}

// wirePanics fails the run for records of panics, which a transport survives.
type wirePanics struct{ t testing.TB }

func (p wirePanics) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("level=ERROR")) {
		p.t.Errorf("logged: %s", b)
	}
	return len(b), nil
}

func (w *wireNATS) serve() {
	defer close(w.got)
	c, err := w.l.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	w.conn = c
	fmt.Fprintf(c, "INFO {\"server_id\":\"w\",\"version\":\"2.12.0\",\"proto\":1,\"headers\":true,\"max_payload\":1048576}\r\n")
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if err := w.line(r, line); err != nil {
			w.got <- wireMessage{err: fmt.Errorf("%q: %w", line, err)}
			return
		}
	}
}

// line takes a line, and the body that follows it.
func (w *wireNATS) line(r io.Reader, line string) error {
	if len(line) > 4096 {
		return errors.New("longer than NATS takes")
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok || strings.ContainsAny(text, "\r\t") {
		return errors.New("not one line")
	}
	args := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' }) // nats.go leaves two where there is no queue
	switch {
	case args[0] == "CONNECT", args[0] == "PONG":
	case args[0] == "PING":
		_, err := io.WriteString(w.conn, "PONG\r\n")
		return err
	case args[0] == "UNSUB":
	case args[0] == "SUB" && len(args) == 3:
		w.got <- wireMessage{verb: "SUB", subject: args[1], sid: args[2]}
	case args[0] == "PUB" && (len(args) == 3 || len(args) == 4):
		n, err := strconv.Atoi(args[len(args)-1])
		if err != nil {
			return err
		}
		body := make([]byte, n+2)
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		m := wireMessage{verb: "PUB", subject: args[1], body: body[:n]}
		if len(args) == 4 {
			m.reply = args[2]
		}
		w.got <- m
	default:
		return errors.New("unknown")
	}
	return nil
}

// until returns what the transport has written so far.
func (w *wireNATS) until(t testing.TB, tr *pitaya.NATSTransport) (all []wireMessage) {
	t.Helper()
	marker := fmt.Sprint("marker", w.handled.Add(1))
	if err := tr.Notify(t.Context(), &pitaya.Notice{Kind: pitaya.NoticePush, FrontendType: "marker", UID: marker}); err != nil {
		t.Fatal(err)
	}
	for {
		m, ok := transporttest.Await(t, w.got), true
		if m.err != nil || !ok {
			t.Fatal("the connection has ended: ", m.err)
		}
		if m.subject == "pitaya/marker/user/"+marker+"/push" {
			return all
		}
		all = append(all, m)
	}
}

// FuzzNATSMessage gives a transport a message as NATS hands it on: to one of its subjects, with any reply subject, header and
// body. It does the one thing that the subject says, answers to the reply subject and nowhere else, and goes on.
func FuzzNATSMessage(f *testing.F) {
	for _, seed := range []struct{ tail, reply, header string }{
		{"", "", ""}, {"", "_INBOX.x.1", ""}, {"", ">", ""}, {"", "a..b", ""}, {"", "pitaya/servers/room/r", ""}, {"", ".\x00\xff", ""},
		{"0", "", "NATS/1.0 503\r\n\r\n"}, {"token", "", "NATS/1.0 503\r\n\r\n"}, {"TOKEN", "x", "NATS/1.0\r\nStatus: 503\r\n\r\n"},
		{"zzzzzzzzzzzzzzzzz", "", "\r\n"}, {"-1", "", "NATS/1.0 503 \xff\r\nA\r\n"}, {"0token", "", "NATS/1.0\r\n: \r\n\r\n"},
	} {
		for where := range 5 {
			f.Add(byte(where), seed.tail, seed.reply, []byte(seed.header), []byte("\x0a\x01u\x12\x01f"))
		}
	}
	f.Add(byte(1), "", "x", []byte(nil), []byte("\xff"))
	f.Add(byte(4), "token", "", []byte("NATS/1.0 503\r\n\r\n"), []byte(nil))
	var seen []string // by the handler; guarded by the order of messages and markers
	w, tr, sids := newWireNATS(f, grpcHandler{
		call: func(body []byte, reply func([]byte)) {
			seen = append(seen, fmt.Sprintf("call %q", body))
			reply([]byte("answer"))
		},
		notice: func(n *pitaya.Notice, reply func([]byte, error)) {
			seen = append(seen, fmt.Sprintf("notice %d %q %q %q", n.Kind, n.FrontendType, n.UID, n.Body))
			if reply != nil {
				reply(nil, nil)
			}
		},
	})
	f.Fuzz(func(t *testing.T, where byte, tail, reply string, header, body []byte) {
		if len(tail)+len(reply) > 3000 || strings.ContainsAny(tail+reply, " \t\r\n") {
			return // NATS does not hand that on
		}
		// A call that waits.
		called := make(chan string, 2)
		tr.Call(t.Context(), &pitaya.ServerInfo{Type: "room", ID: "other"}, []byte("question"), func(b []byte, err error) {
			if err != nil {
				called <- fmt.Sprint("unreachable: ", errors.Is(err, pitaya.ErrUnreachable))
				return
			}
			called <- fmt.Sprintf("answer %q", b)
		})
		asked := w.until(t, tr)
		if len(asked) != 1 || asked[0].subject != "pitaya/servers/room/other" || string(asked[0].body) != "question" {
			t.Fatalf("a call was written as %q", asked)
		}
		dot := strings.LastIndex(asked[0].reply, ".") + 1
		inbox, token := asked[0].reply[:dot], asked[0].reply[dot:]

		var subject, want string
		answer := ""
		uid := wireUsers[int(where/8)%len(wireUsers)]
		switch where % 8 {
		case 0:
			subject, want, answer = "pitaya/servers/room/r", fmt.Sprintf("call %q", body), "answer"
		case 1:
			subject = "pitaya/room/bindings"
			var b pb.BindMsg
			if err := proto.Unmarshal(body, &b); err == nil {
				want, answer = fmt.Sprintf("notice %d %q %q %q", pitaya.NoticeBind, "room", b.Uid, body), "\x0a\x03ack"
			}
		case 2:
			subject, answer = "pitaya/room/user/"+uid+"/push", "\x0a\x03ack"
			want = fmt.Sprintf("notice %d %q %q %q", pitaya.NoticePush, "room", uid, body)
		case 3:
			subject, answer = "pitaya/room/user/"+uid+"/kick", "\x0a\x03ack"
			want = fmt.Sprintf("notice %d %q %q %q", pitaya.NoticeKick, "room", uid, body)
		default: // one token
			tail = strings.ReplaceAll(tail, ".", "")
			tail = strings.ReplaceAll(strings.ReplaceAll(tail, "token", token), "TOKEN", strings.ToUpper(token))
			subject = inbox + tail
		}
		sid := sids[subject]
		if strings.HasPrefix(subject, inbox) {
			sid = sids[inbox+"*"]
		}
		seen = nil
		w.send(t, subject, sid, reply, header, body)
		// Behind it another one, whose answer says that it was handled.
		w.send(t, "pitaya/servers/room/r", sids["pitaya/servers/room/r"], "behind", nil, []byte("behind"))
		var got []wireMessage
		for m := transporttest.Await(t, w.got); m.subject != "behind" || string(m.body) != "answer"; m = transporttest.Await(t, w.got) {
			if m.err != nil || m.verb == "" {
				t.Fatal("the connection has ended: ", m.err)
			}
			got = append(got, m)
		}
		if n := len(seen); n == 0 || seen[n-1] != `call "behind"` || strings.Join(seen[:n-1], " ") != want {
			t.Fatalf("%q came in as %q, want %q", subject, seen, want)
		}
		switch {
		case reply == "" || strings.HasPrefix(subject, inbox):
			if len(got) != 0 {
				t.Fatalf("wrote %q without a reply subject", got)
			}
		case len(got) != 1 || got[0].verb != "PUB" || got[0].subject != reply || got[0].reply != "":
			t.Fatalf("wrote %q, want the answer to %q", got, reply)
		case answer != "" && string(got[0].body) != answer:
			t.Fatalf("answered %q, want %q", got[0].body, answer)
		case answer == "":
			var r pb.Response
			if err := proto.Unmarshal(got[0].body, &r); err != nil || r.GetError().GetCode() != pitaya.CodeBadRequest {
				t.Fatalf("answered %q, want a bad request", got[0].body)
			}
		}
		// The call that waits was answered, if the message was for it.
		mine, err := strconv.ParseUint(token, 36, 64)
		if err != nil {
			t.Fatalf("token %q: %v", token, err)
		}
		if n, err := strconv.ParseUint(tail, 36, 64); err != nil || n != mine || !strings.HasPrefix(subject, inbox) {
			w.send(t, asked[0].reply, sids[inbox+"*"], "", nil, []byte("late"))
			body = []byte("late")
		}
		if text := transporttest.Await(t, called); text != fmt.Sprintf("answer %q", body) && (text != "unreachable: true" || len(body) > 0) {
			t.Fatalf("the call ended with %s, want the answer %q", text, body)
		}
		if err := tr.Healthy(); err != nil {
			t.Fatal(err)
		}
	})
}

// send writes a message as NATS does.
func (w *wireNATS) send(t testing.TB, subject, sid, reply string, header, body []byte) {
	t.Helper()
	if sid == "" {
		t.Fatalf("%q is not subscribed to", subject)
	}
	args := subject + " " + sid
	if reply != "" {
		args += " " + reply
	}
	verb, lengths := "MSG", fmt.Sprint(len(body))
	if len(header) > 0 {
		verb, lengths = "HMSG", fmt.Sprint(len(header), " ", len(header)+len(body))
	}
	if _, err := fmt.Fprintf(w.conn, "%s %s %s\r\n%s%s\r\n", verb, args, lengths, header, body); err != nil {
		t.Fatal(err)
	}
}

// FuzzNATSNames lets a transport call, tell and bind whoever has any name. Each comes to an error or to one line with the
// subject of section 5.1, and simple names always to the line; what is subscribed to is one user.
func FuzzNATSNames(f *testing.F) {
	f.Add("room", "r-1", "connector", "u")
	f.Add("room\r\nPUB x 0\r\n\r\n", "*", "connector b", "u\tv")
	f.Add(">", "a.>", "", "*")
	f.Add("", "", "a.*", "a.*")
	f.Add("..", "a..b", "x/user/y/push", "b/kick")
	f.Add("\x00", "\xff", "\u00a0", "\u2028")
	f.Add(strings.Repeat("t", 1020), strings.Repeat("i", 1), strings.Repeat("f", 512), strings.Repeat("u", 512))
	f.Add("room", "r", strings.Repeat("f", 513), strings.Repeat("u", 513))
	w, tr, _ := newWireNATS(f, grpcHandler{})
	f.Fuzz(func(t *testing.T, serverType, id, frontend, uid string) {
		if slices.Contains(wireUsers[:], uid) || frontend == "marker" {
			return // bound already, or the test's own
		}
		to := &pitaya.ServerInfo{Type: serverType, ID: id}
		server := "pitaya/servers/" + serverType + "/" + id
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()

		// A call that is refused has ended by itself; the others are given up.
		called := make(chan error, 2)
		tr.Call(ctx, to, []byte("a"), func(_ []byte, err error) { called <- err })
		tr.Call(ctx, to, []byte("b"), nil)
		got := w.until(t, tr)
		cancel()
		err := transporttest.Await(t, called)
		switch {
		case errors.Is(err, context.Canceled):
			if len(got) != 2 || got[0].subject != server || got[1].subject != server || got[0].reply == "" || got[1].reply != "" {
				t.Fatalf("calls of %q %q were written as %q", serverType, id, got)
			}
		case len(got) != 0 || simpleName(serverType) && simpleName(id):
			t.Fatalf("a call of %q %q has failed with %v and was written as %q", serverType, id, err, got)
		}

		for kind, subject := range map[pitaya.NoticeKind]string{
			pitaya.NoticePush: "pitaya/" + frontend + "/user/" + uid + "/push",
			pitaya.NoticeKick: "pitaya/" + frontend + "/user/" + uid + "/kick",
			pitaya.NoticeBind: "pitaya/" + frontend + "/bindings",
		} {
			err := tr.Notify(t.Context(), &pitaya.Notice{Kind: kind, FrontendType: frontend, UID: uid, Body: []byte("c")})
			switch got := w.until(t, tr); {
			case err == nil:
				if len(got) != 1 || got[0].String() != (wireMessage{verb: "PUB", subject: subject, body: []byte("c")}).String() {
					t.Fatalf("a notice to %q was written as %q", subject, got)
				}
			case len(got) != 0 || simpleName(frontend) && simpleName(uid):
				t.Fatalf("a notice to %q has failed with %v and was written as %q", subject, err, got)
			}
		}

		err = tr.Bind(t.Context(), uid)
		got = w.until(t, tr)
		switch {
		case err == nil:
			if len(got) != 2 || got[0].subject != "pitaya/room/user/"+uid+"/push" || got[1].subject != "pitaya/room/user/"+uid+"/kick" {
				t.Fatalf("the user %q was subscribed to as %q", uid, got)
			}
			for part := range strings.SplitSeq(got[0].subject, ".") {
				if part == "" || part == "*" || part == ">" {
					t.Fatalf("the user %q was subscribed to with the others of %q", uid, got)
				}
			}
		case len(got) != 0 || simpleName(uid):
			t.Fatalf("the bind of %q has failed with %v and was written as %q", uid, err, got)
		}
		if err := tr.Unbind(t.Context(), uid); err != nil {
			t.Fatal(err)
		}
		w.until(t, tr)
		if err := tr.Healthy(); err != nil {
			t.Fatal(err)
		}
	})
}

// simpleName reports whether a name must be good anywhere.
func simpleName(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}
