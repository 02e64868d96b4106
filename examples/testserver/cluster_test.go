//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
	"github.com/pitaya-go/pitaya/internal/devtest"
	"github.com/pitaya-go/pitaya/internal/pb"
)

// A farm is where processes of the program make a cluster, with a real etcd and
// a real NATS.
type farm struct {
	etcd, nats *devtest.Server
	binary     string
	grpc       bool
	prefix     string   // of discovery
	args       []string // of all processes

	grpcPort map[string]string // by server id, as far as they were started
}

// start starts a server with the given id and further arguments, which may be
// settings KEY=value for its environment.
func (f *farm) start(t *testing.T, id string, args ...string) *process {
	t.Helper()
	env := []string{
		"PITAYA_SERVER_ID=" + id,
		"PITAYA_CLUSTER_SD_ETCD_ENDPOINTS=" + f.etcd.URL(),
		"PITAYA_MODULES_BINDINGSTORAGE_ETCD_ENDPOINTS=" + f.etcd.URL(),
		"PITAYA_CLUSTER_RPC_CLIENT_NATS_CONNECT=" + f.nats.URL(),
		"PITAYA_CLUSTER_RPC_SERVER_NATS_CONNECT=" + f.nats.URL(),
	}
	all := append([]string{"-sdprefix", f.prefix}, f.args...)
	if f.grpc {
		if f.grpcPort == nil {
			f.grpcPort = make(map[string]string)
		}
		f.grpcPort[id] = strconv.Itoa(freePorts(t, 1))
		all = append(all, "-grpc", "-grpcport", f.grpcPort[id])
	}
	for _, arg := range args {
		if strings.HasPrefix(arg, "PITAYA_") {
			env = append(env, arg)
		} else {
			all = append(all, arg)
		}
	}
	p := startProcessEnv(t, f.binary, env, all...)
	t.Cleanup(func() { p.stop() })
	return p
}

// stop ends the process if it has not ended, and leaves its log.
func (p *process) stop() (log string) {
	p.Process.Signal(syscall.SIGTERM)
	for line := range p.lines {
		log += line
	}
	p.Wait()
	return log
}

// frontend starts a frontend and returns what connects clients to it.
func (f *farm) frontend(t *testing.T, id string, args ...string) (connect func() *client) {
	t.Helper()
	port := strconv.Itoa(freePorts(t, 1))
	f.start(t, id, append([]string{"-port", port}, args...)...)
	return func() *client { return connectTo(t, protocolTCP, "127.0.0.1:"+port, `{"sys":{}}`) }
}

// backend starts a backend whose id is its type.
func (f *farm) backend(t *testing.T, serverType string, args ...string) *process {
	t.Helper()
	return f.start(t, serverType, append([]string{"-frontend=false", "-type", serverType}, args...)...)
}

// settle waits until servers of the types know the server with the given id.
func settle(c *client, id, serverType string, by ...string) {
	c.t.Helper()
	for _, other := range by {
		for {
			_, isErr := c.request(other+".interopsvc.rpcto", fmt.Sprintf(`{"serverid":%q,"route":"%s.interopremote.who"}`, id, serverType))
			if !isErr {
				break
			}
		}
	}
}

// etcdClient returns a client of the farm's etcd.
func (f *farm) etcdClient(t *testing.T) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{f.etcd.URL()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// keys returns what etcd has under a prefix.
func keys(t *testing.T, c *clientv3.Client, prefix string) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := c.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]string)
	for _, kv := range r.Kvs {
		m[string(kv.Key)] = string(kv.Value)
	}
	return m
}

// overTransports runs a test in a farm with NATS and in one with gRPC.
func overTransports(t *testing.T, args []string, test func(t *testing.T, f *farm)) {
	etcd, nats, binary := devtest.Etcd(t), devtest.NATS(t), build(t)
	for _, grpc := range []bool{false, true} {
		name := "NATS"
		if grpc {
			name = "gRPC"
		}
		t.Run(name, func(t *testing.T) {
			test(t, &farm{etcd: etcd, nats: nats, binary: binary, grpc: grpc, prefix: "test-" + name + "/", args: args})
		})
	}
}

// Every row of the services, on the frontend and forwarded to a backend.
func TestClusterServices(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, f *farm) {
		f.backend(t, "room")
		f.backend(t, "game")
		connect := f.frontend(t, "front")
		first := connect()
		// It has said that it is ready when it knew the others.
		first.must("room.testsvc.testrequestonlysessionreturnsptr", "")
		first.must("interopsvc.rpcto", `{"serverid":"game","route":"game.interopremote.who"}`)
		settle(first, "front", "connector", "room", "game")
		settle(first, "game", "game", "room", "connector")
		settle(first, "room", "room", "game", "connector")

		ok := `{"code":200,"msg":"ok"}`
		for _, serverType := range []string{"connector", "room"} {
			backend := serverType != "connector"
			id := map[bool]string{false: "front", true: "room"}[backend]
			svc, interop := serverType+".testsvc.", serverType+".interopsvc."
			c := connect()
			uid := "u-" + serverType + f.prefix[:9]
			for range 3 {
				c.notify(interop+"count", `{"key":"k"}`)
			}
			c.check([]row{
				{route: svc + "testrequestonlysessionreturnsptr", want: `{"code":200,"msg":"hello"}`},
				{route: svc + "testrequestonlysessionreturnsptrnil", want: `{"code":"PIT-000","msg":"reply must not be null"}`, isErr: true},
				{route: svc + "testrequestreturnsptr", payload: `{"msg":"a<b"}`, want: `{"code":200,"msg":"a\u003cb"}`},
				{route: svc + "testrequestreturnsptr", want: `{"code":"PIT-400","msg":"unexpected end of JSON input"}`, isErr: true},
				{route: svc + "testrequestonlysessionreturnsrawnil", want: `{"code":"PIT-000","msg":"reply must not be null"}`, isErr: true},
				{route: svc + "testrequestreturnsraw", payload: `{"msg":"good"}`, want: "good"},
				{route: svc + "testrequestreceivereturnsraw", payload: "\x00\xff", want: "\x00\xff"},
				{route: svc + "testrequestreceivereturnsraw", want: ""},
				{route: svc + "testrequestreturnserror", payload: "x", want: `{"code":"PIT-555","msg":"somerror"}`, isErr: true},
				{route: svc + "testrequestkickuser", payload: "nobody", want: `{"code":"PIT-404","msg":"session not found"}`, isErr: true},
				{route: svc + "nothing", want: `{"code":"PIT-404","msg":"pitaya/handler: ` + svc + `nothing not found"}`, isErr: true},
				{route: svc + "testsendgroupmsg", want: `{"code":"PIT-400","msg":"tried to request a notify route"}`, isErr: true},
				{route: "nowhere.testsvc.testbind", want: `{"code":"PIT-500","msg":"no servers available of this type"}`, isErr: true},

				{route: interop + "whoami", like: fmt.Sprintf(`\{"uid":"","serverid":"%s","servertype":"%s","frontend":%v,"sessionid":[1-9]\d*\}`, id, serverType, !backend)},
				{route: interop + "getdata", want: `{"data":{"ipversion":"ipv4"}}`},
				{route: interop + "getcount", payload: `{"key":"k"}`, want: `{"n":3}`},
				{route: interop + "sleep", payload: `{"n":2}`, want: `{"code":200,"msg":"slept 2"}`},
				{route: interop + "big", payload: `{"n":70000}`, want: strings.Repeat("x", 70000)},
				{route: interop + "boom", like: `\{"code":"PIT-500","msg":"internal error","metadata":\{"request":"\w+"\}\}`, isErr: true},
				{route: interop + "echo", payload: `{"content":"c","name":"n","more":1}`, want: `{"name":"n","content":"c"}`},
				{route: interop + "reqinfo", like: map[bool]string{
					false: `\{"route":"connector.interopsvc.reqinfo","requestid":"\w{20,}","peerid":"","peerservice":""\}`,
					true:  `\{"route":"room.interopsvc.reqinfo","requestid":"\w{20,}","peerid":"front","peerservice":"connector"\}`,
				}[backend]},

				{route: svc + "testsendrpc", payload: `{"route":"game.testremotesvc.rpctestrawptrreturnsptr","data":"d"}`, want: `{"code":200,"msg":"got d"}`},
				{route: svc + "testsendrpc", payload: `{"route":"game.testremotesvc.rpctestptrreturnsptr","data":"d"}`, want: `{"code":200,"msg":"got d"}`},
				{route: svc + "testsendrpc", payload: `{"route":"game.testremotesvc.rpctestreturnserror"}`, want: `{"code":"PIT-433","msg":"test error","metadata":{"some":"meta"}}`, isErr: true},
				{route: svc + "testsendrpc", payload: `{"route":"game.testremotesvc.nothing"}`, want: `{"code":"PIT-404","msg":"route not found","metadata":{"route":"testremotesvc.nothing"}}`, isErr: true},
				{route: svc + "testsendrpc", payload: `{"route":"nowhere.testremotesvc.x"}`, want: `{"code":"PIT-500","msg":"no servers available of this type"}`, isErr: true},
				{route: svc + "testsendrpc", payload: `{"route":"` + serverType + `.testremotesvc.rpctestnoargs"}`, like: `\{"code":"PIT-000","msg":"pitaya: RPC to the own server.*"\}`, isErr: true},
				{route: svc + "testsendrpcnoargs", payload: `{"route":"game.testremotesvc.rpctestnoargs"}`, want: `{"code":200,"msg":"got nothing"}`},
				{route: interop + "rpc", payload: `{"route":"game.interopremote.echo","msg":"é"}`, want: `{"code":200,"msg":"é"}`},
				{route: interop + "rpc", payload: `{"route":"game.interopremote.sleep","msg":"1"}`, want: `{"code":200,"msg":"slept"}`},
				{route: interop + "rpc", payload: `{"route":"game.interopremote.boom","msg":"1"}`, like: `\{"code":"PIT-500",.*`, isErr: true},
				{route: interop + "rpcto", payload: `{"serverid":"game","route":"game.interopremote.who"}`, want: `{"code":200,"msg":"game"}`},
				{route: interop + "rpcto", payload: `{"serverid":"nobody","route":"game.interopremote.who"}`, like: `\{"code":"PIT-000","msg":"server not found.*"\}`, isErr: true},

				{route: svc + "testbindid", payload: uid, want: "ack"},
				{route: svc + "testbindid", payload: "other", want: `{"code":"PIT-444","msg":"session is already bound to an uid"}`, isErr: true},
				{route: "connector.interopsvc.whoami", like: `\{"uid":"` + uid + `",.*`},
				{route: "game.interopsvc.whoami", like: `\{"uid":"` + uid + `","serverid":"game",.*`},

				{route: interop + "setdata", payload: `{"data":{"n":12345678901,"s":"x","o":{"l":[1,true,null]}}}`, want: ok},
				{route: "game.interopsvc.getdata", want: `{"data":{"n":12345678901,"o":{"l":[1,true,null]},"s":"x"}}`},
				{route: "connector.interopsvc.getdata", want: `{"data":{"n":12345678901,"o":{"l":[1,true,null]},"s":"x"}}`},
				{route: "game.interopsvc.setdatalocal", payload: `{"data":{"gone":1}}`, want: ok},
				{route: interop + "getdata", want: `{"data":{"n":12345678901,"o":{"l":[1,true,null]},"s":"x"}}`},

				{route: interop + "pushself", payload: `{"route":"r.one","msg":"é"}`, want: ok, pushes: []push{{"r.one", "é"}}},
				{route: interop + "pushself", payload: `{"route":"r","msg":"m","count":3}`, want: ok, pushes: []push{{"r", "m0"}, {"r", "m1"}, {"r", "m2"}}},
				{route: interop + "pushself", payload: `{"route":"r","msg":"m","count":2,"size":4}`, want: ok, pushes: []push{{"r", "pppp"}, {"r", "pppp"}}},
				{route: interop + "pushto", payload: `{"uids":["` + uid + `"],"route":"p","msg":"hi","frontend":"connector"}`, want: `{"failed":[],"err":""}`, pushes: []push{{"p", "hi"}}},
				{route: interop + "pushtojson", payload: `{"uids":["` + uid + `"],"route":"j","msg":"hi","frontend":"connector"}`, want: `{"failed":[],"err":""}`, pushes: []push{{"j", `{"code":7,"msg":"hi"}`}}},
			})
			// Over gRPC it is known who is not there, over NATS it is not.
			missing, like := fmt.Sprintf(`{"uids":["nobody",%q],"route":"p","msg":"hi","frontend":"connector"}`, uid), `\{"failed":\[\],"err":""\}`
			if f.grpc {
				like = `\{"failed":\["nobody"\],"err":".+"\}`
			}
			c.check([]row{{route: interop + "pushto", payload: missing, like: like, pushes: []push{{"p", "hi"}}}})
			c.check([]row{{route: interop + "kickto", payload: `{"uids":["nobody"],"frontend":"connector"}`, like: like}})

			c.notify(svc+"testsendgroupmsg", "raw \xff")
			c.wantPush(push{"route.test", "raw \xff"})
			c.notify(svc+"testsendgroupmsgptr", `{"msg":"typed"}`)
			c.wantPush(push{"route.testptr", `{"msg":"typed"}`})
			c.notify(svc+"testsendtousers", fmt.Sprintf(`{"uids":["nobody",%q],"msg":"to all"}`, uid))
			c.wantPush(push{"route.sendtousers", "to all"})
			c.check([]row{
				{route: interop + "join", want: ok},
				{route: interop + "join", want: ok},
			})
			c.must(interop+"broadcast", `{"count":2,"size":40}`) // before or behind its pushes
			for range 2 {
				c.wantPush(push{"onbroadcast", `{"name":"broadcast","content":"xxxxxxx"}`})
			}

			victim := connect()
			victim.must(svc+"testbindid", "victim-"+uid)
			c.must(interop+"kickto", `{"uids":["victim-`+uid+`"],"frontend":"connector"}`)
			victim.wantKick()
			me := connect()
			me.must(svc+"testbind", "")
			me.check([]row{{route: interop + "whoami", like: `\{"uid":"` + uuidPattern + `",.*`}})
			me.sendMessage(requestMessage(99, svc+"testrequestkickme"))
			me.wantKick()
		}
		unbound := connect()
		unbound.check([]row{
			{route: "room.interopsvc.pushself", payload: `{"route":"r","msg":"m"}`, want: `{"code":"PIT-453","msg":"you have to bind an UID to the session to do that"}`, isErr: true},
			{route: "room.testsvc.testrequestkickme", want: `{"code":"PIT-000","msg":"you have to bind an UID to the session to do that"}`, isErr: true},
			{route: "interopsvc.reqinfo", like: `\{"route":"interopsvc.reqinfo",.*`},
		})
	})
}

// The same cluster with protobuf.
func TestClusterProtobuf(t *testing.T) {
	overTransports(t, []string{"-serializer", "protobuf"}, func(t *testing.T, f *farm) {
		f.backend(t, "room")
		f.backend(t, "proto", "-protocli")
		connect := f.frontend(t, "front")
		c := connect()
		response := func(code int32, msg string) string { return protobuf(&testpb.TestResponse{Code: code, Msg: msg}) }
		request := func(msg string) string { return protobuf(&testpb.TestRequest{Msg: msg}) }
		failure := func(e *pb.Error) string { return protobuf(e) }
		for {
			// It knows the frontend by then.
			if _, isErr := c.request("room.testsvc.testbindid", "anne-"+f.prefix); !isErr {
				break
			}
		}
		c.check([]row{
			{route: "room.testsvc.testrequestreturnsptr", payload: request("good"), want: response(200, "good")},
			{route: "room.testsvc.testrequestreturnsptr", want: response(200, "")},
			{route: "room.testsvc.testrequestonlysessionreturnsptrnil", want: failure(&pb.Error{Code: "PIT-000", Msg: "reply must not be null"}), isErr: true},
			{route: "room.testsvc.testrequestreturnserror", want: failure(&pb.Error{Code: "PIT-555", Msg: "somerror"}), isErr: true},
			{route: "nowhere.a.b", want: failure(&pb.Error{Code: "PIT-500", Msg: "no servers available of this type"}), isErr: true},
			{route: "proto.protosvc.echo", payload: request("hi"), want: response(200, "hi")},
			{route: "proto.protosvc.fail", payload: request("hi"), want: failure(&pb.Error{Code: "PIT-777", Msg: "failed on purpose", Metadata: map[string]string{"k": "v"}}), isErr: true},
			{route: "proto.testsvc.testbind", want: failure(&pb.Error{Code: "PIT-404", Msg: "pitaya/handler: proto.testsvc.testbind not found"}), isErr: true},
		})
		c.notify("room.testsvc.testsendgroupmsgptr", request("typed"))
		c.wantPush(push{"route.testptr", request("typed")})
		for {
			c.notify("proto.protosvc.push", request("me")) // may not know the frontend yet
			c.must("proto.protosvc.echo", "")
			if len(c.pushes) > 0 {
				break
			}
		}
		c.wantPush(push{"on.self", response(201, "me")})
		var doc pb.Doc
		if err := proto.Unmarshal([]byte(c.must("proto.docs.docs", "")), &doc); err != nil || !strings.Contains(doc.Doc, `"proto.protosvc.echo"`) {
			t.Errorf("docs: %s, %v", doc.Doc, err)
		}
		doc.Reset()
		if err := proto.Unmarshal([]byte(c.must("room.docs.docs", "")), &doc); err != nil ||
			!strings.Contains(doc.Doc, `"room.testremotesvc.rpctestnoargs":{"input":null,"output":[{"*protos.TestResponse":{"code":"int32","msg":"string"}},"error"]}`) {
			t.Errorf("docs: %s, %v", doc.Doc, err)
		}
	})
}

// A user has one session on all frontends of a type, unless the settings say
// otherwise.
func TestClusterUnique(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, f *farm) {
		one, two := f.frontend(t, "one"), f.frontend(t, "two")
		many := f.frontend(t, "many", "PITAYA_SESSION_UNIQUE=false", "-type", "gate")
		more := f.frontend(t, "more", "PITAYA_SESSION_UNIQUE=false", "-type", "gate")
		c := one()
		settle(c, "two", "connector", "gate", "gate", "gate", "gate")
		uid := "user-" + f.prefix[:9]
		anne := one()
		anne.must("testsvc.testbindid", uid)
		again := two()
		again.must("testsvc.testbindid", uid)
		anne.wantKick()
		again.must("interopsvc.whoami", "")

		first, second := many(), more()
		first.must("testsvc.testbindid", uid)
		second.must("testsvc.testbindid", uid)
		for _, c := range []*client{first, second, again} { // of another type
			c.check([]row{{route: "interopsvc.whoami", like: `\{"uid":"` + uid + `",.*`}})
		}
	})
}

// A backend that dies is forgotten when its lease ends, and one that comes back
// under its id is found. Settings from the environment say when.
func TestClusterCrash(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, f *farm) {
		env := []string{
			"PITAYA_CLUSTER_SD_ETCD_HEARTBEAT_TTL=2s", "PITAYA_CLUSTER_SD_ETCD_SYNCSERVERS_INTERVAL=1s",
			"PITAYA_CLUSTER_RPC_CLIENT_GRPC_LAZYCONNECTION=true",
		}
		room := f.backend(t, "room", env...)
		c := f.frontend(t, "front", env...)()
		const route = "room.testsvc.testrequestonlysessionreturnsptr"
		c.must(route, "")
		if err := room.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		room.stop()
		for {
			got, isErr := c.request(route, "")
			if !isErr {
				t.Fatalf("answer %q of a dead server", got)
			}
			if got == `{"code":"PIT-500","msg":"no servers available of this type"}` {
				break
			}
		}
		f.backend(t, "room", env...)
		for {
			if _, isErr := c.request(route, ""); !isErr {
				break
			}
		}
	})
}

// The end of a server is in time whatever it is busy with, and leaves nothing in
// etcd.
func TestClusterEnd(t *testing.T) {
	overTransports(t, nil, func(t *testing.T, f *farm) {
		etcd := f.etcdClient(t)
		servers := func() map[string]string { return keys(t, etcd, f.prefix+"servers/") }
		port := strconv.Itoa(freePorts(t, 1))
		room := f.backend(t, "room")
		front := f.start(t, "front", "-port", port)
		if got := servers(); len(got) != 2 || got[f.prefix+"servers/room/room"] == "" || got[f.prefix+"servers/connector/front"] == "" {
			t.Fatalf("in etcd: %q", got)
		}
		addr := "127.0.0.1:" + port
		c := connectTo(t, protocolTCP, addr, `{}`)
		settle(c, "front", "connector", "room")
		c.must("room.testsvc.testbindid", "user")
		bindings := func() map[string]string { return keys(t, etcd, "pitaya/bindings/") }
		if want := f.grpc; (bindings()["pitaya/bindings/connector/user"] == "front") != want {
			t.Errorf("bindings %q", bindings())
		}
		// Both are at work when the end comes.
		c.notify("room.interopsvc.pushself", `{"route":"begun"}`)
		sleep := requestMessage(1000, "room.interopsvc.sleep")
		sleep.Payload = []byte(`{"n":60000}`)
		c.sendMessage(sleep)
		c.wantPush(push{"begun", ""})
		begin := time.Now()
		front.Process.Signal(os.Interrupt)
		room.Process.Signal(syscall.SIGTERM)
		for _, p := range []*process{front, room} {
			var log strings.Builder
			for line := range p.lines {
				log.WriteString(line)
			}
			if err := p.Wait(); err != nil || time.Since(begin) > 5*time.Second {
				t.Errorf("ended after %v with %v\n%s", time.Since(begin), err, log.String())
			}
		}
		if got := servers(); len(got) > 0 {
			t.Errorf("left in etcd: %q", got)
		}
		if got := bindings(); len(got) > 0 {
			t.Errorf("left in etcd: %q", got)
		}
	})
}

// It is also in time when etcd and NATS have gone.
func TestClusterEndAlone(t *testing.T) {
	binary := build(t)
	for _, grpc := range []bool{false, true} {
		f := &farm{etcd: devtest.Etcd(t), nats: devtest.NATS(t), binary: binary, grpc: grpc, prefix: "test/"}
		port := strconv.Itoa(freePorts(t, 1))
		p := f.start(t, "front", "-port", port)
		c := connectTo(t, protocolTCP, "127.0.0.1:"+port, `{}`)
		c.must("testsvc.testbind", "")
		f.etcd.Stop()
		f.nats.Stop()
		begin := time.Now()
		log := p.stop()
		if took := time.Since(begin); took > 5*time.Second || p.ProcessState.ExitCode() != 0 {
			t.Errorf("ended after %v: %v\n%s", took, p.ProcessState, log)
		}
	}
}

// A server that waits for a NATS that is not there can be stopped.
func TestClusterStopWaiting(t *testing.T) {
	etcd, binary := devtest.Etcd(t), build(t)
	p := launch(t, binary, []string{"PITAYA_CLUSTER_SD_ETCD_ENDPOINTS=" + etcd.URL()}, "-port", "0",
		"-pitaya.cluster.rpc.client.nats.connect", "nats://127.0.0.1:1", "-pitaya.cluster.rpc.server.nats.connect", "nats://127.0.0.1:1")
	for line := range p.lines {
		if strings.Contains(line, "NATS") {
			break
		}
	}
	p.end(t, syscall.SIGTERM)
}
