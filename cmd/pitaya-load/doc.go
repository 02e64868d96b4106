// Command pitaya-load makes load for a game server and measures what comes back: throughput, latencies, errors, and the
// processor time and memory of the server.
//
//	pitaya-load -conns 50 -duration 10s tcp://127.0.0.1:3250
//	pitaya-load -conns 1000 -rate 5000 -json report.json -svg report.svg ws://127.0.0.1:3251
//
// It speaks the client protocol over TCP, TLS, WebSocket and WebSocket over TLS. Routes and bodies default to those of
// the testing server (examples/testserver -standalone), so that
//
//	go run ./examples/testserver -standalone -serializer json -port 32222 -wsport 32223
//	go run ./cmd/pitaya-load -conns 50 tcp://127.0.0.1:32222
//
// works as it stands; for a server of your own, set -route and -body.
//
// # Scenarios
//
// -scenario says what the connections (-conns) do once all are open:
//
//	echo       make requests on -route; -inflight of each connection wait at the same time. With -check an answer that
//	           is not the body of its request is an error.
//	notify     send notifies on -route. In a closed load each batch of -inflight is followed by a request on -sync-route:
//	           its answer shows that the batch was handled, since a server handles a client's messages in order. In an
//	           open load one request comes at the end.
//	broadcast  join a group by a request on -join-route. Then one connection asks on -route for -at-once pushes of -size
//	           bytes to all, and when every connection has all of them, again. Each delivery is counted for its
//	           connection, and one that is missing is an error; a round that is not over within -timeout ends the load.
//	idle       nothing, except for heartbeats: what does a connection cost?
//	connect    connect, do the handshake, acknowledge it, close, and begin anew; -conns do so at the same time.
//	mixed      play a script (-script), see below.
//
// # Closed and open load
//
// Without -rate the load is closed: a connection sends when an answer has come. It shows what a server can do. Latencies
// are counted from the sending, so a stall of a second is one long latency for each request that waits, while all that
// would have been sent meanwhile is not in the figures. -correct adds it: the corrected latencies are those of clients
// that meant to send every so often and were held up.
//
// With -rate the load is open: operations begin on a schedule, -rate per second in all, evenly spaced or, with -arrival
// poisson, independent of each other as the players of a game are. Nothing delays the schedule. Latencies are counted
// from the scheduled time, whenever the request could be sent, so nothing is omitted. A connection on which -max-pending
// requests wait gets no more; what it would have got is an error ("unsent").
//
// In scenarios connect and mixed the operations of the schedule (connects, or blocks of the script) fall to whichever of
// the -conns is free first.
//
// # Phases
//
// Connections are opened, -dialers at the same time, or evenly over -ramp; then all begin together (with -ramp each begins
// at once, and what the schedule of an open load has for a connection that is yet to be opened is left out). After -warmup follows what is measured, for -duration. What was to be sent in that time counts, and is waited
// for if it is under way at the end. -requests ends a run after a number of operations. Ctrl-C ends it early, with the
// report of what there is; a second one at once.
//
// Over 25,000 connections to a server on 127.0.0.1 are spread over source addresses 127.0.0.1, 127.0.0.2 and so on
// (-sources), since an address has ports for no more. The limit of open files is raised as far as it may be; if it is
// too low, that is an error before anything is opened.
//
// # Bodies
//
// -shape and -size make one: json is {"name":"load","content":"xxx"}, json-nested objects in objects, json-list a list of
// numbers, protobuf a message whose field 1 is a text, raw letters. -body is a text, -body-file a file, sent as it is.
//
// # Scripts
//
// A script is lines of text, in UTF-8. Empty ones and those that begin with # are skipped. A line that is not indented
// begins a block: its name and its weight, 1 if there is none. Indented lines are its steps. The block once is played
// after each connect; then, again and again, one of the others, chosen by the weights.
//
//	once
//	    bind connector.testsvc.testbindid user-{{rand}}
//	    request connector.interopsvc.join {}
//
//	play 8
//	    request connector.interopsvc.echo {"name":"{{conn}}","content":"{{n}} {{rand 1 6}}"}
//	    think 50ms 150ms
//
//	chat 1
//	    request connector.interopsvc.broadcast {"count":1,"size":64}
//	    wait onbroadcast 2s
//
//	leave 0.1
//	    disconnect
//
// The steps:
//
//	request ROUTE [BODY]    make a request and wait for its answer
//	bind ROUTE [BODY]       the same; a refusal ends the connection
//	notify ROUTE [BODY]     send a notify
//	wait ROUTE [TIME]       wait for a push on the route: the eldest that came in this block and no wait has taken yet;
//	                        for -timeout if no time is given, after which it is an error
//	sleep TIME              wait
//	think TIME TIME         wait for a time between the two
//	disconnect              close the connection, connect again
//
// The body is the rest of the line, or a file: @NAME, relative to the script, sent as it is. In the line these stand for
// something else: {{conn}} the number of the connection, from 0; {{n}} how many steps it has made; {{rand}}, {{rand 6}} and
// {{rand 1 6}} a random number up to 2147483647, below 6, and from 1 to 6; {{fill 100}} a hundred letters.
//
// A notify whose connection is closed right after it may never reach its handler; a request behind it makes sure.
//
// Requests and notifies are counted by step. In an open load the first of a block counts from the scheduled time.
// Connections of a script are clients of the library, which cost more than those of the other scenarios.
//
// # The server's processor time and memory
//
// -pid names the processes of the server, all that take part (frontend, backend, NATS); their figures are added up.
// Processor time is that of the time measured; divided by the operations it is what one costs. Memory is looked at
// before the first connection and at the end of the time measured, and the difference divided by the connections. With
// -gc the processes get SIGUSR1 before, upon which the testing server collects its garbage; a server that does not handle
// that signal ends by it. For the memory of connections take a server that has just been started: what others have left
// behind is used again. All this is read from /proc, so it is "not available" on systems other than Linux.
//
// # Errors
//
// Errors are counted by kind and code, for the whole run. None ends the program:
//
//	answer       an answer with the error flag; its code (PIT-404, PIT-429)
//	mismatch     an answer that is not the body of its request (-check)
//	timeout      no answer within -timeout, or by the end of the run
//	lost         a request whose connection ended before the answer
//	unsent       open load: not sent, because too much waits or the connection has ended
//	undelivered  broadcast: a push that did not arrive
//	extra        broadcast: a push that nobody asked for
//	wait         script: a push that did not come in time
//	connect      no connection; why
//	handshake    the handshake was refused or not answered
//	setup        the request that joins or binds failed
//	kicked       the server kicked the client; its reason
//	drained      the server announced its end
//	disconnect   the connection ended; how
//	protocol     the server sent what is not the protocol
//	silent       nothing was heard for three heartbeat intervals
//	slow         the server took nothing for -timeout
//
// A connection that has ended stays closed, unless -reconnect is given. When all have ended the run does too.
//
// # Output
//
// The report goes to standard output: percentiles, throughput, errors, a histogram. While the load runs, a line on standard
// error tells how it goes, if that is a terminal; -progress prints plain lines wherever it is. -svg writes a plot of
// latency and throughput over time, -json the report for programs: an object whose fields stay what they are ("format" 1;
// fields may be added).
//
//	format, target, scenario, load ("closed", "open"), interrupted
//	settings     connections, in_flight, rate, arrival, route, body_bytes, warmup_s, duration_s, ramp_s, requests, timeout_s
//	connections  opened (when the load began), at_end
//	measured     seconds, count (operations that succeeded), failed, per_second, latency_us and, with -correct,
//	             corrected_us, with min, mean, p50, p90, p99, p999, max
//	total        of the whole run, warm-up included: connections, requests, notifies, answered, failed, late, pushes,
//	             heartbeats, bytes_sent, bytes_received (packets, without the framing of WebSocket and TLS)
//	errors       list of kind, code, count; error_sum
//	broadcast    rounds, at_once, wanted, delivered, least_per_client, most_per_client
//	steps        of a script: list of step, count, failed, latency_us
//	server       with -pid: pids, available, note, user_s, system_s, cores, cpu_us_per_operation, memory_before and
//	             memory_at_end (rss, rss_anon, pss), rss_per_connection, pss_per_connection, memory_after_gc
//	generator    go, os, gomaxprocs, cpu_s, cores, cpu_us_per_operation
//	series       one for each -interval: t_s, count, failed, per_second, p50_us, p90_us, p99_us, max_us, open
//	histogram    list of from_us, to_us, count
//	notes        list of texts
//
// An operation is a request, a notify, a delivery (broadcast) or a connect.
//
// Exit status: 0; 1 if a file could not be written; 2 if it was called wrongly or cannot run; 3 if there were more errors
// than -max-errors (0 unless given, -1 for any number).
package main
