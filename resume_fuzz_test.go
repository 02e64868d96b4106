package pitaya_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// FuzzResumeHandshake gives a server handshakes whose user.resume is anything: whoever may come in without it may come
// in with it, the answer is the same but for the terms, and those are a new session's.
func FuzzResumeHandshake(f *testing.F) {
	for _, seed := range []string{`{}`, `null`, `[]`, `"x"`, `5`, `{"token":"x","received":1}`, `{"token":5}`, `{"token":null,"received":null}`,
		`{"token":"x","received":-1}`, `{"token":"x","received":1e999}`, `{"token":"x","received":"1"}`, `{"token":{"token":{}}}`,
		`{"token":"\ud800","received":9007199254740993}`, `{"token":"","token":"y"}`, `{"Token":"x"}`} {
		f.Add(seed)
	}
	s := startServer(f, pitaya.Config{Resume: pitaya.ResumeConfig{Window: time.Minute}}, nil)
	f.Fuzz(func(t *testing.T, resume string) {
		body := `{"sys":{},"user":{"resume":` + resume + `}}`
		valid := json.Valid([]byte(body)) && len(body) < 64<<10
		if _, err := pitaya.DecodeHandshake([]byte(body)); err != nil {
			valid = false // a number that is too large, say
		}
		c := s.dial(t)
		defer c.Close()
		c.SetDeadline(time.Now().Add(realTime))
		if len(body) >= 64<<10 {
			return
		}
		c.send(pitaya.PacketHandshake, []byte(body))
		var r pitaya.HandshakeResponse
		if err := json.Unmarshal(c.expect(pitaya.PacketHandshake), &r); err != nil {
			t.Fatal(err)
		}
		switch terms := r.Sys.Resume; {
		case (r.Code == 200) != valid:
			t.Errorf("code %d", r.Code)
		case !valid && terms != nil:
			t.Errorf("refused with %+v", terms)
		case terms != nil && (terms.Resumed || terms.Token == "" || terms.Window != 60 || terms.Reason != "" && terms.Reason != "unknown"):
			t.Errorf("%+v", terms)
		}
	})
}
