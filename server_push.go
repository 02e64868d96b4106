package pitaya

import (
	"cmp"
	"context"
	"errors"
)

// errNoFrontendType refuses to send to users nowhere.
var errNoFrontendType = errors.New("pitaya: a backend must say on what type of frontend the users are")

// Push sends v to the sessions of the given users, as [Session.Push] does. The
// frontend type is the type of the servers that the users are connected to;
// empty means this one's, and is an error on a backend. v is serialized once,
// and one message goes to each other server of the type; to servers of Pitaya,
// one for each user. Over NATS and in memory nobody waits for them, so a user
// that is on no server is not noticed. Users that are known not to have been
// reached are in the [*UndeliveredError] that is returned.
func (s *Server) Push(ctx context.Context, frontendType string, uids []string, route string, v any) error {
	return s.pushEach(ctx, frontendType, route, v, func(to func(uid string)) error {
		for _, uid := range uids {
			to(uid)
		}
		return nil
	})
}

// Kick kicks the sessions of the given users, as [Session.Kick] does. Users that
// are connected to this server are kicked whatever the frontend type. Users
// that were not reached are in the [*UndeliveredError] that is returned.
func (s *Server) Kick(ctx context.Context, frontendType string, uids []string) error {
	host, err := s.running()
	if err != nil {
		return err
	}
	if frontendType == "" && !s.cfg.Frontend {
		return errNoFrontendType
	}
	var u undelivered
	for _, uid := range uids {
		session := host.Table.user(uid)
		if session == nil {
			if s.cluster == nil {
				u.add(uid, ErrUserNotFound)
			} else {
				s.cluster.node.kickUser(ctx, cmp.Or(frontendType, s.cfg.Type), uid, &u)
			}
			continue
		}
		if err := session.Kick(ctx); err != nil {
			u.add(uid, err)
		}
	}
	return u.result()
}

// serves reports whether clients of the given frontend type are connected to
// this server.
func (s *Server) serves(frontendType string) bool {
	return s.cfg.Frontend && (frontendType == "" || frontendType == s.cfg.Type)
}

// Group returns the group with the given name, which need not exist yet.
func (s *Server) Group(name string) *Group {
	return newGroup(name, s.groups, s)
}

// pushEach implements groupServer.
func (s *Server) pushEach(ctx context.Context, frontendType, route string, v any, each func(to func(uid string)) error) error {
	host, err := s.running()
	if err != nil {
		return err
	}
	if frontendType == "" && !s.cfg.Frontend {
		return errNoFrontendType
	}
	m, err := host.newMulticast(route, v)
	if err != nil {
		return err
	}
	serves := s.serves(frontendType)
	var u undelivered
	var elsewhere []string
	err = each(func(uid string) {
		var here *Session
		if serves {
			here = host.Table.user(uid)
		}
		switch {
		case here != nil:
			if err := m.send(here); err != nil {
				u.add(uid, err)
			}
		case s.cluster != nil:
			elsewhere = append(elsewhere, uid)
		default:
			u.add(uid, ErrUserNotFound)
		}
	})
	if err != nil {
		return err
	}
	if len(elsewhere) > 0 {
		s.cluster.node.pushUsers(ctx, cmp.Or(frontendType, s.cfg.Type), route, m.Payload, elsewhere, &u)
	}
	return u.result()
}
