package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/pitaya-go/pitaya"
)

// Limits, in characters where they are about text.
const (
	maxName  = 24
	maxRoom  = 24
	maxText  = 1000
	maxRooms = 100
)

// Codes of the errors of this service. What is wrong with a request in itself is [pitaya.CodeBadRequest].
const (
	CodeNameTaken  = "CHAT-NAME-TAKEN"
	CodeNotInRoom  = "CHAT-NOT-IN-ROOM"
	CodeNoMoreRoom = "CHAT-NO-MORE-ROOMS"
)

type (
	// JoinRequest is the argument of chat.join.
	JoinRequest struct {
		Room string `json:"room"`
		Name string `json:"name"`
	}
	// JoinReply is its answer. Later changes come as pushes: onJoin, onLeave and onMessage.
	JoinReply struct {
		You     string   `json:"you"`
		Room    string   `json:"room"`
		Members []string `json:"members"` // by name, you included
		History []Line   `json:"history"` // oldest first
	}
	// SayRequest is the argument of chat.say.
	SayRequest struct {
		Text string `json:"text"`
	}
	// LeaveReply is the answer to chat.leave.
	LeaveReply struct {
		Room string `json:"room"` // empty: you were in none
	}
	// RoomList is the answer to chat.rooms, and the push onRooms whenever it changes: fullest room first.
	RoomList struct {
		Rooms []RoomInfo `json:"rooms"`
	}
	// RoomInfo is a room in that list.
	RoomInfo struct {
		Name    string `json:"name"`
		Members int    `json:"members"`
	}
	// Move is the push onJoin and onLeave, for the others in the room.
	Move struct {
		Room string `json:"room"`
		Name string `json:"name"`
	}
	// Message is the push onMessage, for all in the room.
	Message struct {
		Room string `json:"room"`
		Line
	}
)

// Chat is the service: each exported method is a route.
type Chat struct {
	pitaya.Base
	srv   *pitaya.Server
	lobby *pitaya.Group // all users; they are told when the list of rooms changes

	// mu guards what is below, and the fields of rooms and users. It is held while pushing, which waits for nobody:
	// a push only joins the queue of its client. So everybody in a room sees the same things in the same order.
	mu    sync.Mutex
	rooms map[string]*room // by folded name
	users map[string]*user // by uid
}

// A user is somebody with a page open, in a room or not.
type user struct {
	uid     string
	session *pitaya.Session // the one that speaks for the user
	room    *room           // nil: in none
	name    string          // in that room
}

func newChat(srv *pitaya.Server) *Chat {
	return &Chat{
		srv:   srv,
		lobby: srv.Group("lobby"),
		rooms: make(map[string]*room),
		users: make(map[string]*user),
	}
}

// Init is called once, when the server starts.
func (c *Chat) Init() {
	c.check(c.lobby.Create(context.Background(), 0))
}

// Join takes the user into a room, and out of the one before. Rooms come into being when somebody joins them.
func (c *Chat) Join(ctx context.Context, in *JoinRequest) (*JoinReply, error) {
	roomName, name := oneLine(in.Room), oneLine(in.Name)
	if err := checkText("room", roomName, maxRoom); err != nil {
		return nil, err
	}
	if err := checkText("name", name, maxName); err != nil {
		return nil, err
	}
	u, err := c.lockUser(ctx)
	if err != nil {
		return nil, err
	}
	defer c.mu.Unlock()

	r, err := c.openRoom(roomName)
	if err != nil {
		return nil, err
	}
	if other := r.members[fold(name)]; other != nil && other != u {
		return nil, pitaya.Errorf(CodeNameTaken, "somebody in %s is called %s already", r.name, other.name)
	}
	// Who joins again as the same one has only lost the connection for a moment, and nobody else needs to know.
	if u.room != r || u.name != name {
		c.leave(u)
		c.push(r.group, "onJoin", &Move{Room: r.name, Name: name}) // goes to the others, so before u is one of them
		c.check(r.add(u, name))
		c.push(c.lobby, "onRooms", c.list())
	}
	return &JoinReply{You: u.name, Room: r.name, Members: r.names(), History: slices.Clone(r.history)}, nil
}

// Say tells everybody in the room something. The answer is the line that they see, the speaker included.
func (c *Chat) Say(ctx context.Context, in *SayRequest) (*Line, error) {
	text := strings.TrimSpace(in.Text)
	if err := checkText("text", text, maxText); err != nil {
		return nil, err
	}
	u, err := c.lockUser(ctx)
	if err != nil {
		return nil, err
	}
	defer c.mu.Unlock()

	if u.room == nil {
		return nil, pitaya.Errorf(CodeNotInRoom, "join a room first")
	}
	line := u.room.say(u.name, text)
	c.push(u.room.group, "onMessage", &Message{Room: u.room.name, Line: line})
	return &line, nil
}

// Leave takes the user out of the room.
func (c *Chat) Leave(ctx context.Context) (*LeaveReply, error) {
	u, err := c.lockUser(ctx)
	if err != nil {
		return nil, err
	}
	defer c.mu.Unlock()

	if u.room == nil {
		return &LeaveReply{}, nil
	}
	left := u.room.name
	c.leave(u)
	c.push(c.lobby, "onRooms", c.list())
	return &LeaveReply{Room: left}, nil
}

// Rooms lists the rooms. From then on changes come as the push onRooms.
func (c *Chat) Rooms(ctx context.Context) (*RoomList, error) {
	if _, err := c.lockUser(ctx); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	return c.list(), nil
}

// lockUser returns the user of the session that asks, with c.mu held. On an error it is not held.
func (c *Chat) lockUser(ctx context.Context) (*user, error) {
	s := pitaya.SessionFromContext(ctx)
	if s.UID() == "" {
		if err := c.enter(ctx, s); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	if u := c.users[s.UID()]; u != nil && u.session == s {
		return u, nil
	}
	c.mu.Unlock()
	return nil, pitaya.ErrSessionClosed // a newer one speaks for the user
}

// enter makes the session that of a user. It runs at the first request of a session, once.
func (c *Chat) enter(ctx context.Context, s *pitaya.Session) error {
	// There are no accounts here, but a page that lost its connection should find its place again even if the
	// server has not noticed the loss yet. So it may send a secret of its own with the handshake. Binding a uid
	// that another session has ends that session.
	uid := rand.Text()
	if key, _ := s.HandshakeData().User["key"].(string); key != "" {
		sum := sha256.Sum256([]byte(key)) // uids appear in logs, secrets should not
		uid = hex.EncodeToString(sum[:16])
	}
	if err := s.Bind(ctx, uid); err != nil {
		return err
	}
	// Close callbacks wait for the handler that is at work, so this one finds what follows here done.
	if err := s.OnClose(func() { c.exit(uid, s) }); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.srv.SessionByUID(uid) != s {
		return pitaya.ErrSessionClosed // replaced by a newer one, which may have been here before us
	}
	if c.users[uid] == nil {
		c.users[uid] = &user{uid: uid}
		c.check(c.lobby.Add(context.Background(), uid))
	}
	c.users[uid].session = s
	return nil
}

// exit forgets the user when the session has closed, unless a newer session speaks for the user.
func (c *Chat) exit(uid string, s *pitaya.Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.users[uid]
	if u == nil || u.session != s {
		return
	}
	delete(c.users, uid)
	c.check(c.lobby.Remove(context.Background(), uid))
	if u.room != nil {
		c.leave(u)
		c.push(c.lobby, "onRooms", c.list())
	}
}

// leave takes u out of its room, if any, and tells those who stay. c.mu is held.
func (c *Chat) leave(u *user) {
	r, name := u.room, u.name
	if r == nil {
		return
	}
	c.check(r.remove(u))
	c.push(r.group, "onLeave", &Move{Room: r.name, Name: name})
}

// openRoom returns the room of that name. c.mu is held.
func (c *Chat) openRoom(name string) (*room, error) {
	if r := c.rooms[fold(name)]; r != nil {
		return r, nil
	}
	if len(c.rooms) >= maxRooms && !c.dropRoom() {
		return nil, pitaya.Errorf(CodeNoMoreRoom, "there are %d rooms already", maxRooms)
	}
	// The group's name is our own: what a client chooses stays out of names that may end up in keys and logs.
	r, err := newRoom(name, c.srv.Group("room-"+rand.Text()))
	if err != nil {
		return nil, err
	}
	c.rooms[fold(name)] = r
	return r, nil
}

// dropRoom makes space for a new room: of those that stand empty the one that was left first goes. Before that they
// are kept, since people come back and want to see what was said. c.mu is held.
func (c *Chat) dropRoom() bool {
	var oldest *room
	for _, r := range c.rooms {
		if len(r.members) == 0 && (oldest == nil || r.leftAt.Before(oldest.leftAt)) {
			oldest = r
		}
	}
	if oldest == nil {
		return false
	}
	delete(c.rooms, fold(oldest.name))
	c.check(oldest.group.Delete(context.Background()))
	return true
}

// list makes the list of rooms. c.mu is held.
func (c *Chat) list() *RoomList {
	list := &RoomList{Rooms: make([]RoomInfo, 0, len(c.rooms))}
	for _, r := range c.rooms {
		list.Rooms = append(list.Rooms, RoomInfo{Name: r.name, Members: len(r.members)})
	}
	slices.SortFunc(list.Rooms, func(a, b RoomInfo) int {
		return cmp.Or(cmp.Compare(b.Members, a.Members), strings.Compare(a.Name, b.Name))
	})
	return list
}

// push tells a group something. It has no context of a request: what has begun for many does not end halfway because
// the one who began it has gone.
func (c *Chat) push(g *pitaya.Group, route string, v any) {
	if err := g.Broadcast(context.Background(), "", route, v); err != nil {
		slog.Debug("not everybody was reached", "route", route, "err", err) // connections that are just ending
	}
}

// check logs an error that would be a mistake in this program: the groups are in memory and only used here.
func (c *Chat) check(err error) {
	if err != nil {
		slog.Error("chat", "err", err)
	}
}

// checkText refuses what is empty, too long, or made to confuse the eye.
func checkText(what, s string, limit int) error {
	switch n := utf8.RuneCountInString(s); {
	case n == 0:
		return pitaya.Errorf(pitaya.CodeBadRequest, "the %s is empty", what)
	case n > limit:
		return pitaya.Errorf(pitaya.CodeBadRequest, "the %s has %d characters, the limit is %d", what, n, limit)
	}
	for _, r := range s {
		// Format characters turn the direction of text or are not seen at all. The two joiners hold emoji and the
		// letters of some scripts together.
		control := unicode.IsControl(r) && r != '\n' && r != '\t'
		format := unicode.Is(unicode.Cf, r) && r != '\u200c' && r != '\u200d'
		if control || format {
			return pitaya.Errorf(pitaya.CodeBadRequest, "the %s contains the character %U", what, r)
		}
	}
	return nil
}

// oneLine is s without white space at its ends, and single blanks in between.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// fold is the form under which names are compared: Ada and ada are the same.
func fold(name string) string { return strings.ToLower(name) }
