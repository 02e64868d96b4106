package main

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/exampletest"
	"golang.org/x/net/websocket"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

// A site is the program and a browser of the test's.
type site struct {
	*exampletest.Program
	t          *testing.T
	page, game string // URLs
	browser    *http.Client
}

func open(t *testing.T) *site {
	s := &site{Program: exampletest.Start(t, run, "-listen", "127.0.0.1:0"), t: t}
	s.page = s.Expect(`^The page is (\S+/) `)[1]
	s.game = s.Expect(`embed -connect (ws:\S+)`)[1]
	s.browser = &http.Client{Transport: new(http.Transport), Timeout: exampletest.Patience}
	t.Cleanup(s.browser.CloseIdleConnections) // before the program is stopped
	return s
}

// get fetches a page, or posts a form.
func (s *site) get(path string, form url.Values) (status int, body string) {
	s.t.Helper()
	var r *http.Response
	var err error
	if form == nil {
		r, err = s.browser.Get(s.page + path)
	} else {
		r, err = s.browser.PostForm(s.page+path, form)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// The program as it is used: pages, game and probes on one port.
func TestProgram(t *testing.T) {
	s := open(t)
	player := exampletest.Start(t, run, "-connect", s.game)
	player.Expect("^Hello, Ada!$")
	for path, want := range map[string]string{
		"":               "tell all players",
		"readyz?verbose": "[+] listening\n",
		"livez":          "",
		"metrics":        `pitaya_sys_heapsize{`,
	} {
		if status, body := s.get(path, nil); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("/%s: %d\n%s\nwant %s", path, status, body, want)
		}
	}
	if status, body := s.get("announce", url.Values{"text": {"dinner!"}}); status != http.StatusOK || body != "1 players were told\n" {
		t.Errorf("announce: %d %s", status, body)
	}
	player.Expect("^announced: dinner!$")
	if status, _ := s.get("announce", url.Values{}); status != http.StatusBadRequest {
		t.Errorf("nothing was announced with status %d", status)
	}
	s.Stop()
	player.Expect("^the server has ended$")
}

// The end: while a player is still served, probes are told that the game ends and pages are there; the web server ends last.
func TestOrderOfTheEnd(t *testing.T) {
	s := open(t)
	// A client that is asked for its last packet, and takes its time.
	ws, err := websocket.Dial(s.game, "", s.page)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	ws.PayloadType = websocket.BinaryFrame
	if err := ws.SetDeadline(time.Now().Add(exampletest.Patience)); err != nil {
		t.Fatal(err)
	}
	send := func(typ pitaya.PacketType, body string) {
		t.Helper()
		b, err := pitaya.AppendPacket(nil, typ, []byte(body))
		if err == nil {
			_, err = ws.Write(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	expect := func(typ pitaya.PacketType) {
		t.Helper()
		if p, err := pitaya.ReadPacket(ws, 0); err != nil || p.Type != typ {
			t.Fatalf("got %v, %v, want %v", p.Type, err, typ)
		}
	}
	send(pitaya.PacketHandshake, `{"sys":{"features":["drain"]}}`)
	expect(pitaya.PacketHandshake)
	send(pitaya.PacketHandshakeAck, "")

	s.Interrupt()
	expect(pitaya.PacketHandshakeAck) // the server ends
	if status, body := s.get("readyz", nil); status != http.StatusServiceUnavailable {
		t.Errorf("readyz at the end: %d %s", status, body)
	}
	if status, _ := s.get("", nil); status != http.StatusOK {
		t.Errorf("a page at the end: %d", status)
	}
	if c, err := pitaya.Dial(t.Context(), s.game, nil); err == nil {
		c.Close()
		t.Error("a player got into the game at its end")
	}
	send(pitaya.PacketHandshakeAck, "")
	if _, err := io.Copy(io.Discard, ws); err != nil { // until the server closes
		t.Errorf("at its end the connection said %v", err)
	}
	ws.Close()
	s.Stop()
	if r, err := s.browser.Get(s.page); err == nil {
		r.Body.Close()
		t.Error("the web server is still there")
	}
}
