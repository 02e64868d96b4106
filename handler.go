package pitaya

import (
	"context"
	"errors"
	"fmt"
	"go/token"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A RegisterOption changes how [Server.Register], [Handle] and their relatives
// register handlers.
type RegisterOption func(*registration)

// registration is what the options say.
type registration struct {
	Name       string
	Rename     func(string) string
	Concurrent bool
	Bound      bool
	Timeout    time.Duration
	Skip       []string
}

// WithName gives the service a name, instead of that of its Go type.
func WithName(name string) RegisterOption {
	return func(r *registration) { r.Name = name }
}

// WithNameFunc makes the names of methods, for example [strings.ToLower].
func WithNameFunc(rename func(method string) string) RegisterOption {
	return func(r *registration) { r.Rename = rename }
}

// WithConcurrent gives up the order of a session's messages for these handlers:
// each call runs in a goroutine of its own, beside the session's other
// messages, and is answered when it is done. At most as many calls of one
// session run at once as its mailbox holds.
//
// It says nothing to the frontends that send to this server. Over a transport
// that keeps no order ([GRPCTransport]) a frontend has one message of a session
// under way to a server at a time, unless its own Config.Unordered is set.
func WithConcurrent() RegisterOption {
	return func(r *registration) { r.Concurrent = true }
}

// WithBound refuses messages of sessions that are not bound to a user, with
// [CodeUnbound].
func WithBound() RegisterOption {
	return func(r *registration) { r.Bound = true }
}

// WithTimeout sets the time that the context of these handlers allows, instead
// of Config.HandlerTimeout. Negative means no limit.
func WithTimeout(d time.Duration) RegisterOption {
	return func(r *registration) { r.Timeout = d }
}

// WithSkip names exported methods that take a context but are not meant as
// handlers. Without it they are reported as mistakes.
func WithSkip(methods ...string) RegisterOption {
	return func(r *registration) { r.Skip = append(r.Skip, methods...) }
}

// argKind is what a handler takes besides its context.
type argKind uint8

const (
	argNone argKind = iota
	argRaw
	argTyped
)

// handlerEntry is one registered handler. Immutable while the server runs.
type handlerEntry struct {
	Route      string // full
	Notify     bool   // has no result
	Arg        argKind
	New        func() any                                     // a new argument, for argTyped
	Check      func(in any) bool                              // whether a pipeline's argument will do
	Call       func(ctx context.Context, in any) (any, error) // in is nil, a []byte or what New gives
	Raw        rawFunc                                        // the same for bytes, which are not boxed then; may be nil
	In, Out    reflect.Type                                   // of argument and result; nil where there is none
	Concurrent bool
	Bound      bool
	Timeout    time.Duration // 0 is the server's, negative is none

	full, short *routeMeter // of its routes, set before the server runs; nil without reporters
}

// meter returns what reports about calls of the handler by a route, which is its
// full one, the short one, or "" for the former.
func (e *handlerEntry) meter(text string) *routeMeter {
	if text == "" || len(text) == len(e.Route) {
		return e.full
	}
	return e.short
}

// meet makes the meters of all entries.
func (r *registry) meet(m *meters) {
	for route, e := range r.Entries {
		e.full = m.teach(e.Route)
		if route != e.Route {
			e.short = m.teach(route)
		}
	}
}

// registry holds the handlers of a server. It is filled before the server runs.
type registry struct {
	serverType    string
	Entries       map[string]*handlerEntry // by full route and by the short one
	services      map[string]bool
	remotes       map[string]bool          // services of remotes
	remoteMethods map[string]*handlerEntry // by short route
	components    components
	remote        components // those that are remotes only
}

func newRegistry() *registry {
	return &registry{
		Entries:       make(map[string]*handlerEntry),
		services:      make(map[string]bool),
		remotes:       make(map[string]bool),
		remoteMethods: make(map[string]*handlerEntry),
	}
}

// timed reports whether a handler has a time limit of its own.
func (r *registry) timed() bool {
	for _, e := range r.Entries {
		if e.Timeout > 0 {
			return true
		}
	}
	return false
}

// setServerType sets the first part of all full routes, also of those that are
// there already. An error leaves everything as it is.
func (r *registry) setServerType(serverType string) error {
	typed := newRegistry()
	typed.serverType = serverType
	short := make(map[string]*handlerEntry)
	var errs []error
	for route, e := range r.Entries {
		if route == e.Route {
			continue
		}
		short[route] = e
		service, method, _ := strings.Cut(route, ".")
		if err := typed.fits(service, method); err != nil {
			errs = append(errs, fmt.Errorf("pitaya: server type %q: %w", serverType, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for route, e := range short {
		service, method, _ := strings.Cut(route, ".")
		typed.put(service, method, e)
	}
	r.serverType, r.Entries = serverType, typed.Entries
	return nil
}

var (
	contextType = reflect.TypeFor[context.Context]()
	errorType   = reflect.TypeFor[error]()
	bytesType   = reflect.TypeFor[[]byte]()
)

// register adds the handlers of a component. All mistakes are reported, and
// nothing is added if there is one.
func (r *registry) register(value any, opts []RegisterOption) error {
	var o registration
	for _, opt := range opts {
		opt(&o)
	}
	s, err := o.examine(value, "handler", r.services, handlerOf)
	if err != nil {
		return err
	}
	if err := r.addService(s, &o); err != nil {
		return err
	}
	r.components.add(s.Name, value)
	r.remote.remove(value)
	return nil
}

// registerFuncs adds handlers as if they were the methods of a component. name
// is that of the service if the options give it no other, and methods get names
// in lower case.
func (r *registry) registerFuncs(name string, methods map[string]*handlerEntry, opts []RegisterOption) error {
	o := registration{Name: name, Rename: strings.ToLower}
	for _, opt := range opts {
		opt(&o)
	}
	s := &service{Name: o.Name, Methods: make(map[string]*handlerEntry), what: name}
	s.checkName(r.services)
	for _, method := range slices.Sorted(maps.Keys(methods)) {
		if !slices.Contains(o.Skip, method) {
			s.add(method, methods[method], &o)
		}
	}
	for _, skip := range o.Skip {
		if methods[skip] == nil {
			s.mistake("there is no method %s to skip", skip)
		}
	}
	return r.addService(s, &o)
}

// addService adds the handlers of a service, or none if it has mistakes.
func (r *registry) addService(s *service, o *registration) error {
	for _, method := range slices.Sorted(maps.Keys(s.Methods)) {
		s.Methods[method].apply(o)
		if r.services[s.Name] {
			continue // is a mistake already, once for all methods
		}
		if err := r.fits(s.Name, method); err != nil {
			s.mistake("%w", err)
		}
	}
	if len(s.errs) > 0 {
		return errors.Join(s.errs...)
	}
	r.services[s.Name] = true
	for method, e := range s.Methods {
		r.put(s.Name, method, e)
	}
	return nil
}

// service is what registration finds out about a component.
type service struct {
	Name    string
	Methods map[string]*handlerEntry // by the names that they get

	what string // is registered, for errors
	errs []error
}

func (s *service) mistake(format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf("pitaya: register "+s.what+": "+format, args...))
}

// checkName looks at the name of the service. taken are those that are there
// already.
func (s *service) checkName(taken map[string]bool) {
	if err := checkRoutePart(s.Name); err != nil {
		s.mistake("service name %q: %w", s.Name, err)
	}
	if taken[s.Name] {
		s.mistake("there is a service with the name %q already", s.Name)
	}
}

// add adds a method under the name that the options give it.
func (s *service) add(name string, e *handlerEntry, o *registration) {
	method := name
	if o.Rename != nil {
		method = o.Rename(method)
	}
	if err := checkRoutePart(method); err != nil {
		s.mistake("method %s: name %q: %w", name, method, err)
	}
	if s.Methods[method] != nil {
		s.mistake("two methods have the name %q", method)
	}
	s.Methods[method] = e
}

// examine finds the methods of a component that qualify, which shape decides
// as handlerOf does. Mistakes are collected in the result; there is an error
// only if there is no component to look at. taken are the names of services
// that are there already.
func (o *registration) examine(value any, noun string, taken map[string]bool,
	shape func(reflect.Value, reflect.Method) (*handlerEntry, string)) (*service, error) {
	v := reflect.ValueOf(value)
	if !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, errors.New("pitaya: register: no component given")
	}
	t := v.Type()
	s := &service{Methods: make(map[string]*handlerEntry), what: t.String()}
	typeName := t.Name()
	if t.Kind() == reflect.Pointer {
		typeName = t.Elem().Name()
	}
	if !token.IsExported(typeName) {
		s.mistake("the type is not exported")
	}
	s.Name = typeName
	if o.Name != "" {
		s.Name = o.Name
	}
	s.checkName(taken)
	near := 0
	for m := range t.Methods() {
		if slices.Contains(o.Skip, m.Name) {
			continue
		}
		e, reason := shape(v, m)
		if e == nil {
			if reason != "" {
				near++
				s.mistake("method %s is no %s: %s", m.Name, noun, reason)
			}
			continue
		}
		s.add(m.Name, e, o)
	}
	if len(s.Methods) == 0 && near == 0 {
		hint := ""
		if t.Kind() != reflect.Pointer && reflect.PointerTo(t).NumMethod() > t.NumMethod() {
			hint = " (its pointer has more methods: register a pointer)"
		}
		s.mistake("it has no method that is a %s%s", noun, hint)
	}
	for _, skip := range o.Skip {
		if _, ok := t.MethodByName(skip); !ok {
			s.mistake("there is no method %s to skip", skip)
		}
	}
	return s, nil
}

// registerFunc adds one handler under a route of two or three parts.
func (r *registry) registerFunc(route string, e *handlerEntry, opts []RegisterOption) error {
	var o registration
	for _, opt := range opts {
		opt(&o)
	}
	if o.Name != "" || o.Rename != nil || len(o.Skip) > 0 {
		return fmt.Errorf("pitaya: register %q: WithName, WithNameFunc and WithSkip are for components; a function has its route", route)
	}
	parsed, err := ParseRoute(route)
	if err != nil {
		return fmt.Errorf("pitaya: register %q: %w", route, err)
	}
	if parsed.ServerType != "" && parsed.ServerType != r.serverType {
		return fmt.Errorf("pitaya: register %q: this server is of type %q", route, r.serverType)
	}
	e.apply(&o)
	for _, part := range []string{parsed.Service, parsed.Method} {
		if err := checkRoutePart(part); err != nil {
			return fmt.Errorf("pitaya: register %q: %w", route, err)
		}
	}
	if err := r.fits(parsed.Service, parsed.Method); err != nil {
		return fmt.Errorf("pitaya: register %q: %w", route, err)
	}
	r.put(parsed.Service, parsed.Method, e)
	return nil
}

// fits says whether a handler can have the route.
func (r *registry) fits(service, method string) error {
	short := service + "." + method
	if r.Entries[short] != nil {
		return fmt.Errorf("there is a handler for %q already", short)
	}
	if n := len(r.serverType) + 1 + len(short); n > MaxRouteLength {
		return fmt.Errorf("route of %d bytes, at most %d fit", n, MaxRouteLength)
	}
	return nil
}

func (r *registry) put(service, method string, e *handlerEntry) {
	short := service + "." + method
	e.Route = r.serverType + "." + short
	r.Entries[short] = e
	r.Entries[e.Route] = e
}

// all returns the handlers, in no order.
func (r *registry) all() []*handlerEntry {
	var list []*handlerEntry
	for route, e := range r.Entries {
		if route == e.Route { // the others are the short forms
			list = append(list, e)
		}
	}
	return list
}

func (e *handlerEntry) apply(o *registration) {
	e.Concurrent, e.Bound, e.Timeout = o.Concurrent, o.Bound, o.Timeout
}

// checkRoutePart says whether a name can be part of a route.
func checkRoutePart(name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return errors.New("empty")
	case strings.Contains(name, "."):
		return errors.New("contains a dot")
	}
	return checkRoute(name)
}

// handlerOf looks at a method's shape (API document, section 2.3). For one that
// is no handler it returns nil, with the reason if it looks as if it was meant
// to be one: if it takes a context.
func handlerOf(v reflect.Value, m reflect.Method) (e *handlerEntry, reason string) {
	ft := m.Type
	if ft.NumIn() < 2 || !ft.In(1).Implements(contextType) && ft.In(1) != contextType {
		return nil, ""
	}
	if ft.In(1) != contextType {
		return nil, "its first argument must be a context.Context"
	}
	e = &handlerEntry{}
	var argType reflect.Type
	switch {
	case ft.IsVariadic():
		return nil, "it is variadic"
	case ft.NumIn() > 3:
		return nil, "it takes more than a context and one argument"
	case ft.NumIn() == 3:
		argType = ft.In(2)
		switch {
		case argType == bytesType:
			e.Arg = argRaw
		case argType.Kind() == reflect.Pointer:
			e.Arg = argTyped
			elem := argType.Elem()
			e.New = func() any { return reflect.New(elem).Interface() }
		default:
			return nil, fmt.Sprintf("its argument is of type %s; it must be a pointer or []byte", argType)
		}
		e.In = argType
	}
	switch ft.NumOut() {
	case 0:
		e.Notify = true
	case 2:
		if out := ft.Out(0); out != bytesType && out.Kind() != reflect.Pointer {
			return nil, fmt.Sprintf("its result is of type %s; it must be a pointer or []byte", out)
		}
		if ft.Out(1) != errorType {
			return nil, fmt.Sprintf("its second result is of type %s; it must be error", ft.Out(1))
		}
		e.Out = ft.Out(0)
	default:
		return nil, "it must return nothing (a notify) or a result and an error (a request)"
	}
	e.Call = methodCall(v, m)
	e.Raw, _ = v.Method(m.Index).Interface().(func(context.Context, []byte) ([]byte, error))
	if argType != nil {
		e.Check = func(in any) bool { return in != nil && reflect.TypeOf(in) == argType }
	}
	return e, ""
}

// typedEntry makes the entry of a typed function.
func typedEntry[In any](call func(ctx context.Context, in *In) (any, error)) *handlerEntry {
	return &handlerEntry{
		Arg:   argTyped,
		In:    reflect.TypeFor[*In](),
		New:   func() any { return new(In) },
		Check: func(in any) bool { p, ok := in.(*In); return ok && p != nil },
		Call: func(ctx context.Context, in any) (any, error) {
			return call(ctx, in.(*In))
		},
	}
}
