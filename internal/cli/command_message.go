package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A message is what request and notify were given.
type message struct {
	route   string
	text    string
	form    form
	timeout time.Duration // zero: the setting's
}

func parseMessage(args string) (message, error) {
	var m message
	rest, err := cutOptions(args, func(name string, value func() string) (err error) {
		switch name {
		case "-t":
			m.timeout, err = parseTimeout(value())
		case "-type":
			m.form.Type = strings.TrimPrefix(value(), "*")
		case "-raw":
			m.form.Raw = true
		case "-hex":
			m.form.Hex = true
		default:
			err = usagef("there is no option %s", name)
		}
		return err
	})
	if err != nil {
		return m, err
	}
	m.route, m.text = cutWord(rest)
	if m.route == "" {
		return m, usagef("a route is missing")
	}
	if m.form.Raw && m.form.Hex || m.form.Type != "" && (m.form.Raw || m.form.Hex) {
		return m, usagef("only one of -type, -raw and -hex")
	}
	return m, nil
}

func parseTimeout(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, usagef("%q is no duration as in 500ms or 10s", text)
	}
	return d, nil
}

// prepare takes the arguments of request and notify up to the payload.
func (s *shell) prepare(args string) (*link, message, []byte, error) {
	m, err := parseMessage(args)
	if err != nil {
		return nil, m, nil, err
	}
	l, err := s.connected()
	if err != nil {
		return nil, m, nil, err
	}
	payload, err := l.encode(m.route, m.text, m.form)
	if err != nil {
		return nil, m, nil, err
	}
	if m.timeout == 0 {
		m.timeout = s.set.timeout
	}
	return l, m, payload, nil
}

func (s *shell) cmdRequest(ctx context.Context, args string) error {
	l, m, payload, err := s.prepare(args)
	if err != nil {
		return err
	}
	s.last = last{what: "answer to " + m.route}
	wait, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	begin := time.Now()
	answer, err := l.client.RequestRaw(wait, m.route, payload)
	took := float64(time.Since(begin).Microseconds()) / 1000
	if err != nil {
		err = s.failure(ctx, l, err, m.timeout)
		s.last.err = err
		return err
	}
	s.saw(m.route)
	r, _ := l.route(m.route)
	s.last.value = l.decode(r.Output, answer)
	e := event{Event: "answer", Route: m.route, Millis: &took}
	s.last.value.fields(&e)
	s.out.Result(s.last.value.show(s.out.Shown()), e)
	return nil
}

func (s *shell) cmdNotify(ctx context.Context, args string) error {
	l, m, payload, err := s.prepare(args)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	if err := l.client.NotifyRaw(wait, m.route, payload); err != nil {
		return s.failure(ctx, l, err, m.timeout)
	}
	s.saw(m.route)
	return nil
}

func (s *shell) cmdPush(_ context.Context, args string) error {
	words := strings.Fields(args)
	if len(words) == 0 {
		s.mu.Lock()
		var b strings.Builder
		for _, route := range sortedKeys(s.pushTypes) {
			fmt.Fprintf(&b, "%s %s\n", route, s.pushTypes[route])
		}
		s.mu.Unlock()
		if b.Len() == 0 {
			b.WriteString("no pushes are described\n")
		}
		text := b.String()
		s.out.Result(escape(text, true), event{Event: "pushes", Text: &text})
		return nil
	}
	if len(words) == 2 && !strings.Contains(args, "=") {
		words = []string{words[0] + "=" + words[1]}
	}
	for _, word := range words {
		route, name, ok := strings.Cut(word, "=")
		if route == "" || ok && name == "" || !ok && len(words) > 1 {
			return usagef("push takes ROUTE MESSAGE, or any number of ROUTE=MESSAGE")
		}
		if !ok {
			s.saw(route)
			return nil
		}
		name = strings.TrimPrefix(name, "*")
		if s.link != nil && s.link.types() != nil && name != rawBytes && !s.link.types().has(name) {
			return usagef("the server has shown no message %s", name)
		}
		s.setPushType(route, name)
	}
	return nil
}

func (s *shell) cmdWait(ctx context.Context, args string) error {
	timeout := s.set.timeout
	what, err := cutOptions(args, func(name string, value func() string) (err error) {
		if name != "-t" {
			return usagef("there is no option %s", name)
		}
		timeout, err = parseTimeout(value())
		return err
	})
	if err != nil {
		return err
	}
	if what == "" || strings.ContainsAny(what, " \t\n") {
		return usagef("wait takes a duration, a route or the word closed")
	}
	if d, err := time.ParseDuration(what); err == nil {
		return pause(ctx, d)
	}
	if s.link == nil {
		return errors.New("not connected")
	}
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if what == "closed" {
		select {
		case <-s.link.client.Done():
			<-s.link.over // it is told of first
			return nil
		case <-wait.Done():
			return s.failure(ctx, s.link, fmt.Errorf("still connected after %v", timeout), timeout)
		}
	}
	a, ok, err := s.inbox.take(wait, what, s.link.client.Done())
	switch {
	case ctx.Err() != nil:
		return s.failure(ctx, s.link, err, timeout)
	case err != nil:
		return fmt.Errorf("no push on %s within %v", what, timeout)
	case !ok:
		<-s.link.over
		return &statusError{exitLost, fmt.Errorf("no push on %s: %s", what, s.link.ending())}
	}
	s.last = last{what: "push on " + what, value: a.Value}
	if s.out.Style() == styleQuiet { // else it was shown when it came
		s.out.Result(a.Value.show(s.out.Shown()), event{})
	}
	return nil
}

// pause waits for a time.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return &statusError{exitInterrupted, errors.New("interrupted")}
	}
}

func (s *shell) cmdExpect(_ context.Context, args string) error {
	word, rest := cutWord(args)
	if word == "" {
		return usagef("what is expected is missing")
	}
	if s.last.what == "" {
		return errors.New("nothing has come that could be as expected")
	}
	if word == "error" {
		return s.expectError(rest)
	}
	if s.last.err != nil {
		return fmt.Errorf("the %s is an error: %s", s.last.what, describeError(s.last.err))
	}
	v := s.last.value
	switch word {
	case "empty":
		if len(v.Raw) > 0 {
			return fmt.Errorf("the %s is %s", s.last.what, v.show(200))
		}
		return nil
	case "text":
		if string(v.Raw) != rest {
			return fmt.Errorf("the %s is %s", s.last.what, v.show(200))
		}
		return nil
	}
	if v.JSON == nil {
		if _, err := decodeJSON([]byte(args)); err != nil {
			return usagef("expect takes JSON, error, text or empty: %v", err)
		}
		return fmt.Errorf("the %s is not JSON: %s", s.last.what, v.show(200))
	}
	if err := matchJSON([]byte(args), v.JSON); err != nil {
		if exitStatus(err) == exitUsage {
			return err
		}
		return fmt.Errorf("the %s is not as expected: %w", s.last.what, err)
	}
	return nil
}

func (s *shell) expectError(code string) error {
	if s.last.err == nil {
		return fmt.Errorf("the %s is no error: %s", s.last.what, s.last.value.show(200))
	}
	if code == "" {
		return nil
	}
	if e, ok := errors.AsType[*pitaya.Error](s.last.err); !ok || e.Code != code {
		return fmt.Errorf("the %s is the error %s", s.last.what, describeError(s.last.err))
	}
	return nil
}
