package main

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
	"github.com/pitaya-go/pitaya/internal/pb"
)

const uuidPattern = `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`

// protobuf returns a message on the wire.
func protobuf(m proto.Message) string {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestTestSvcJSON(t *testing.T) {
	ts := start(t, "-standalone", "-wsport", "1")
	transports(t, func(t *testing.T, p protocol) {
		c := ts.connect(t, p)
		if want := `{"code":200,"sys":{"dict":{},"heartbeat":30,"serializer":"json"}}`; c.answer != want {
			t.Errorf("handshake answer %s, want %s", c.answer, want)
		}
		uid := "user-" + string(p)
		c.check([]row{
			{route: "connector.testsvc.testrequestonlysessionreturnsptr", want: `{"code":200,"msg":"hello"}`},
			{route: "testsvc.testrequestonlysessionreturnsptr", payload: `what`, want: `{"code":200,"msg":"hello"}`},
			{route: "testsvc.testrequestonlysessionreturnsptrnil", want: `{"code":"PIT-000","msg":"reply must not be null"}`, isErr: true},
			{route: "testsvc.testrequestreturnsptr", payload: `{"msg":"a<b"}`, want: `{"code":200,"msg":"a\u003cb"}`},
			{route: "testsvc.testrequestreturnsptr", payload: `{}`, want: `{"code":200}`},
			{route: "testsvc.testrequestreturnsptr", want: `{"code":"PIT-400","msg":"unexpected end of JSON input"}`, isErr: true},
			{route: "testsvc.testrequestonlysessionreturnsrawnil", want: `{"code":"PIT-000","msg":"reply must not be null"}`, isErr: true},
			{route: "testsvc.testrequestreturnsraw", payload: `{"msg":"good"}`, want: "good"},
			{route: "testsvc.testrequestreturnsraw", payload: `{}`, want: ""},
			{route: "testsvc.testrequestreceivereturnsraw", payload: "\x00\xff", want: "\x00\xff"},
			{route: "testsvc.testrequestreceivereturnsraw", want: ""},
			{route: "testsvc.testrequestreturnserror", payload: "x", want: `{"code":"PIT-555","msg":"somerror"}`, isErr: true},
			{route: "testsvc.testrequestkickuser", payload: "nobody", want: `{"code":"PIT-404","msg":"session not found"}`, isErr: true},
			{route: "testsvc.testbindid", want: `{"code":"PIT-444","msg":"illegal uid"}`, isErr: true},
			{route: "testsvc.testbindid", payload: uid, want: "ack"},
			{route: "testsvc.testbindid", payload: "other", want: `{"code":"PIT-444","msg":"session is already bound to an uid"}`, isErr: true},
			{route: "testsvc.testbind", want: `{"code":"PIT-444","msg":"session is already bound to an uid"}`, isErr: true},
			{route: "testsvc.testsendrpc", payload: `{"route":"game.testremotesvc.rpctestnoargs","data":"x"}`, want: `{"code":"PIT-500","msg":"no servers available of this type"}`, isErr: true},
			{route: "testsvc.testsendrpcnoargs", payload: `{"route":"game.testremotesvc.rpctestnoargs"}`, want: `{"code":"PIT-500","msg":"no servers available of this type"}`, isErr: true},
			{route: "testsvc.testsendrpc", payload: `{"route":"testremotesvc.rpctestnoargs"}`, want: `{"code":"PIT-400","msg":"cannot decode route"}`, isErr: true},
			{route: "testsvc.testsendrpc", payload: `{"route":"rpctestnoargs"}`, want: `{"code":"PIT-400","msg":"invalid route"}`, isErr: true},
			{route: "testsvc.testsendgroupmsg", want: `{"code":"PIT-400","msg":"tried to request a notify route"}`, isErr: true},
			{route: "testsvc.nothing", want: `{"code":"PIT-404","msg":"pitaya/handler: connector.testsvc.nothing not found"}`, isErr: true},
			{route: "connector.testsvc.TestBind", want: `{"code":"PIT-404","msg":"pitaya/handler: connector.testsvc.TestBind not found"}`, isErr: true},
			{route: "game.testsvc.testbind", want: `{"code":"PIT-500","msg":"no servers available of this type"}`, isErr: true},
			{route: "testbind", want: `{"code":"PIT-400","msg":"invalid route"}`, isErr: true},
		})
		if got := ts.SessionByUID(uid); got == nil || got.UID() != uid {
			t.Errorf("session of %s: %v", uid, got)
		}
	})
}

func TestTestSvcProtobuf(t *testing.T) {
	ts := start(t, "-standalone", "-wsport", "1", "-serializer", "protobuf")
	transports(t, func(t *testing.T, p protocol) {
		c := ts.connect(t, p)
		if want := `{"code":200,"sys":{"dict":{},"heartbeat":30,"serializer":"protobuf"}}`; c.answer != want {
			t.Errorf("handshake answer %s, want %s", c.answer, want)
		}
		response := func(msg string) string { return protobuf(&testpb.TestResponse{Code: 200, Msg: msg}) }
		failure := func(code, msg string) string { return protobuf(&pb.Error{Code: code, Msg: msg}) }
		c.check([]row{
			{route: "testsvc.testrequestonlysessionreturnsptr", want: response("hello")},
			{route: "testsvc.testrequestonlysessionreturnsptrnil", want: failure("PIT-000", "reply must not be null"), isErr: true},
			{route: "testsvc.testrequestreturnsptr", payload: protobuf(&testpb.TestRequest{Msg: "good"}), want: response("good")},
			{route: "testsvc.testrequestreturnsptr", want: response("")},
			{route: "testsvc.testrequestonlysessionreturnsrawnil", want: failure("PIT-000", "reply must not be null"), isErr: true},
			{route: "testsvc.testrequestreturnsraw", payload: protobuf(&testpb.TestRequest{Msg: "good"}), want: "good"},
			{route: "testsvc.testrequestreceivereturnsraw", payload: "abc", want: "abc"},
			{route: "testsvc.testrequestreturnserror", want: failure("PIT-555", "somerror"), isErr: true},
			{route: "testsvc.testrequestkickuser", payload: "nobody", want: failure("PIT-404", "session not found"), isErr: true},
			{route: "testsvc.testbind", want: "ack"},
			{route: "testsvc.testbind", want: failure("PIT-444", "session is already bound to an uid"), isErr: true},
			{route: "testsvc.nothing", want: failure("PIT-404", "pitaya/handler: connector.testsvc.nothing not found"), isErr: true},
		})
		c.notify("testsvc.testsendgroupmsgptr", protobuf(&testpb.TestRequest{Msg: "all"}))
		c.wantPush(push{"route.testptr", protobuf(&testpb.TestRequest{Msg: "all"})})
	})
}

func TestTestSvcPushes(t *testing.T) {
	ts := start(t, "-standalone", "-wsport", "1")
	anne, bert, carl := ts.connect(t, protocolTCP), ts.connect(t, protocolWS), ts.connect(t, protocolTCP)
	anne.must("testsvc.testbindid", "anne")
	bert.must("testsvc.testbindid", "bert")

	carl.notify("connector.testsvc.testsendgroupmsg", "raw \xff")
	carl.notify("testsvc.testsendgroupmsgptr", `{"msg":"typed"}`)
	carl.notify("testsvc.testsendtousers", `{"uids":["nobody","bert"],"msg":"to bert"}`)
	carl.notify("testsvc.testsendtousers", `no JSON`)
	carl.must("testsvc.testrequestonlysessionreturnsptr", "") // all of them are done
	for _, c := range []*client{anne, bert} {
		c.wantPush(push{"route.test", "raw \xff"})
		c.wantPush(push{"route.testptr", `{"msg":"typed"}`})
	}
	bert.wantPush(push{"route.sendtousers", "to bert"})

	// A user who comes back is in the group still.
	again := ts.connect(t, protocolTCP)
	again.check([]row{{route: "testsvc.testbindid", payload: "anne", like: `\{"code":"PIT-441","msg":".*already.*"\}`, isErr: true}})
	anne.wantKick() // replaced
	if got := ts.SessionByUID("anne"); got == nil {
		t.Error("anne has no session")
	}
}

func TestTestSvcKick(t *testing.T) {
	ts := start(t, "-standalone", "-wsport", "1")
	transports(t, func(t *testing.T, p protocol) {
		c, victim := ts.connect(t, p), ts.connect(t, p)
		victim.must("testsvc.testbindid", "victim-"+string(p))
		c.check([]row{{route: "testsvc.testrequestkickuser", payload: "victim-" + string(p), want: `{"code":200,"msg":"ok"}`}})
		victim.wantKick()

		c.sendMessage(requestMessage(99, "testsvc.testrequestkickme"))
		c.wantKick()
	})
}
