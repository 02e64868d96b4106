package pitayatest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// The tests of this file are examples. Package documentation shows parts of them.

type Hello struct{ pitaya.Base }

type Message struct{ Text string }

func (*Hello) Greet(_ context.Context, in *Message) (*Message, error) {
	return &Message{Text: "Hello, " + in.Text + "!"}, nil
}

// A test of a handler.
func TestGreet(t *testing.T) {
	srv := pitayatest.NewServer(t, pitaya.Config{}, func(s *pitaya.Server) { s.Register(&Hello{}) })
	got := pitayatest.Request[Message](srv.Client(t), "Hello.Greet", &Message{Text: "Ada"})
	if got.Text != "Hello, Ada!" {
		t.Errorf("got %q", got.Text)
	}
}

// Chat is a room for all, and a bouncer.
type Chat struct {
	pitaya.Base
	srv *pitaya.Server
}

func (c *Chat) Join(ctx context.Context, in *Message) (*Message, error) {
	if in.Text == "" {
		return nil, pitaya.Errorf(pitaya.CodeBadRequest, "a name is needed")
	}
	if err := pitaya.SessionFromContext(ctx).Bind(ctx, in.Text); err != nil {
		return nil, err
	}
	return in, c.srv.Group("chat").Add(ctx, in.Text)
}

func (c *Chat) Say(ctx context.Context, in *Message) {
	if in.Text == "spam" {
		_ = pitaya.SessionFromContext(ctx).KickReason(ctx, "no spam")
		return
	}
	_ = c.srv.Group("chat").Broadcast(ctx, c.srv.Type(), "onSay", in)
}

// A test with several clients, pushes, errors and a kick.
func TestChat(t *testing.T) {
	srv := pitayatest.NewServer(t, pitaya.Config{}, func(s *pitaya.Server) {
		s.Register(&Chat{srv: s})
		s.Group("chat").Create(t.Context(), 0)
	})
	ada, bob := srv.Client(t), srv.Client(t)
	bob.ExpectError("Chat.Join", &Message{}, pitaya.CodeBadRequest)
	ada.Request("Chat.Join", &Message{"ada"}, nil)
	bob.Request("Chat.Join", &Message{"bob"}, nil)

	ada.Notify("Chat.Say", &Message{"hi"})
	for _, c := range []*pitayatest.Client{ada, bob} {
		if got := pitayatest.Push[Message](c, "onSay"); got.Text != "hi" {
			t.Errorf("got %q", got.Text)
		}
	}
	bob.Notify("Chat.Say", &Message{"spam"})
	if reason := bob.ExpectKick(); reason != "no spam" {
		t.Errorf("kicked for %q", reason)
	}
	ada.NoPush()
}

// Turns tells its player when the time for a turn is over.
type Turns struct{ pitaya.Base }

func (*Turns) Begin(ctx context.Context) {
	session := pitaya.SessionFromContext(ctx)
	go func() {
		select {
		case <-time.After(time.Minute):
			_ = session.Push(session.Context(), "onTurnEnd", nil)
		case <-session.Context().Done():
		}
	}()
}

// A test of what happens in time, which takes none.
func TestTurnEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := pitayatest.NewServer(t, pitaya.Config{}, func(s *pitaya.Server) { s.Register(&Turns{}) })
		c := srv.Client(t)
		c.Notify("Turns.Begin", nil)
		c.NoPush() // and the server has begun to count
		time.Sleep(time.Minute - time.Nanosecond)
		c.NoPush()
		time.Sleep(time.Nanosecond)
		c.ExpectPush("onTurnEnd")
	})
}
