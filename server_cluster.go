package pitaya

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

// cluster is what a server has of its cluster while it runs.
type cluster struct {
	// Immutable.
	node    *node
	backend *backend
	unique  *claims                   // nil: a user may have several sessions
	events  *eventSource              // what this server tells of its sessions
	notices *eventQueue[SessionEvent] // what it is told of those of others
	changes *eventQueue[DiscoveryEvent]

	wg     sync.WaitGroup  // what was started for servers that have joined
	gaveUp <-chan struct{} // closed when discovery does not try any more; may be nil, set before the server serves
	lost   map[string]bool // frontends that were lost and are not back; used by watch only
	joined bool            // Join has succeeded; written by Run before the server runs, read when it ends
	listen bool            // Listen has; as joined
}

// selfDescriber is a transport that knows something about how it is reached
// once it listens.
type selfDescriber interface {
	describe(metadata map[string]string)
}

// newCluster makes the server's part of the cluster. Nothing is connected yet.
func (s *Server) newCluster(host *sessionHost, d, remotes *dispatcher) (*cluster, error) {
	cfg := &s.cfg
	transport, discovery := cfg.Transport, cfg.Discovery
	var err error
	if transport == nil {
		if transport, err = NewNATSTransport(cfg.NATSClient, cfg.NATSServer, s.log); err != nil {
			return nil, err
		}
	}
	if discovery == nil {
		if discovery, err = NewEtcdDiscovery(cfg.Etcd, s.log); err != nil {
			return nil, err
		}
	}
	n := newNode(transport, cfg.NATSClient.RequestTimeout)
	n.Discovery, n.Bindings, n.Routes = discovery, cfg.Bindings, s.routes
	n.Log, n.Counters, n.Meters, n.Spans, n.Guard = s.log, &s.counters, host.Meters, d.Spans, host.guard
	c := &cluster{
		node:    n,
		changes: newEventQueue("server change", s.onServer, host),
		events:  newEventSource(n, s.log),
		notices: newEventQueue("session event", s.onEvent, host),
	}
	var unique *claims
	if cfg.Frontend {
		s.table.outlive(time.Now())
		if !cfg.NoUniqueSession {
			unique = newClaims(n, host)
		}
		c.unique = unique
		host.Cluster = newBinder(n, host, unique, c.events)
	}
	c.lost = make(map[string]bool)
	c.backend = newBackend(n, d, remotes, unique, c.events, c.notices)
	if s.docs != nil {
		c.backend.serveDocs(s.docs)
	}
	d.Forward = newForwards(n, d)
	return c, nil
}

// features returns what this server can do for its peers.
func (s *Server) features() feature {
	f := featureMerge | featureUsers
	if s.cfg.Frontend && !s.cfg.NoUniqueSession {
		f |= featureClaim
	}
	if len(s.onEvent) > 0 {
		f |= featureEvents
	}
	if s.docs != nil {
		f |= featureDocs
	}
	return f
}

// joinCluster makes the server reachable and then known.
func (s *Server) joinCluster(ctx context.Context) error {
	c := s.cluster
	self := s.Info()
	if self.Metadata == nil {
		self.Metadata = make(map[string]string)
	}
	self.Metadata[metadataFeatures] = s.features().String()
	self.Metadata[metadataSince] = strconv.FormatInt(time.Now().UnixNano(), 10)
	c.node.SetSelf(self)
	if err := c.node.Transport.Listen(ctx, self, c.backend); err != nil {
		return fmt.Errorf("pitaya: join the cluster: %w", err)
	}
	c.listen = true
	if d, ok := c.node.Transport.(selfDescriber); ok {
		known := *self
		known.Metadata = maps.Clone(self.Metadata)
		d.describe(known.Metadata)
		self = &known
		c.node.SetSelf(self)
	}
	if err := c.node.Discovery.Join(ctx, self, c.watch); err != nil {
		return fmt.Errorf("pitaya: join the cluster: %w", err)
	}
	c.joined = true
	if g, ok := c.node.Discovery.(interface{ GaveUp() <-chan struct{} }); ok {
		c.gaveUp = g.GaveUp()
	}
	s.log.Info("joined the cluster", "server", self.ID, "type", self.Type, "servers", len(c.node.Members.all()))
	return nil
}

// claims reports whether users are claimed from a server.
func (c *cluster) claims(s *ServerInfo) bool { return c.unique != nil && s.Type == c.node.Self().Type }

// watch follows who is in the cluster.
func (c *cluster) watch(e DiscoveryEvent) {
	self := e.Server.ID == c.node.Self().ID
	switch e.Change {
	case ServerLeft:
		if self {
			return // it is here, whatever discovery believes
		}
		c.node.Members.remove(e.Server.ID)
		c.node.Transport.ServerGone(e.Server)
		if e.Server.Frontend && !e.Server.Draining() {
			c.notices.add(SessionEvent{Kind: FrontendLost, FrontendID: e.Server.ID})
			c.lost[e.Server.ID] = true
			if c.claims(e.Server) {
				c.unique.vanished(e.Server.ID)
			}
		}
	default:
		if self {
			c.node.Members.put(e.Server)
			return
		}
		c.node.Transport.ServerSeen(e.Server) // first, so that who knows the server can tell if it is connected
		c.node.Members.put(e.Server)
		m := c.node.Members.get(e.Server.ID)
		if e.Change == ServerJoined && m != nil && m.has(featureEvents) {
			c.wg.Go(func() { c.events.joined(m) })
		}
		if e.Change == ServerJoined && m != nil && m.has(featureClaim) && c.claims(e.Server) {
			c.unique.appeared(e.Server)
		}
		if c.lost[e.Server.ID] { // it may have been out of discovery only
			delete(c.lost, e.Server.ID)
			if c.notices.wanted() && m.has(featureMerge) {
				c.wg.Go(func() { c.events.ask(m) })
			}
		}
	}
	c.changes.add(e)
}

// leaveGrace is what each step of leaving the cluster gets when the time for the
// end is over. A server that stays in discovery draws calls that nobody answers,
// until its lease ends.
const leaveGrace = 500 * time.Millisecond

// graceful returns a context for such a step: ctx if it lasts that long.
func graceful(ctx context.Context) (context.Context, context.CancelFunc) {
	if d, ok := ctx.Deadline(); ctx.Err() == nil && (!ok || time.Until(d) >= leaveGrace) {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), leaveGrace)
}

// announceEnd tells the others to send no new work here. It is a courtesy, for
// which the clients do not wait for long.
func (s *Server) announceEnd(ctx context.Context) error {
	c := s.cluster
	if c == nil || !c.joined {
		return nil
	}
	self := *c.node.Self()
	self.Metadata = maps.Clone(self.Metadata)
	self.Metadata[metadataDraining] = "true"
	c.node.SetSelf(&self)
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return c.node.Discovery.Update(ctx, &self)
}

// leaveCluster takes the server out of discovery, lets those who do not know it
// yet be answered, and returns when nothing is under way any more. Calls to
// others are still possible.
func (s *Server) leaveCluster(ctx context.Context) error {
	c := s.cluster
	if c == nil {
		return nil
	}
	var errs []error
	if c.unique != nil {
		c.unique.close()
	}
	leave, cancel := graceful(ctx)
	if err := c.events.leave(leave); err != nil {
		s.log.Warn("other servers could not be told of the ends of all sessions", "err", err)
	}
	cancel()
	if c.joined {
		leave, cancel := graceful(ctx)
		errs = append(errs, c.node.Discovery.Leave(leave))
		cancel()
		if _, ok := c.node.Discovery.(*EtcdDiscovery); ok && s.cfg.Etcd.ShutdownDelay > 0 {
			sleep(ctx, s.cfg.Etcd.ShutdownDelay)
		}
	}
	c.wg.Wait()
	if c.listen {
		errs = append(errs, c.node.Transport.Drain(ctx))
	}
	errs = append(errs, c.backend.wait(ctx), c.notices.wait(ctx), c.changes.wait(ctx))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("pitaya: leave the cluster: %w", err)
	}
	return nil
}

// closeCluster closes what leads to the other servers.
func (s *Server) closeCluster(ctx context.Context) error {
	c := s.cluster
	if c == nil {
		return nil
	}
	var err error
	if c.node.Bindings != nil {
		leave, cancel := graceful(ctx)
		err = c.node.Bindings.Close(leave)
		cancel()
	}
	err = errors.Join(err, c.node.Transport.Close(ctx))
	c.events.close()
	return err
}

// sleep waits for a time or the end of ctx, and reports whether it was the time.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// clustered returns the server's cluster, or an error if it is in none.
func (s *Server) clustered() (*cluster, error) {
	if _, err := s.running(); err != nil {
		return nil, err
	}
	if s.cluster == nil {
		return nil, ErrNoCluster
	}
	return s.cluster, nil
}

// Servers returns the servers of a type that are known, this one included, in
// the order of their ids; all servers for the empty type. They must not be
// changed. A server that is in no cluster knows itself.
func (s *Server) Servers(serverType string) []*ServerInfo {
	var list []*ServerInfo
	if c, err := s.clustered(); err != nil {
		list = append(list, s.Info())
	} else {
		for _, m := range c.node.Members.all() {
			list = append(list, m.Info)
		}
	}
	list = slices.DeleteFunc(list, func(i *ServerInfo) bool { return serverType != "" && i.Type != serverType })
	slices.SortFunc(list, func(a, b *ServerInfo) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// ServerByID returns the server with the given id, or nil. It must not be
// changed.
func (s *Server) ServerByID(id string) *ServerInfo {
	c, err := s.clustered()
	if err != nil {
		if id == s.cfg.ID {
			return s.Info()
		}
		return nil
	}
	if m := c.node.Members.get(id); m != nil {
		return m.Info
	}
	return nil
}

// RPC calls the remote with the given route, which has three parts, on a server
// of the route's type, and decodes its result into reply. The server is chosen
// by the routing function of the type (see [Server.AddRoute]), or at random. A
// call to the own type is served by this server, unless Config.NoLoopback is
// set. arg may be nil.
//
// An error that the remote returned is an [*Error] with its code, text and
// metadata. Without an answer in time the code is [CodeTimeout]; how long that
// is say ctx's deadline, "reqTimeout" (see [AddToPropagateCtx]) and the
// transport's settings. If the server that was chosen cannot be reached, nor
// another one, the error wraps [ErrUnreachable], and if there is no server of
// the type the code is [CodeInternal]: the remote was not called then. When ctx
// ends, RPC returns, and the context of the remote ends where the transport can
// tell.
//
// RPC may be called from any goroutine while the server runs.
func (s *Server) RPC(ctx context.Context, route string, reply, arg proto.Message) error {
	return s.RPCTo(ctx, "", route, reply, arg)
}

// RPCTo is RPC to the server with the given id.
func (s *Server) RPCTo(ctx context.Context, serverID, route string, reply, arg proto.Message) error {
	c, err := s.clustered()
	if err != nil {
		return err
	}
	own := c.backend
	if s.cfg.NoLoopback {
		own = nil
	}
	return c.node.rpc(ctx, own, serverID, route, reply, arg)
}

// Call is [Server.RPC] that makes the reply:
//
//	score, err := pitaya.Call[pb.Score](ctx, srv, "game.world.score", &pb.ScoreRequest{})
func Call[Reply any, P interface {
	*Reply
	proto.Message
}](ctx context.Context, s *Server, route string, arg proto.Message) (*Reply, error) {
	reply := new(Reply)
	if err := s.RPC(ctx, route, P(reply), arg); err != nil {
		return nil, err
	}
	return reply, nil
}

// Healthy returns nil while the server serves clients and other servers, and
// else what is wrong, as [Server.Readyz] does: it does not run, it ends, a
// listener has failed, or the way to discovery or to the other servers is
// interrupted. Known servers can often be called nevertheless, so it is for
// readiness, and no reason to end the server.
func (s *Server) Healthy() error {
	var errs []error
	for _, c := range s.readiness() {
		errs = append(errs, c.Err)
	}
	return errors.Join(errs...)
}

// RouteLeastPending returns a routing function ([Server.AddRoute]) that chooses
// the server to which the fewest calls of this server are under way: messages of
// clients and RPCs that were sent and are not answered yet. Of several, it is
// any. So a server that has become slow gets less, and one that hangs no more
// than the calls that wait for it.
func (s *Server) RouteLeastPending() RoutingFunc {
	return routeLeastPending(func(id string) int64 {
		if s.cluster == nil {
			return 0
		}
		if m := s.cluster.node.Members.get(id); m != nil {
			return m.Pending.Load()
		}
		return 0
	})
}

// OnServerChange adds a function that is told of each server of the cluster
// that joins, changes or leaves, those present at the start included; one change
// at a time, in order, in a goroutine of the server's. It is called before Run.
func (s *Server) OnServerChange(f func(DiscoveryEvent)) error {
	return s.setUp(func() error {
		s.onServer = append(s.onServer, f)
		return nil
	})
}

// OnSessionEvent adds a function that is told of users that are bound on the
// cluster's frontends, of the ends of their sessions, and of frontends that are
// lost; one event at a time, those of one frontend in order, in a goroutine of
// the server's. Frontends of Pitaya tell nothing. It is called before Run.
func (s *Server) OnSessionEvent(f func(SessionEvent)) error {
	return s.setUp(func() error {
		s.onEvent = append(s.onEvent, f)
		return nil
	})
}

// BeforeRemote adds a function that runs before each remote, behind those added
// earlier, as Before does for handlers. It is called before Run.
func (s *Server) BeforeRemote(f BeforeFunc) error {
	return s.setUp(func() error {
		s.remotePipeline.Before = append(s.remotePipeline.Before, f)
		return nil
	})
}

// AfterRemote adds a function that runs after each remote, behind those added
// earlier. It is called before Run.
func (s *Server) AfterRemote(f AfterFunc) error {
	return s.setUp(func() error {
		s.remotePipeline.After = append(s.remotePipeline.After, f)
		return nil
	})
}
