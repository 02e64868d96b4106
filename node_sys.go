package pitaya

import (
	"context"
	"errors"
	"sync"

	"github.com/pitaya-go/pitaya/internal/clustermsg"
)

// A sysRemote is a remote of the library itself (cluster protocol, section
// 9.1).
type sysRemote struct {
	Inline bool // it does not block, and must be in order with what comes before and after
	Call   func(c *incoming) ([]byte, error)
	// Begin is there instead of Call where some of the work must be in order, and
	// the rest, which it returns, need not be and is perhaps not brief.
	Begin func(c *incoming) (rest func() ([]byte, error), brief bool)
}

// Routes of the library's own remotes. The first three are Pitaya's; the others
// are called only on servers that announce the feature.
const (
	routeBind  = remoteSys + ".bindsession"
	routeData  = remoteSys + ".pushsession"
	routeKick  = remoteSys + ".kick"
	routeMerge = remoteSys + ".mergesession"
	routeUsers = remoteSys + ".pushusers"
	routeClaim = remoteSys + ".claimuser"
	routeEvent = remoteSys + ".sessionevent"
	routeAgain = remoteSys + ".sessionsagain"
)

// The results of most of them, encoded: a protos.Response with the data "ack",
// and a protos.KickAnswer that says yes.
const (
	ackResponse = "\x0a\x03" + rpcNotifyAnswer
	kickAnswer  = "\x08\x01"
)

func (b *backend) sysRemotes() map[string]sysRemote {
	return map[string]sysRemote{
		routeBind:  {Call: b.sysBind},
		routeData:  {Call: b.sysData},
		routeMerge: {Call: b.sysMerge},
		routeKick:  {Call: b.sysKick},
		routeUsers: {Begin: b.sysUsers},
		routeClaim: {Call: b.sysClaim},
		routeEvent: {Call: b.sysEvent, Inline: true},
		routeAgain: {Call: b.sysAgain},
	}
}

// errNoSession is the answer for a session that is not here.
func errNoSession() error { return Errorf(CodeUnknown, textNoSuchSession) }

// session decodes a protos.Session and finds the session that it names.
func (b *backend) session(c *incoming) (*Session, *rpcSession, error) {
	var arg rpcSession
	if err := arg.decode(c.req.Msg.Data); err != nil {
		return nil, nil, NewError(err, CodeBadRequest)
	}
	s := b.host.Table.get(arg.ID)
	if s == nil {
		return nil, nil, errNoSession()
	}
	return s, &arg, nil
}

func (b *backend) sysBind(c *incoming) ([]byte, error) {
	s, arg, err := b.session(c)
	if err != nil {
		return nil, err
	}
	ctx := &callContext{Context: c.context(), Session: s, Route: string(c.req.Msg.Route), Log: b.log, Start: c.arrived, In: c.in}
	if err := s.Bind(ctx, string(arg.UID)); err != nil {
		return nil, err
	}
	return []byte(ackResponse), nil
}

func (b *backend) sysData(c *incoming) ([]byte, error) {
	s, arg, err := b.session(c)
	if err == nil {
		err = s.replaceData(arg.Data)
	}
	if err != nil {
		return nil, err
	}
	return []byte(ackResponse), nil
}

func (b *backend) sysMerge(c *incoming) ([]byte, error) {
	s, arg, err := b.session(c)
	if err == nil {
		err = s.mergeChanges(arg.Data)
	}
	if err != nil {
		return nil, err
	}
	return []byte(ackResponse), nil
}

func (b *backend) sysKick(c *incoming) ([]byte, error) {
	var arg clustermsg.KickMsg
	if err := arg.Decode(c.req.Msg.Data); err != nil {
		return nil, NewError(err, CodeBadRequest)
	}
	if err := b.kick(c, arg.UserId); err != nil {
		return nil, err
	}
	return []byte(kickAnswer), nil
}

// kick kicks the user's session on this server.
func (b *backend) kick(ctx context.Context, uid string) error {
	s := b.host.Table.user(uid)
	if s == nil {
		return errNoSession()
	}
	s.deliver(0, func() { s.Kick(ctx) }) // behind what was pushed before
	return nil
}

// sysUsers pushes to those of the users that are here, each behind what was sent
// before for its client. The answer names the others.
//
// It finds the users and keeps their places, so that nothing that comes later
// overtakes the push. What takes long with a large payload or many users,
// compressing and sending, is left to the function that it returns.
func (b *backend) sysUsers(c *incoming) (rest func() ([]byte, error), brief bool) {
	failed := func(err error) (func() ([]byte, error), bool) {
		return func() ([]byte, error) { return nil, err }, true
	}
	var arg rpcUsers
	if err := arg.decode(c.req.Msg.Data); err != nil {
		return failed(NewError(err, CodeBadRequest))
	}
	m, err := b.host.newMulticast(string(arg.Route), arg.Data)
	if err != nil {
		return failed(err)
	}
	brief = len(c.req.Msg.Data) < deliveryBytes
	var sends sync.WaitGroup
	errs := make([]error, len(arg.UIDs)) // of each user; written by who delivers
	deliver := make([]func(), 0, len(arg.UIDs))
	for i, uid := range arg.UIDs {
		s := b.host.Table.user(uid)
		if s == nil {
			errs[i] = ErrUserNotFound
			continue
		}
		sends.Add(1)
		f := s.reserve(func() {
			defer sends.Done()
			errs[i] = m.send(s)
		})
		if f != nil {
			deliver = append(deliver, f)
		} else {
			brief = false
		}
	}
	return func() ([]byte, error) {
		var u undelivered
		for _, f := range deliver {
			f()
		}
		sends.Wait() // for those that are behind something else
		for i, err := range errs {
			if err != nil {
				u.add(arg.UIDs[i], err)
			}
		}
		return (&rpcUsers{UIDs: u.UIDs}).encode(), nil
	}, brief
}

func (b *backend) sysClaim(c *incoming) ([]byte, error) {
	var arg rpcClaim
	if err := arg.decode(c.req.Msg.Data); err != nil {
		return nil, NewError(err, CodeBadRequest)
	}
	answer := rpcClaimAnswer{}
	if b.unique != nil {
		answer = b.unique.claimed(c, &arg)
	}
	return answer.encode(), nil
}

// errBindNotice is that an announcement names no user, or no server that can
// have bound one.
var errBindNotice = errors.New("pitaya: a bind without a user or a frontend of this type")

// HandleNotice implements TransportHandler (cluster protocol, section 5.1).
func (b *backend) HandleNotice(n *Notice, reply func(response []byte, err error)) {
	response, err := b.notice(n)
	if reply != nil {
		reply(response, err)
	}
}

func (b *backend) notice(n *Notice) ([]byte, error) {
	switch n.Kind {
	case NoticePush:
		var p rpcPush
		if err := p.decode(n.Body); err != nil {
			b.drop("push", err)
			return nil, err
		}
		s := b.host.Table.user(string(p.UID))
		if s == nil {
			b.log.Debug("push for a user that is not here")
			return nil, errNoSession()
		}
		var err error
		if done := s.deliver(len(p.Data), func() { err = s.push(string(p.Route), p.Data) }); done && err != nil {
			return nil, err
		}
		return []byte(ackResponse), nil
	case NoticeKick:
		var k clustermsg.KickMsg
		if err := k.Decode(n.Body); err != nil {
			b.drop("kick", err)
			return nil, err
		}
		if err := b.kick(context.Background(), k.UserId); err != nil {
			return nil, err
		}
		return []byte(kickAnswer), nil
	case NoticeBind:
		var m clustermsg.BindMsg
		if err := m.Decode(n.Body); err != nil {
			b.drop("bind", err)
			return nil, err
		}
		switch from := b.node.Members.get(m.Fid); {
		case m.Uid == "" || m.Fid == "", from != nil && from.Info.Type != b.node.Self().Type:
			// Whoever has sent that has not bound the user, and is not to end its session.
			b.drop("bind", errBindNotice)
		case b.unique != nil:
			b.unique.announced(m.Uid, m.Fid)
		}
		return []byte(ackResponse), nil // in any case (cluster protocol, section 6.1)
	}
	return nil, errEnvelope
}

// frontLink is the way to the frontend of a session. It implements
// sessionFront.
type frontLink struct {
	node   *node
	ctx    context.Context // of the call
	id     string
	number int64
}

func (f *frontLink) context() context.Context { return f.ctx }

func (f *frontLink) server() string { return f.id }

func (f *frontLink) session() int64 { return f.number }

// member returns the frontend. One that has just joined may be known to
// discovery here later than its first clients' messages arrive.
func (f *frontLink) member(ctx context.Context) (*member, error) {
	if m := f.node.Members.await(ctx, f.id); m != nil {
		return m, nil
	}
	return nil, &Error{Code: CodeInternal, Message: "the session's frontend is not known", Err: ErrUnreachable}
}

// ask calls one of the library's remotes on the frontend.
func (f *frontLink) ask(ctx context.Context, route string, arg []byte) error {
	m, err := f.member(ctx)
	if err != nil {
		return err
	}
	_, err = f.node.askRemote(ctx, m, route, arg)
	return err
}

func (f *frontLink) bind(ctx context.Context, uid string) error {
	arg := rpcSession{ID: f.number, UID: []byte(uid)}
	return f.ask(ctx, routeBind, arg.append(nil))
}

func (f *frontLink) setData(ctx context.Context, uid string, data []byte) error {
	arg := rpcSession{ID: f.number, UID: []byte(uid), Data: data}
	return f.ask(ctx, routeData, arg.append(nil))
}

func (f *frontLink) merges() bool {
	m := f.node.Members.get(f.id)
	return m != nil && m.has(featureMerge)
}

func (f *frontLink) mergeData(ctx context.Context, uid string, changes []byte) error {
	arg := rpcSession{ID: f.number, UID: []byte(uid), Data: changes}
	return f.ask(ctx, routeMerge, arg.append(nil))
}

func (f *frontLink) push(ctx context.Context, uid, route string, payload []byte) error {
	if uid == "" {
		return Errorf(CodeUnknown, textUnboundPush)
	}
	if err := checkRoute(route); err != nil {
		return err
	}
	m, err := f.member(ctx)
	if err != nil {
		return err
	}
	p := rpcPush{Route: []byte(route), UID: []byte(uid), Data: payload}
	return f.node.Transport.Notify(ctx, &Notice{Kind: NoticePush, FrontendType: m.Info.Type, UID: uid, Server: m.Info, Body: p.encode()})
}

func (f *frontLink) kick(ctx context.Context, uid string) error {
	if uid == "" {
		return Errorf(CodeUnknown, textUnboundPush)
	}
	arg, err := (&clustermsg.KickMsg{UserId: uid}).Encode()
	if err != nil {
		return err
	}
	return f.ask(ctx, routeKick, arg)
}
