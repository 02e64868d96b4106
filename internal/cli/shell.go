package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pitaya-go/pitaya"
)

// Settings are what flags and the command set say.
type settings struct {
	dial      dialSettings
	timeout   time.Duration // of requests and waits
	docs      string        // route of the documentation; empty: defaultDocs, if types are needed; "off": none
	handshake *pitaya.HandshakeData
	keepGoing bool // a failed command does not end a script
}

// A shell runs commands, one at a time. Pushes and ends of connections may come meanwhile.
type shell struct {
	// Owned by the goroutine that runs commands.
	set  settings
	out  *output
	link *link // nil: not connected
	last last
	// history returns the lines typed so far; nil where nobody types.
	history func() []string

	inbox inbox

	mu        sync.Mutex        // guards what follows
	pushTypes map[string]string // route of a push to the name of its message
	seen      map[string]bool   // routes that were used or came; bounded
}

// Last is what came last, for expect.
type last struct {
	what  string // "answer to room.join", say; empty: nothing has come
	value value
	err   error
}

// maxSeen bounds the routes that are remembered for completion.
const maxSeen = 4096

func newShell(set settings, out *output) *shell {
	return &shell{set: set, out: out, pushTypes: make(map[string]string), seen: make(map[string]bool)}
}

// saw remembers a route.
func (s *shell) saw(route string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) < maxSeen {
		s.seen[route] = true
	}
}

// routesSeen returns the routes that were used or came, sorted.
func (s *shell) routesSeen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.seen))
}

// pushType returns the message that pushes with a route are said to have.
func (s *shell) pushType(route string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pushTypes[route]
}

// setPushType says which message pushes with a route have.
func (s *shell) setPushType(route, name string) {
	s.mu.Lock()
	s.pushTypes[route] = name
	s.mu.Unlock()
	s.saw(route)
}

// errExit is what the command exit returns.
var errExit = errors.New("exit")

// errTwice says that Ctrl-C was pressed again before the first one had an effect.
var errTwice = errors.New("interrupted twice")

// errInterrupted is what a command returns that Ctrl-C has ended.
func errInterrupted() error { return &statusError{exitInterrupted, errors.New("interrupted")} }

// run runs one command. A command that must fail and does is none that failed.
func (s *shell) run(ctx context.Context, c command) error {
	err := s.do(ctx, c)
	if err == errExit || !c.Not || ctx.Err() != nil {
		return err
	}
	switch {
	case err == nil:
		return errors.New("it did not fail")
	case exitStatus(err) == exitUsage:
		return err
	}
	s.out.Note("failed, as it must: "+describeError(err), event{Event: "failed", Command: c.String(), Message: describeError(err)})
	return nil
}

func (s *shell) do(ctx context.Context, c command) error {
	v, ok := commandNamed(c.Name)
	if !ok {
		if c.Name == "" {
			return usagef("no command")
		}
		return usagef("there is no command %q; help lists them", c.Name)
	}
	return v.run(s, ctx, c.Args)
}

// connected returns the connection, or an error if there is none.
func (s *shell) connected() (*link, error) {
	if s.link == nil {
		return nil, errors.New("not connected")
	}
	if s.link.ended() {
		<-s.link.over // that is told of first
		return nil, &statusError{exitLost, fmt.Errorf("not connected any more (%s)", s.link.ending())}
	}
	return s.link, nil
}

// failure makes what the client returned fit for readers and for exit statuses.
func (s *shell) failure(ctx context.Context, l *link, err error, timeout time.Duration) error {
	if _, coded := errors.AsType[*pitaya.Error](err); coded {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return errInterrupted()
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v", timeout)
	case l.ended():
		<-l.over // that is told of first
		return &statusError{exitLost, errors.New(l.ending())}
	}
	return err
}
