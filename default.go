// The calls that Pitaya's documentation makes on the package, over one server.

package pitaya

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

// defaultServer is the only state of the package itself. Nothing uses it but
// the functions of this file.
var defaultServer serverHolder

// serverHolder makes a server when it is first asked for it.
type serverHolder struct {
	mu     sync.Mutex // guards server
	server *Server    // nil until it is first asked for
}

func (h *serverHolder) get() *Server {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.server == nil {
		s := newServer()
		s.setUp(func() error { return s.configure(Config{Frontend: true}) })
		h.server = s
	}
	return h.server
}

// next is get, but never returns a server that has ended.
func (h *serverHolder) next() *Server {
	h.mu.Lock()
	if h.server != nil && h.server.hasEnded() {
		h.server = nil
	}
	h.mu.Unlock()
	return h.get()
}

// DefaultServer returns the server that [Configure], [Register], [Run] and the
// other functions of their kind work on. It is made when one of them is first
// called, with the settings of a standalone frontend. Programs and tests that
// have several servers make them with [NewServer].
func DefaultServer() *Server { return defaultServer.get() }

// A ServerMode is what [Configure] is told about the other servers.
type ServerMode byte

const (
	Cluster    ServerMode = iota + 1 // the server joins a cluster
	Standalone                       // the server runs alone
)

// Configure gives the default server its settings: those of cfg, of which there
// is at most one, in which the other arguments take their place unless they are
// empty. It is called before Run, in the goroutine that sets the server up, and
// before or behind the other calls that do so: what was registered stays. Once
// the default server has ended, Configure begins a new one.
//
// Unlike Pitaya's it returns an error, which Run returns again, and takes a
// [Config] instead of configuration objects; see [Config.Load] for files,
// environment and flags.
func Configure(frontend bool, serverType string, mode ServerMode, metadata map[string]string, cfg ...Config) error {
	s := defaultServer.next()
	return s.setUp(func() error {
		var c Config
		switch len(cfg) {
		case 0:
		case 1:
			c = cfg[0]
		default:
			return fmt.Errorf("pitaya: Configure takes one Config, not %d", len(cfg))
		}
		if mode != Cluster && mode != Standalone {
			return fmt.Errorf("pitaya: no server mode %d", mode)
		}
		c.Frontend, c.Cluster = frontend, mode == Cluster
		if serverType != "" {
			c.Type = serverType
		}
		if len(metadata) > 0 {
			c.Metadata = metadata
		}
		return s.configure(c)
	})
}

// AddAcceptor is [Server.AddListener]: acceptors are listeners here, such as
// those of [ListenTCP] and [ListenWS].
func AddAcceptor(l net.Listener) error { return DefaultServer().AddListener(l) }

// Register is [Server.Register]. Unlike in Pitaya, mistakes are returned, here
// and again by Run.
func Register(component any, opts ...RegisterOption) error {
	return DefaultServer().Register(component, opts...)
}

// RegisterRemote is [Server.RegisterRemote].
func RegisterRemote(component any, opts ...RegisterOption) error {
	return DefaultServer().RegisterRemote(component, opts...)
}

// AddRoute is [Server.AddRoute]. Unlike in Pitaya, a second function for a type
// is refused.
func AddRoute(serverType string, f RoutingFunc) error {
	return DefaultServer().AddRoute(serverType, f)
}

// SetSerializer is [Server.SetSerializer].
func SetSerializer(s Serializer) error { return DefaultServer().SetSerializer(s) }

// SetDictionary is [Server.SetDictionary].
func SetDictionary(routes map[string]uint16) error { return DefaultServer().SetDictionary(routes) }

// Run is [Server.Run]. It can be called once for each time that Configure has
// begun a new server.
func Run(ctx context.Context) error { return DefaultServer().Run(ctx) }

// Start is [Run] without a context: it returns after [Shutdown]. Unlike
// Pitaya's it does not end with the signals of the operating system, since
// those belong to the program; that is Run with a context of
// [signal.NotifyContext].
//
// [signal.NotifyContext]: https://pkg.go.dev/os/signal#NotifyContext
func Start() error { return Run(context.Background()) }

// Shutdown makes Run and Start end, in the way that [Server.Shutdown] describes
// and within Config.ShutdownTimeout. It does not wait for that, so handlers may
// call it. A server that does not run yet will not.
func Shutdown() { DefaultServer().stop() }

// IsRunning is [Server.IsRunning].
func IsRunning() bool { return DefaultServer().IsRunning() }

// GetServer is [Server.Info].
func GetServer() *ServerInfo { return DefaultServer().Info() }

// GetServerID is [Server.ID].
func GetServerID() string { return DefaultServer().ID() }

// GetServerType is [Server.Type].
func GetServerType() string { return DefaultServer().Type() }

// GetServerByID is [Server.ServerByID] with an error if there is no such server.
func GetServerByID(id string) (*ServerInfo, error) {
	info := DefaultServer().ServerByID(id)
	if info == nil {
		return nil, fmt.Errorf("pitaya: there is no server %q", id)
	}
	return info, nil
}

// GetServersByType returns the known servers of a type by their ids, and an
// error if there are none. The map is the caller's.
func GetServersByType(serverType string) (map[string]*ServerInfo, error) {
	if serverType == "" {
		return nil, errors.New("pitaya: no server type given")
	}
	servers := make(map[string]*ServerInfo)
	for _, info := range DefaultServer().Servers(serverType) {
		servers[info.ID] = info
	}
	if len(servers) == 0 {
		return nil, errNoServers()
	}
	return servers, nil
}

// GetServers is [Server.Servers] for all types.
func GetServers() []*ServerInfo { return DefaultServer().Servers("") }

// IsReady reports whether [Server.Healthy] finds nothing wrong. It asks nobody,
// so unlike Pitaya's it takes no time and no context.
func IsReady() bool { return DefaultServer().Healthy() == nil }

// Documentation is [Server.Documentation] on the default server.
func Documentation(pointerNames bool) (map[string]any, error) {
	return DefaultServer().Documentation(pointerNames)
}

// GetMetricsReporters is [Server.Reporters].
func GetMetricsReporters() []Reporter { return DefaultServer().Reporters() }

// CreatePrometheusReporter is [NewMetrics]. The application's own metrics are
// declared in cfg.Custom. Unlike Pitaya's it opens no port: see
// [MetricsConfig].Prometheus, or mount what it returns.
func CreatePrometheusReporter(serverType string, cfg MetricsConfig) (*Metrics, error) {
	return NewMetrics(serverType, cfg)
}

// CreateStatsdReporter is [NewStatsd].
func CreateStatsdReporter(serverType string, cfg MetricsConfig) (*Statsd, error) {
	return NewStatsd(serverType, cfg)
}

// RPC is [Server.RPC].
func RPC(ctx context.Context, route string, reply, arg proto.Message) error {
	return DefaultServer().RPC(ctx, route, reply, arg)
}

// RPCTo is [Server.RPCTo].
func RPCTo(ctx context.Context, serverID, route string, reply, arg proto.Message) error {
	return DefaultServer().RPCTo(ctx, serverID, route, reply, arg)
}

// ReliableRPC is [Server.ReliableRPC] without a context: it waits for the queue as
// long as pitaya.cluster.rpc.client.nats.requesttimeout says, and carries no
// trace. Its arguments are those of Pitaya; in handlers, the method of the server
// is the better one.
func ReliableRPC(route string, metadata map[string]any, reply, arg proto.Message) (jobID string, err error) {
	return DefaultServer().ReliableRPC(context.Background(), route, metadata, reply, arg)
}

// ReliableRPCWithOptions is [Server.ReliableRPCWithOptions] as [ReliableRPC] is
// ReliableRPC. Unlike in Pitaya the times of the options have units.
func ReliableRPCWithOptions(route string, metadata map[string]any, reply, arg proto.Message, opts RetryOptions) (jobID string, err error) {
	return DefaultServer().ReliableRPCWithOptions(context.Background(), route, metadata, reply, arg, opts)
}

// RegisterRPCJob is [Server.RegisterRPCJob]. Unlike in Pitaya a worker does without.
func RegisterRPCJob(job RPCJob) error { return DefaultServer().RegisterRPCJob(job) }

// StartWorker is [Server.StartWorker].
func StartWorker() error { return DefaultServer().StartWorker() }

// AddModule is [Server.AddModule].
func AddModule(name string, m Module) error { return DefaultServer().AddModule(name, m) }

// RegisterModule is [Server.AddModule] with the arguments in Pitaya's order.
func RegisterModule(m Module, name string) error { return AddModule(name, m) }

// RegisterModuleAfter is [RegisterModule].
func RegisterModuleAfter(m Module, name string) error { return AddModule(name, m) }

// RegisterModuleBefore is [Server.AddModuleBefore] with the arguments in
// Pitaya's order.
func RegisterModuleBefore(m Module, name string) error {
	return DefaultServer().AddModuleBefore(name, m)
}

// GetModule is [Server.Module] with an error if there is no such module.
func GetModule(name string) (Module, error) {
	m, ok := DefaultServer().Module(name)
	if !ok {
		return nil, fmt.Errorf("pitaya: there is no module %q", name)
	}
	return m, nil
}

// OnSessionBind is [Server.OnSessionBind].
func OnSessionBind(f func(ctx context.Context, session *Session) error) error {
	return DefaultServer().OnSessionBind(f)
}

// OnAfterSessionBind is [Server.OnAfterSessionBind].
func OnAfterSessionBind(f func(ctx context.Context, session *Session) error) error {
	return DefaultServer().OnAfterSessionBind(f)
}

// OnSessionClose is [Server.OnSessionClose].
func OnSessionClose(f func(session *Session)) error { return DefaultServer().OnSessionClose(f) }

// OnSessionDetach is [Server.OnSessionDetach].
func OnSessionDetach(f func(session *Session)) error { return DefaultServer().OnSessionDetach(f) }

// OnSessionResume is [Server.OnSessionResume].
func OnSessionResume(f func(session *Session)) error { return DefaultServer().OnSessionResume(f) }

// GetSessionByUID is [Server.SessionByUID].
func GetSessionByUID(uid string) *Session { return DefaultServer().SessionByUID(uid) }

// GetSessionByID is [Server.SessionByID].
func GetSessionByID(id int64) *Session { return DefaultServer().SessionByID(id) }

// GetNumberOfConnectedClients is [Server.SessionCount].
func GetNumberOfConnectedClients() int64 { return int64(DefaultServer().SessionCount()) }

// SendPushToUsers is [Server.Push] with the arguments in Pitaya's order. failed
// are the users that were not reached.
func SendPushToUsers(route string, v any, uids []string, frontendType string) (failed []string, err error) {
	err = DefaultServer().Push(context.Background(), frontendType, uids, route, v)
	return unreached(err, uids), err
}

// SendKickToUsers is [Server.Kick] with the arguments in Pitaya's order. failed
// are the users that were not reached.
func SendKickToUsers(uids []string, frontendType string) (failed []string, err error) {
	err = DefaultServer().Kick(context.Background(), frontendType, uids)
	return unreached(err, uids), err
}

// GroupCreate is [Group.Create] without a time to live.
func GroupCreate(ctx context.Context, group string) error {
	return DefaultServer().Group(group).Create(ctx, 0)
}

// GroupCreateWithTTL is [Group.Create].
func GroupCreateWithTTL(ctx context.Context, group string, ttl time.Duration) error {
	return DefaultServer().Group(group).Create(ctx, ttl)
}

// GroupMembers is [Group.Members].
func GroupMembers(ctx context.Context, group string) ([]string, error) {
	return DefaultServer().Group(group).Members(ctx)
}

// GroupContainsMember is [Group.Contains].
func GroupContainsMember(ctx context.Context, group, uid string) (bool, error) {
	return DefaultServer().Group(group).Contains(ctx, uid)
}

// GroupAddMember is [Group.Add].
func GroupAddMember(ctx context.Context, group, uid string) error {
	return DefaultServer().Group(group).Add(ctx, uid)
}

// GroupRemoveMember is [Group.Remove], but does its work also when ctx has
// ended: Pitaya's documentation calls it with the context of a handler when the
// session is closed.
func GroupRemoveMember(ctx context.Context, group, uid string) error {
	return DefaultServer().Group(group).Remove(context.WithoutCancel(ctx), uid)
}

// GroupRemoveAll is [Group.RemoveAll].
func GroupRemoveAll(ctx context.Context, group string) error {
	return DefaultServer().Group(group).RemoveAll(ctx)
}

// GroupCountMembers is [Group.Count].
func GroupCountMembers(ctx context.Context, group string) (int, error) {
	return DefaultServer().Group(group).Count(ctx)
}

// GroupRenewTTL is [Group.Renew].
func GroupRenewTTL(ctx context.Context, group string) error {
	return DefaultServer().Group(group).Renew(ctx)
}

// GroupDelete is [Group.Delete].
func GroupDelete(ctx context.Context, group string) error {
	return DefaultServer().Group(group).Delete(ctx)
}

// GroupBroadcast is [Group.Broadcast]. As in Pitaya, the frontend type comes
// before the group.
func GroupBroadcast(ctx context.Context, frontendType, group, route string, v any) error {
	return DefaultServer().Group(group).Broadcast(ctx, frontendType, route, v)
}

// NewTimer is [Server.NewTimer]. An interval that is not positive and a nil
// function, at which Pitaya panics, are mistakes that Run returns; once the
// server runs they are logged. The timer then never runs.
func NewTimer(interval time.Duration, f func()) *Timer {
	s := DefaultServer()
	return s.timerOf(s.NewTimer(interval, f))
}

// NewCountTimer is [Server.NewCountTimer], with mistakes as in [NewTimer].
func NewCountTimer(interval time.Duration, count int, f func()) *Timer {
	s := DefaultServer()
	return s.timerOf(s.NewCountTimer(interval, count, f))
}

// NewAfterTimer is [Server.NewAfterTimer], with mistakes as in [NewTimer].
func NewAfterTimer(d time.Duration, f func()) *Timer {
	s := DefaultServer()
	return s.timerOf(s.NewAfterTimer(d, f))
}

// NewCondTimer is [Server.NewCondTimer].
func NewCondTimer(condition Condition, f func()) (*Timer, error) {
	return DefaultServer().NewCondTimer(condition, f)
}

// SetTimerPrecision is [Server.SetTimerPrecision].
func SetTimerPrecision(d time.Duration) error { return DefaultServer().SetTimerPrecision(d) }

// GetSessionFromCtx is [SessionFromContext]. It works with any server.
func GetSessionFromCtx(ctx context.Context) *Session { return SessionFromContext(ctx) }

// GetDefaultLoggerFromCtx is [LoggerFromContext]. It works with any server.
func GetDefaultLoggerFromCtx(ctx context.Context) *slog.Logger { return LoggerFromContext(ctx) }
