package js_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya/js"
)

func TestHandler(t *testing.T) {
	file, err := os.ReadFile("pitaya.js")
	if err != nil {
		t.Fatal(err)
	}
	text := string(file)
	if js.Source() != text {
		t.Error("Source is not the file")
	}
	h := js.Handler()
	for _, test := range []struct {
		name, method string
		header       map[string]string
		status       int
		body         string
	}{
		{name: "get", method: "GET", status: 200, body: text},
		{name: "head", method: "HEAD", status: 200},
		{name: "unchanged", method: "GET", header: map[string]string{"If-None-Match": js.ETag()}, status: 304},
		{name: "changed", method: "GET", header: map[string]string{"If-None-Match": `"other"`}, status: 200, body: text},
		{name: "part", method: "GET", header: map[string]string{"Range": "bytes=0-9"}, status: 206, body: text[:10]},
		{name: "post", method: "POST", status: 405, body: "Method Not Allowed\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, "/any/path.js", nil)
			for k, v := range test.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != test.status || w.Body.String() != test.body {
				t.Fatalf("status %d, want %d; %d bytes, want %d", w.Code, test.status, w.Body.Len(), len(test.body))
			}
			if test.status == http.StatusMethodNotAllowed {
				return
			}
			for name, want := range map[string]string{
				"ETag": js.ETag(), "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff",
			} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if got := w.Header().Get("Content-Type"); test.status != 304 && got != js.ContentType {
				t.Errorf("Content-Type: %q", got)
			}
		})
	}
}

// A handler in front may know better how long a browser can keep the file.
func TestHandlerCacheControl(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set("Cache-Control", "max-age=60")
	js.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if got := w.Header().Get("Cache-Control"); got != "max-age=60" {
		t.Errorf("Cache-Control: %q", got)
	}
}

func TestETag(t *testing.T) {
	tag := js.ETag()
	if len(tag) < 18 || !strings.HasPrefix(tag, `"`) || !strings.HasSuffix(tag, `"`) {
		t.Errorf("ETag %s", tag)
	}
}
