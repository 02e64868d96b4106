package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// lines passes on what is written, line by line.
type lines struct {
	mu   sync.Mutex
	rest []byte
	c    chan string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, b...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		l.c <- string(line)
		l.rest = rest
	}
}

// The program as it is used: its private port has all that it says, and ends with it.
func TestOperate(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := &lines{c: make(chan string, 10)}
	ran := make(chan error, 1)
	go func() {
		ran <- run(ctx, []string{"-listen", "localhost:0", "-private", "localhost:0", "-bots", "4"}, nil, out, io.Discard)
	}()
	var url string
	for ready := false; !ready; {
		select {
		case line := <-out.c:
			if private, ok := strings.CutPrefix(line, "private"); ok {
				url = strings.TrimSpace(private)
			}
			ready = line == "ready"
		case err := <-ran:
			t.Fatal(err)
		}
	}
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	get := func(path string) string {
		t.Helper()
		r, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != 200 {
			t.Fatalf("%s: %s, %v", path, r.Status, err)
		}
		return string(body)
	}
	for _, m := range regexp.MustCompile(`href="/([^"]*)"`).FindAllStringSubmatch(get(""), -1) {
		get(m[1])
	}
	if body := get("readyz?verbose"); !strings.HasPrefix(body, "ready\n") || !strings.Contains(body, "[+] transport\n") {
		t.Errorf("readyz: %s", body)
	}
	if body := get("debug/pprof/"); !strings.Contains(body, "goroutine") {
		t.Error("no profiles")
	}
	// The bots play, on this server and on the rooms.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for played := false; !played; {
		var data struct {
			Routes []struct {
				Route string
				Count int
			}
		}
		if err := json.Unmarshal([]byte(get("debug/pitaya/?view=data")), &data); err != nil {
			t.Fatal(err)
		}
		for _, r := range data.Routes {
			played = played || r.Route == "room.table.play" && r.Count > 3
		}
		select {
		case <-tick.C:
		case err := <-ran:
			t.Fatal("it has ended", err)
		}
	}
	if body := get("metrics"); !strings.Contains(body, `pitaya_handler_requests{`) {
		t.Errorf("metrics: %s", body)
	}
	docs := get("docs/")
	for _, route := range []string{"gate.shop.buy", "room.table.play"} {
		if !strings.Contains(docs, `id="route-`+route+`"`) {
			t.Errorf("docs: no %s in %s", route, docs)
		}
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if _, err := client.Get(url); err == nil {
		t.Error("the private port is still served")
	}
}

func TestMistakes(t *testing.T) {
	for _, args := range [][]string{{"-nonsense"}, {"-listen", "nowhere:at:all"}, {"-listen", "localhost:0", "-private", "nowhere:at:all"}, {"-listen", "localhost:0", "-ws", "nowhere:at:all"},
		{"-pitaya.server.type", "king"}} {
		if err := run(t.Context(), args, nil, io.Discard, io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

// The picture in the documentation stays small.
func TestPicture(t *testing.T) {
	info, err := os.Stat("../../docs/debug-page.png")
	if err != nil || info.Size() > 150<<10 {
		t.Errorf("docs/debug-page.png: %v, %v", info, err)
	}
}
