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
