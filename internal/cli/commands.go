package cli

import (
	"context"
	"slices"
	"strings"
)

// A verb is a command that there is.
type verb struct {
	name    string
	aliases []string
	args    string // as in the help: what stands behind the name
	short   string // one line
	long    string // the rest of its help
	routes  bool   // its argument is a route, for completion
	run     func(s *shell, ctx context.Context, args string) error
}

// verbs returns all commands, in the order of the help.
func verbs() []verb {
	return []verb{
		{
			name: "connect", args: "ADDRESS", run: (*shell).cmdConnect,
			short: "connect to a server",
			long: "ADDRESS is a URL with the scheme tcp, tls, ws or wss, or host:port, where wss, ws, tls and tcp are tried, in this\n" +
				"order. host:port/path tries wss and ws. After a certificate that is not trusted, or once a server has\n" +
				"spoken TLS, nothing is sent without encryption.",
		},
		{
			name: "disconnect", run: (*shell).cmdDisconnect,
			short: "end the connection",
		},
		{
			name: "request", args: "[-t DURATION] [-type MESSAGE | -raw | -hex] ROUTE [PAYLOAD]", routes: true, run: (*shell).cmdRequest,
			short: "send a request and show its answer",
			long: "PAYLOAD is the rest of the line: JSON, also where the server speaks protobuf, or any text for a handler that takes\n" +
				"bytes. @FILE stands for what is in a file. -raw sends the text as it is, -hex takes hexadecimal digits,\n" +
				"-type says which protobuf message it is. -t is how long to wait for the answer, instead of the setting timeout.",
		},
		{
			name: "notify", args: "[-type MESSAGE | -raw | -hex] ROUTE [PAYLOAD]", routes: true, run: (*shell).cmdNotify,
			short: "send a message that is not answered",
			long:  "The arguments are those of request.",
		},
		{
			name: "push", args: "[ROUTE MESSAGE | ROUTE=MESSAGE ...]", routes: true, run: (*shell).cmdPush,
			short: "say which protobuf message pushes with a route are",
			long: "The documentation of a server does not have it. Without arguments: list what was said. With JSON there is nothing\n" +
				"to say, and push ROUTE alone makes the route known to the completion.",
		},
		{
			name: "routes", args: "[TEXT]", run: (*shell).cmdRoutes,
			short: "list the server's routes, those that contain TEXT",
			long: "They come from its documentation, for which the server is asked where the setting docs says. Where it has none:\n" +
				"the dictionary of its handshake, and the routes that were used.",
		},
		{
			name: "docs", args: "[-html | -json] [-o FILE]", run: (*shell).cmdDocs,
			short: "write a page about the server's routes and types, in Markdown or HTML",
			long:  "-json writes the documentation as the server sent it. -o writes to a file.",
		},
		{
			name: "sethandshake", args: "[JSON | @FILE]", run: (*shell).cmdSetHandshake,
			short: `set what the next connect says about this client: {"sys":{...},"user":{...}}`,
			long:  "Without an argument it is shown. An empty object sets it back.",
		},
		{
			name: "wait", args: "[-t DURATION] DURATION | ROUTE | closed", routes: true, run: (*shell).cmdWait,
			short: "wait for a time, for a push, or for the end of the connection",
			long: "Pushes are kept until somebody waits for them: one that has come already ends the wait at once, and the next wait\n" +
				"takes the one behind it. -t is how long to wait at most, instead of the setting timeout.",
		},
		{
			name: "expect", args: "JSON | error [CODE] | text TEXT | empty", run: (*shell).cmdExpect,
			short: "fail unless the last answer, or the push that was waited for, is as said",
			long: "Objects may have more keys than JSON says; all else must be equal. error wants that the last request failed,\n" +
				`which does not end a script if "!" stands before it: ! request room.join {}; expect error PIT-404`,
		},
		{
			name: "set", args: "[NAME [VALUE]]", run: (*shell).cmdSet,
			short: "show and change settings",
			long:  settingsHelp(),
		},
		{
			name: "status", run: (*shell).cmdStatus,
			short: "show what the client is connected to",
		},
		{
			name: "history", args: "[TEXT]", run: (*shell).cmdHistory,
			short: "list the lines typed so far, those that contain TEXT",
		},
		{
			name: "help", aliases: []string{"?"}, args: "[COMMAND]", run: (*shell).cmdHelp,
			short: "list the commands, or tell about one",
		},
		{
			name: "exit", aliases: []string{"quit"}, run: func(*shell, context.Context, string) error { return errExit },
			short: "disconnect and leave",
		},
	}
}

// commandNamed finds a command by its name.
func commandNamed(name string) (verb, bool) {
	for _, v := range verbs() {
		if v.name == name {
			return v, true
		}
		if slices.Contains(v.aliases, name) {
			return v, true
		}
	}
	return verb{}, false
}

// cutOptions takes the options off the start of arguments. take is called for each, with a function that takes its value,
// and reports whether it exists.
func cutOptions(args string, take func(name string, value func() string) error) (rest string, err error) {
	rest = strings.TrimSpace(args)
	for strings.HasPrefix(rest, "-") {
		var name string
		name, rest = cutWord(rest)
		if name == "--" {
			break
		}
		missing := false
		err := take(name, func() string {
			var word string
			word, rest = cutWord(rest)
			missing = word == ""
			return word
		})
		if missing {
			return "", usagef("%s needs a value", name)
		}
		if err != nil {
			return "", err
		}
	}
	return rest, nil
}
