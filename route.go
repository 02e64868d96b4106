package pitaya

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
	"unique"
)

// MaxRouteLength is the length in bytes of the longest route, what the length byte of a message can express.
const MaxRouteLength = 255

// A Route names a handler or a remote. See the client protocol, section 9.1.
type Route struct {
	ServerType string // empty: the server the client is connected to
	Service    string
	Method     string
}

// ParseRoute takes serverType.service.method or service.method apart. Parts are taken as they are, without trimming;
// none may be empty or only white space. Texts over [MaxRouteLength] bytes and invalid UTF-8 are refused.
//
// The error is an [*Error] with code [CodeBadRequest] that wraps [ErrRoute], ready to be an answer.
func ParseRoute(s string) (Route, error) {
	var r Route
	n := 0
	if len(s) <= MaxRouteLength && utf8.ValidString(s) {
		for part := range strings.SplitSeq(s, ".") {
			if strings.TrimSpace(part) == "" {
				return Route{}, &Error{Code: CodeBadRequest, Message: "route field can not be empty", Err: ErrRoute}
			}
			r = Route{r.Service, r.Method, part}
			n++
		}
	}
	if n != 2 && n != 3 {
		return Route{}, &Error{Code: CodeBadRequest, Message: "invalid route", Err: ErrRoute}
	}
	return r, nil
}

// String returns the full route, with the server type if there is one.
func (r Route) String() string {
	if r.ServerType == "" {
		return r.Short()
	}
	return r.ServerType + "." + r.Service + "." + r.Method
}

// Short returns service.method.
func (r Route) Short() string { return r.Service + "." + r.Method }

// checkRoute reports whether a text can be the route of a message.
func checkRoute(route string) error {
	if len(route) > MaxRouteLength {
		return fmt.Errorf("%w: %d bytes long", ErrRoute, len(route))
	}
	if !utf8.ValidString(route) {
		return fmt.Errorf("%w: invalid UTF-8", ErrRoute)
	}
	return nil
}

// A Dictionary maps routes to 16-bit codes that stand for them in messages. See the client protocol, section 9.2. It
// does not change once it is built, so any number of goroutines may use it. A nil Dictionary is an empty one.
type Dictionary struct {
	codes  map[string]uint16
	routes map[uint16]string
}

// NewDictionary builds a dictionary. White space around routes is removed. Routes that are then empty or equal, longer
// than [MaxRouteLength] or no UTF-8, and codes that are used twice, are errors, which come all at once, joined.
//
// Code 0 is accepted, but better avoided: libpitaya and JavaScript clients take it for "no code".
func NewDictionary(routes map[string]uint16) (*Dictionary, error) {
	d := &Dictionary{codes: make(map[string]uint16, len(routes)), routes: make(map[uint16]string, len(routes))}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(routes)) {
		route, code := strings.TrimSpace(key), routes[key]
		if route == "" {
			errs = append(errs, fmt.Errorf("pitaya: dictionary: code %d has an empty route", code))
			continue
		}
		if err := checkRoute(route); err != nil {
			errs = append(errs, fmt.Errorf("pitaya: dictionary: route of code %d: %w", code, err))
			continue
		}
		if _, ok := d.codes[route]; ok {
			errs = append(errs, fmt.Errorf("pitaya: dictionary: route %q is there twice", route))
			continue
		}
		if other, ok := d.routes[code]; ok {
			errs = append(errs, fmt.Errorf("pitaya: dictionary: code %d belongs to %q and to %q", code, other, route))
			continue
		}
		d.codes[route] = code
		d.routes[code] = route
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return d, nil
}

// Code returns the code of a route, and whether it has one.
func (d *Dictionary) Code(route string) (uint16, bool) {
	if d == nil {
		return 0, false
	}
	code, ok := d.codes[route]
	return code, ok
}

// Route returns the route of a code, and whether there is one.
func (d *Dictionary) Route(code uint16) (string, bool) {
	if d == nil {
		return "", false
	}
	route, ok := d.routes[code]
	return route, ok
}

// text returns a route from the bytes of a message. A route of the dictionary is returned as the dictionary has it,
// which costs no memory. Neither does another that has come before: the routes of a game are few. Those that nobody uses
// any more go with the next garbage collection, so a flood of different ones holds no memory and drives nothing out; it
// costs two microseconds each, which no server pays, since it finds its handlers by the bytes.
func (d *Dictionary) text(b []byte) string {
	if d != nil {
		if code, ok := d.codes[string(b)]; ok {
			return d.routes[code]
		}
	}
	return unique.Make(string(b)).Value()
}

// Routes returns a copy of the whole map; for an empty dictionary it is empty and not nil.
func (d *Dictionary) Routes() map[string]uint16 {
	if d.Len() == 0 {
		return map[string]uint16{}
	}
	return maps.Clone(d.codes)
}

// Len returns the number of routes.
func (d *Dictionary) Len() int {
	if d == nil {
		return 0
	}
	return len(d.codes)
}
