// Package js is the JavaScript client of the protocol, pitaya.js, as a Go package: a program that serves a web page can
// serve the client from its own binary.
//
// The client is one ES module without dependencies. README.md beside this file is its manual, and pitaya.d.ts declares
// its types. A page that imports "./pitaya.js" gets it by
//
//	mux.Handle("GET /pitaya.js", js.Handler())
package js

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

//go:embed pitaya.js
var source string

// Source is the text of pitaya.js.
func Source() string { return source }

// ETag is the entity tag of [Source], in quotes as in the header: it changes when the text does.
func ETag() string {
	sum := sha256.Sum256([]byte(source))
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

// ContentType is the media type of [Source]. Browsers load no module that is served under another one.
const ContentType = "text/javascript; charset=utf-8"

// Handler serves [Source], whatever the path of the request. Browsers keep the file and ask each time whether it has
// changed, so that pages get the client of the program that serves them; a handler in front may set another
// Cache-Control. Methods other than GET and HEAD are answered with 405.
func Handler() http.Handler {
	etag := ETag()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		h := w.Header()
		h.Set("Content-Type", ContentType)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("ETag", etag)
		if h.Get("Cache-Control") == "" {
			h.Set("Cache-Control", "no-cache")
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(source))
	})
}
