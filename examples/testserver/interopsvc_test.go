package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestInteropSvc(t *testing.T) {
	ts := start(t, "-standalone", "-wsport", "1")
	transports(t, func(t *testing.T, p protocol) {
		c := ts.connectWith(t, p, `{"sys":{"platform":"mac","libVersion":"0.3.5","clientBuildNumber":"20","clientVersion":"2.1","type":"x"},"user":{"b":1,"a":"<"}}`)
		noServers := `{"code":"PIT-500","msg":"no servers available of this type"}`
		key := `{"key":"` + string(p) + `"}`
		for range 3 {
			c.notify("interopsvc.count", key)
		}
		c.check([]row{
			{route: "interopsvc.whoami", like: `\{"uid":"","serverid":"` + ts.ID() + `","servertype":"connector","frontend":true,"sessionid":[1-9]\d*\}`},
			{route: "interopsvc.getdata", want: `{"data":{"ipversion":"ipv4"}}`},
			{route: "interopsvc.setdata", payload: `{"data":{"n":9007199254740993,"f":1.50,"o":{"l":[1,true,null]},"s":"x"}}`, want: `{"code":200,"msg":"ok"}`},
			{route: "interopsvc.getdata", want: `{"data":{"f":1.50,"n":9007199254740993,"o":{"l":[1,true,null]},"s":"x"}}`},
			{route: "interopsvc.setdatalocal", payload: `{"data":{"only":1}}`, want: `{"code":200,"msg":"ok"}`},
			{route: "interopsvc.getdata", want: `{"data":{"only":1}}`},
			{route: "interopsvc.setdata", payload: `{"data":null}`, want: `{"code":200,"msg":"ok"}`},
			{route: "interopsvc.getdata", want: `{"data":{}}`},
			{route: "interopsvc.handshake", want: `{"sys":{"platform":"mac","libVersion":"0.3.5","clientBuildNumber":"20","clientVersion":"2.1"},"user":{"a":"\u003c","b":1}}`},
			{route: "interopsvc.pushself", payload: `{"route":"r.one","msg":"é"}`, want: `{"code":200,"msg":"ok"}`, pushes: []push{{"r.one", "é"}}},
			{route: "interopsvc.pushself", payload: `{"route":"r","msg":"m","count":1}`, want: `{"code":200,"msg":"ok"}`, pushes: []push{{"r", "m"}}},
			{route: "interopsvc.pushself", payload: `{"route":"r","msg":"m","count":3}`, want: `{"code":200,"msg":"ok"}`, pushes: []push{{"r", "m0"}, {"r", "m1"}, {"r", "m2"}}},
			{route: "interopsvc.pushself", payload: `{"route":"r","msg":"m","count":2,"size":4}`, want: `{"code":200,"msg":"ok"}`, pushes: []push{{"r", "pppp"}, {"r", "pppp"}}},
			{route: "interopsvc.pushself", payload: `{"route":"r","size":1000000000000}`, like: `\{"code":"PIT-453","msg":".*"\}`, isErr: true},
			{route: "interopsvc.pushself", payload: `{"route":"` + strings.Repeat("r", 256) + `"}`, like: `\{"code":"PIT-453","msg":".*"\}`, isErr: true},
			{route: "interopsvc.getcount", payload: key, want: `{"n":3}`},
			{route: "interopsvc.getcount", payload: `{"key":"other"}`, want: `{"n":0}`},
			{route: "interopsvc.count", payload: key, want: `{"code":"PIT-400","msg":"tried to request a notify route"}`, isErr: true},
			{route: "interopsvc.sleep", payload: `{"n":2}`, want: `{"code":200,"msg":"slept 2"}`},
			{route: "interopsvc.big", payload: `{"n":70000}`, want: strings.Repeat("x", 70000)},
			{route: "interopsvc.big", payload: `{"n":0}`, want: ""},
			{route: "interopsvc.big", payload: `{"n":-1}`, like: `\{"code":"PIT-400",.*`, isErr: true},
			{route: "interopsvc.big", payload: `{"n":16777215}`, like: `\{"code":"PIT-000",.*`, isErr: true}, // no room for its header
			{route: "interopsvc.boom", like: `\{"code":"PIT-500","msg":"internal error","metadata":\{"request":"\w+"\}\}`, isErr: true},
			{route: "interopsvc.rpc", payload: `{"route":"game.interopremote.echo","msg":"x"}`, want: noServers, isErr: true},
			{route: "interopsvc.rpcto", payload: `{"serverid":"a","route":"game.interopremote.echo"}`, want: noServers, isErr: true},
			{route: "interopsvc.reqinfo", like: `\{"route":"interopsvc\.reqinfo","requestid":".*","peerid":"","peerservice":""\}`},
			{route: "interopsvc.echo", payload: `{"content":"c","name":"n","more":1}`, want: `{"name":"n","content":"c"}`},
			{route: "interopsvc.echo", payload: `[]`, like: `\{"code":"PIT-400",.*`, isErr: true},
		})
	})
}

func TestInteropSvcUsers(t *testing.T) {
	ts := start(t, "-standalone", "-wsport", "1")
	anne, bert := ts.connect(t, protocolTCP), ts.connect(t, protocolWS)
	anne.must("testsvc.testbindid", "anne")
	bert.must("testsvc.testbindid", "bert")

	anne.check([]row{
		{route: "interopsvc.whoami", like: `\{"uid":"anne",.*`},
		{
			route: "interopsvc.pushto", payload: `{"uids":["anne","bert"],"route":"p","msg":"hi","frontend":"connector"}`,
			want: `{"failed":[],"err":""}`, pushes: []push{{"p", "hi"}},
		}, {
			route: "interopsvc.pushtojson", payload: `{"uids":["bert","anne"],"route":"j","msg":"hi","frontend":"connector"}`,
			want: `{"failed":[],"err":""}`, pushes: []push{{"j", `{"code":7,"msg":"hi"}`}},
		}, {
			route: "interopsvc.pushto", payload: `{"uids":["x","anne","y"],"route":"p","msg":"one","frontend":"connector"}`,
			like: `\{"failed":\["x","y"\],"err":".+"\}`, pushes: []push{{"p", "one"}},
		}, {
			route: "interopsvc.pushto", payload: `{"uids":["anne"],"route":"p","msg":"one","frontend":"game"}`,
			like: `\{"failed":\["anne"\],"err":".+"\}`,
		}, {
			route: "interopsvc.pushto", payload: `{"uids":["anne"],"route":"` + strings.Repeat("r", 256) + `","frontend":"connector"}`,
			like: `\{"failed":\["anne"\],"err":".+"\}`,
		},
		{route: "interopsvc.kickto", payload: `{"uids":["x"],"frontend":"connector"}`, like: `\{"failed":\["x"\],"err":".+"\}`},
		{route: "interopsvc.kickto", payload: `{"uids":["bert"],"frontend":"connector"}`, want: `{"failed":[],"err":""}`},
	})
	bert.wantPush(push{"p", "hi"})
	bert.wantPush(push{"j", `{"code":7,"msg":"hi"}`})
	bert.wantKick()
}

func TestInteropSvcGroup(t *testing.T) {
	ts := start(t, "-standalone", "-wsport", "1")
	anne, bert, carl := ts.connect(t, protocolTCP), ts.connect(t, protocolWS), ts.connect(t, protocolTCP)
	anne.must("testsvc.testbindid", "anne")
	for _, c := range []*client{anne, anne, bert} { // twice does no harm
		if got, want := c.must("interopsvc.join", ""), `{"code":200,"msg":"ok"}`; got != want {
			t.Errorf("join: %s, want %s", got, want)
		}
	}
	bert.check([]row{{route: "interopsvc.whoami", like: `\{"uid":"` + uuidPattern + `",.*`}})
	carl.check([]row{{route: "interopsvc.broadcast", payload: `{"count":5000,"size":100}`, want: `{"code":200,"msg":"ok"}`}})
	for _, c := range []*client{anne, bert} {
		for n := range 5000 {
			m := c.message()
			var line Line
			if err := json.Unmarshal(m.Payload, &line); err != nil || m.Route != "onbroadcast" || len(m.Payload) != 100 || line.Name == "" {
				t.Fatalf("push %d on %s: %q, %v", n, m.Route, m.Payload, err)
			}
		}
	}
	carl.check([]row{
		{route: "interopsvc.broadcast", payload: `{"count":1,"size":-1}`, like: `\{"code":"PIT-400",.*`, isErr: true},
		{route: "interopsvc.broadcast", payload: `{}`, want: `{"code":200,"msg":"ok"}`},
	})
}

// The group of a server forgets users when their sessions end, even if they
// have come back meanwhile.
func TestRoomMembership(t *testing.T) {
	ts := start(t, "-standalone", "-wsport", "1")
	members := func() []string {
		uids, err := ts.Group("interop").Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(uids)
		return uids
	}
	first, second := ts.connect(t, protocolTCP), ts.connect(t, protocolTCP)
	first.must("testsvc.testbindid", "anne")
	first.must("interopsvc.join", "")
	second.request("testsvc.testbindid", "anne")
	first.wantKick()
	second.must("interopsvc.join", "")
	if got, want := members(), []string{"anne"}; !slices.Equal(got, want) {
		t.Errorf("members %q, want %q", got, want)
	}
	ended := make(chan struct{})
	if err := ts.SessionByUID("anne").OnClose(func() { close(ended) }); err != nil { // behind the room's
		t.Fatal(err)
	}
	second.Close()
	<-ended
	if got := members(); len(got) > 0 {
		t.Errorf("members %q, want none", got)
	}
}

// What is slow for one client is not for the others, and ends with its session.
func TestInteropSvcSleep(t *testing.T) {
	ts := start(t, "-standalone", "-wsport", "1")
	sleeper, other := ts.connect(t, protocolTCP), ts.connect(t, protocolWS)
	sleeper.sendMessage(requestMessage(1, "interopsvc.whoami"))
	m := requestMessage(2, "interopsvc.sleep")
	m.Payload = fmt.Appendf(nil, `{"n":%d}`, patience.Milliseconds())
	sleeper.sendMessage(m)
	sleeper.message()
	other.must("interopsvc.echo", `{}`)
	sleeper.Close() // else the end of the server would wait for the handler
}
