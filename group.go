package pitaya

import (
	"context"
	"time"
)

// A Group is a named set of users that can be sent to at once. It is only a
// name: the set itself is in the server's [GroupStore], and all Groups of one
// name and server are the same. Membership is not tied to sessions; a user
// stays in the group until removed. The methods may be called from any
// goroutine.
type Group struct {
	server groupServer
	store  GroupStore
	name   string
}

// groupServer is what a group needs of its server.
type groupServer interface {
	// pushEach pushes v to the users that each calls its argument with. They
	// are connected to servers of the given frontend type.
	pushEach(ctx context.Context, frontendType, route string, v any, each func(to func(uid string)) error) error
}

func newGroup(name string, store GroupStore, server groupServer) *Group {
	return &Group{name: name, store: store, server: server}
}

// Name returns the group's name.
func (g *Group) Name() string { return g.name }

// Create makes the group, without members. With a ttl above zero it vanishes
// that long after its creation or last renewal. [ErrGroupExists] if there is
// one.
func (g *Group) Create(ctx context.Context, ttl time.Duration) error {
	return g.store.Create(ctx, g.name, ttl)
}

// Delete removes the group. [ErrGroupNotFound] if there is none.
func (g *Group) Delete(ctx context.Context) error { return g.store.Delete(ctx, g.name) }

// Renew starts the group's time anew. [ErrGroupNoTTL] if it has none.
func (g *Group) Renew(ctx context.Context) error { return g.store.Renew(ctx, g.name) }

// Add adds users. [ErrMemberExists] if one of them is a member.
func (g *Group) Add(ctx context.Context, uids ...string) error {
	return g.store.Add(ctx, g.name, uids...)
}

// Remove removes users. [ErrMemberNotFound] if one of them is no member.
func (g *Group) Remove(ctx context.Context, uids ...string) error {
	return g.store.Remove(ctx, g.name, uids...)
}

// RemoveAll removes all users; the group stays.
func (g *Group) RemoveAll(ctx context.Context) error { return g.store.RemoveAll(ctx, g.name) }

// Members returns the users in the group.
func (g *Group) Members(ctx context.Context) ([]string, error) {
	return g.store.Members(ctx, g.name)
}

// Contains reports whether a user is in the group.
func (g *Group) Contains(ctx context.Context, uid string) (bool, error) {
	return g.store.Contains(ctx, g.name, uid)
}

// Count returns the number of users in the group.
func (g *Group) Count(ctx context.Context) (int, error) { return g.store.Count(ctx, g.name) }

// Broadcast pushes v to all members that are connected to servers of the given
// frontend type; empty means this server's type. v is serialized and encoded
// once. Members that were not reached are in the [*UndeliveredError] that is
// returned.
func (g *Group) Broadcast(ctx context.Context, frontendType, route string, v any) error {
	return g.Multicast(ctx, frontendType, route, v, nil)
}

// Multicast is Broadcast to the members for which keep returns true. It is
// called in the goroutine of the caller, and must not change the group.
func (g *Group) Multicast(ctx context.Context, frontendType, route string, v any, keep func(uid string) bool) error {
	return g.server.pushEach(ctx, frontendType, route, v, func(to func(uid string)) error {
		return g.each(ctx, func(uid string) {
			if keep == nil || keep(uid) {
				to(uid)
			}
		})
	})
}

// each calls f for each member. The store in memory can do that without a copy
// of the list.
func (g *Group) each(ctx context.Context, f func(uid string)) error {
	if m, ok := g.store.(interface {
		each(group string, f func(uid string)) error
	}); ok {
		return m.each(g.name, f)
	}
	uids, err := g.Members(ctx)
	if err != nil {
		return err
	}
	for _, uid := range uids {
		f(uid)
	}
	return nil
}
