package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pitaya-go/pitaya"
)

func (s *shell) cmdConnect(ctx context.Context, args string) error {
	addr, rest := cutWord(args)
	if addr == "" || rest != "" {
		return usagef("connect takes one address")
	}
	return s.connect(ctx, addr)
}

func (s *shell) cmdDisconnect(context.Context, string) error {
	if s.link == nil {
		return errors.New("not connected")
	}
	ended := s.link.ended()
	u := s.link.url
	s.leave()
	if !ended {
		s.out.Note("disconnected", event{Event: "disconnected", URL: u, Message: "disconnected"})
	}
	return nil
}

func (s *shell) cmdStatus(context.Context, string) error {
	l := s.link
	if l == nil {
		s.out.Result("not connected", event{Event: "status", Message: "not connected"})
		return nil
	}
	if l.ended() {
		s.out.Result("not connected any more: "+l.ending(), event{Event: "status", Message: l.ending()})
		return nil
	}
	h := l.client.Handshake()
	var b strings.Builder
	fmt.Fprintf(&b, "connected to %s\n", clean(l.url))
	fmt.Fprintf(&b, "serializer   %s\n", clean(l.client.Serializer().Name()))
	fmt.Fprintf(&b, "heartbeat    %gs\n", h.Sys.Heartbeat)
	fmt.Fprintf(&b, "dictionary   %d routes\n", len(h.Sys.Dict))
	if r := h.Sys.Resume; r != nil {
		fmt.Fprintf(&b, "resume       for %ds after a connection is lost\n", r.Window)
	}
	if k := l.known.Load(); k.docs != nil {
		fmt.Fprintf(&b, "documented   %d routes\n", len(k.docs.Routes))
	} else {
		fmt.Fprintf(&b, "documented   no routes (%s)\n", l.whyUnknown())
	}
	text := b.String()
	s.out.Result(text, event{Event: "status", URL: l.url, Serializer: l.client.Serializer().Name(), Message: text})
	return nil
}

func (s *shell) cmdSetHandshake(_ context.Context, args string) error {
	if args == "" {
		text := "the client's own"
		if s.set.handshake != nil {
			b, err := json.Marshal(s.set.handshake)
			if err != nil {
				return err
			}
			text = showJSON(b, s.out.Shown())
		}
		s.out.Result(text, event{Event: "handshake", Text: &text})
		return nil
	}
	h, err := parseHandshake(args)
	if err != nil {
		return err
	}
	s.set.handshake = h
	if s.link != nil && !s.link.ended() {
		s.out.Note("it goes out with the next connect", event{Event: "handshake"})
	}
	return nil
}

// parseHandshake takes what the user wants to say, as JSON or as a file of it. Nil: the client's own.
func parseHandshake(text string) (*pitaya.HandshakeData, error) {
	if name, ok := strings.CutPrefix(text, "@"); ok {
		b, err := readFile(name)
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &keys); err != nil {
		return nil, usagef("not a JSON object: %v", err)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	for key := range keys {
		if !strings.EqualFold(key, "sys") && !strings.EqualFold(key, "user") {
			return nil, usagef("a handshake has the keys sys and user, not %q", key)
		}
	}
	h, err := pitaya.DecodeHandshake([]byte(text))
	if err != nil {
		return nil, usagef("no handshake: %s", strings.TrimPrefix(err.Error(), pitaya.ErrProtocol.Error()+": handshake: "))
	}
	return h, nil
}

// documented returns the documentation of the server that the shell is connected to. It is asked for now if there was
// none before.
func (s *shell) documented(ctx context.Context) (*documentation, error) {
	l, err := s.connected()
	if err != nil {
		return nil, err
	}
	if docs := l.known.Load().docs; docs != nil {
		return docs, nil
	}
	switch s.set.docs {
	case docsOff:
		return nil, errors.New("the setting docs is off")
	case "":
		err = s.learn(ctx, l, defaultDocs, s.set.timeout)
	default:
		err = s.learn(ctx, l, s.set.docs, s.set.timeout)
	}
	return l.known.Load().docs, err
}

func (s *shell) cmdRoutes(ctx context.Context, args string) error {
	l, err := s.connected()
	if err != nil {
		return err
	}
	var list []string
	if docs, err := s.documented(ctx); err == nil {
		for _, name := range sortedKeys(docs.Routes) {
			r := docs.Routes[name]
			line := name + "(" + r.Input + ") " + r.Output
			list = append(list, clean(strings.TrimSpace(line)))
		}
	} else {
		if ctx.Err() != nil {
			return err
		}
		text := "no documentation: " + describeError(err)
		s.out.Note(text, event{Event: "note", Message: text})
		list = s.routesKnown(l)
		for i, name := range list {
			list[i] = clean(name)
		}
	}
	list = slices.DeleteFunc(list, func(line string) bool { return !strings.Contains(line, args) })
	if len(list) == 0 {
		return errors.New("there are none")
	}
	text := strings.Join(list, "\n")
	s.out.Result(text, event{Event: "routes", Text: &text})
	return nil
}

// routesKnown returns the routes of the dictionary and those that were used or came, sorted.
func (s *shell) routesKnown(l *link) []string {
	list := s.routesSeen()
	for name := range l.client.Handshake().Sys.Dict {
		list = append(list, name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
