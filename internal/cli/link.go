package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/routedocs"
)

// A link is one connection to a server, with what was learnt over it.
type link struct {
	client *pitaya.Client
	url    string

	known  atomic.Pointer[knowledge] // what was learnt last
	learnt chan struct{}             // closed when what is learnt at first is there: pushes wait for it

	over    chan struct{} // closed when the end has been told
	leaving chan struct{} // closed by close: the end is meant
	once    sync.Once
}

// Knowledge is what a server has said about itself. It does not change.
type knowledge struct {
	docs  *documentation // nil if there is none
	types *types         // nil if there are none
	why   error          // why docs or types are missing, if somebody could want to know
}

// route returns what is known of a route.
func (l *link) route(name string) (route, bool) { return l.known.Load().docs.find(name) }

// types returns the protobuf messages that are known; it may be nil.
func (l *link) types() *types { return l.known.Load().types }

// protobuf reports whether messages are protobuf.
func (l *link) protobuf() bool { return l.client.Serializer().Name() == (pitaya.Protobuf{}).Name() }

// whyUnknown says why types are not known.
func (l *link) whyUnknown() string {
	k := l.known.Load()
	switch {
	case k.why != nil:
		return describeError(k.why)
	case k.docs == nil:
		return "the server's documentation was not asked for, see -docs"
	}
	return "the server's documentation does not have it"
}

// ended reports whether the connection is over.
func (l *link) ended() bool { return l.client.Err() != nil }

// close ends the connection and returns when that has been told.
func (l *link) close() {
	l.once.Do(func() { close(l.leaving) })
	l.client.Close()
	<-l.over
}

// ending says how a connection ended, for readers.
func (l *link) ending() string {
	err := l.client.Err()
	switch {
	case errors.Is(err, pitaya.ErrKicked):
		if reason := l.client.KickReason(); reason != "" && reason != "kicked" {
			return "kicked: " + clean(reason)
		}
		return "kicked"
	case err == nil, errors.Is(err, pitaya.ErrSessionClosed):
		return "disconnected"
	}
	return "disconnected: " + describeError(err)
}

// learn asks the server for its documentation, and for its messages if it speaks protobuf.
func (l *link) learn(ctx context.Context, route string) *knowledge {
	docs, err := fetchDocumentation(ctx, l.client, route)
	if err != nil {
		return &knowledge{why: fmt.Errorf("%s: %w", route, err)}
	}
	if !l.protobuf() {
		return &knowledge{docs: docs}
	}
	descriptors := routedocs.DescriptorsRoute(docs.Parsed)
	if descriptors == "" {
		return &knowledge{docs: docs, why: errors.New("no route of the server returns descriptors")}
	}
	t, err := fetchTypes(ctx, l.client, descriptors, routedocs.Messages(docs.Parsed))
	return &knowledge{docs, t, err}
}

// connect makes a connection, learns over it what is to be learnt, and makes it the shell's.
func (s *shell) connect(ctx context.Context, addr string) error {
	if s.link != nil && !s.link.ended() {
		return fmt.Errorf("already connected to %s; disconnect first", s.link.url)
	}
	s.leave()
	l := &link{learnt: make(chan struct{}), over: make(chan struct{}), leaving: make(chan struct{})}
	l.known.Store(new(knowledge))
	d := s.set.dial
	d.Handshake = s.set.handshake
	d.OnPush = func(route string, payload []byte) { s.pushed(l, route, payload) }
	d.OnDisconnect = func(cause error) {
		text := "connection lost: " + describeError(cause) + "; connecting again"
		s.out.Note(text, event{Event: "lost", Message: text})
	}
	d.OnReconnect = func(resumed bool) {
		text := "connected again, to a new session"
		if resumed {
			text = "connected again, to the session as it was"
		}
		s.out.Note(text, event{Event: "reconnected", Message: text, Resumed: &resumed})
	}
	client, u, err := dial(ctx, addr, &d)
	if err != nil {
		if exitStatus(err) == exitUsage {
			return err
		}
		if ctx.Err() != nil {
			return errInterrupted()
		}
		return &statusError{exitUnreachable, err}
	}
	l.client, l.url = client, u
	s.link = l
	s.out.Note(fmt.Sprintf("connected to %s (%s)", clean(u), clean(client.Serializer().Name())),
		event{Event: "connected", URL: u, Serializer: client.Serializer().Name()})
	go s.watch(l)
	err = s.introduce(ctx, l)
	close(l.learnt)
	return err
}

// defaultDocs is where the documentation is looked for if nobody says: where the library registers it.
const defaultDocs = "docs.docs"

// impatience bounds how long a new connection waits for documentation that it can do without.
const impatience = 2 * time.Second

// introduce asks a server that was just connected to for what is needed at once: its messages, if it speaks protobuf, and
// the routes that somebody who types wants completed. That there are none is an error only where the user said that there
// are.
func (s *shell) introduce(ctx context.Context, l *link) error {
	switch {
	case s.set.docs == docsOff:
	case s.set.docs != "":
		if err := s.learn(ctx, l, s.set.docs, s.set.timeout); err != nil {
			return &statusError{exitStatus(err), fmt.Errorf("no documentation at %s: %s", s.set.docs, describeError(err))}
		}
	case l.protobuf():
		if err := s.learn(ctx, l, defaultDocs, s.set.timeout); err != nil {
			text := "no documentation: " + describeError(err)
			s.out.Note(text, event{Event: "note", Message: text})
		}
	case s.out.Prompting:
		s.learn(ctx, l, defaultDocs, min(impatience, s.set.timeout)) // the command routes says why there is none
	}
	return nil
}

// learn fills in what the server says about itself. An error says that it says nothing.
func (s *shell) learn(ctx context.Context, l *link, route string, timeout time.Duration) error {
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	k := l.learn(wait, route)
	l.known.Store(k)
	if k.docs == nil {
		return s.failure(ctx, l, k.why, timeout)
	}
	text := fmt.Sprintf("%d routes from %s", len(k.docs.Routes), route)
	if k.types != nil {
		text += fmt.Sprintf(", %d files of messages", k.types.files.NumFiles())
	}
	if k.why != nil {
		text += "; " + describeError(k.why)
	}
	s.out.Note(text, event{Event: "documentation", Route: route, Message: text})
	return nil
}

// watch tells of the end of a connection.
func (s *shell) watch(l *link) {
	defer close(l.over)
	<-l.client.Done()
	select {
	case <-l.leaving: // who leaves says so
	default:
		text := l.ending()
		s.out.Note(text, event{Event: "disconnected", URL: l.url, Message: text})
	}
}

// pushed takes in a push. The client calls it for one at a time, in their order.
func (s *shell) pushed(l *link, route string, payload []byte) {
	<-l.learnt
	v := l.decode(s.pushType(route), payload)
	s.saw(route)
	s.out.Push(route, v)
	s.inbox.add(arrival{route, v}) // last: who waits for it may leave then
}

// leave ends the connection, if there is one.
func (s *shell) leave() {
	if s.link != nil {
		s.link.close()
		s.link = nil
	}
}
