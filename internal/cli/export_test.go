package cli

// Parse gives the tests the parser of commands.
func Parse(text string) (list []Command, open bool) {
	parsed, open := parse(text, 1)
	for _, c := range parsed {
		list = append(list, Command(c))
	}
	return list, open
}

// Command is what Parse returns.
type Command command

func (c Command) String() string { return command(c).String() }

// Complete gives the tests what the tab key asks, of a client that is not connected and knows these routes.
func Complete(before string, routes ...string) (start int, candidates []string) {
	s := newShell(settings{}, new(output))
	for _, r := range routes {
		s.saw(r)
	}
	return s.complete(before)
}

// Match gives the tests what expect does.
func Match(want, got []byte) error { return matchJSON(want, got) }

// Documented gives the tests the routes of a server's documentation.
func Documented(text string) (routes []string, err error) {
	d, err := parseDocumentation(text)
	if err != nil {
		return nil, err
	}
	for name, r := range d.Routes {
		if r.Name != name {
			panic("a route of another name")
		}
		routes = append(routes, name)
	}
	return routes, nil
}

// ParseMessage gives the tests the arguments of request and notify.
func ParseMessage(args string) (route, text string, err error) {
	m, err := parseMessage(args)
	return m.route, m.text, err
}

// EncodeJSON gives the tests the payload that is sent.
func EncodeJSON(text string) ([]byte, error) { return encodeJSON(text) }

// Clean gives the tests what the terminal gets of a text.
func Clean(s string) string { return clean(s) }
