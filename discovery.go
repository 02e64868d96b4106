package pitaya

import (
	"context"
	"math/rand/v2"
	"time"
)

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
// handle a client's message or an RPC; see [Server.AddRoute]. ctx is that of the
// call: it leads to the session ([SessionFromContext]), if one is behind it. The
// route has its server type, and payload is as the client sent it, or the
// message of the RPC as it is sent.
//
// servers, by id, is never empty, and the function may change the map, but not
// what it points to. Servers that are draining are only in it if all are. When
// a server turns out to be unreachable the function is called again, without
// that server.
//
// An error goes to the client, or is returned by the RPC, with its code or
// [CodeInternal], and so is that of choosing nobody, of a panic, and of a server
// that is not in the cluster. The function may choose a server that is not in
// servers.
//
// It is called by many goroutines at once, and must not block: the client's
// next messages wait for it.
type RoutingFunc func(ctx context.Context, route Route, payload []byte, servers map[string]*ServerInfo) (*ServerInfo, error)

// DiscoveryChange says what happened to a server.
type DiscoveryChange uint8

const (
	ServerJoined  DiscoveryChange = iota // the server was not known before
	ServerUpdated                        // its metadata or another of its fields changed
	ServerLeft                           // it is gone
)

// A DiscoveryEvent is one change in the set of servers.
type DiscoveryEvent struct {
	Change DiscoveryChange
	Server *ServerInfo // as it is now; for ServerLeft, as it was last
}

// Discovery is how the servers of a cluster find each other. Each server has a
// Discovery of its own. The implementations that come with the library pass
// pitayatest.TestDiscovery, and so should others.
//
// A Discovery outlives outages of what it is made on: it goes on trying until
// Leave, reports no server as gone because of its own blindness, and publishes
// its own server again, under the same id, when it can.
type Discovery interface {
	// Join publishes self, and calls watch with ServerJoined for each server
	// that is present, self included, before it returns; from then on with each
	// change, in order, one call at a time, in a goroutine of the Discovery's.
	// watch does not block. An error means that nothing was published and that
	// watch is not called any more. ctx bounds the call of Join only.
	Join(ctx context.Context, self *ServerInfo, watch func(DiscoveryEvent)) error

	// Update publishes self anew, with other metadata. It may be called by any
	// goroutine between Join and Leave. An outage is no error: what was
	// given last is published when it is over.
	Update(ctx context.Context, self *ServerInfo) error

	// Leave takes self out and ends the watch: no call of watch is running or
	// will be made once it returns. It is called once, also when ctx has ended;
	// ctx bounds the politeness.
	Leave(ctx context.Context) error

	// Healthy returns nil while the Discovery sees what happens, and else why
	// not.
	Healthy() error
}

// jitter returns a random part of d, at least half of it: servers that lost something in the same moment must not come
// back to it in the same moment.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
