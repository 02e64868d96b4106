package pitaya_test

import (
	"context"
	"expvar"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"slices"
	"strings"

	"github.com/pitaya-go/pitaya"
)

// What those who operate a server mount on a listener that only they reach: probes, metrics, the debug page, profiles and
// variables. The library opens no port for them; examples/operate is a whole program.
func ExampleServer_DebugHandler() {
	metrics, err := pitaya.NewMetrics("game", pitaya.MetricsConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	srv, err := pitaya.NewServer(pitaya.Config{Type: "game", Frontend: true, Reporters: []pitaya.Reporter{metrics}})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/readyz", srv.Readyz())
	mux.Handle("/livez", srv.Livez())
	mux.Handle("/metrics", metrics)
	mux.Handle("/debug/pitaya/", srv.DebugHandler(pitaya.DebugOptions{Writable: true})) // before Run
	mux.Handle("/debug/vars", expvar.Handler())
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)

	// In a program: go http.ListenAndServe("localhost:9090", mux), and then srv.Run.
	private := httptest.NewServer(mux)
	defer private.Close()
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/debug/pitaya/", "/debug/vars", "/debug/pprof/"} {
		r, err := http.Get(private.URL + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		r.Body.Close()
		fmt.Println(path, r.StatusCode)
	}
	// Output:
	// /livez 200
	// /readyz 503
	// /metrics 200
	// /debug/pitaya/ 200
	// /debug/vars 200
	// /debug/pprof/ 200
}

// A page of all routes for those who write clients, on a private listener. DocsMarkdown is the same as a file to keep in the
// repository.
func ExampleServer_DocsHandler() {
	type Join struct {
		Room string `json:"room"`
	}
	type Joined struct {
		Members []string `json:"members"`
	}
	srv, err := pitaya.NewServer(pitaya.Config{Type: "chat", Frontend: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = pitaya.Handle(srv, "room.join", func(context.Context, *Join) (*Joined, error) { return &Joined{}, nil })
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/docs/", srv.DocsHandler(pitaya.DocsOptions{}))

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/docs/?view=json", nil))
	fmt.Print(w.Body)
	w = httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/docs/?view=markdown", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "- Argument") || strings.HasPrefix(line, "- Result") {
			fmt.Print(line)
		}
	}
	// Output:
	// {"handlers":{"chat.room.join":{"input":{"*pitaya_test.Join":{"room":"string"}},"output":[{"*pitaya_test.Joined":{"members":["string"]}},"error"]}},"remotes":{}}
	// - Argument: [pitaya\_test.Join](#type-pitaya_test.Join) { room: string }
	// - Result: [pitaya\_test.Joined](#type-pitaya_test.Joined) { members: \[\]string }
}

// The ready-made handlers by which tools learn the routes of a server. WithBound keeps them from clients that have not logged
// in.
func ExampleServer_RegisterDocs() {
	srv, err := pitaya.NewServer(pitaya.Config{Type: "chat", Frontend: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := srv.RegisterDocs(pitaya.DocsOptions{}, pitaya.WithBound()); err != nil {
		fmt.Println(err)
		return
	}
	doc, err := srv.Documentation(false)
	if err != nil {
		fmt.Println(err)
		return
	}
	handlers := doc["handlers"].(map[string]any)
	for _, route := range slices.Sorted(maps.Keys(handlers)) {
		fmt.Println(route)
	}
	// Output:
	// chat.docs.descriptors
	// chat.docs.docs
}

// Readiness as a program asks for it: with ?verbose there is a line for each check.
func ExampleServer_Readyz() {
	srv, err := pitaya.NewServer(pitaya.Config{Type: "game", Frontend: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	w := httptest.NewRecorder()
	srv.Readyz().ServeHTTP(w, httptest.NewRequest("GET", "/readyz?verbose", nil))
	fmt.Println(w.Code)
	fmt.Print(w.Body)
	// Output:
	// 503
	// not ready
	// [-] running: pitaya: server is not running
	// [+] not draining
}
