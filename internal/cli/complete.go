package cli

import (
	"slices"
	"strings"
	"unicode"
)

// complete says what could stand behind what is typed so far. It is called while no command runs.
func (s *shell) complete(before string) (start int, candidates []string) {
	line := lastCommand(before)
	word := line[strings.LastIndexFunc(line, unicode.IsSpace)+1:]
	start = len(before) - len(word)
	words := strings.Fields(line[:len(line)-len(word)])
	if len(words) > 0 && words[0] == "!" {
		words = words[1:]
	}
	if len(words) == 0 {
		not := ""
		if rest, ok := strings.CutPrefix(word, "!"); ok {
			not, word = "!", rest
		}
		for _, v := range verbs() {
			candidates = append(candidates, not+v.name)
		}
		return start, matching(candidates, not+word)
	}
	v, ok := commandNamed(strings.TrimPrefix(words[0], "!"))
	if !ok {
		return start, nil
	}
	return start, s.completeArgument(v.name, words[1:], word)
}

// completeArgument completes a word behind a command and the words between.
func (s *shell) completeArgument(verb string, before []string, word string) []string {
	if n := len(before); n > 0 && before[n-1] == "-type" {
		return matching(s.messageNames(), word)
	}
	rest := positional(before)
	switch verb {
	case "request", "notify":
		if len(rest) == 0 {
			if strings.HasPrefix(word, "-") {
				return matching([]string{"-hex", "-raw", "-t", "-type"}, word)
			}
			return s.completeRoute(word, true)
		}
	case "push":
		switch len(rest) {
		case 0:
			return s.completeRoute(word, false)
		case 1:
			return matching(s.messageNames(), word)
		}
	case "wait":
		if len(rest) == 0 {
			return s.completeRoute(word, false)
		}
	case "routes":
		if len(rest) == 0 {
			return s.completeRoute(word, true)
		}
	case "expect":
		if len(rest) == 0 {
			return matching([]string{"empty", "error", "text"}, word)
		}
	case "docs":
		return matching([]string{"-html", "-json", "-o"}, word)
	case "connect":
		return matching(s.addresses(), word)
	case "help":
		if len(rest) == 0 {
			var names []string
			for _, v := range verbs() {
				names = append(names, v.name)
			}
			return matching(names, word)
		}
	case "set":
		var names []string
		if len(rest) == 0 {
			for _, v := range settingsTable() {
				names = append(names, v.name)
			}
		} else if len(rest) == 1 && rest[0] == "output" {
			names = []string{"json", "quiet", "text"}
		}
		return matching(names, word)
	}
	return nil
}

// positional leaves the options and their values out.
func positional(words []string) []string {
	for len(words) > 0 && strings.HasPrefix(words[0], "-") {
		n := 1
		if words[0] == "-t" || words[0] == "-type" || words[0] == "-o" {
			n = 2
		}
		words = words[min(n, len(words)):]
	}
	return words
}

// lastCommand returns the command that the end of a text belongs to.
func lastCommand(text string) string {
	for {
		text = strings.TrimLeftFunc(text, func(r rune) bool { return r == ';' || unicode.IsSpace(r) })
		end, _ := commandEnd(text)
		if end == len(text) {
			return text
		}
		text = text[end:]
	}
}

// matching returns the candidates that begin with what is typed, each with the space that follows it.
func matching(candidates []string, typed string) []string {
	var list []string
	for _, c := range candidates {
		if strings.HasPrefix(c, typed) {
			list = append(list, c+" ")
		}
	}
	return list
}

// completeRoute completes a route: one to send to, or one that comes. Routes with characters that have no place in a line
// are not offered.
func (s *shell) completeRoute(typed string, send bool) []string {
	var list []string
	add := func(name string) {
		if name != "" && strings.IndexFunc(name, func(r rune) bool { return !printable(r) || unicode.IsSpace(r) }) < 0 {
			list = append(list, name)
		}
	}
	if s.link != nil {
		for _, name := range s.routesKnown(s.link) {
			add(name)
		}
		if docs := s.link.known.Load().docs; send && docs != nil {
			for name := range docs.Routes {
				add(name)
			}
		}
	} else {
		for _, name := range s.routesSeen() {
			add(name)
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	if found := matching(list, typed); len(found) > 0 {
		return found
	}
	for i, name := range list { // the short form, for the server that is connected to
		if strings.Count(name, ".") == 2 {
			_, list[i], _ = strings.Cut(name, ".")
		}
	}
	slices.Sort(list)
	return matching(slices.Compact(list), typed)
}

// messageNames returns the names of the server's protobuf messages, sorted.
func (s *shell) messageNames() []string {
	if s.link == nil {
		return nil
	}
	return s.link.types().names()
}

// addresses returns those that were connected to.
func (s *shell) addresses() []string {
	if s.link == nil {
		return nil
	}
	return []string{s.link.url}
}
