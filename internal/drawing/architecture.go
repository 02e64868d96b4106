package drawing

// Places in the drawing: columns of the client, the frontend (three), the transport and the backend, and rows.
const (
	colClient = 10
	colIn     = 140
	colMid    = 298
	colOut    = 456
	colWire   = 650
	colBack   = 796

	boxW, boxH = 142, 80
	wireW      = 88
	backW      = 170

	row1, row2, row3, row4, row5 = 72, 178, 284, 390, 496
	row6                         = 626
)

// Architecture returns the drawing of how a message flows from a client's socket to a handler and back, and across the
// cluster.
func Architecture() *Drawing {
	return &Drawing{
		Width: 990, Height: 756,
		Title: "How a message flows from a client's socket to a handler and back, on one server and across the cluster",
		Frames: []Box{
			{X: 126, Y: 8, W: 488, H: 694, Title: "Frontend"},
			{X: 782, Y: 8, W: 198, H: 694, Title: "Backend"},
		},
		Boxes:  architectureBoxes(),
		Arrows: architectureArrows(),
		Notes: []Note{
			{Point{192, 732}, "requests, notifies"}, {Point{382, 732}, "answers"},
			{Point{532, 732}, "pushes"}, {Point{692, 732}, "who is there: servers, clients"},
		},
	}
}

func architectureBoxes() []Box {
	return []Box{
		{X: colClient, Y: row1, W: 84, H: row2 + boxH - row1, Class: "out", Title: "Client", Lines: []string{"TCP, TLS,", "WebSocket"}},

		{X: colIn, Y: row1, W: boxW, H: boxH, Title: "Acceptor", Lines: []string{"a net.Listener"}, Files: []string{"acceptor_*, proxy"}},
		{X: colIn, Y: row2, W: boxW, H: boxH, Title: "Connection: in", Lines: []string{"reads packets, with", "a goroutine for each"}, Files: []string{"conn_read, conn_raw_*"}},
		{X: colIn, Y: row3, W: boxW, H: boxH, Title: "Session: mailbox", Lines: []string{"limits; in order,", "one at a time"}, Files: []string{"mailbox, admission"}},
		{X: colIn, Y: row4, W: boxW, H: boxH, Title: "Dispatch", Lines: []string{"route, decode,", "pipeline, recover"}, Files: []string{"dispatch, handler"}},
		{X: colIn, Y: row5, W: colMid + boxW - colIn, H: boxH, Title: "Forward", Lines: []string{"chooses a server, keeps the order,", "waits for answers without a goroutine"}, Files: []string{"node_forward, routing"}},

		{X: colMid, Y: row2, W: boxW, H: boxH, Title: "Heartbeats", Lines: []string{"one timer for", "all connections"}, Files: []string{"heartbeat"}},
		{X: colMid, Y: row3, W: boxW, H: boxH, Title: "Push to many", Lines: []string{"groups, users;", "encoded once"}, Files: []string{"group, multicast"}},
		{X: colMid, Y: row4, W: boxW, H: boxH, Class: "app", Title: "Handler", Lines: []string{"of the application"}},

		{X: colOut, Y: row1, W: boxW, H: boxH, Title: "Connection: out", Lines: []string{"writes; one writev", "for all that waits"}, Files: []string{"conn_write"}},
		{X: colOut, Y: row2, W: boxW, H: boxH, Title: "Queue", Lines: []string{"whole packets,", "budget in bytes"}, Files: []string{"conn_queue, conn_ring"}},
		{X: colOut, Y: row3, W: boxW, H: boxH, Title: "Session: sends", Lines: []string{"answers in order,", "pushes, kick"}, Files: []string{"session, message"}},
		{X: colOut, Y: row5, W: boxW, H: boxH, Title: "From the cluster", Lines: []string{"answers, notices"}, Files: []string{"node_forward", "node_sys"}},

		{X: colWire, Y: row1, W: wireW, H: row5 + boxH + 30 - row1, Class: "out", Title: "Transport", Lines: []string{"NATS, gRPC,", "or memory"}, Files: []string{"transport", "rpc_nats*", "rpc_grpc*", "cluster_mem"}},

		{X: colBack, Y: row1, W: backW, H: boxH, Title: "Serve", Lines: []string{"bounds, deadline,", "trace"}, Files: []string{"node_serve, node_context"}},
		{X: colBack, Y: row2, W: backW, H: boxH, Title: "Lane", Lines: []string{"in order for each", "frontend's session"}, Files: []string{"node_serve"}},
		{X: colBack, Y: row3, W: backW, H: boxH, Title: "Dispatch", Lines: []string{"the same as on", "the frontend"}, Files: []string{"dispatch, remote"}},
		{X: colBack, Y: row4, W: backW, H: boxH, Class: "app", Title: "Handler, remote", Lines: []string{"of the application"}},
		{X: colBack, Y: row5, W: backW, H: boxH, Title: "Copy of the session", Lines: []string{"push, kick, bind go", "to the frontend"}, Files: []string{"session_remote, node_push"}},

		{X: colIn, Y: row6, W: boxW, H: 62, Title: "Members", Lines: []string{"who is there"}, Files: []string{"members"}},
		{X: colWire - 26, Y: row6, W: wireW + 52, H: 62, Class: "out", Title: "Discovery", Lines: []string{"etcd, or memory"}, Files: []string{"discovery_etcd*"}},
		{X: colBack, Y: row6, W: backW, H: 62, Title: "Members", Lines: []string{"who is there"}, Files: []string{"members"}},
	}
}

func architectureArrows() []Arrow {
	mid := func(col int) int { return col + boxW/2 }
	back := colBack + backW/2
	const frontEnd, backBegin = colOut + boxW, colBack
	return []Arrow{
		{Class: "call", Points: []Point{{94, row1 + 40}, {colIn, row1 + 40}}},
		{Class: "call", Points: []Point{{mid(colIn), row1 + boxH}, {mid(colIn), row2}}, Label: "accept", At: Point{mid(colIn) + 8, row2 - 8}},
		{Class: "call", Points: []Point{{94, row2 + 40}, {colIn, row2 + 40}}},
		{Class: "call", Points: []Point{{mid(colIn), row2 + boxH}, {mid(colIn), row3}}, Label: "messages", At: Point{mid(colIn) + 8, row3 - 8}},
		{Class: "call", Points: []Point{{mid(colIn), row3 + boxH}, {mid(colIn), row4}}, Label: "the next one", At: Point{mid(colIn) + 8, row4 - 8}},
		{Class: "call", Points: []Point{{colIn + boxW, row4 + 40}, {colMid, row4 + 40}}},
		{Class: "call", Points: []Point{{mid(colIn), row4 + boxH}, {mid(colIn), row5}}, Label: "for another type", At: Point{mid(colIn) + 8, row5 - 8}},
		{Class: "call", Points: []Point{{colMid + 71, row5 + boxH}, {colMid + 71, row5 + boxH + 20}, {colWire, row5 + boxH + 20}},
			Label: "call", At: Point{colMid + 82, row5 + boxH + 15}},
		{Class: "call", Points: []Point{{colWire + wireW, row1 + 40}, {backBegin, row1 + 40}}},
		{Class: "call", Points: []Point{{back, row1 + boxH}, {back, row2}}},
		{Class: "call", Points: []Point{{back, row2 + boxH}, {back, row3}}},
		{Class: "call", Points: []Point{{back, row3 + boxH}, {back, row4}}},

		{Class: "answer", Points: []Point{{colMid + boxW, row4 + 40}, {colOut + 30, row4 + 40}, {colOut + 30, row3 + boxH}},
			Label: "answer", At: Point{colMid + boxW + 4, row4 + 58}},
		{Class: "answer", Points: []Point{{backBegin, row4 + 40}, {colWire + wireW, row4 + 40}}, Label: "answer", At: Point{760, row4 + 34}, Anchor: "middle"},
		{Class: "answer", Points: []Point{{colWire, row5 + 26}, {frontEnd, row5 + 26}}},
		{Class: "answer", Points: []Point{{colOut + 80, row5}, {colOut + 80, row3 + boxH}}},
		{Class: "answer", Points: []Point{{mid(colOut) - 14, row3}, {mid(colOut) - 14, row2 + boxH}}},
		{Class: "answer", Points: []Point{{mid(colOut) - 14, row2}, {mid(colOut) - 14, row1 + boxH}}},
		{Class: "answer", Points: []Point{{mid(colOut) - 14, row1}, {mid(colOut) - 14, 58}, {46, 58}, {46, row1}}},

		{Class: "push", Points: []Point{{mid(colMid), row4}, {mid(colMid), row3 + boxH}}, Label: "push", At: Point{mid(colMid) + 8, row4 - 8}},
		{Class: "push", Points: []Point{{colMid + boxW, row3 + 40}, {colOut, row3 + 40}}},
		{Class: "push", Points: []Point{{back, row4 + boxH}, {back, row5}}, Label: "push", At: Point{back + 8, row5 - 8}},
		{Class: "push", Points: []Point{{backBegin, row5 + 54}, {colWire + wireW, row5 + 54}}, Label: "notice", At: Point{760, row5 + 48}, Anchor: "middle"},
		{Class: "push", Points: []Point{{colWire, row5 + 54}, {frontEnd, row5 + 54}}},
		{Class: "push", Points: []Point{{colOut + 112, row5}, {colOut + 112, row3 + boxH}}},
		{Class: "push", Points: []Point{{mid(colOut) + 14, row3}, {mid(colOut) + 14, row2 + boxH}}},
		{Class: "push", Points: []Point{{mid(colOut) + 14, row2}, {mid(colOut) + 14, row1 + boxH}}},
		{Class: "push", Points: []Point{{mid(colOut) + 14, row1}, {mid(colOut) + 14, 44}, {34, 44}, {34, row1}}},

		{Class: "news", Points: []Point{{colMid, row2 + 40}, {colIn + boxW, row2 + 40}}},
		{Class: "news", Points: []Point{{colMid + boxW, row2 + 40}, {colOut, row2 + 40}}},
		{Class: "news", Points: []Point{{mid(colIn), row6}, {mid(colIn), row5 + boxH}}},
		{Class: "news", Points: []Point{{colWire - 26, row6 + 31}, {colIn + boxW, row6 + 31}}, Label: "servers that come, drain and go", At: Point{450, row6 + 25}, Anchor: "middle"},
		{Class: "news", Points: []Point{{colWire + wireW + 26, row6 + 31}, {colBack, row6 + 31}}},

		{Class: "call", Points: []Point{{140, 728}, {184, 728}}},
		{Class: "answer", Points: []Point{{330, 728}, {374, 728}}},
		{Class: "push", Points: []Point{{480, 728}, {524, 728}}},
		{Class: "news", Points: []Point{{640, 728}, {684, 728}}},
	}
}
