package pitaya

import (
	"fmt"
	"sync/atomic"
	"time"
)

// kickReplaced implements uniqueServer. It is called before the first client is
// served.
func (s *Server) kickReplaced() { s.host.Unique = true }

// serializer returns what payloads are encoded with, as it is set up so far.
func (s *Server) serializer() Serializer {
	switch {
	case s.cfg.Serializer != nil:
		return s.cfg.Serializer
	case s.cfg.SerializerType == SerializerProtobuf:
		return Protobuf{}
	}
	return JSON{}
}

// newHost builds what sessions share, and the dispatcher of their messages. The
// set-up is over by then.
func (s *Server) newHost() (*sessionHost, *dispatcher, error) {
	cfg := &s.cfg
	runners := newRunners()
	host := &sessionHost{
		ServerID:        cfg.ID,
		Conn:            s.connConfig(runners),
		Table:           s.table,
		Serializer:      s.serializer(),
		Dict:            s.dict,
		Compress:        !cfg.NoCompression,
		PushCodes:       pushCodesRule(cfg.PushCodes),
		Validators:      s.validators,
		OnBind:          s.onBind,
		OnAfterBind:     s.onAfter,
		OnClose:         s.onClose,
		MaxUID:          cfg.MaxUIDLength,
		MailboxMessages: cfg.MailboxMessages,
		RemoteMessages:  cfg.RemoteMessages,
		Counters:        &s.counters,
		Inspect:         s.debug.inspector(s.registry),
		Runners:         runners,
		Log:             s.log,
		Epoch:           time.Now(),
		Crowded:         s.crowded,
		OnDetach:        s.onDetach,
		OnResume:        s.onResume,
	}
	host.Meters = newMeters(s.reporters, host.seamPanicked("reporter"))
	host.Count = s.clientCounter(host)
	host.Limits = newLimits(s.limitsConfig(host.Epoch))
	if r := cfg.Resume; r.Window > 0 {
		host.Resumes = newResumes(resumesConfig{
			Window: r.Window, MaxPushes: r.Messages, MaxBytes: r.Bytes, MaxSessions: r.MaxSessions, Counters: &s.counters, Log: s.log,
		})
	}
	host.Stamps = host.Limits.judges() || host.Meters != nil || host.Inspect != nil || cfg.HandlerTimeout > 0 || s.registry.timed()
	if err := host.buildHandshake(cfg.Heartbeat); err != nil {
		return nil, nil, err
	}
	d := s.newDispatcher(host)
	for route := range s.dict.Routes() {
		host.Meters.teach(route)
	}
	host.Messages = d
	return host, d, nil
}

// connConfig is what connections share.
func (s *Server) connConfig(runners *runners) *connConfig {
	cfg := &s.cfg
	return &connConfig{
		Beats:            newHeartbeats(cfg.Heartbeat),
		Counters:         &s.counters,
		Log:              s.log,
		MaxPacket:        cfg.MaxPacketSize,
		MaxHandshake:     cfg.MaxHandshakeSize,
		HandshakeTimeout: cfg.HandshakeTimeout,
		WriteTimeout:     cfg.WriteTimeout,
		QueueBytes:       cfg.QueueBytes,
		QueueMessages:    cfg.QueueMessages,
		DropWhenSlow:     cfg.SlowClient == SlowClientDrop,
		Flushers:         newFlushers(runners),
		Left: func() {
			s.counters.Closed.Add(1)
			s.conns.Done()
		},
	}
}

// clientCounter returns what reports how many clients are connected. It is called
// whenever that has changed, by any number of goroutines: whoever makes the first
// of several changes reports for all of them, so that the last report is true.
func (s *Server) clientCounter(host *sessionHost) func() {
	var changes atomic.Int64 // that are not reported
	return func() {
		if host.Meters == nil || changes.Add(1) > 1 {
			return
		}
		for n := int64(1); n > 0; n = changes.Add(-n) {
			n = changes.Load()
			host.Meters.gauge(metricConnectedClients, float64(max(s.table.len()-host.Resumes.waiting(), 0)))
		}
	}
}

// newDispatcher returns what calls handlers.
func (s *Server) newDispatcher(host *sessionHost) *dispatcher {
	cfg := &s.cfg
	d := &dispatcher{
		Registry:    s.registry,
		Pipeline:    s.pipeline,
		Host:        host,
		Serializer:  s.serializer(),
		Meters:      host.Meters,
		Counters:    &s.counters,
		Inspect:     host.Inspect,
		Log:         s.log,
		MaxInflated: cfg.MaxInflatedSize,
		Unordered:   cfg.Unordered,
		Validate:    cfg.ValidateRequests,
		Timeout:     max(cfg.HandlerTimeout, 0),
		Slow:        max(cfg.SlowHandler, 0),
		Stamped:     host.Stamps,
	}
	if host.Limits != nil {
		d.TooMany = d.errorPayload(errTooMany())
	}
	if cfg.Tracer != nil {
		d.Spans = &spans{Tracer: cfg.Tracer, Local: cfg.ID, Panicked: host.seamPanicked("tracer")}
	}
	if cfg.Dispatch > 0 {
		d.Slots = make(chan struct{}, cfg.Dispatch)
	}
	s.registry.meet(host.Meters)
	return d
}

// limitsConfig is what the settings say about clients that send too much.
func (s *Server) limitsConfig(epoch time.Time) limitsConfig {
	r := s.cfg.RateLimit
	c := limitsConfig{AddressConns: s.cfg.MaxConnsPerIP, MaxAddresses: r.MaxAddresses, Counters: &s.counters, Epoch: epoch}
	if r.Disabled {
		return c
	}
	c.Session = rate{r.Limit, r.Interval}
	c.Address = r.Address.rate()
	c.Server = r.Server.rate()
	c.AddressHandshakes = r.AddressHandshakes.rate()
	c.ServerHandshakes = r.ServerHandshakes.rate()
	c.Abuse = r.Abuse.rate()
	c.Pending = r.Pending
	return c
}

// newRemotes returns what calls remotes, given what calls handlers. Arguments
// and results of remotes are always protobuf.
func (s *Server) newRemotes(d *dispatcher) *dispatcher {
	registry := s.registry.remoteRegistry()
	registry.meet(d.Meters)
	return &dispatcher{
		Registry:   registry,
		Pipeline:   s.remotePipeline,
		Host:       d.Host,
		Serializer: Protobuf{},
		Meters:     d.Meters,
		Counters:   d.Counters,
		Inspect:    d.Inspect,
		Log:        d.Log,
		Validate:   d.Validate,
		Timeout:    d.Timeout,
		Slow:       d.Slow,
	}
}

// pushCodesRule decides about route codes in pushes to a client, given what its
// handshake tells.
func pushCodesRule(setting PushCodes) func(known bool) bool {
	switch setting {
	case PushCodesAlways:
		return func(bool) bool { return true }
	case PushCodesNever:
		return func(bool) bool { return false }
	}
	return func(known bool) bool { return known }
}

// buildHandshake prepares the packets that answer handshakes, once for the
// server (client protocol, section 5.3).
func (h *sessionHost) buildHandshake(heartbeat time.Duration) error {
	answer := HandshakeResponse{Code: 200, Sys: HandshakeResponseSys{
		Dict:       h.Dict.Routes(),
		Heartbeat:  max(heartbeat, 0).Seconds(),
		Serializer: h.Serializer.Name(),
	}}
	body, err := appendHandshakeResponse(nil, &answer)
	if err != nil {
		return err
	}
	if h.Accept, err = AppendPacket(nil, PacketHandshake, body); err != nil {
		return fmt.Errorf("pitaya: handshake answer: %w", err)
	}
	h.AcceptBody = body[:len(body)-len("}}")]
	h.AcceptDeflated = h.Accept
	if small, ok := deflate(nil, body); ok {
		if h.AcceptDeflated, err = AppendPacket(nil, PacketHandshake, small); err != nil {
			return err
		}
	}
	refuse := func(code int, msg string) []byte {
		refusal := answer
		refusal.Code, refusal.Msg = code, msg
		body, err := appendHandshakeResponse(nil, &refusal)
		if err != nil {
			return nil
		}
		packet, err := AppendPacket(nil, PacketHandshake, body)
		if err != nil {
			return nil
		}
		return packet
	}
	h.Refuse = func(msg string) []byte { return refuse(400, msg) }
	h.Busy = refuse(handshakeBusy, "too many handshakes, try again later")
	return nil
}
