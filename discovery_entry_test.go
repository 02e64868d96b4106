package pitaya_test

import (
	"testing"

	"github.com/pitaya-go/pitaya"
)

// FuzzDecodeServer takes any value that may stand among the servers in etcd. What is taken for a server has an id and a type,
// and comes back the same.
func FuzzDecodeServer(f *testing.F) {
	for _, s := range []string{
		`{"id":"x","type":"room","metadata":{"a":"\u003c"},"frontend":true,"hostname":"h"}`,
		`{"id":"x","type":"room","metadata":null}`, `{"id":"x","type":"room","metadata":{"a":1}}`,
		`{"ID":"x","Type":"room","id":"y"}`, `{"id":"\ud800","type":"room"}`, `null`, `[]`, `{}`, ``, "\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := pitaya.DecodeServer(b)
		if err != nil {
			return
		}
		if s.ID == "" || s.Type == "" {
			t.Fatalf("took %q for a server", b)
		}
		again, err := pitaya.EncodeServer(s)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := pitaya.DecodeServer(again); err != nil || !pitaya.SameServer(s, back) {
			t.Errorf("%q became %q, %v", b, again, err)
		}
	})
}
