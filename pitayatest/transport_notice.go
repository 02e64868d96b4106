package pitayatest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

// A transportNotice is one that has come in, and where.
type transportNotice struct {
	Server string
	pitaya.Notice
}

// A noticeTest is a server that sends notices to the frontends of one type, and what all of them get.
type noticeTest struct {
	testing.TB
	frontType string
	back      *transporttest.Peer
	come      chan transportNotice
}

// listen makes a server tell of the notices that come in.
func (nt *noticeTest) listen(p *transporttest.Peer) {
	p.OnNotice = func(n *pitaya.Notice, reply func([]byte, error)) {
		if reply != nil {
			reply(nil, nil)
		}
		nt.come <- transportNotice{p.Self.ID, *n}
	}
}

// notice returns one to a user. Some transports take the user from the message.
func (nt *noticeTest) notice(kind pitaya.NoticeKind, uid string, on *transporttest.Peer, text string) *pitaya.Notice {
	body := appendText(appendText(nil, 2, uid), 3, text) // Push.uid and Push.data
	if kind == pitaya.NoticeKick {
		body = appendText(nil, 1, uid) // KickMsg.userId
	}
	return &pitaya.Notice{Kind: kind, FrontendType: nt.frontType, UID: uid, Server: on.Self, Body: body}
}

// send sends one to a user who is on a server.
func (nt *noticeTest) send(kind pitaya.NoticeKind, uid string, on *transporttest.Peer, text string) {
	nt.Helper()
	if err := nt.back.Notify(nt.Context(), nt.notice(kind, uid, on, text)); err != nil {
		nt.Errorf("notice to %q: %v", uid, err)
	}
}

// want checks that it is the next to come in, there.
func (nt *noticeTest) want(kind pitaya.NoticeKind, uid string, on *transporttest.Peer, text string) {
	nt.Helper()
	got, want := transporttest.Await(nt.TB, nt.come), nt.notice(kind, uid, on, text)
	if got.Server != on.Self.ID || got.Kind != kind || got.UID != uid || got.FrontendType != nt.frontType || !bytes.Equal(got.Body, want.Body) {
		nt.Errorf("got %+v, want %d for %q with %q at %s", got, kind, uid, want.Body, on.Self.ID)
	}
}

// transportNotices: notices reach the server that has their user, and no other, in order.
func transportNotices(t testing.TB, n *transporttest.Net) {
	nt := &noticeTest{TB: t, frontType: n.TypeName("front"), come: make(chan transportNotice, 100)}
	f1, f2 := n.Server(nt.frontType, nt.listen), n.Server(nt.frontType, nt.listen)
	other, back := n.Server(n.TypeName("other"), nt.listen), n.Server("back", nt.listen)
	nt.back = back
	ctx := t.Context()
	for uid, f := range map[string]*transporttest.Peer{"u-1": f1, "a@b.c": f1, "x/y": f2, "ü": f2} {
		for range 2 { // the second is nothing new
			if err := f.Bind(ctx, uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := other.Bind(ctx, "u-1"); err != nil { // the same user of another game
		t.Fatal(err)
	}
	for _, tt := range []struct {
		uid string
		on  *transporttest.Peer
	}{{"u-1", f1}, {"a@b.c", f1}, {"x/y", f2}, {"ü", f2}} {
		nt.send(pitaya.NoticePush, tt.uid, tt.on, "hello")
		nt.want(pitaya.NoticePush, tt.uid, tt.on, "hello")
		nt.send(pitaya.NoticeKick, tt.uid, tt.on, "")
		nt.want(pitaya.NoticeKick, tt.uid, tt.on, "")
	}
	// Those for one user stay in order.
	for i := range 50 {
		nt.send(pitaya.NoticePush, "u-1", f1, fmt.Sprint(i))
	}
	for i := range 50 {
		nt.want(pitaya.NoticePush, "u-1", f1, fmt.Sprint(i))
	}

	// A user who has gone is not told anything, and the one behind is.
	if err := f1.Unbind(ctx, "u-1"); err != nil {
		t.Fatal(err)
	}
	if err := f1.Unbind(ctx, "u-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := f1.Ask(ctx, back.Self, nil); err != nil { // the news has arrived
		t.Fatal(err)
	}
	back.Notify(ctx, nt.notice(pitaya.NoticePush, "u-1", f1, "")) // which may be an error
	nt.send(pitaya.NoticePush, "a@b.c", f1, "behind")
	nt.want(pitaya.NoticePush, "a@b.c", f1, "behind")
	// And is again when back, on another server perhaps.
	if err := f2.Bind(ctx, "u-1"); err != nil {
		t.Fatal(err)
	}
	nt.send(pitaya.NoticePush, "u-1", f2, "again")
	nt.want(pitaya.NoticePush, "u-1", f2, "again")
	select {
	case extra := <-nt.come:
		t.Errorf("unexpected notice %+v", extra)
	default:
	}
}

func transportNames(t testing.TB, n *transporttest.Net) {
	a := n.Server("front", nil)
	for _, uid := range []string{"", " ", "a b", "a\tb", "a\r\nPING\r\n", "*", "a.*.b", ">", "a.>", "a..b", ".", "\xff", strings.Repeat("x", 5000)} {
		if err := a.Bind(t.Context(), uid); !errors.Is(err, pitaya.ErrIllegalUID) {
			t.Errorf("Bind(%.20q): got %v, want ErrIllegalUID", uid, err)
		}
		if err := a.Unbind(t.Context(), uid); err != nil {
			t.Errorf("Unbind(%.20q): %v", uid, err)
		}
	}
	// Names from the discovery may be anything.
	for _, s := range []*pitaya.ServerInfo{{ID: "a b", Type: "x"}, {ID: "a\r\nPUB x 0", Type: "x"}, {ID: strings.Repeat("x", 5000), Type: "y"}} {
		if _, err := a.Ask(t.Context(), s, nil); err == nil {
			t.Errorf("call to %.20q succeeded", s.ID)
		}
	}
	if got, err := a.Ask(t.Context(), a.Self, []byte("fine")); err != nil || string(got) != "fine" {
		t.Errorf("afterwards: got %q, %v", got, err)
	}
}

// appendText appends a field of a protobuf message, unless it is empty.
func appendText(b []byte, field int, text string) []byte {
	if text == "" {
		return b
	}
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}
