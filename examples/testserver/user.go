package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"

	"github.com/pitaya-go/pitaya"
)

// newUID returns a fresh user id: a random UUID, RFC 9562, section 5.4.
func newUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// A room is a group whose members are there as long as their sessions are.
type room struct {
	group *pitaya.Group

	mu      sync.Mutex                 // makes group and members change together
	members map[string]*pitaya.Session // who is in the group, and by which session
}

// newRoom makes the group, too.
func newRoom(s *pitaya.Server, group string) (*room, error) {
	r := &room{group: s.Group(group), members: make(map[string]*pitaya.Session)}
	return r, r.group.Create(context.Background(), 0)
}

// enter puts the user of the session into the room, until the session ends.
// Before that it calls greet with those who are in already, who cannot change
// meanwhile; an error of it is returned.
func (r *room) enter(ctx context.Context, session *pitaya.Session, greet func(uids []string) error) error {
	uid := session.UID()
	r.mu.Lock()
	defer r.mu.Unlock()
	if greet != nil {
		uids, err := r.group.Members(ctx)
		if err != nil {
			return err
		}
		if err := greet(uids); err != nil {
			return err
		}
	}
	last := r.members[uid]
	if last == session {
		return nil
	}
	if err := session.OnClose(func() { r.leave(uid, session) }); err != nil {
		return err
	}
	if last == nil {
		if err := r.group.Add(ctx, uid); err != nil {
			return err
		}
	}
	r.members[uid] = session // of a user who has come back, the newer one counts
	return nil
}

// add puts a user into the group who stays there.
func (r *room) add(ctx context.Context, uid string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if there, err := r.group.Contains(ctx, uid); there || err != nil {
		return err
	}
	return r.group.Add(ctx, uid)
}

// leave takes a user out again whose session has ended.
func (r *room) leave(uid string, session *pitaya.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.members[uid] != session {
		return
	}
	delete(r.members, uid)
	r.group.Remove(context.Background(), uid) // the group exists, and the user is in it
}
