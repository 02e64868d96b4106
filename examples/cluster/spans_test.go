package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// readSpans reads the lines.
func readSpans(t testing.TB, text string) (spans []spanLine) {
	for line := range strings.Lines(text) {
		var s spanLine
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		spans = append(spans, s)
	}
	return spans
}

func TestSpanWriter(t *testing.T) {
	t.Parallel()
	pitayatest.TestTracer(t, pitayatest.TracerOptions{
		Open: func(t testing.TB) (pitaya.Tracer, func() []pitayatest.Span) {
			var out bytes.Buffer
			w := newSpanWriter(&out)
			return w, func() (ended []pitayatest.Span) {
				if err := w.Close(); err != nil {
					t.Error(err)
				}
				for _, s := range readSpans(t, out.String()) {
					span := pitayatest.Span{Name: s.Name, Kind: s.Kind, TraceID: s.Trace, ID: s.ID, Parent: s.Parent, Attributes: s.Attributes}
					if s.Error != "" {
						span.Err = pitaya.Errorf(s.Code, "%s", s.Error)
					}
					ended = append(ended, span)
				}
				return ended
			}
		},
		Synctest: true,
	})
	full := newSpanWriter(fullDisk{})
	_, s := full.Start(t.Context(), strings.Repeat("x", 1<<16), pitaya.SpanServer)
	s.End(nil)
	if err := full.Close(); !errors.Is(err, errFull) {
		t.Errorf("a full disk: got %v", err)
	}
}

var errFull = errors.New("disk full")

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

// TestSpansOfGame looks at the traces of what players do.
func TestSpansOfGame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := newSpanWriter(&out)
		cluster := pitayatest.NewCluster(t)
		var gate *pitayatest.Server
		for _, serverType := range []string{typeScore, typeRoom, typeGate} {
			gate = cluster.NewServer(t, pitaya.Config{Type: serverType, ID: serverType, Frontend: serverType == typeGate, Tracer: w}, setUp)
		}
		ann := gate.Client(t)
		ann.Request("gate.player.enter", &EnterRequest{Name: "ann"}, nil)
		ann.ExpectError("room.room.say", &SayRequest{"hello"}, CodeNotInRoom)
		ann.Request("room.room.join", &JoinRequest{Room: "lobby"}, nil)
		ann.Request("room.room.say", &SayRequest{"hello"}, nil)
		synctest.Wait()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		spans := readSpans(t, out.String())
		byID := make(map[string]spanLine)
		for _, s := range spans {
			byID[s.ID] = s
		}
		// Each span with its ancestors, on which server it was, and its code.
		var got []string
		for _, s := range spans {
			var way []string
			code := s.Code
			for at, ok := s, true; ok; at, ok = byID[at.Parent] {
				way = append(way, fmt.Sprint(at.Name, "@", at.Attributes["local.id"]))
				if at.Trace != s.Trace {
					t.Errorf("%s and %s are in different traces", s.Name, at.Name)
				}
			}
			if strings.Contains(s.Name, "score") || code != "" {
				got = append(got, strings.TrimSpace(strings.Join(way, " < ")+" "+code))
			}
		}
		slices.Sort(got)
		want := []string{
			"RPC Call@gate < room.room.say@gate CLUSTER-NOT-IN-ROOM",
			"room.room.say@gate CLUSTER-NOT-IN-ROOM",
			"room.room.say@room < RPC Call@gate < room.room.say@gate CLUSTER-NOT-IN-ROOM",
			"score.board.add@score < RPC Call@room < room.room.say@room < RPC Call@gate < room.room.say@gate",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got the spans\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// TestSpansFlag runs the program until the bots have talked.
func TestSpansFlag(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "spans.jsonl")
	ctx, cancel := context.WithCancel(t.Context())
	out := newOutput()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-listen=127.0.0.1:0", "-spans=" + file}, nil, nil, out, t.Output())
	}()
	out.expect(t, "ann sees: ann: hello")
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	spans := readSpans(t, string(text))
	if !slices.ContainsFunc(spans, func(s spanLine) bool { return s.Name == "score.board.add" && s.Parent != "" }) {
		t.Errorf("%d spans, and none of a counted point", len(spans))
	}
	if err := run(t.Context(), []string{"-spans=" + filepath.Join(file, "x")}, nil, nil, out, t.Output()); err == nil {
		t.Error("a file that cannot be made: got no error")
	}
}
