package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/pitaya-go/pitaya"
)

// A style is how a run tells what happens.
type style int

const (
	styleText  style = iota // for readers
	styleQuiet              // answers and what was asked for, nothing else
	styleJSON               // one JSON object on each line
)

// An event is a line of -json.
type event struct {
	Event      string            `json:"event"`
	URL        string            `json:"url,omitempty"`
	Serializer string            `json:"serializer,omitempty"`
	Line       int               `json:"line,omitempty"`
	Command    string            `json:"command,omitempty"`
	Route      string            `json:"route,omitempty"`
	Payload    json.RawMessage   `json:"payload,omitempty"`
	Text       *string           `json:"text,omitempty"`
	Base64     *string           `json:"base64,omitempty"`
	Code       string            `json:"code,omitempty"`
	Message    string            `json:"message,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Note       string            `json:"note,omitempty"`
	Resumed    *bool             `json:"resumed,omitempty"`
	Millis     *float64          `json:"ms,omitempty"`
}

// Output is where all that a run says goes. Its methods may be called by any goroutine.
type output struct {
	// Immutable.
	Prompting bool // somebody types: what is said stands above the line

	mu    sync.Mutex
	shown int // bytes of a payload that are shown, but for styleJSON
	style style
	out   io.Writer
	err   io.Writer
	above func(text string) // writes above the line that is being typed; nil while there is none
	ended bool
}

// End makes what is still said unheard: a push that came last may be on its way here from a connection that is closed.
func (o *output) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
}

// SetStyle changes how things are told from now on.
func (o *output) SetStyle(s style) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.style = s
}

// Style returns how things are told.
func (o *output) Style() style {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.style
}

// SetShown changes how many bytes of a payload are shown.
func (o *output) SetShown(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shown = n
}

// Shown returns how many bytes of a payload are shown.
func (o *output) Shown() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.shown
}

// SetAbove says who writes, while a line is being typed. Nil: nobody is typing.
func (o *output) SetAbove(f func(text string)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.above = f
}

// writeLocked writes text as lines. mu is held, so that lines do not mix.
func (o *output) writeLocked(w io.Writer, text string) {
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	switch {
	case o.ended:
		return
	case o.above != nil:
		o.above(text)
		return
	}
	io.WriteString(w, text) // nobody to tell that nobody reads
}

// Result tells what a command was asked for. It is escaped already.
func (o *output) Result(text string, e event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.style == styleJSON {
		o.eventLocked(e)
		return
	}
	o.writeLocked(o.out, text)
}

// Push tells of a push, which nobody asked for.
func (o *output) Push(route string, v value) {
	e := event{Event: "push", Route: route}
	v.fields(&e)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch o.style {
	case styleJSON:
		o.eventLocked(e)
	case styleText:
		o.writeLocked(o.out, fmt.Sprintf("push %s: %s", clean(route), v.show(o.shown)))
	}
}

// Note tells what may be good to know. Scripts get it beside their output.
func (o *output) Note(text string, e event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch o.style {
	case styleJSON:
		o.eventLocked(e)
	case styleText:
		w := o.err
		if o.Prompting {
			w = o.out
		}
		o.writeLocked(w, escape(text, true))
	}
}

// Error tells of a command that failed. where is the place of the command in a script.
func (o *output) Error(where string, c command, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.style == styleJSON {
		e := event{Event: "error", Line: c.Line, Command: c.String(), Message: describeError(err)}
		if e2, ok := errors.AsType[*pitaya.Error](err); ok {
			e.Code, e.Message, e.Metadata = e2.Code, e2.Message, e2.Metadata
		}
		o.eventLocked(e)
		return
	}
	text := escape(describeError(err), true)
	if o.Prompting {
		o.writeLocked(o.out, "error: "+text)
		return
	}
	o.writeLocked(o.err, fmt.Sprintf("%s: %s: %s", where, escape(cut(c.String(), 100), false), text))
}

// describeError is an error for readers: with the metadata of coded ones, without the library's name. Nothing of the
// server's in it can deceive a terminal or its reader.
func describeError(err error) string {
	if e, ok := errors.AsType[*noTransportError](err); ok {
		return e.Error() // on lines, each of which is clean
	}
	e, ok := errors.AsType[*pitaya.Error](err)
	if !ok {
		return clean(strings.TrimPrefix(err.Error(), "pitaya: "))
	}
	s := clean(e.Message)
	if e.Code != "" {
		s = clean(e.Code) + ": " + s
	}
	if len(e.Metadata) > 0 {
		if b, err := json.Marshal(e.Metadata); err == nil {
			s += " " + clean(string(b))
		}
	}
	return s
}

// eventLocked writes a line of -json.
func (o *output) eventLocked(e event) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil { // of a payload that was found to be valid
		fmt.Fprintf(&b, `{"event":"error","message":%q}`+"\n", err)
	}
	o.writeLocked(o.out, escape(strings.TrimSuffix(b.String(), "\n"), false))
}

// Exit statuses.
const (
	exitOK          = 0
	exitFailed      = 1   // a command failed
	exitUsage       = 2   // flags or commands are written wrongly
	exitUnreachable = 3   // no connection could be made
	exitLost        = 4   // the connection was lost while there was more to do
	exitInterrupted = 130 // Ctrl-C, a signal
)

// A statusError is an error that ends a script with a status other than 1.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// usagef makes the error of something that is written wrongly.
func usagef(format string, args ...any) error {
	return &statusError{exitUsage, fmt.Errorf(format, args...)}
}

// exitStatus is the status that a script ends with after an error.
func exitStatus(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status
	}
	return exitFailed
}
