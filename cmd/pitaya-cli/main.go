// Pitaya-cli is a client of servers that speak the protocol of Pitaya, for people at a terminal and for scripts. It makes
// requests, sends notifies and shows what the server pushes, over TCP, TLS and WebSocket, in JSON and protobuf.
//
//	go run github.com/pitaya-go/pitaya/cmd/pitaya-cli@latest localhost:3250
//
// # Usage
//
//	pitaya-cli [flags] [ADDRESS]
//	pitaya-cli docs [flags] ADDRESS
//
// ADDRESS is tcp://host:port, tls://host:port, ws://host:port/path or wss://host:port/path. Without a scheme all four are
// tried, in the order wss, ws, tls, tcp; host:port/path tries wss and ws. Trying ends where it cannot help: when nobody
// listens, when the server refuses the handshake, and when its certificate is not trusted. A server that speaks TLS is
// sent nothing without it.
//
// At a terminal commands are typed: help lists them. Elsewhere they are read from the standard input, from files (-f) or
// from flags (-e), until one fails. docs writes a page about the routes of a server, see the command docs.
//
// # Flags
//
//	-e COMMANDS          run these commands, then leave; may be given again, also with -f
//	-f FILE              run the commands in a file, then leave; - is the standard input
//	-keep-going          go on behind a command that fails
//	-json                write one JSON object on a line for each thing that happens
//	-q                   write answers, and pushes that are waited for, and nothing else but errors
//	-shown BYTES         of a payload at most, but for -json (default 65536)
//	-timeout D           how long requests and waits may take (default 10s)
//	-connect-timeout D   how long each transport that is tried may take (default 5s)
//	-insecure            take any certificate
//	-ca FILE             trust these certificates instead of the system's
//	-servername NAME     that the certificate must have, instead of the address's
//	-path PATH           of WebSocket, where the address has none
//	-header 'N: V'       to send with the upgrade to WebSocket; may be given again
//	-handshake JSON      what the client says about itself, {"sys":{…},"user":{…}}, or @FILE
//	-docs ROUTE          where the server has its documentation (default docs.docs); off: do not ask
//	-push ROUTE=MESSAGE  pushes with that route are that protobuf message; may be given again
//	-serializer NAME     json or protobuf, instead of the one that the server names
//	-resume              connect again when the connection is lost, and go on with the session if the server still has it
//	-compress            compress payloads that shrink by it
//	-history FILE        keep the lines typed in a file, for their owner alone; auto: pitaya-cli/history in
//	                     $XDG_STATE_HOME or ~/.local/state; the environment's PITAYA_CLI_HISTORY is the default
//
// And of docs, beside those of the connection:
//
//	-html                write HTML instead of Markdown
//	-json                write the documentation as the server sent it
//	-o FILE              write to a file
//
// # Commands
//
//	connect ADDRESS                       connect to a server
//	disconnect                            end the connection
//	request [OPTIONS] ROUTE [PAYLOAD]     send a request and show its answer
//	notify [OPTIONS] ROUTE [PAYLOAD]      send a message that is not answered
//	push ROUTE MESSAGE                    say which protobuf message pushes with a route are
//	routes [TEXT]                         list the server's routes
//	docs [-html | -json] [-o FILE]        write a page about them
//	sethandshake JSON                     set what the next connect says about this client
//	wait DURATION | ROUTE | closed        wait for a time, for a push, or for the end of the connection
//	expect JSON | error [CODE] | text TEXT | empty
//	                                      fail unless the last answer, or push that was waited for, is as said
//	set [NAME [VALUE]]                    show and change settings
//	status, history, help [COMMAND], exit
//
// A command ends at the end of its line or at a semicolon; JSON may span lines and have any. A # where a command would
// begin starts a comment. "!" before a command wants it to fail; one that is written wrongly is an error all the same, and
// so is a payload that is not what the route's message can be. ROUTE is type.service.method, or service.method for the
// server that is connected to. PAYLOAD is the rest of the line. The options of request and notify are -raw, for a payload
// that is sent as it is, -hex, for one in hexadecimal digits, -type MESSAGE, for the protobuf message that it is, and, of
// request, -t DURATION.
//
// # Protobuf
//
// To a server that speaks protobuf payloads are written in JSON all the same, and what it sends is shown in JSON: its
// messages are learnt from its documentation and descriptors, which it must offer
// ([github.com/pitaya-go/pitaya.Server.RegisterDocs]). Which message a push is, they do not say: the command or flag push
// does.
//
// # Exit status
//
//	0     all commands have succeeded
//	1     a command has failed: an error of the server, no answer in time, something other than expected
//	2     flags or commands are written wrongly, or a file cannot be read
//	3     no connection could be made
//	4     the connection was lost, or the client kicked, while there was more to do
//	130   interrupted
//
// # At a terminal
//
// The keys are those of most shells: the cursor keys, Ctrl with A, E, B, F, U, K, W, Y, T, L, D, and P and N or the cursor
// keys for the lines before, which Ctrl-R searches; Alt or Ctrl with cursor keys moves by words. Tab completes commands,
// routes, messages and settings, twice lists them. Lines that begin with a space are not kept. Ctrl-C ends the command that
// runs, twice the program. What the server sends meanwhile appears above the line. Where the terminal cannot do that
// (TERM=dumb) plain lines are read.
//
// Pushes are shown by themselves: one that came just before an answer may be shown behind it.
//
// What a server sends is never written to a terminal as it is: control characters, and others that could deceive, are
// shown as escapes.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/pitaya-go/pitaya/internal/cli"
)

func main() {
	interrupts := make(chan os.Signal, 2) // the second one must not be lost
	signal.Notify(interrupts, os.Interrupt)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP)
	status := cli.Main(ctx, cli.Process{
		Args:       os.Args[1:],
		Getenv:     os.Getenv,
		Stdin:      os.Stdin,
		Stdout:     os.Stdout,
		Stderr:     os.Stderr,
		Interrupts: interrupts,
	})
	stop()
	os.Exit(status)
}
