package pitaya

import "context"

// UniqueSessionModule is the name under which a server adds its
// [UniqueSession].
const UniqueSessionModule = "uniqueSession"

// UniqueSession is the module that gives a user one session: when a user is
// bound to a new session, the older one is kicked with the reason "replaced",
// so that its client knows and does not come back by itself. A frontend adds it
// on its own unless Config.NoUniqueSession is set; without it the older session
// is closed without a kick packet.
//
// Either way a uid leads to one session of a server, the newest, and the end of
// an older one never takes it away.
type UniqueSession struct {
	ModuleBase
	server uniqueServer
}

// uniqueServer is what the module needs of its server.
type uniqueServer interface {
	// kickReplaced makes the server kick sessions that are replaced.
	kickReplaced()
}

// newUniqueSession returns the module for a server.
func newUniqueSession(server uniqueServer) *UniqueSession {
	return &UniqueSession{server: server}
}

// Init implements [Module].
func (u *UniqueSession) Init(context.Context) error {
	u.server.kickReplaced()
	return nil
}
