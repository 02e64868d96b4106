package pitaya_test

import (
	"expvar"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/pprof"

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
