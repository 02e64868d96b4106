package pitaya

import "context"

// A ServerInfo describes one server to the others of its cluster. It is never
// changed once it is shared.
type ServerInfo struct {
	ID       string
	Type     string
	Metadata map[string]string // Config.Metadata; may be nil
	Hostname string
	Frontend bool // clients connect to it
}

// A RoutingFunc chooses, among the servers of one type, the one that is to
// handle a client's message; see [Server.AddRoute]. The session is in ctx, the
// route has its server type, and payload is as the client sent it. servers is
// never empty and belongs to the function. An error, also that of choosing
// nobody, is answered to the client.
//
// It is called by many goroutines at once, and must not block: the client's
// next messages wait for it.
type RoutingFunc func(ctx context.Context, route Route, payload []byte, servers map[string]*ServerInfo) (*ServerInfo, error)
