package pitaya_test

import (
	"context"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

func e2eTraceCases() []e2eCase {
	return []e2eCase{
		{"spans", (*e2e).spans},
	}
}

// A request's trace goes with it over each transport, whose name its calls have, and through a server that makes no spans.
func (e *e2e) spans() {
	tracer := new(pitayatest.Tracer)
	gate := e.start(pitaya.Config{Type: "gate", ID: "g", Frontend: true, Tracer: tracer}, nil)
	room := e.start(pitaya.Config{Type: "room", ID: "r", Tracer: tracer}, func(s *pitaya.Server) {
		e.raw(s, "h.go", func(ctx context.Context, in string) (string, error) { return rpc(ctx, s, "mid.m.Do", in) })
	})
	mid := e.start(pitaya.Config{Type: "mid", ID: "m"}, func(s *pitaya.Server) {
		e.remote(s, "m", func(ctx context.Context, in string) (string, error) { return rpc(ctx, s, "leaf.l.Do", in) })
	})
	leaf := e.start(pitaya.Config{Type: "leaf", ID: "l", Tracer: tracer}, func(s *pitaya.Server) {
		e.remote(s, "l", func(_ context.Context, in string) (string, error) {
			if in == "fail" {
				return "", pitaya.Errorf("LEAF-1", "it was asked for")
			}
			return in, nil
		})
	})
	client := gate.Client(e)
	e.want("answer", e.ask(client, "room.h.go", "x"), "x")
	e.refused(client, "room.h.go", "fail", "LEAF-1", "it was asked for")
	client.Close()
	for _, n := range []*e2eNode{gate, room, mid, leaf} { // then all spans have ended
		n.Stop()
	}
	call := map[string]string{e2eMemory: "RPC Call", e2eNATS: "NATS RPC Call", e2eGRPC: "GRPC RPC Call"}[e.kind]
	ofRequests := make(map[string]bool)
	for _, s := range tracer.Spans() {
		ofRequests[s.TraceID] = ofRequests[s.TraceID] || s.Name == "room.h.go"
	}
	var spans []pitayatest.Span
	for _, s := range tracer.Spans() {
		if ofRequests[s.TraceID] {
			spans = append(spans, s)
		}
	}
	tree := []string{
		"room.h.go (server)", "\t" + call + " (client)", "\t\troom.h.go (server)", "\t\t\t" + call + " (client)", "\t\t\t\tleaf.l.Do (server)",
		"\tconn write (connection)",
	}
	failed := make([]string, len(tree))
	for i, line := range tree {
		if failed[i] = line + " LEAF-1"; i == len(tree)-1 {
			failed[i] = line
		}
	}
	wantTrees(e.T, spans, append(tree, failed...)...)
	if n := tracer.Open(); n != 0 {
		e.Errorf("%d spans have not ended", n)
	}
}
