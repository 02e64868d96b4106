package main

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/protobuf/rankpb"
	"github.com/pitaya-go/pitaya/internal/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

// The program as it is used: two clients, one after the other, and one more that watches.
func TestProgram(t *testing.T) {
	server := exampletest.Start(t, run, "-listen", "127.0.0.1:0")
	addr := server.Expect(`protobuf -connect (\S+)`)[1]

	ctx, cancel := context.WithTimeout(t.Context(), exampletest.Patience)
	defer cancel()
	pushed := make(chan []byte, 10)
	watcher, err := pitaya.Dial(ctx, "tcp://"+addr, &pitaya.ClientConfig{OnPush: map[string]func([]byte){"onLeader": func(b []byte) { pushed <- b }}})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	if name := watcher.Handshake().Sys.Serializer; name != "protobuf" {
		t.Errorf("the handshake names the serializer %q", name)
	}

	const want = `the server speaks protobuf
ada leads with 120 points
ada: rank 1, LEAGUE_SILVER, 880 points to the next league
bob: rank 2, LEAGUE_BRONZE, 1 points to the next league
cleo: rank 3, LEAGUE_NONE, 1 points to the next league
dan: RANK-RESULT, a score without a result
1. ada 120
2. bob 99
1 in silver
`
	for range 2 { // the second time each player is put in the place that it has
		if got := exampletest.Run(t, run, "-connect", addr); got != want {
			t.Errorf("the client printed\n%s\nwant\n%s", got, want)
		}
		var leader rankpb.Top_Entry
		select {
		case b := <-pushed:
			if err := proto.Unmarshal(b, &leader); err != nil {
				t.Fatal(err)
			}
		case <-ctx.Done():
			t.Fatal("nothing was pushed")
		}
		if want := (&rankpb.Top_Entry{Player: "ada", Points: 120, League: rankpb.League_LEAGUE_SILVER}); !proto.Equal(&leader, want) {
			t.Errorf("pushed %v, want %v", &leader, want)
		}
	}

	var standing rankpb.Standing
	if err := watcher.Request(ctx, "game.ranks.submit", &rankpb.Score{Player: "eve", Result: &rankpb.Score_Points{Points: 5000}}, &standing); err != nil {
		t.Fatal(err)
	}
	if want := (&rankpb.Standing{Rank: 1, League: rankpb.League_LEAGUE_GOLD}); !proto.Equal(&standing, want) {
		t.Errorf("got %v, want %v", &standing, want)
	}
	if err := watcher.Request(ctx, "game.ranks.submit", &rankpb.Score{}, &standing); pitaya.ErrorCode(err) != "RANK-NAME" {
		t.Errorf("a score without a player: %v", err)
	}
	if _, err := watcher.RequestRaw(ctx, "game.ranks.submit", []byte("{}")); pitaya.ErrorCode(err) != pitaya.CodeBadRequest {
		t.Errorf("what is no message: %v", err)
	}
}

// The page about the routes has all that the author of a client needs.
func TestDocs(t *testing.T) {
	page := exampletest.Run(t, run, "-docs")
	for _, want := range []string{
		"# Routes of game\n",
		"### `game.ranks.submit`\n",
		"- Argument: [rankproto.Score](#type-rankproto.Score) { player: string, points: int64, gave\\_up: bool }\n",
		"  oneof result {\n    int64 points = 2;\n    bool gave_up = 3;\n  }\n",
		"  optional int64 missing = 3;\n",
		"  map<string, int32> leagues = 2;\n",
		"enum League {\n  LEAGUE_NONE = 0;\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q\n%s", want, page)
		}
	}
	// Its example of an argument is one.
	_, text, _ := strings.Cut(page, "### `game.ranks.submit`\n")
	_, text, _ = strings.Cut(text, "```json\n")
	text, _, _ = strings.Cut(text, "```")
	var score rankpb.Score
	if err := protojson.Unmarshal([]byte(text), &score); err != nil || score.Player == "" || score.GetPoints() == 0 {
		t.Errorf("%s: %v, %v", text, &score, err)
	}
}

func TestLeagues(t *testing.T) {
	for points, want := range map[int64]rankpb.League{-1: rankpb.League_LEAGUE_NONE, 0: rankpb.League_LEAGUE_NONE, 1: rankpb.League_LEAGUE_BRONZE,
		100: rankpb.League_LEAGUE_SILVER, 999: rankpb.League_LEAGUE_SILVER, 1000: rankpb.League_LEAGUE_GOLD} {
		if got, _ := leagueOf(points); got != want {
			t.Errorf("%d points: %v, want %v", points, got, want)
		}
	}
}
