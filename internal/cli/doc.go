// Package cli is pitaya-cli, an interactive client of servers that speak the protocol of Pitaya, up to its exit status.
// The command's own documentation, in cmd/pitaya-cli, tells what it does; this package has how.
//
//	main.go, options.go         Main: flags, and what is run for them
//	parse.go                    text to commands
//	commands.go, command_*.go   the commands, and their help
//	shell.go                    one run: settings, connection, what came last
//	dial.go, link.go            transports that are tried; one connection
//	docs.go, types.go           routes and protobuf messages, learnt from the server
//	payload.go                  what is sent and what came, as text
//	inbox.go, match.go          pushes that a script waits for; what it expects of them
//	output.go, printable.go     readable or JSON; nothing of the server's reaches a terminal raw
//	lines.go, terminal.go       where commands come from: lines of text, or somebody at a terminal
//	complete.go                 what the tab key offers
//
// What a server sends is trusted in nothing: it is bounded, and what a terminal would act on is escaped.
package cli
