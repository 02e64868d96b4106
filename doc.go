// Package pitaya is a library for game servers. It speaks the client protocol of Pitaya and pomelo over TCP, TLS and
// WebSocket, calls the application's handlers with what clients send, and lets it push to them.
//
// This page is the manual. The shortest complete program is examples/hello, a larger one examples/chat, one on several servers
// examples/cluster; examples/README.md lists them all.
//
// # Concepts
//
// A [Server] is a value made by [NewServer] from a [Config]. It owns everything: listeners, sessions, handlers,
// groups, settings. Several servers live in one process without knowing of each other. The package-level functions
// ([Register], [Run] and others) work on one default server, as those of net/http do on DefaultServeMux.
//
// A [Session] is one connected client. It begins when the connection is accepted and ends with it (but see Resume), and is anonymous
// until [Session.Bind] gives it the id of a user (uid). It holds data of the application, what the client said in
// its handshake ([HandshakeData]), and a context that ends with the session and whose cause says why.
//
// A [Route] names what a message is for: "type.service.method", where type is the type of a server (Config.Type),
// service a registered handler struct and method one of its methods. "service.method" means the server that the
// client is connected to. A dictionary ([Server.SetDictionary]) replaces routes by two bytes on the wire.
//
// A handler is a method of a struct given to [Server.Register], or a function given to [Handle] or [HandleNotify]. A
// request is answered with its result or its error, exactly once; a notify is not answered. These methods are
// handlers, where ctx is a context.Context, and T and R are any types:
//
//	func (h *Room) Name(ctx, *T) (*R, error)          // request
//	func (h *Room) Name(ctx, []byte) ([]byte, error)  // request with the payloads as they are
//	func (h *Room) Name(ctx) (*R, error)              // request without an argument; the forms mix
//	func (h *Room) Name(ctx, *T)                      // notify; also with []byte or without an argument
//
// A push is a message from the server to a client ([Session.Push]) on a route that the application chooses and the
// client listens to. A [Group] is a named set of uids that can be pushed to at once; it exists from [Group.Create]
// to [Group.Delete] or the end of its time, and members stay in it until they are removed, connected or not.
//
// Arguments, results and pushes are encoded by the server's [Serializer]: [JSON], [Protobuf], or one of the
// application's own. []byte goes as it is.
//
// An error that a handler returns reaches the client as a code, a text and metadata. [Errorf] and [NewError] give an
// error its code, which [ErrorCode] finds again through any wrapping; errors without one are sent as [CodeUnknown].
// A panic in a handler is recovered and logged; the client gets [CodeInternal] and a request id, never the text of
// the panic.
//
// # Lifecycle
//
// Handlers, modules, pipelines, callbacks and the dictionary are set up before [Server.Run]. Mistakes (a method that
// is nearly a handler, a name that is taken) come back from the call, and again from Run, so that none is
// overlooked.
//
// Run starts the handlers (Init, then AfterInit of all), then the modules, then serves the listeners; from there on
// [Server.Ready] is closed. It returns when its context has ended and everything it started has ended too: listeners
// are closed, messages that are being handled are answered, sessions are closed with [ErrServerClosed], then
// BeforeShutdown and Shutdown are called in the reverse order. [Server.Shutdown] does the same, bounded by a
// context. The library calls no os.Exit and handles no signal; signal.NotifyContext in main is the way to stop on
// Ctrl-C.
//
// A connection goes through these states: accepted (PROXY header, TLS, HTTP upgrade), handshake (the client says who
// it is, validators look at it, the server answers), working (after the client's acknowledgement), closed. It has
// Config.HandshakeTimeout to get to working. It ends once, with one of these causes, or with what a validator or the
// network said:
//
//	io.EOF                the client closed it
//	ErrSessionClosed      Session.Close
//	ErrKicked             Session.Kick, Session.KickReason
//	ErrReplaced           the uid was bound to another session
//	ErrHeartbeat          nothing was heard for two heartbeat intervals
//	ErrHandshakeTimeout   the handshake took too long
//	ErrSlowClient         the client does not read what it is sent
//	ErrTooManyRequests    it went on sending more than it may
//	ErrProtocol           what the client sent is not the protocol (errors that wrap it say what)
//	ErrServerClosed       the server stops
//
// # Resume
//
// With Config.Resume the session of a client that asks for it outlives a connection that was lost: it waits for the
// client for a time (Window), with its user, data and groups. What is pushed to it is kept, and so are the pushes that the
// client may not have received; when it comes back it gets those, each once and in order, before anything new. Clients
// that do not ask are met as ever. [Client] asks with ClientConfig.Resume, and connects again by itself.
//
// [Session.Connected] tells whether the client is there, and [Server.OnSessionDetach] and [Server.OnSessionResume] when it
// goes and comes. Close callbacks run when the session has ended, and its cause is then why the last connection was
// lost. A session that is kicked, closed or replaced ends at once; so does one whose client breaks the protocol, sends too
// much, is too slow, or says that it does not come back, one to which more is pushed than is kept, and all that wait when
// the server ends.
//
// Messages that were received before the loss are handled, in their turn, and their context does not end with the
// connection. Answers that find it gone are dropped: a request that the client made on one connection is never answered
// on another.
//
// What can be filled is bounded: Messages and Bytes for each client, and MaxSessions for those that wait. A waiting
// session is no connection, and does not count among those that MaxConns and MaxConnsPerIP bound.
//
// # Concurrency and order
//
// Messages of one session are handled one at a time, in the order of their arrival, and answered in that order. What
// a handler pushes to its own session before it returns arrives before its answer. Sessions are handled in parallel,
// each by a goroutine of its own while it has messages. A service registered with [WithConcurrent] gives up the
// order for its messages, Config.Unordered for all.
//
// A handler may block; it delays its own session only. Its context ends when the session does and, where
// Config.HandlerTimeout is set, when its time is up. When too many messages of a session wait, its connection is not
// read until there is room, and the client's TCP stack slows it down.
//
// Push, Broadcast and Kick never wait for a client. They encode the message and append it to the session's queue. A
// nil error means that it is queued, not that it has arrived.
//
// All exported methods of [Server], [Session], [Group] and [Client] may be called by any number of goroutines at
// once, except for those that set a server up, which belong before Run. Callbacks are called without any lock held,
// so they may call back into the package.
//
// # Cluster
//
// With Config.Cluster a server joins others. A frontend has clients (Config.Frontend), a backend has none. Each server
// has a type, which is the first part of the routes that lead to it, and an id. All servers of a type have the same
// handlers.
//
// Servers: a [Discovery] tells each server of the others, and a [Transport] carries the calls between them. What is not
// set in Config is etcd ([EtcdDiscovery]) and NATS ([NATSTransport]); [GRPCTransport] takes the place of NATS, together with
// [EtcdBindings], which tells it where users are. [MemCluster] is both inside one process. [Server.Servers] lists who is
// there, and [Server.OnServerChange] tells of changes. Outages of etcd and NATS pass: servers that are known stay, calls
// fail meanwhile at once, with errors that wrap [ErrUnreachable].
//
// Programs built with the tag nocluster are without etcd and NATS; what needs them fails with [ErrLeftOut].
//
// Forwarding: a client's message whose route has the type of another server goes there, to a handler registered with
// [Server.Register], and its answer comes back, in the order that is described above for each session and server. If
// the server cannot have got it, another one is tried that was sent no later message of the session.
//
// RPC: [Server.RPC], [Server.RPCTo] and [Call] call the remotes of other servers, which are methods with protobuf messages
// for argument and result ([Server.RegisterRemote]). [AddToPropagateCtx] lets values travel with them, and with the
// calls that those make.
//
// Routing: which server of a type is called, [Server.AddRoute] decides, for messages and RPCs alike; it is a random one
// without. [RouteRoundRobin], [Server.RouteLeastPending], [RouteByUID], [RouteHash], [RouteSticky] and [RouteByMetadata]
// are ready. Servers that are draining are not among those to choose from.
//
// Sessions on backends: [SessionFromContext] gives a handler there a session too, which is a copy for the call. Bind,
// Push and Kick work on the client's session, through the frontend. Changes of the data reach the frontend by
// [Session.PushToFront]. What needs the connection itself returns [ErrBackendSession].
//
// Users: [Server.Push], [Server.Kick] and [Group] reach users on all frontends of a type. A store of groups that
// servers share is [EtcdGroups] (Config.Groups); without one each server has groups of its own. A user has one session
// among the frontends of a type, unless Config.NoUniqueSession is set: a later bind ends the earlier session with
// [ErrReplaced]. Frontends ask each other before they bind, so of several binds at once one remains.
//
// Events: [Server.OnSessionEvent] tells a backend of users that are bound, of sessions that end, and of frontends that are
// lost with all of theirs. Close callbacks run on the frontend only.
//
// Lifecycle: a server is reachable before it is announced, and it serves clients after that. When it ends it announces
// that it is draining, is given no new work, answers what it has, closes its sessions, and leaves.
//
// Peers: servers of this library announce in the metadata of their entries what they can do beyond the protocol of
// Pitaya, under "pitaya-go.features", with commas between: "merge" (changes of session data instead of all of it),
// "users" (one push for many users), "claim" (asking before a bind), "events" and "docs" (telling of routes). "pitaya-go.draining" is "true" on one
// that ends, and "pitaya-go.since" tells when it joined. Toward servers that announce nothing, Pitaya's, all is done as Pitaya does it.
//
// # Reliable RPC
//
// [Server.ReliableRPC] puts a call of a remote into a queue, from which the worker of some server ([Server.StartWorker]) takes
// it and makes it: once at least, later, and again if it fails. It is for what must not be lost when a server ends or cannot be
// reached, a purchase to be credited say. What the remote does must bear being done twice. The result goes nowhere.
//
// The queue is a [JobStore] (Config.Jobs): NATS JetStream where there is a cluster ([NATSJobs]), [MemoryJobs] for tests and
// for servers that run alone. Workers lease jobs. A worker that lives extends its leases, so that a slow job runs once; the
// jobs of one that died are due again when their leases are over, 30 s by default. A server that ends takes no new jobs,
// finishes those that it has, and gives back what it cannot finish in time.
//
// [RetryOptions] say when a job that has failed is tried again, for one call or by the settings pitaya.worker.retry for all.
// One that has failed for good is kept among the dead jobs, with the reason: [Server.DeadJobs] lists them,
// [Server.RequeueDeadJob] lets one be tried again, [Server.DeleteDeadJob] forgets it. So is what is no job at all, and a job
// that was given out 20 times without an end, since it has probably ended its workers. Only failures count as failures: a
// deployment, a crash or an outage costs a job none of its retries.
//
// A worker calls the remote, by the routing function of its type. An [RPCJob] of the application ([Server.RegisterRPCJob])
// can choose the server from the metadata of the job, or do something else entirely.
//
// # Health and inspection
//
// [Server.Readyz] and [Server.Livez] are handlers for probes. A server is ready when it is listening, connected to its
// cluster and not told to end; an outage of etcd or NATS makes it not ready, and takes nothing from the clients that it
// has. It is alive until Run has returned, whatever is wrong around it. [Server.Healthy] is readiness as an error.
//
// [Server.DebugHandler] is a page for people on call, and the same as JSON: charts of the last five minutes, tables of
// routes, sessions, servers, recent errors and settings. It is collected for only if the page was asked for before Run.
//
// The library opens no port for them. An application mounts them beside net/http/pprof and expvar on a listener that the
// public does not reach; examples/operate does.
//
// # Documentation of routes
//
// [Server.Documentation] tells the routes of a server and the types of their arguments and results, [Descriptor] the
// protobuf messages. [Server.RegisterDocs] offers both to clients, on docs.docs and docs.descriptors; pitaya-cli needs them
// to speak protobuf. Nothing is told without it.
//
// [Server.DocsHandler] is a page of all that for people who write clients, with an example for each route, and
// [Server.DocsMarkdown] the same as a file for a repository. In a cluster both can have the routes of servers of other types
// too ([DocsOptions]): servers that have called RegisterDocs announce "docs" and answer to remotes of the library's own.
//
// # Traces and logs
//
// A [Tracer] (Config.Tracer) makes spans of what a request leads to: the client's message until its answer is written,
// each call of another server, the handlers and remotes that serve it there, and the writing of the answer. The comment of
// Tracer lists them. The contexts of handlers and remotes carry the span, so those that the application makes are its
// children, and so are the calls it makes with such a context. Messages that are refused because of a limit have none.
//
// Between servers a trace travels in the form of W3C Trace Context, with baggage, among the values of [AddToPropagateCtx]
// under "otel-span", as in Pitaya v3; v2 has a form of its own, which is ignored. A value that is nothing of the kind is
// ignored too. A server without a Tracer passes on what it gets.
//
// [LogHandler] wraps a slog.Handler so that records made with the context of a handler or remote say what they are about:
// session and user, route, request and trace. [LoggerFromContext] gives a logger that says it whatever the context of the
// record. The request's id and the trace are the same on all servers that a request leads to.
//
// # Limits
//
// Nothing that a client sends is trusted. A client that exceeds one of these limits is closed; the fields of
// [Config] that set them say what zero means.
//
//	accepted until working    10 s     HandshakeTimeout
//	handshake                 64 KiB   MaxHandshakeSize
//	packet                    1 MiB    MaxPacketSize
//	message once inflated     4 MiB    MaxInflatedSize; beyond 64 KiB also 256 times its compressed size
//	route                     255 B    the protocol's own
//	messages waiting          64       MailboxMessages; more are not read, and nobody is closed
//	queue toward the client   1 MiB    QueueBytes; SlowClient says what happens
//	pushes kept for resume    256 KiB  Resume.Bytes, and 1,000 of them, Resume.Messages; for clients that ask for it
//	sessions that wait        10,000   Resume.MaxSessions; beyond it one ends, without a user first
//	socket takes nothing      10 s     WriteTimeout
//	silence                   60 s     two intervals of Heartbeat
//	connections               none     MaxConns, MaxConnsPerIP
//
// How much a client may send is bounded where RateLimit says so: messages of a session, of an address and of all clients in
// a time, requests of a session that are unanswered, and handshakes. What is too much is refused and costs nobody else
// anything: a request is answered with PIT-429 in its turn, a notify is dropped, a handshake is answered with code 429.
// Who goes on is kicked, with [ErrTooManyRequests]. [Server.Stats] counts the refusals by their reason.
//
// A request that has waited longer than its handler may take (HandlerTimeout, [WithTimeout]) is answered with PIT-408
// without being handled.
//
// # Metrics
//
// A [Reporter] is told what the server does: Config.Reporters, and those that Config.Metrics asks for, which are a
// registry that Prometheus and expvar can read ([Metrics]) and a sender to statsd ([Statsd]). Names, labels and meanings are those
// of Pitaya; docs/operations.md lists them all, with what to alert on.
//
// A request is reported when its answer has been written to the socket, with the time since it arrived. Calls to other
// servers are reported where they are made and where they are served. [AddMetricTagsToPropagateCtx] gives a call labels of
// the application's. Labels are bounded, whatever clients send. Counts are kept whether anybody is told or not
// ([Server.Stats]); without reporters nothing is measured that takes time.
//
// The application's own metrics are declared in [MetricsConfig].Custom and reported to each of [Server.Reporters];
// docs/metrics.md is about those.
//
// # Wire protocol
//
// A connection is a stream of packets. On WebSocket each packet that the server sends is one binary message; what it
// receives may be cut in any way. Numbers are big-endian.
//
//	packet:   byte 0      type: 1 handshake, 2 acknowledgement, 3 heartbeat, 4 data, 5 kick
//	          bytes 1-3   length of the body, at most 2^24-1
//	          bytes 4-    body
//
// The client sends a handshake, the server answers, the client acknowledges; then either side sends data. Both
// bodies are JSON; the answer is zlib for clients known to inflate, if that is shorter:
//
//	client:   {"sys":{"platform":"mac","libVersion":"1.2","clientBuildNumber":"20","clientVersion":"2.1"},"user":{}}
//	server:   {"code":200,"sys":{"dict":{"game.room.join":1},"heartbeat":30,"serializer":"json"}}
//
// Where a client has asked to be resumable, "resume" is the last key in "sys" of the answer; docs/protocol.md has the
// whole of that, with what heartbeats and kicks mean then. A refused handshake is answered with another code and "msg",
// and the connection is closed. Heartbeats have no body. The body of a kick is {"reason":"…"}.
//
// A server that ends sends an acknowledgement, which has no body either, to clients that have announced "drain" in
// "features" of their "sys". The client sends one back and no message behind it; the server closes the connection when
// it has answered what came before. So no request is lost. Of other clients it answers what arrives until nothing is left
// to answer, for 2 s at most; what crosses the end of the connection on its way was not handled.
//
// The body of a data packet is one message:
//
//	message:  byte 0      flags, see below
//	          id          request and response: a number of 64 bits in groups of 7, lowest first, top bit set on all but
//	                      the last; a request with id 0 is not answered
//	          route       request, notify, push: one byte of length and the text, or two bytes of a code
//	          payload     the rest, in the format of the serializer
//
//	flags:    0x01        the route is a code of the dictionary
//	          0x0e        type times two: 0 request, 1 notify, 2 response, 3 push
//	          0x10        the payload is compressed with zlib
//	          0x20        the response is an error: {"code":"PIT-404","msg":"…","metadata":{…}}, or that in protobuf
//
// The codes of the library itself:
//
//	PIT-000   an error without a code                 PIT-429   more requests than the client may send
//	PIT-400   route, kind or argument of a message    PIT-498   writing to the client failed
//	PIT-404   no such handler, no such user           PIT-499   the session is closed
//	PIT-408   not done in time                        PIT-500   internal error, no server of that type
//	                                                  PIT-504   the client waited too long (made by clients)
//
// # Map of files
//
// The package is flat, and its files have an order: each uses what stands above it, and nothing below.
// layers_test.go has the table and checks it.
//
//	doc.go                                            this manual
//	metrics.go, metrics_names.go                      Reporter, the seam for numbers; names
//	stats.go                                          what a server counts
//	meter.go                                          time series for what is reported often
//	histogram.go                                      distributions of durations
//	buffer.go, runner.go                              pooled bytes; pooled goroutines
//	log.go, sampler.go                                loggers that panic; records that must stay rare
//	build_*.go                                        whether etcd and NATS are part of the program
//	protobuf_*.go                                     what the library needs of protobuf, with all of that and without
//	errors.go, serializer.go, serializer_json.go      coded errors; formats of payloads: JSON and protobuf
//	tracing.go, tracing_parent.go                     Tracer, the seam for spans; traceparent of the W3C
//	packet.go                                         type and length
//	route.go                                          routes and the dictionary
//	message.go, compress.go                           flags, id, route, payload; zlib
//	handshake.go                                      who the client is
//	ws_frame.go                                       the frames of RFC 6455
//	admission.go, admission_table.go                  what clients may send: rates; what addresses have used up
//	acceptor_tcp.go, acceptor_tcp_linux.go,
//	acceptor_tcp_other.go, proxy.go                   TCP and TLS listeners; PROXY protocol
//	acceptor_ws.go, acceptor_ws_conn.go               WebSocket listeners; their connections
//	acceptor_ws_header.go, acceptor_ws_request.go     headers of their upgrades; what requests ask for
//	acceptor_mem.go                                   connections in memory
//	conn.go, conn_*.go, heartbeat.go                  one connection: reading, queue, writing, life signs
//	client.go, client_*.go                            the other end: requests; connecting; what it receives
//	inspect.go                                        what the debug page knows of messages and errors
//	session.go, session_*.go                          one session; its data; all of them by id and uid
//	mailbox.go, multicast.go                          messages that wait for a session; pushes to many
//	context.go, propagate.go                          what a call is about; what travels with it
//	context_log.go                                    log records that say what they are about
//	pipeline.go                                       functions before and after a call
//	discovery.go, transport.go, binding.go            the seams of a cluster
//	discovery_entry.go, rpc.go                        servers as JSON; the envelopes of calls
//	handler.go, handler_call.go, remote.go            registration; calling a method
//	component.go, dispatch.go, dispatch_answer.go     lifecycle; calls; answers
//	members.go, node.go                               the servers of the cluster; calls to them
//	routing.go                                        functions that choose among servers
//	node_rpc.go, node_forward.go                      remotes of others; clients' messages for others
//	node_serve.go, node_context.go                    what others send here; the contexts of that
//	node_sys.go, node_docs.go                         the library's own remotes; those that tell of routes
//	node_bind.go, node_claims*.go                     users of the cluster: bound; which of their sessions stays
//	node_push.go, node_event.go                       users of the cluster: sent to, told about
//	group.go, group_store.go                          groups and where they are kept
//	module.go, module_*.go                            modules and those that come with the library
//	timer.go                                          timers
//	worker_store.go, worker_mem.go                    JobStore, the seam for jobs; those in memory
//	worker_job.go                                     what a job is
//	config.go, config_*.go                            settings, from code, file, environment and flags
//	metrics_builtin.go, metrics_registry.go           what metrics there are; their numbers
//	metrics_series.go, metrics_window.go              one metric by labels; quantiles of the last minutes
//	metrics_text.go, metrics_http.go                  as text; as a handler for scrapers
//	metrics_listener.go                               on a port for them
//	metrics_expvar.go, metrics_process.go             as JSON; those of the process
//	metrics_statsd.go, metrics_statsd_send.go         sent over UDP
//	cluster_mem.go, cluster_mem_transport.go          a cluster in one process
//	etcd.go, discovery_etcd*.go                       etcd: client and lease; who is in the cluster
//	group_etcd.go, binding_etcd.go                    groups in etcd; who is on which frontend
//	nats.go                                           NATS: servers, options, attempts to connect
//	rpc_nats.go, rpc_nats_*.go                        calls between servers, over NATS
//	rpc_grpc.go, rpc_grpc_*.go                        calls between servers over gRPC
//	worker_nats.go, worker_nats_*.go                  jobs in NATS JetStream
//	worker.go                                         who does jobs
//	nocluster.go                                      what stands on etcd and NATS, in programs without them
//	server.go, server_*.go                            wiring, start, stop
//	default.go                                        the calls on the package, over one server
//
// # Names from Pitaya
//
// What an application calls in Pitaya, and here. A Server may stand where the package stands on the right. Calls on
// the package that are not listed have kept their names and arguments: they work on [DefaultServer], and their comments
// say what differs.
//
//	component.Base, .WithName, .WithNameFunc          pitaya.Base, .WithName, .WithNameFunc
//	pitaya.NewBuilder, .NewDefaultApp                 pitaya.NewServer, with a pitaya.Config
//	builder.AddAcceptor                               Config.Listeners, Server.AddListener
//	acceptor.NewTCPAcceptor, .NewTLSAcceptor          pitaya.ListenTCP
//	acceptor.NewWSAcceptor                            pitaya.ListenWS
//	acceptorwrapper.NewRateLimitingWrapper            Config.RateLimit, for all listeners
//	app.Register                                      pitaya.Register
//	app.Start                                         pitaya.Run(ctx), which returns errors
//	app.Shutdown                                      the end of that ctx, pitaya.Shutdown, or Server.Shutdown
//	app.SetDictionary                                 pitaya.SetDictionary
//	app.GetSessionFromCtx                             pitaya.SessionFromContext
//	pitaya.GetDefaultLoggerFromCtx                    pitaya.LoggerFromContext; pitaya.LogHandler for loggers of one's own
//	tracing.InitializeOtel                            Config.Tracer; examples/tracing has one for OpenTelemetry
//	pitaya.ExtractSpan, tracing.ExtractSpan           nothing: the contexts of handlers and remotes carry the span
//	tracing.StartSpan, .FinishSpan, .InjectSpan       the Tracer's own, on such a context: trace.Tracer.Start, say
//	pitaya.Error(err, code)                           pitaya.NewError(err, code), pitaya.Errorf
//	pitaya.SetLogger                                  Config.Logger
//	builder.Serializer                                Config.Serializer, pitaya.SetSerializer
//	builder.MetricsReporters                          Config.Reporters
//	app.GetMetricsReporters                           Server.Reporters
//	Reporter.ReportCount, .ReportGauge                Reporter.Count, .Gauge
//	Reporter.ReportSummary, .ReportHistogram          Reporter.Observe
//	builder.HandlerHooks, .RemoteHooks                Server.Before, .After, .BeforeRemote, .AfterRemote
//	builder.RPCClient, .RPCServer                     Config.Transport: pitaya.NewNATSTransport, .NewGRPCTransport
//	builder.ServiceDiscovery                          Config.Discovery: pitaya.NewEtcdDiscovery
//	modules.NewETCDBindingStorage                     Config.Bindings: pitaya.NewEtcdBindings
//	groups.NewEtcdGroupService                        Config.Groups: pitaya.NewEtcdGroups
//	app.GetServersByType, .GetServerByID              Server.Servers, .ServerByID
//	pitaya.AddGRPCInfoToMetadata                      pitaya.GRPCMetadata
//	cluster.SDListener                                Server.OnServerChange
//	app.RegisterModule                                pitaya.AddModule
//	session.Get, .Int, .String and the like           Session.Get, pitaya.SessionValue[T]
//	session.HasKey, .Remove                           Session.Has, .Delete
//	session.GetData, .GetHandshakeData                Session.Data, .HandshakeData
//	session.GetIsFrontend                             Session.IsFrontend
//	sessionPool.GetSessionByUID, .ForEachSession      Server.SessionByUID, .Sessions
//	sessionPool.OnSessionBind, .OnAfterSessionBind    Server.OnSessionBind, .OnAfterSessionBind
//	sessionPool.OnSessionClose                        Server.OnSessionClose
//	sessionPool.AddHandshakeValidator                 Server.AddHandshakeValidator
//	app.Documentation, pitaya.Descriptor              Server.Documentation, pitaya.Descriptor; Server.RegisterDocs for the CLI
//	app.GroupCreate, .GroupCreateWithTTL              Server.Group(name).Create
//	app.GroupAddMember, .GroupRemoveMember            Group.Add, .Remove
//	app.GroupMembers, .GroupContainsMember            Group.Members, .Contains
//	app.GroupCountMembers, .GroupRenewTTL             Group.Count, .Renew
//	app.GroupRemoveAll, .GroupDelete                  Group.RemoveAll, .Delete
//	app.GroupBroadcast(ctx, type, group, route, v)    Group.Broadcast(ctx, type, route, v)
//	client.New, client.ConnectTo, .SendRequest        pitaya.Dial, Client.Request
//
// docs/migration.md has every name, and the differences in behaviour with their reasons.
package pitaya
