package pitaya_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya"
)

func TestParseRouteBounds(t *testing.T) {
	tests := []struct {
		name, route string
		ok          bool
	}{
		{"longest", "a." + strings.Repeat("b", 253), true},
		{"too long", "a." + strings.Repeat("b", 254), false},
		{"invalid UTF-8", "a.b\xff", false},
		{"four parts, one empty", "a..b.c", false},
		{"no-break space", "a.\u00a0.c", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := pitaya.ParseRoute(tt.route)
			if (err == nil) != tt.ok {
				t.Fatalf("got %v", err)
			}
			if err != nil && (!errors.Is(err, pitaya.ErrRoute) || pitaya.ErrorCode(err) != pitaya.CodeBadRequest) {
				t.Errorf("got %v with code %q", err, pitaya.ErrorCode(err))
			}
		})
	}
	wantAllocs(t, "ParseRoute", 0, func() {
		if _, err := pitaya.ParseRoute("conn.room.echo"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestNewDictionary(t *testing.T) {
	in := map[string]uint16{" onPush\t": 2, "a.b.c": 1, "zero": 0}
	d := newDictionary(t, in)
	want := map[string]uint16{"onPush": 2, "a.b.c": 1, "zero": 0}
	if !maps.Equal(d.Routes(), want) || d.Len() != 3 {
		t.Errorf("got %v, want %v", d.Routes(), want)
	}
	d.Routes()["a.b.c"] = 9
	in["a.b.c"] = 9
	if code, ok := d.Code("a.b.c"); code != 1 || !ok {
		t.Errorf("a copy of the dictionary reaches the dictionary: got %d, %v", code, ok)
	}
	if route, ok := d.Route(2); route != "onPush" || !ok {
		t.Errorf("got %q, %v", route, ok)
	}
	if _, ok := d.Route(3); ok {
		t.Error("unknown code found")
	}
}

func TestNewDictionaryErrors(t *testing.T) {
	_, err := pitaya.NewDictionary(map[string]uint16{
		"a": 1, "b": 1, "c": 2, " c": 3, " ": 4, "\xff": 5, strings.Repeat("x", 256): 6,
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`code 1 belongs to "a" and to "b"`, `route "c" is there twice`, "code 4 has an empty route",
		"code 5: pitaya: protocol violation: bad route: invalid UTF-8", "256 bytes long"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwithout %q", err, want)
		}
	}
}

func TestNilDictionary(t *testing.T) {
	var d *pitaya.Dictionary
	if _, ok := d.Code("a"); ok {
		t.Error("Code finds something")
	}
	if _, ok := d.Route(0); ok {
		t.Error("Route finds something")
	}
	if d.Len() != 0 || d.Routes() == nil || len(d.Routes()) != 0 {
		t.Errorf("got %d, %v", d.Len(), d.Routes())
	}
}

func FuzzParseRoute(f *testing.F) {
	for _, seed := range []string{"", ".", "a", "a.b", "a.b.c", "a.b.c.d", "a..c", " .b.c", "å.b.c", "\xff.b", "a.b\u2003"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := pitaya.ParseRoute(s)
		if err != nil {
			if !errors.Is(err, pitaya.ErrRoute) {
				t.Fatalf("got %v", err)
			}
			return
		}
		if r.String() != s {
			t.Fatalf("got %q", r.String())
		}
		if again, err := pitaya.ParseRoute(r.String()); again != r || err != nil {
			t.Fatalf("parsed again: %#v %v", again, err)
		}
	})
}
