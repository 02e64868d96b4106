package pitaya

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"text/template"

	"github.com/pitaya-go/pitaya/internal/htmltext"
)

//go:embed debug/page.css debug/page.js
var debugFiles embed.FS

//go:embed debug/page.html
var debugHTML string

// debugPage is one debug page of a server. Immutable.
//
// What the page is made of has one URL, that of the page, and differs in the
// parameter "view": so it works wherever it is mounted, with a slash at the end
// or without, behind http.StripPrefix or another server.
type debugPage struct {
	server *Server
	opts   DebugOptions
	html   *template.Template
	origin *http.CrossOriginProtection
}

// DebugHandler returns a handler that shows what the server is doing, to people
// and programs: one page with charts of the last five minutes and tables of
// routes, sessions, servers of the cluster, recent errors and settings, and the
// same as JSON. It loads nothing from elsewhere, and can be mounted anywhere:
//
//	mux.Handle("/debug/pitaya/", srv.DebugHandler(pitaya.DebugOptions{}))
//
// It shows ids and addresses of users, so it belongs on a listener that the
// public does not reach, or behind a check of who asks; it has none of its own.
// Passwords and tokens of the settings are hidden ([Config.Settings]). With
// [DebugOptions].Writable the page can end sessions, after a question; requests
// that other sites make a browser send are refused.
//
// Calls before Run switch the collection on: counts and latencies for each
// route, the last route and the age of each session, errors by their kind, and a
// sample each second by a goroutine that ends with Run. All of it is bounded.
// Without such a call nothing is collected, and it costs nothing. A handler that
// was made later shows what there is without: sessions, servers, settings and the
// counts of [Server.Stats]. A handler may be used at any time, also before Run
// and after it, and by many at once.
//
// The JSON is at the same URL, for requests whose Accept header prefers
// application/json, and by the parameter view for all others:
//
//	?view=data       all but the rest; after=t leaves out the samples up to t, in Unix milliseconds
//	?view=sessions   sessions; q=text to search, sort=id, uid, address, age, waiting, queue or route,
//	                 order=desc, limit=n (50, at most 500)
//	?view=settings   the settings in force and where they are from
//	?view=kick       POST {"id": n} as application/json ends a session
//
// Members may be added to it in later versions.
func (s *Server) DebugHandler(opts DebugOptions) http.Handler {
	s.mu.Lock()
	if s.state == serverNew && s.debug == nil {
		s.debug = newDebugState()
	}
	s.mu.Unlock()
	return &debugPage{
		server: s,
		opts:   opts,
		html:   template.Must(htmltext.New("debug/page.html", debugHTML, nil)),
		origin: http.NewCrossOriginProtection(),
	}
}

// ServeHTTP implements [http.Handler].
func (p *debugPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	view := r.URL.Query().Get("view")
	if view == "kick" {
		p.kick(w, r)
		return
	}
	if !readOnly(w, r) {
		return
	}
	if view == "" && wantsJSON(r) {
		view = "data"
	}
	switch view {
	case "":
		p.page(w, r)
	case "style":
		p.file(w, r, "debug/page.css", "text/css; charset=utf-8")
	case "script":
		p.file(w, r, "debug/page.js", "text/javascript; charset=utf-8")
	case "data":
		p.data(w, r)
	case "sessions":
		p.sessions(w, r)
	case "settings":
		p.json(w, r, p.server.debugSettings())
	default:
		http.Error(w, "no such view", http.StatusNotFound)
	}
}

func (p *debugPage) page(w http.ResponseWriter, r *http.Request) {
	page := struct {
		Title, Nonce string
		Writable     bool
	}{"Pitaya", rand.Text(), p.opts.Writable}
	if _, err := p.server.running(); err == nil {
		page.Title = p.server.Type() + " " + p.server.ID()
	}
	var body bytes.Buffer
	if err := p.html.Execute(&body, page); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Vary", "Accept")
	w.Header().Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%[1]s'; "+
		"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", page.Nonce))
	respond(w, r, http.StatusOK, "text/html; charset=utf-8", body.Bytes())
}

func (p *debugPage) file(w http.ResponseWriter, r *http.Request, name, kind string) {
	body, err := debugFiles.ReadFile(name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	respond(w, r, http.StatusOK, kind, body)
}

func (p *debugPage) json(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Vary", "Accept")
	respond(w, r, http.StatusOK, "application/json", append(body, '\n'))
}

func (p *debugPage) data(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseInt(cmp.Or(r.URL.Query().Get("after"), "0"), 10, 64)
	if err != nil {
		http.Error(w, "after is a time in milliseconds", http.StatusBadRequest)
		return
	}
	d := p.server.debugData(after)
	d.Writable = p.opts.Writable
	p.json(w, r, d)
}

func (p *debugPage) sessions(w http.ResponseWriter, r *http.Request) {
	form := r.URL.Query()
	limit, err := strconv.Atoi(cmp.Or(form.Get("limit"), strconv.Itoa(debugLimit)))
	q := debugQuery{
		Search:  strings.ToLower(strings.TrimSpace(form.Get("q"))),
		Sort:    cmp.Or(form.Get("sort"), debugDefaultSort),
		Reverse: form.Get("order") == "desc",
		Limit:   min(limit, debugMaxLimit),
	}
	switch {
	case err != nil || limit < 1:
		http.Error(w, "limit is a number from 1", http.StatusBadRequest)
	case debugOrder(q.Sort) == nil:
		http.Error(w, "no such column", http.StatusBadRequest)
	case len(q.Search) > debugMaxSearch:
		http.Error(w, "the text to search for is too long", http.StatusBadRequest)
	default:
		p.json(w, r, p.server.debugSessions(q))
	}
}

// debugSetting is a setting as the page shows it.
type debugSetting struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Default string `json:"default"`
	Origin  string `json:"origin"`
	Source  string `json:"source"` // the line, variable or flag
	Help    string `json:"help"`
	Unused  bool   `json:"unused"`
}

// debugSettings returns the settings in force, once they cannot change any more.
func (s *Server) debugSettings() []debugSetting {
	list := []debugSetting{}
	if _, err := s.running(); err != nil {
		return list
	}
	for _, v := range s.cfg.Settings() {
		list = append(list, debugSetting{Key: v.Key, Value: v.Value, Default: v.Default, Origin: v.Origin.String(), Source: v.Source, Help: v.Help, Unused: v.Unused})
	}
	return list
}

// kickedByOperator is the reason that a client gets whose session was ended on
// the page.
const kickedByOperator = "kicked by an operator"

func (p *debugPage) kick(w http.ResponseWriter, r *http.Request) {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", "POST")
		http.Error(w, "POST", http.StatusMethodNotAllowed)
		return
	case !p.opts.Writable:
		http.Error(w, "this page only shows", http.StatusForbidden)
		return
	case p.origin.Check(r) != nil:
		http.Error(w, "asked by another site", http.StatusForbidden)
		return
	case !strings.EqualFold(strings.TrimSpace(kind), "application/json"):
		// Other sites can send what forms can, and this is not among it.
		http.Error(w, "the body is to be application/json", http.StatusUnsupportedMediaType)
		return
	}
	var in struct {
		ID int64 `json:"id"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&in); err != nil || in.ID <= 0 {
		http.Error(w, `the body is to be {"id": number}`, http.StatusBadRequest)
		return
	}
	session := p.server.SessionByID(in.ID)
	if session == nil || session.KickReason(r.Context(), kickedByOperator) != nil {
		http.Error(w, "there is no such session", http.StatusNotFound)
		return
	}
	p.server.log.Warn("session kicked on the debug page", "session", session, "by", r.RemoteAddr)
	w.WriteHeader(http.StatusNoContent)
}
