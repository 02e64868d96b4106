package main

import (
	"context"
	"errors"

	"github.com/pitaya-go/pitaya"
)

// Room is the service room of -suite chat: one chat room.
type Room struct{ room *room }

func setUpChat(s *pitaya.Server) error {
	room, err := newRoom(s, "room")
	if err != nil {
		return err
	}
	return register(s, "room", &Room{room: room})
}

// Joined is the answer of Room.Join.
type Joined struct {
	Code   int    `json:"code"`
	Result string `json:"result"`
}

// Members is pushed to who joins.
type Members struct {
	Members []string `json:"members"`
}

// NewUser is pushed to those who are in the room when somebody joins.
type NewUser struct {
	Content string `json:"content"`
}

// Join lets the caller into the room, under a name of its own.
func (r *Room) Join(ctx context.Context, body []byte) (*Joined, error) {
	session := pitaya.SessionFromContext(ctx)
	if err := session.Bind(ctx, newUID()); err != nil {
		return nil, pitaya.NewError(err, "RH-000")
	}
	err := r.room.enter(ctx, session, func(uids []string) error {
		if err := session.Push(ctx, "onMembers", &Members{Members: append([]string{}, uids...)}); err != nil {
			return err
		}
		err := r.room.group.Broadcast(ctx, "", "onNewUser", &NewUser{Content: "New user: " + session.UID()})
		return ignoreUndelivered(ctx, err)
	})
	if err != nil {
		return nil, err
	}
	return &Joined{Result: "success"}, nil
}

// Message broadcasts what somebody says.
func (r *Room) Message(ctx context.Context, line *Line) {
	logUndelivered(ctx, r.room.group.Broadcast(ctx, "", "onMessage", line))
}

// ignoreUndelivered passes on errors, except that somebody was not reached: he
// is about to leave.
func ignoreUndelivered(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*pitaya.UndeliveredError](err); ok {
		logUndelivered(ctx, err)
		return nil
	}
	return err
}
