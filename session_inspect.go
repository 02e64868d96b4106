package pitaya

import (
	"strconv"
	"strings"
	"time"
)

// A sessionView is a session as the debug page shows it.
type sessionView struct {
	Session *Session
	ID      int64
	UID     string
	Began   time.Time // zero if that is not known
	Route   string    // of the last message
	Waiting int       // messages that wait for the handler
	Packets int       // packets that wait to be sent
	Bytes   int       // and their bytes
	Away    bool      // it waits for its client to come back, and what is to be sent with it

	addr string // see Addr
}

// view describes a session that is connected to this server.
func (s *Session) view() sessionView {
	v := sessionView{Session: s, ID: s.id, UID: s.UID()}
	if s.notes != nil {
		v.Began, v.Route = s.notes.Began, s.notes.lastRoute()
	}
	v.Waiting, _, _, v.Bytes, v.Packets = s.load()
	c := s.conn.Load()
	if _, v.Away = c.lossCause(); v.Away {
		v.Bytes, v.Packets = c.kept()
	}
	return v
}

// Addr returns the client's address as a text, which it makes when it is asked
// for first.
func (v *sessionView) Addr() string {
	if addr := v.Session.RemoteAddr(); v.addr == "" && addr != nil {
		v.addr = addr.String()
	}
	return v.addr
}

// matches reports whether a session is one of those that were searched for, by
// its id or a part of another text. The text is in lower case.
func (v *sessionView) matches(text string) bool {
	return text == "" || strconv.FormatInt(v.ID, 10) == text ||
		strings.Contains(strings.ToLower(v.UID), text) ||
		strings.Contains(strings.ToLower(v.Addr()), text) ||
		strings.Contains(strings.ToLower(v.Route), text)
}

// visit notes a message of the session.
func (s *Session) visit(r *routeCount) {
	if s.notes != nil {
		s.notes.visit(r)
	}
}
