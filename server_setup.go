package pitaya

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
)

// setUp runs f if the server can still be set up. What goes wrong is returned,
// and again from Run, so that a program that does not look at each result
// still does not start with half of its handlers.
func (s *Server) setUp(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.newLocked(); err != nil {
		return err
	}
	err := f()
	if err != nil {
		s.mistakes = append(s.mistakes, err)
	}
	return err
}

// newLocked returns an error unless the server is being set up.
func (s *Server) newLocked() error {
	switch s.state {
	case serverNew:
		return nil
	case serverClosing, serverEnded:
		return ErrServerClosed
	}
	return ErrServerRunning
}

// Register makes the methods of a component handlers of client messages. Which
// methods qualify, and what a client sees of them, is in the package's
// documentation, under Handlers. Mistakes are returned all at once: methods
// that look like handlers and are none, names that are taken, a type that is
// not exported. It is called before Run.
func (s *Server) Register(component any, opts ...RegisterOption) error {
	return s.setUp(func() error { return s.registry.register(component, opts) })
}

// RegisterRemote makes the methods of a component remotes, which other servers
// of the cluster can call: those that take a context and at most a pointer to a
// protobuf message, and return a pointer to such a message and an error. Names
// and mistakes are as with Register, but methods that are handlers are passed
// over, so that one component can have both. It is called before Run.
//
// A server that is in no cluster cannot be called. It logs that, and nothing
// else is different: the component's lifecycle methods run, as [Base] says.
func (s *Server) RegisterRemote(component any, opts ...RegisterOption) error {
	return s.setUp(func() error { return s.registry.registerRemote(component, opts) })
}

// AddRoute sets the function that chooses among the servers of the given type,
// for the messages of this server's clients and for RPCs that name no server
// alike. Without one it is a random one. What a server sends to its own type
// stays on it, and a server that is in no cluster has nobody to choose from.
// AddRoute is called before Run, once for each type.
//
// The library has functions for what is wanted most: [RouteRandom],
// [RouteRoundRobin], [Server.RouteLeastPending], [RouteByUID], [RouteHash],
// [RouteSticky] and [RouteByMetadata].
func (s *Server) AddRoute(serverType string, f RoutingFunc) error {
	return s.setUp(func() error {
		if err := checkRoutePart(serverType); err != nil {
			return fmt.Errorf("pitaya: routing to servers of type %q: %w", serverType, err)
		}
		if f == nil {
			return fmt.Errorf("pitaya: routing to servers of type %q: no function given", serverType)
		}
		if s.routes[serverType] != nil {
			return fmt.Errorf("pitaya: routing to servers of type %q is set already", serverType)
		}
		s.routes[serverType] = f
		return nil
	})
}

// AddListener adds a listener to those that Run serves, as if it stood in
// Config.Listeners. It is called before Run; see Serve for later.
func (s *Server) AddListener(l net.Listener) error {
	return s.setUp(func() error {
		switch {
		case l == nil:
			return errors.New("pitaya: no listener given")
		case !s.cfg.Frontend:
			return errBackendListener
		}
		s.cfg.Listeners = append(slices.Clip(s.cfg.Listeners), l)
		return nil
	})
}

// addHandler registers a single handler.
func (s *Server) addHandler(route string, e *handlerEntry, opts []RegisterOption) error {
	return s.setUp(func() error { return s.registry.registerFunc(route, e, opts) })
}

// Before adds a function that runs before each handler, behind those added
// earlier. It is called before Run.
func (s *Server) Before(f BeforeFunc) error {
	return s.setUp(func() error {
		s.pipeline.Before = append(s.pipeline.Before, f)
		return nil
	})
}

// After adds a function that runs after each handler, behind those added
// earlier. It is called before Run.
func (s *Server) After(f AfterFunc) error {
	return s.setUp(func() error {
		s.pipeline.After = append(s.pipeline.After, f)
		return nil
	})
}

// SetDictionary sets the codes that stand for routes on the wire. Clients learn
// them in the handshake. [NewDictionary] says what may be among them, and why 0
// is better not. It is called before Run.
func (s *Server) SetDictionary(routes map[string]uint16) error {
	return s.setUp(func() (err error) {
		s.dict, err = NewDictionary(routes)
		return err
	})
}

// SetSerializer sets how payloads are encoded. It is called before Run.
func (s *Server) SetSerializer(serializer Serializer) error {
	return s.setUp(func() error {
		if serializer == nil {
			return errors.New("pitaya: no serializer given")
		}
		s.cfg.Serializer = serializer
		return nil
	})
}

// AddHandshakeValidator adds a check of the handshake data of new clients. The
// validators run in the order in which they were added; the error of the first
// that refuses is told to the client as the msg of the answer, and the
// connection is closed. It is called before Run.
func (s *Server) AddHandshakeValidator(name string, check func(*HandshakeData) error) error {
	return s.setUp(func() error {
		if slices.ContainsFunc(s.validators, func(v handshakeValidator) bool { return v.Name == name }) {
			return fmt.Errorf("pitaya: there is a handshake validator %q already", name)
		}
		s.validators = append(s.validators, handshakeValidator{Name: name, Check: check})
		return nil
	})
}

// OnSessionBind adds a function that runs when a session is about to be bound
// to a user, in the goroutine of [Session.Bind]. An error prevents it. It is
// called before Run.
func (s *Server) OnSessionBind(f func(ctx context.Context, session *Session) error) error {
	return s.setUp(func() error {
		s.onBind = append(s.onBind, f)
		return nil
	})
}

// OnAfterSessionBind adds a function that runs when a session was bound to a
// user, in the goroutine of [Session.Bind]. An error unbinds it. It is called
// before Run.
func (s *Server) OnAfterSessionBind(f func(ctx context.Context, session *Session) error) error {
	return s.setUp(func() error {
		s.onAfter = append(s.onAfter, f)
		return nil
	})
}

// OnSessionClose adds a function that runs for each session that has ended, as
// [Session.OnClose] describes. It is called before Run.
func (s *Server) OnSessionClose(f func(session *Session)) error {
	return s.setUp(func() error {
		s.onClose = append(s.onClose, f)
		return nil
	})
}

// OnSessionDetach adds a function that runs when a session has lost its
// connection and waits for its client to come back, for Config.Resume.Window at
// most. It is told of one session in the order of what happens to it, as that of
// OnSessionResume is, in a goroutine of the session's own, which a handler that
// is at work does not hold up; so the session may have its client again, or be
// over, when it runs. A session that ends does not call it again: that is
// OnSessionClose. It is called before Run.
func (s *Server) OnSessionDetach(f func(session *Session)) error {
	return s.setUp(func() error {
		s.onDetach = append(s.onDetach, f)
		return nil
	})
}

// OnSessionResume adds a function that runs when the client of a session has come
// back, on another connection; the pushes that it was missing are on their way.
// Each call stands behind one of those of OnSessionDetach, whose rules apply. It
// is called before Run.
func (s *Server) OnSessionResume(f func(session *Session)) error {
	return s.setUp(func() error {
		s.onResume = append(s.onResume, f)
		return nil
	})
}

// AddModule adds a module behind those added earlier. It is called before Run.
func (s *Server) AddModule(name string, m Module) error {
	return s.setUp(func() error { return s.modules.addAfter(name, m) })
}

// AddModuleBefore adds a module in front of those added earlier. It is called
// before Run.
func (s *Server) AddModuleBefore(name string, m Module) error {
	return s.setUp(func() error { return s.modules.addBefore(name, m) })
}
