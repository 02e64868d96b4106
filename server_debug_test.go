package pitaya_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/pitayatest"
)

// debugData is the JSON of the debug page.
type debugData struct {
	Collecting, Writable, Ready bool
	Server                      struct {
		ID, Type, State string
		Frontend        bool
		Started         int64
	}
	Stats   pitaya.Stats
	Samples []struct {
		T                                int64
		Requests, Notifies, Failed, P50M float64
		Sessions, Goroutines             int64
		P50                              float64 `json:"p50_ms"`
		Heap                             int64   `json:"heap_bytes"`
		Queue                            int64   `json:"queue_bytes"`
	}
	Routes []debugRoute
	Errors []struct {
		Kind, Route, Text string
		Count             int64
	}
	Peers []struct {
		ID, Type, State string
		Frontend        bool
	}
}

type debugRoute struct {
	Route, Kind         string
	Count, Failed, Lost int64
	InFlight            int64 `json:"in_flight"`
	Recent              int64
	P50                 float64 `json:"p50_ms"`
	P99                 float64 `json:"p99_ms"`
}

// route returns the row of a route.
func (d *debugData) route(t testing.TB, kind, route string) debugRoute {
	t.Helper()
	for _, r := range d.Routes {
		if r.Kind == kind && r.Route == route {
			return r
		}
	}
	t.Fatalf("no %s %s among %+v", kind, route, d.Routes)
	panic("unreachable")
}

type debugSessions struct {
	Total, Matched int
	Sessions       []struct {
		ID           int64
		UID, Address string
		Route        string
		Began        int64
		Waiting      int
		Queue        int `json:"queue_bytes"`
	}
}

// debugJSON asks a debug page for a view.
func debugJSON[T any](t testing.TB, h http.Handler, query string) *T {
	t.Helper()
	r := probe(t, h, "GET", "/debug/?"+query)
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s: %s %s: %s", query, r.Status, r.Header.Get("Content-Type"), bodyOf(t, r))
	}
	v := new(T)
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// debugGame registers handlers of all sorts.
func debugGame(t testing.TB, s *pitaya.Server, entered, release chan struct{}) {
	t.Helper()
	noErr := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	raw := func(route string, f func(ctx context.Context, in []byte) ([]byte, error), opts ...pitaya.RegisterOption) {
		noErr(pitaya.HandleRaw(s, route, f, opts...))
	}
	raw("h.echo", func(_ context.Context, in []byte) ([]byte, error) { return append([]byte{}, in...), nil })
	raw("h.sleep", func(_ context.Context, in []byte) ([]byte, error) { time.Sleep(100 * time.Millisecond); return in, nil })
	raw("h.fail", func(context.Context, []byte) ([]byte, error) {
		return nil, pitaya.Errorf("APP-7", "no luck with <b>%s</b>", "this")
	})
	raw("h.panic", func(context.Context, []byte) ([]byte, error) { panic("on purpose") })
	raw("h.wait", func(_ context.Context, in []byte) ([]byte, error) {
		entered <- struct{}{}
		<-release
		return in, nil
	}, pitaya.WithConcurrent())
	raw("h.bind", func(ctx context.Context, in []byte) ([]byte, error) {
		return in, pitaya.SessionFromContext(ctx).Bind(ctx, string(in))
	})
	noErr(pitaya.HandleNotify(s, "h.note", func(context.Context, *struct{}) {}))
}

// What the page says is what clients did.
func TestDebugData(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var page http.Handler
		entered, release := make(chan struct{}), make(chan struct{})
		srv := pitayatest.NewServer(t, pitaya.Config{Type: "game", ID: "g1", Logger: testLogger(t)}, func(s *pitaya.Server) {
			page = s.DebugHandler(pitaya.DebugOptions{})
			debugGame(t, s, entered, release)
		})
		begin := time.Now()
		c := srv.Client(t)
		request := func(route, in string) error {
			_, err := c.RequestRaw(t.Context(), route, []byte(in))
			return err
		}
		for range 3 {
			if err := errors.Join(request("game.h.echo", "x"), request("h.sleep", "x")); err != nil {
				t.Error(err)
			}
		}
		for _, route := range []string{"h.fail", "game.h.fail", "h.panic", "h.nothing", "game.other.thing", "elsewhere.x.y", "nonsense"} {
			if request(route, "") == nil {
				t.Errorf("%s: no error", route)
			}
		}
		c.Notify("h.note", struct{}{})
		if err := request("h.bind", "ada"); err != nil {
			t.Error(err)
		}
		waiting := make(chan error, 1)
		go func() { waiting <- request("h.wait", "x") }()
		<-entered

		d := debugJSON[debugData](t, page, "view=data")
		if !d.Collecting || d.Writable || !d.Ready || d.Server.ID != "g1" || d.Server.Type != "game" || d.Server.State != "running" || !d.Server.Frontend {
			t.Errorf("server: %+v", d)
		}
		for _, want := range []debugRoute{
			{Route: "game.h.echo", Kind: "handler", Count: 3, Recent: 3},
			{Route: "game.h.sleep", Kind: "handler", Count: 3, Recent: 3},
			{Route: "game.h.fail", Kind: "handler", Count: 2, Failed: 2, Recent: 2},
			{Route: "game.h.panic", Kind: "handler", Count: 1, Failed: 1, Recent: 1},
			{Route: "game.h.note", Kind: "handler", Count: 1, Recent: 1},
			{Route: "game.h.wait", Kind: "handler", InFlight: 1},
			{Route: "unknown", Kind: "unknown", Count: 4, Failed: 4, Recent: 4},
		} {
			got := d.route(t, want.Kind, want.Route)
			p50 := got.P50
			got.P50, got.P99 = 0, 0
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if slow := want.Route == "game.h.sleep"; slow != (p50 > 90 && p50 < 110) {
				t.Errorf("%s: p50 is %v ms", want.Route, p50)
			}
		}
		errorsSeen := make(map[string]int64)
		for _, e := range d.Errors {
			errorsSeen[e.Kind+" "+e.Route+": "+e.Text] = e.Count
		}
		for want, n := range map[string]int64{
			"APP-7 game.h.fail: no luck with <b>this</b>": 2,
			"panic game.h.panic: on purpose":              1,
			"PIT-500 game.h.panic: internal error":        1,
		} {
			if errorsSeen[want] != n {
				t.Errorf("%q: got %d, want %d, among %v", want, errorsSeen[want], n, errorsSeen)
			}
		}
		list := debugJSON[debugSessions](t, page, "view=sessions")
		if s := list.Sessions; list.Total != 1 || list.Matched != 1 || len(s) != 1 || s[0].UID != "ada" || s[0].Route != "game.h.wait" ||
			s[0].Address == "" || s[0].Began != begin.UnixMilli() {
			t.Errorf("sessions: %+v", list)
		}

		close(release)
		if err := <-waiting; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if d := debugJSON[debugData](t, page, "view=data"); d.route(t, "handler", "game.h.wait").InFlight != 0 || d.Stats.Requests != 15 {
			t.Errorf("at rest: %+v", d)
		}

		// Samples: one a second, of what came in it, and only those that were not seen yet.
		time.Sleep(10*time.Second - time.Since(begin))
		synctest.Wait()
		before := debugJSON[debugData](t, page, "view=data")
		if n := len(before.Samples); n != 10 {
			t.Fatalf("%d samples in 10 s", n)
		}
		sum := 0.0
		for _, s := range before.Samples {
			sum += s.Requests
		}
		if sum != 15 || before.Samples[0].P50 == 0 || before.Samples[9].P50 != 0 {
			t.Errorf("%v requests in the samples %+v", sum, before.Samples)
		}
		last := before.Samples[9]
		if last.Sessions != 1 || last.Goroutines < 1 || last.Heap < 1000 || last.T != begin.Add(10*time.Second).UnixMilli() {
			t.Errorf("sample: %+v", last)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		after := debugJSON[debugData](t, page, fmt.Sprintf("view=data&after=%d", last.T))
		if len(after.Samples) != 2 || after.Samples[0].T != last.T+1000 {
			t.Errorf("later samples: %+v", after.Samples)
		}

		// Samples and latencies are forgotten.
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		d = debugJSON[debugData](t, page, "view=data")
		if n := len(d.Samples); n != 300 || d.Samples[0].T != d.Samples[n-1].T-299_000 {
			t.Errorf("%d samples", n)
		}
		if r := d.route(t, "handler", "game.h.echo"); r.Count != 3 || r.Recent != 0 || r.P99 != 0 {
			t.Errorf("after ten minutes: %+v", r)
		}

		// After the end it still answers; that nothing goes on, the bubble sees to.
		srv.Stop()
		if d = debugJSON[debugData](t, page, "view=data"); d.Server.State != "ended" || d.Ready || len(d.Samples) != 300 {
			t.Errorf("ended: %+v", d.Server)
		}
		time.Sleep(time.Minute)
		if again := debugJSON[debugData](t, page, "view=data"); again.Samples[299] != d.Samples[299] {
			t.Error("it takes samples after its end")
		}
	})
}

// Without a call before Run nothing is collected.
func TestDebugLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := pitayatest.NewServer(t, pitaya.Config{Logger: testLogger(t)}, func(s *pitaya.Server) { debugGame(t, s, nil, nil) })
		page := srv.DebugHandler(pitaya.DebugOptions{})
		c := srv.Client(t)
		if _, err := c.RequestRaw(t.Context(), "h.echo", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		d := debugJSON[debugData](t, page, "view=data")
		if d.Collecting || len(d.Routes)+len(d.Samples)+len(d.Errors) > 0 || d.Stats.Requests != 1 || d.Server.State != "running" {
			t.Errorf("%+v", d)
		}
		if s := debugJSON[debugSessions](t, page, "view=sessions").Sessions; len(s) != 1 || s[0].Began != 0 || s[0].Route != "" {
			t.Errorf("%+v", s)
		}
	})
	stopped, err := pitaya.NewServer(pitaya.Config{ID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	d := debugJSON[debugData](t, stopped.DebugHandler(pitaya.DebugOptions{}), "view=data")
	if !d.Collecting || d.Ready || d.Server.State != "new" || d.Server.ID != "" {
		t.Errorf("before Run: %+v", d)
	}
}

// Messages to other servers: routes that exist there have rows, whatever clients make up has one in all. Calls of other
// servers are counted where they are handled, and servers are listed with their states.
func TestDebugCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := pitayatest.NewCluster(t)
		var gatePage, roomPage http.Handler
		room := cluster.NewServer(t, pitaya.Config{Type: "room", ID: "r1", Logger: testLogger(t)}, func(s *pitaya.Server) {
			roomPage = s.DebugHandler(pitaya.DebugOptions{})
			debugGame(t, s, nil, nil)
			if err := s.RegisterRemote(RoomRemote{}); err != nil {
				t.Error(err)
			}
		})
		gate := cluster.NewServer(t, pitaya.Config{Type: "gate", ID: "g1", Frontend: true, Logger: testLogger(t)}, func(s *pitaya.Server) {
			gatePage = s.DebugHandler(pitaya.DebugOptions{})
		})
		c := gate.Client(t)
		request := func(route string) error {
			_, err := c.RequestRaw(t.Context(), route, []byte("x"))
			return err
		}
		for range 5 {
			if err := request("room.h.echo"); err != nil {
				t.Error(err)
			}
			if pitaya.ErrorCode(request("room.h.fail")) != "APP-7" {
				t.Error("no error")
			}
		}
		for i := range 700 {
			if err := request(fmt.Sprintf("room.made.up%d", i)); pitaya.ErrorCode(err) != pitaya.CodeNotFound {
				t.Fatal(err)
			}
		}
		c.Notify("room.h.note", struct{}{})
		synctest.Wait()
		if _, err := rpc(t.Context(), gate.Server, "room.RoomRemote.Upper", "x"); err != nil {
			t.Error(err)
		}

		d := debugJSON[debugData](t, gatePage, "view=data")
		want := []debugRoute{
			{Route: "unknown", Kind: "unknown", Count: 700, Failed: 700},
			{Route: "room.h.echo", Kind: "forward", Count: 5},
			{Route: "room.h.fail", Kind: "forward", Count: 5, Failed: 5},
			{Route: "room.h.note", Kind: "forward", Count: 1},
		}
		for i := range d.Routes {
			d.Routes[i].Recent, d.Routes[i].P50, d.Routes[i].P99 = 0, 0, 0
		}
		if !slices.Equal(d.Routes, want) {
			t.Errorf("gate: got %+v, want %+v", d.Routes, want)
		}
		states := make(map[string]string)
		for _, p := range d.Peers {
			states[p.ID] = p.State
		}
		if len(states) != 2 || states["g1"] != "self" || states["r1"] != "ready" {
			t.Errorf("peers: %v", states)
		}
		d = debugJSON[debugData](t, roomPage, "view=data")
		for _, want := range []debugRoute{
			{Route: "room.h.echo", Kind: "handler", Count: 5},
			{Route: "room.h.fail", Kind: "handler", Count: 5, Failed: 5},
			{Route: "room.h.note", Kind: "handler", Count: 1},
			{Route: "room.RoomRemote.Upper", Kind: "remote", Count: 1},
		} {
			got := d.route(t, want.Kind, want.Route)
			got.Recent, got.P50, got.P99 = 0, 0, 0
			if got != want {
				t.Errorf("room: got %+v, want %+v", got, want)
			}
		}
		_ = room
	})
}

// Many sessions: searched and sorted by the server, and never more than asked for.
func TestDebugSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var page http.Handler
		srv := pitayatest.NewServer(t, pitaya.Config{Type: "game", Logger: testLogger(t)}, func(s *pitaya.Server) {
			page = s.DebugHandler(pitaya.DebugOptions{})
			debugGame(t, s, nil, nil)
		})
		for i := range 200 {
			c := srv.Client(t)
			if _, err := c.RequestRaw(t.Context(), "h.bind", fmt.Appendf(nil, "User-%03d", 999-i)); err != nil {
				t.Fatal(err)
			}
		}
		ids := func(query string) (ids []int64) {
			t.Helper()
			for _, s := range debugJSON[debugSessions](t, page, "view=sessions&"+query).Sessions {
				ids = append(ids, s.ID)
			}
			return ids
		}
		for _, tt := range []struct {
			query   string
			matched int
			shown   int
			first   int64
		}{
			{"", 200, 50, 1},
			{"limit=7", 200, 7, 1},
			{"limit=7&order=desc", 200, 7, 200},
			{"limit=100000", 200, 200, 1},
			{"sort=age&limit=3", 200, 3, 200},
			{"sort=age&order=desc&limit=3", 200, 3, 1},
			{"sort=uid&limit=3", 200, 3, 200},
			{"sort=uid&order=desc&limit=3", 200, 3, 1},
			{"sort=address&limit=3", 200, 3, 0},
			{"sort=queue&limit=3", 200, 3, 1},
			{"sort=waiting&limit=3", 200, 3, 1},
			{"sort=route&limit=3", 200, 3, 1},
			{"q=uSER-81", 10, 10, 181}, // 819 to 810
			{"q=User-983", 1, 1, 17},
			{"q=h.bind", 200, 50, 1},
			{"q=nobody", 0, 0, 0},
		} {
			list := debugJSON[debugSessions](t, page, "view=sessions&"+tt.query)
			if list.Total != 200 || list.Matched != tt.matched || len(list.Sessions) != tt.shown ||
				tt.first > 0 && list.Sessions[0].ID != tt.first {
				t.Errorf("%s: %d of %d, %d shown: %v", tt.query, list.Matched, list.Total, len(list.Sessions), ids(tt.query))
			}
		}
		if got := ids("q=17&limit=1"); got[0] != 17 { // by the id; addresses may have it too
			t.Errorf("q=17: %v", got)
		}
		for _, query := range []string{"limit=0", "limit=x", "sort=<script>", "q=" + strings.Repeat("x", 300)} {
			if r := probe(t, page, "GET", "/?view=sessions&"+query); r.StatusCode != 400 {
				t.Errorf("%s: %s", query, r.Status)
			}
		}
	})
}

// Clients name their users and routes, and nothing that they can write is markup or script on the page.
func TestDebugHostile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const evil = `</script><script>alert(1)</script><img/src=x/onerror=alert(2)>'"&` + "\u2028\u202e"
		var page http.Handler
		srv := pitayatest.NewServer(t, pitaya.Config{Type: "game", Logger: testLogger(t)}, func(s *pitaya.Server) {
			page = s.DebugHandler(pitaya.DebugOptions{})
			debugGame(t, s, nil, nil)
			if err := pitaya.HandleRaw(s, "h.quote", func(_ context.Context, in []byte) ([]byte, error) {
				return nil, pitaya.Errorf("<i>"+strings.Repeat("x", 1000), "%s", in)
			}); err != nil {
				t.Error(err)
			}
		})
		c := srv.Client(t)
		uid := strings.ReplaceAll(evil, "\u2028", "")
		if _, err := c.RequestRaw(t.Context(), "h.bind", []byte(uid)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.RequestRaw(t.Context(), "game."+evil+".x", nil); err == nil {
			t.Error("no error")
		}
		if _, err := c.RequestRaw(t.Context(), "h.quote", []byte(evil+"\xff"+strings.Repeat("y", 1000))); err == nil {
			t.Error("no error")
		}
		if s := debugJSON[debugSessions](t, page, "view=sessions").Sessions; s[0].UID != uid {
			t.Errorf("uid is %q", s[0].UID)
		}
		d := debugJSON[debugData](t, page, "view=data")
		for _, e := range d.Errors {
			if len(e.Kind) > 210 || len(e.Text) > 210 {
				t.Errorf("error of %d and %d bytes", len(e.Kind), len(e.Text))
			}
		}
		for _, view := range []string{"data", "sessions", "settings", ""} {
			r := probe(t, page, "GET", "/?view="+view)
			body := bodyOf(t, r)
			if view != "" && strings.ContainsAny(body, "<>&\u2028") || strings.Contains(body, "alert(1)</script>") {
				t.Errorf("view %q has markup of a client: %q", view, body)
			}
			if r.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("view %q may be sniffed", view)
			}
		}
	})
}

// The page and what it is made of: nothing from elsewhere, nothing inline, one nonce for each answer, under any mount.
func TestDebugPage(t *testing.T) {
	t.Parallel()
	srv, err := pitaya.NewServer(pitaya.Config{})
	if err != nil {
		t.Fatal(err)
	}
	page := srv.DebugHandler(pitaya.DebugOptions{})
	mux := http.NewServeMux()
	mux.Handle("/plain/", page)
	mux.Handle("/exact", page)
	mux.Handle("/deep/under/", http.StripPrefix("/deep/under", page))
	mux.Handle("/odd/", http.StripPrefix("/odd/", page))
	reference := regexp.MustCompile(`(?:src|href)="([^"]*)"`)
	nonces := make(map[string]bool)
	for _, mount := range []string{"/plain/", "/exact", "/deep/under/", "/odd/"} {
		r := probe(t, mux, "GET", mount, "Accept", "text/html,*/*;q=0.8")
		html := bodyOf(t, r)
		if r.StatusCode != 200 || r.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Fatalf("%s: %s", mount, r.Status)
		}
		csp := r.Header.Get("Content-Security-Policy")
		_, rest, _ := strings.Cut(csp, "script-src 'nonce-")
		nonce, _, ok := strings.Cut(rest, "'")
		if !ok || nonces[nonce] || !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", mount, csp)
		}
		nonces[nonce] = true
		base, _ := url.Parse("http://host" + mount)
		n := 0
		for _, m := range reference.FindAllStringSubmatch(html, -1) {
			if strings.HasPrefix(m[1], "data:image/svg+xml,") {
				continue
			}
			n++
			target, err := base.Parse(m[1])
			if err != nil || target.Host != "host" {
				t.Errorf("%s: reference %q: %v", mount, m[1], err)
				continue
			}
			if r := probe(t, mux, "GET", target.RequestURI()); r.StatusCode != 200 {
				t.Errorf("%s: %s: %s", mount, m[1], r.Status)
			}
		}
		if n != 5 || strings.Count(html, "<script") != 1 || strings.Count(html, `nonce="`+nonce+`"`) != 2 ||
			regexp.MustCompile(`\son\w+=|style=|<style`).MatchString(html) {
			t.Errorf("%s: %d references in %s", mount, n, html)
		}
	}
	for view, kind := range map[string]string{"script": "text/javascript; charset=utf-8", "style": "text/css; charset=utf-8"} {
		r := probe(t, page, "GET", "/?view="+view)
		body := bodyOf(t, r)
		if r.Header.Get("Content-Type") != kind || strings.Contains(body, "innerHTML") || strings.Contains(body, "eval(") || strings.Contains(body, "url(") {
			t.Errorf("%s: %s", view, r.Header.Get("Content-Type"))
		}
	}
	r := probe(t, page, "GET", "/", "Accept", "application/json, */*;q=0.1")
	if body := bodyOf(t, r); r.Header.Get("Content-Type") != "application/json" || !strings.Contains(body, `"state":"new"`) {
		t.Errorf("JSON by Accept: %s", body)
	}
	for _, tt := range []struct {
		method, query string
		status        int
	}{{"GET", "view=nothing", 404}, {"GET", "view=data&after=x", 400}, {"POST", "", 405}, {"DELETE", "view=data", 405}, {"HEAD", "", 200}} {
		r := probe(t, page, tt.method, "/?"+tt.query)
		if body := bodyOf(t, r); r.StatusCode != tt.status || tt.method == "HEAD" && body != "" {
			t.Errorf("%s %s: %s", tt.method, tt.query, r.Status)
		}
	}
}

// Passwords and tokens are on no page, wherever in the settings they are.
func TestDebugSecrets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const secret = "hunter2"
		var page http.Handler
		pitayatest.NewServer(t, pitaya.Config{
			Logger:     testLogger(t),
			MaxConns:   4711,
			Etcd:       pitaya.EtcdConfig{Password: secret, Endpoints: []string{"http://u:" + secret + "@e:1"}},
			NATSClient: pitaya.NATSConfig{URL: "nats://" + secret + "@n:1", Token: secret},
			GroupsEtcd: pitaya.GroupsEtcdConfig{Password: secret},
		}, func(s *pitaya.Server) { page = s.DebugHandler(pitaya.DebugOptions{Writable: true}) })
		for _, view := range []string{"", "data", "sessions", "settings"} {
			if body := bodyOf(t, probe(t, page, "GET", "/?view="+view)); strings.Contains(body, secret) {
				t.Errorf("view %q shows a password", view)
			}
		}
		got := make(map[string]string)
		for _, s := range *debugJSON[[]struct{ Key, Value, Origin string }](t, page, "view=settings") {
			got[s.Key] = s.Value + " " + s.Origin
		}
		for key, want := range map[string]string{
			"pitaya.conn.max":             "4711 code",
			"pitaya.heartbeat.interval":   "30s default",
			"pitaya.cluster.sd.etcd.pass": "*** code",
		} {
			if got[key] != want {
				t.Errorf("%s = %s, want %s", key, got[key], want)
			}
		}
	})
}

// A session is kicked only on a page that was mounted for it, and only by its own site.
func TestDebugKick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var page, shows http.Handler
		srv := pitayatest.NewServer(t, pitaya.Config{Logger: testLogger(t)}, func(s *pitaya.Server) {
			shows, page = s.DebugHandler(pitaya.DebugOptions{}), s.DebugHandler(pitaya.DebugOptions{Writable: true})
		})
		c := srv.Client(t)
		kick := func(h http.Handler, method, kind, body string, header ...string) int {
			t.Helper()
			r := httptest.NewRequest(method, "http://ops.example:8080/debug/?view=kick", strings.NewReader(body))
			r.Header.Set("Content-Type", kind)
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code
		}
		const data, one = "application/json", `{"id":1}`
		for _, tt := range []struct {
			name               string
			h                  http.Handler
			method, kind, body string
			header             []string
			want               int
		}{
			{"only shows", shows, "POST", data, one, nil, 403},
			{"GET", page, "GET", data, one, nil, 405},
			{"another site", page, "POST", data, one, []string{"Sec-Fetch-Site", "cross-site"}, 403},
			{"another host of the site", page, "POST", data, one, []string{"Sec-Fetch-Site", "same-site"}, 403},
			{"another origin", page, "POST", data, one, []string{"Origin", "http://evil.example"}, 403},
			{"another port", page, "POST", data, one, []string{"Origin", "http://ops.example:9999"}, 403},
			{"no origin at all", page, "POST", data, one, []string{"Origin", "null"}, 403},
			{"form", page, "POST", "application/x-www-form-urlencoded", "id=1", nil, 415},
			{"text", page, "POST", "text/plain", one, nil, 415},
			{"no id", page, "POST", data, `{}`, nil, 400},
			{"not a number", page, "POST", data, `{"id":"1"}`, nil, 400},
			{"long", page, "POST", data, `{"x":"` + strings.Repeat("x", 2000) + `","id":1}`, nil, 400},
			{"nobody", page, "POST", data, `{"id":99}`, nil, 404},
		} {
			if got := kick(tt.h, tt.method, tt.kind, tt.body, tt.header...); got != tt.want {
				t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
			}
		}
		if srv.SessionCount() != 1 {
			t.Fatal("the session has ended")
		}
		if got := kick(page, "POST", data+"; charset=utf-8", one, "Sec-Fetch-Site", "same-origin", "Origin", "http://ops.example:8080"); got != 204 {
			t.Fatalf("kick: %d", got)
		}
		if reason := c.ExpectKick(); reason != "kicked by an operator" {
			t.Errorf("reason %q", reason)
		}
		synctest.Wait()
		if got := kick(page, "POST", data, one); got != 404 {
			t.Errorf("again: %d", got)
		}
		if debugJSON[debugData](t, shows, "view=data").Writable || !debugJSON[debugData](t, page, "view=data").Writable {
			t.Error("the pages do not know which of them is writable")
		}
	})
}

// Many look while many play, and the server ends meanwhile.
func TestDebugConcurrent(t *testing.T) {
	t.Parallel()
	var page http.Handler
	srv := pitayatest.NewServer(t, pitaya.Config{Type: "game", Logger: testLogger(t)}, func(s *pitaya.Server) {
		page = s.DebugHandler(pitaya.DebugOptions{Writable: true})
		debugGame(t, s, nil, nil)
	})
	var players, viewers sync.WaitGroup
	done := make(chan struct{})
	for i := range 8 {
		c := srv.Client(t)
		players.Go(func() {
			if _, err := c.RequestRaw(t.Context(), "h.bind", fmt.Appendf(nil, "u%d", i)); err != nil {
				t.Error(err)
			}
			for n := range 200 {
				_, err := c.RequestRaw(t.Context(), []string{"h.echo", "h.fail", "h.none"}[n%3], nil)
				if (err != nil) != (n%3 > 0) {
					t.Error(err)
				}
			}
		})
	}
	for i := range 4 {
		viewers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for _, view := range []string{"data", "sessions&sort=queue&q=u", "settings", ""} {
					if r := probe(t, page, "GET", "/?view="+view); r.StatusCode != 200 {
						t.Error(r.Status)
					}
				}
				if i == 0 {
					probe(t, srv.Readyz(), "GET", "/")
				}
			}
		})
	}
	players.Wait()
	d := debugJSON[debugData](t, page, "view=data")
	var count, failed, inFlight int64
	for _, r := range d.Routes {
		count, failed, inFlight = count+r.Count, failed+r.Failed, inFlight+r.InFlight
	}
	if count != 8*201 || failed != 8*133 || inFlight != 0 || d.Stats.Requests != count || d.Stats.Failed != failed {
		t.Errorf("%d messages, %d failed, %d in flight; %+v", count, failed, inFlight, d.Stats)
	}
	srv.Stop()
	close(done)
	viewers.Wait()
}
