package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Rooms has the handlers hall.room.join, .leave, .say, .whisper and .who. A room is a group: a named set of users. Groups hold
// names and know no sessions, so it is up to the game that who disconnects is no member any more.
type Rooms struct {
	pitaya.Base
	srv *pitaya.Server
	ttl time.Duration // how long a room lasts in which nobody says anything
}

type (
	Name    struct{ Name string }
	Words   struct{ From, To, Text string }
	Members struct {
		Room  string
		Names []string
	}
)

// newRooms registers the handlers.
func newRooms(srv *pitaya.Server, ttl time.Duration) error {
	r := &Rooms{srv: srv, ttl: ttl}
	return errors.Join(
		pitaya.Handle(srv, "player.enter", enter),
		// The rooms are for those who have entered.
		srv.Register(r, pitaya.WithName("room"), pitaya.WithNameFunc(strings.ToLower), pitaya.WithBound()),
		// However a session ends, its user leaves. This runs when the last handler of the session is done, so nobody joins
		// after it. The session's context is over by then.
		srv.OnSessionClose(func(s *pitaya.Session) { r.leave(context.Background(), s) }),
	)
}

// enter binds the session to a user. Two people may have one name: the number behind it makes them different users.
func enter(ctx context.Context, in *Name) (*Name, error) {
	s := pitaya.SessionFromContext(ctx)
	if in.Name == "" || len(in.Name) > 30 || strings.Contains(in.Name, "#") {
		return nil, pitaya.Errorf(pitaya.CodeBadRequest, "a name has 1 to 30 characters, and no #")
	}
	if err := s.Bind(ctx, fmt.Sprintf("%s#%d", in.Name, s.ID())); err != nil {
		return nil, pitaya.NewError(err, pitaya.CodeBadRequest)
	}
	return in, nil
}

// nameOf is the name of a user.
func nameOf(uid string) string {
	name, _, _ := strings.Cut(uid, "#")
	return name
}

// Join leads a user into a room, which is made if it is not there.
func (r *Rooms) Join(ctx context.Context, in *Name) (*Members, error) {
	if in.Name == "" || len(in.Name) > 30 {
		return nil, pitaya.Errorf(pitaya.CodeBadRequest, "the name of a room has 1 to 30 characters")
	}
	s := pitaya.SessionFromContext(ctx)
	r.leave(ctx, s)
	room := r.group(in.Name)
	if err := room.Create(ctx, r.ttl); err != nil && !errors.Is(err, pitaya.ErrGroupExists) {
		return nil, err
	}
	if err := room.Add(ctx, s.UID()); err != nil {
		return nil, gone(err)
	}
	if err := s.Set("room", in.Name); err != nil {
		return nil, err
	}
	// Multicast is for those members that a function chooses. Who joins knows it from the answer.
	r.told(ctx, room.Multicast(ctx, "", "onJoin", Name{nameOf(s.UID())}, func(uid string) bool { return uid != s.UID() }))
	return r.Who(ctx)
}

// Leave leads a user out of the room.
func (r *Rooms) Leave(ctx context.Context) (*Members, error) {
	r.leave(ctx, pitaya.SessionFromContext(ctx))
	return &Members{}, nil
}

// leave does so for a session, which need not be in a room.
func (r *Rooms) leave(ctx context.Context, s *pitaya.Session) {
	name, ok := pitaya.SessionValue[string](s, "room")
	if !ok {
		return
	}
	s.Delete("room")
	room := r.group(name)
	if err := room.Remove(ctx, s.UID()); err != nil {
		return // the room is gone
	}
	r.told(ctx, room.Broadcast(ctx, "", "onLeave", Name{nameOf(s.UID())}))
}

// Say tells all members. As long as somebody talks, the room stays.
func (r *Rooms) Say(ctx context.Context, in *Words) (*Words, error) {
	in.From = nameOf(pitaya.SessionFromContext(ctx).UID())
	room, err := r.mine(ctx)
	if err != nil {
		return nil, err
	}
	if err := room.Renew(ctx); err != nil {
		return nil, gone(err)
	}
	r.told(ctx, room.Broadcast(ctx, "", "onSay", in))
	return in, nil
}

// Whisper tells those members that have a name.
func (r *Rooms) Whisper(ctx context.Context, in *Words) (*Words, error) {
	in.From = nameOf(pitaya.SessionFromContext(ctx).UID())
	room, err := r.mine(ctx)
	if err != nil {
		return nil, err
	}
	heard := false
	err = room.Multicast(ctx, "", "onWhisper", in, func(uid string) bool {
		found := nameOf(uid) == in.To
		heard = heard || found
		return found
	})
	if r.told(ctx, err); !heard {
		return nil, pitaya.Errorf(pitaya.CodeNotFound, "there is no %s here", in.To)
	}
	return in, nil
}

// Who lists the members of the room.
func (r *Rooms) Who(ctx context.Context) (*Members, error) {
	room, err := r.mine(ctx)
	if err != nil {
		return nil, err
	}
	uids, err := room.Members(ctx)
	if err != nil {
		return nil, gone(err)
	}
	members := &Members{Room: strings.TrimPrefix(room.Name(), prefix)}
	for _, uid := range uids {
		members.Names = append(members.Names, nameOf(uid))
	}
	slices.Sort(members.Names)
	return members, nil
}

// prefix is of the names of all groups that are rooms: a game has others too, guilds for instance.
const prefix = "room/"

func (r *Rooms) group(name string) *pitaya.Group { return r.srv.Group(prefix + name) }

// mine is the room that the caller is in. It may have ended, and there may be another one of its name.
func (r *Rooms) mine(ctx context.Context) (*pitaya.Group, error) {
	s := pitaya.SessionFromContext(ctx)
	name, ok := pitaya.SessionValue[string](s, "room")
	if !ok {
		return nil, pitaya.Errorf("ROOM-NONE", "you are in no room")
	}
	room := r.group(name)
	in, err := room.Contains(ctx, s.UID())
	if err == nil && !in {
		err = pitaya.ErrGroupNotFound
	}
	return room, gone(err)
}

// gone makes an error for clients of one of a group.
func gone(err error) error {
	if errors.Is(err, pitaya.ErrGroupNotFound) {
		return pitaya.Errorf("ROOM-GONE", "nobody said anything, and the room is gone")
	}
	return err
}

// told notes who was not reached, which is no failure: they may be leaving at this moment.
func (r *Rooms) told(ctx context.Context, err error) {
	if err != nil {
		pitaya.LoggerFromContext(ctx).Debug("not all were told", "err", err)
	}
}
