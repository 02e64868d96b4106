package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
)

func TestSuiteChat(t *testing.T) {
	ts := start(t, "-suite", "chat")
	if ts.Type() != "chat" {
		t.Errorf("type %q", ts.Type())
	}
	// join returns the uid of who joined: the one that is new.
	join := func(c *client, route, body string, others ...string) (uid string) {
		t.Helper()
		if others == nil {
			others = []string{}
		}
		members, err := json.Marshal(Members{others})
		if err != nil {
			t.Fatal(err)
		}
		c.check([]row{{route: route, payload: body, want: `{"code":0,"result":"success"}`, pushes: []push{{"onMembers", string(members)}}}})
		for s := range ts.Sessions() {
			if id := s.UID(); id != "" && !slices.Contains(others, id) {
				uid = id
			}
		}
		return uid
	}
	connect := func() *client {
		c := ts.connectWith(t, protocolWS, `{"sys":{"type":"js-websocket","version":"0.0.1"},"user":{}}`)
		if want := `{"code":200,"sys":{"dict":{},"heartbeat":30,"serializer":"json"}}`; c.answer != want {
			t.Errorf("handshake answer %s, want %s", c.answer, want)
		}
		return c
	}
	anne, bert := connect(), connect()
	anneUID := join(anne, "room.join", "")
	bertUID := join(bert, "chat.room.join", "no JSON", anneUID)
	anne.wantPush(push{"onNewUser", `{"content":"New user: ` + bertUID + `"}`})
	bert.check([]row{{route: "room.join", payload: `{}`, want: `{"code":"RH-000","msg":"session is already bound to an uid"}`, isErr: true}})

	anne.notify("room.message", `{"name":"anne","content":"héllo <b>"}`)
	for _, c := range []*client{anne, bert} {
		c.wantPush(push{"onMessage", `{"name":"anne","content":"héllo \u003cb\u003e"}`})
	}

	ended := make(chan struct{})
	if err := ts.SessionByUID(anneUID).OnClose(func() { close(ended) }); err != nil {
		t.Fatal(err)
	}
	anne.Close()
	<-ended
	carl := connect()
	carlUID := join(carl, "room.join", `{}`, bertUID)
	bert.wantPush(push{"onNewUser", `{"content":"New user: ` + carlUID + `"}`})
}

func TestSuiteJSON(t *testing.T) {
	fixtures := makeFixtures(t)
	ts := start(t, "-suite", "sdk-json", "-fixtures", fixtures)
	const dict = `{"connector.geterror":6,"connector.getsessiondata":1,"connector.setsessiondata":2,"onMembers":5,"onMessage":4,"room.room.getsessiondata":3}`
	for _, p := range []protocol{protocolTCP, protocolWS, protocolTLS} {
		t.Run(string(p), func(t *testing.T) {
			c := ts.connectWith(t, p, `{"sys":{"platform":"linux","libVersion":"x","clientBuildNumber":"20","clientVersion":"2.1"},"user":{"key":"v"}}`)
			if want := `{"code":200,"sys":{"dict":` + dict + `,"heartbeat":30,"serializer":"json"}}`; c.answer != want {
				t.Errorf("handshake answer %s, want %s", c.answer, want)
			}
			c.check([]row{
				{route: "connector.gethandshakedata", want: `{"sys":{"platform":"linux","libVersion":"x","clientBuildNumber":"20","clientVersion":"2.1"},"user":{"key":"v"}}`},
				{route: "connector.getsessiondata", want: `{"Data":{"ipversion":"ipv4"}}`},
				{route: "connector.connector.setsessiondata", payload: `{"Data":{"b":1,"a":"x"}}`, want: `{"Code":200,"Msg":"success"}`},
				{route: "connector.getsessiondata", payload: `{}`, want: `{"Data":{"a":"x","b":1}}`},
				{route: "connector.sendpush", want: `{"Code":200,"Msg":"Ok"}`, pushes: []push{{"some.push.route", `{"key1":10,"key2":true}`}}},
				{route: "connector.geterror", want: `{"code":"PIT-000","msg":"GetError is returning a custom error"}`, isErr: true},
				{route: "testsvc.testbind", want: `{"code":"PIT-404","msg":"pitaya/handler: connector.testsvc.testbind not found"}`, isErr: true},
			})
			// The codes of the dictionary work as well: request 77 with code 1.
			c.send(4, []byte{0x01, 77, 0x00, 0x01})
			if m := c.message(); m.ID != 77 || string(m.Payload) != `{"Data":{"a":"x","b":1}}` {
				t.Errorf("by code: answer %d %q", m.ID, m.Payload)
			}
		})
	}
}

func TestSuiteProtobuf(t *testing.T) {
	ts := start(t, "-suite", "sdk-protobuf")
	if len(ts.addrs) != 2 {
		t.Errorf("ports %v, want no TLS without fixtures", ts.addrs)
	}
	data := protobuf(&testpb.SessionData{Data: "THIS IS THE SESSION DATA"})
	transports(t, func(t *testing.T, p protocol) {
		c := ts.connect(t, p)
		if want := `{"code":200,"sys":{"dict":{"connector.getsessiondata":1,"connector.setsessiondata":2},"heartbeat":30,"serializer":"protobuf"}}`; c.answer != want {
			t.Errorf("handshake answer %s, want %s", c.answer, want)
		}
		c.check([]row{
			{route: "connector.getsessiondata", want: data},
			{route: "connector.setsessiondata", payload: protobuf(&testpb.SessionData{Data: "x"}), want: protobuf(&testpb.Response{Code: 200, Msg: "success"})},
		})
		c.notify("connector.notifysessiondata", data)
		c.wantPush(push{"some.push.route", data})

		var got, want testpb.BigMessage
		if err := proto.Unmarshal([]byte(c.must("connector.getbigmessage", "")), &got); err != nil {
			t.Fatal(err)
		}
		if err := protojson.Unmarshal(bigMessage, &want); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(&got, &want) {
			t.Errorf("big message: %v", &got)
		}
		if got.Code != "ABC-200" || len(got.Response.Npcs) != 5 || got.Response.Player.Health != 87.5 {
			t.Errorf("big message: code %q, %d npcs, health %v", got.Code, len(got.Response.Npcs), got.Response.Player.Health)
		}
	})
}

// makeFixtures makes a certificate where -fixtures expects it.
func makeFixtures(t *testing.T) (dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "server"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"pitaya.crt": {Type: "CERTIFICATE", Bytes: cert},
		"pitaya.key": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, "server", name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
