package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/pitaya-go/pitaya"
)

// historyLines is how many lines a room remembers.
const historyLines = 50

// A Line is something that was said.
type Line struct {
	// At is when, in milliseconds since 1970. No two lines of a room have the same, and later ones have more, also
	// over a restart of the server: clients sort lines by it and know again those that they have.
	At   int64  `json:"at"`
	Name string `json:"name"`
	Text string `json:"text"`
}

// A room is guarded by the lock of its [Chat].
type room struct {
	name    string
	group   *pitaya.Group    // the members' uids, for pushes
	members map[string]*user // by folded name: names are unique here
	history []Line           // oldest first, at most historyLines
	leftAt  time.Time        // when the last member left
}

func newRoom(name string, group *pitaya.Group) (*room, error) {
	r := &room{name: name, group: group, members: make(map[string]*user), history: []Line{}, leftAt: time.Now()}
	return r, group.Create(context.Background(), 0)
}

// add makes u a member under that name, which must be free.
func (r *room) add(u *user, name string) error {
	u.room, u.name = r, name
	r.members[fold(name)] = u
	return r.group.Add(context.Background(), u.uid)
}

// remove is the opposite of add.
func (r *room) remove(u *user) error {
	delete(r.members, fold(u.name))
	u.room, u.name = nil, ""
	r.leftAt = time.Now()
	return r.group.Remove(context.Background(), u.uid)
}

// names returns the members' names in order.
func (r *room) names() []string {
	names := make([]string, 0, len(r.members))
	for _, key := range slices.Sorted(maps.Keys(r.members)) {
		names = append(names, r.members[key].name)
	}
	return names
}

// say adds a line to the history.
func (r *room) say(name, text string) Line {
	line := Line{At: time.Now().UnixMilli(), Name: name, Text: text}
	if n := len(r.history); n > 0 {
		line.At = max(line.At, r.history[n-1].At+1)
		if n == historyLines {
			r.history = slices.Delete(r.history, 0, 1)
		}
	}
	r.history = append(r.history, line)
	return line
}
