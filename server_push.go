package pitaya

import "context"

// Push sends v to the sessions of the given users, as [Session.Push] does. The
// frontend type is the type of the servers that the users are connected to;
// empty means this one's. v is serialized once. Users that were not reached are
// in the [*UndeliveredError] that is returned.
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
	var u undelivered
	for _, uid := range uids {
		session := host.Table.user(uid)
		if session == nil {
			u.add(uid, ErrUserNotFound)
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
	return frontendType == "" || frontendType == s.cfg.Type
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
	m, err := host.newMulticast(route, v)
	if err != nil {
		return err
	}
	serves := s.serves(frontendType)
	var u undelivered
	err = each(func(uid string) {
		if !serves {
			u.add(uid, ErrUserNotFound)
			return
		}
		m.sendTo(uid, &u)
	})
	if err != nil {
		return err
	}
	return u.result()
}
