package pitaya_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/examples/testserver/testpb"
)

// Room has the handlers that the conversations of flows.json expect.
type Room struct{ pitaya.Base }

func (*Room) Echo(ctx context.Context, b []byte) ([]byte, error) { return b, nil }

func (*Room) Noarg(ctx context.Context) (*roomReply, error) {
	return &roomReply{Code: 200, Msg: "noarg"}, nil
}

func (*Room) Note(ctx context.Context, b []byte) {}

func (*Room) Nil(ctx context.Context) (*roomReply, error) { return nil, nil }

func (*Room) Err(ctx context.Context) (*roomReply, error) { return nil, errors.New("oops <&>") }

func (*Room) Perr(ctx context.Context) (*roomReply, error) {
	return nil, &pitaya.Error{Code: "APP-7", Message: "denied", Metadata: map[string]string{"k": "v"}}
}

func (*Room) Panic(ctx context.Context) (*roomReply, error) { panic("boom") }

func (*Room) Push(ctx context.Context, b []byte) ([]byte, error) {
	s := pitaya.SessionFromContext(ctx)
	return []byte("ok"), errors.Join(s.Push(ctx, "onPush", b), s.Push(ctx, "onOther", b))
}

func (*Room) Kickme(ctx context.Context) (*roomReply, error) {
	return &roomReply{}, pitaya.SessionFromContext(ctx).Kick(ctx)
}

func (*Room) Bind(ctx context.Context, b []byte) ([]byte, error) {
	return []byte("ok"), pitaya.SessionFromContext(ctx).Bind(ctx, string(b))
}

func (*Room) Hs(ctx context.Context) ([]byte, error) {
	return json.Marshal(pitaya.SessionFromContext(ctx).HandshakeData())
}

func (*Room) Badret(ctx context.Context) (*chan int, error) { return new(chan int), nil }

type roomArg struct {
	Msg string `json:"msg"`
}

type roomReply struct {
	Code int    `json:"code"`
	Msg  string `json:"msg"`
}

func roomTyped(ctx context.Context, in *roomArg) (*roomReply, error) {
	return &roomReply{Code: 200, Msg: in.Msg}, nil
}

func roomTypedProto(ctx context.Context, in *testpb.TestRequest) (*testpb.TestResponse, error) {
	return &testpb.TestResponse{Code: 200, Msg: in.Msg}, nil
}

// flowsServer starts the server of flows.json.
func flowsServer(t testing.TB, serializer string) *testServer {
	cfg := pitaya.Config{NoCompression: true, PushCodes: pitaya.PushCodesAlways}
	if serializer == "protobuf" {
		cfg.SerializerType = pitaya.SerializerProtobuf
	}
	return startServer(t, cfg, func(s *pitaya.Server) {
		err := s.Register(&Room{}, pitaya.WithName("room"), pitaya.WithNameFunc(strings.ToLower))
		if serializer == "protobuf" {
			err = errors.Join(err, pitaya.Handle(s, "room.typed", roomTypedProto))
		} else {
			err = errors.Join(err, pitaya.Handle(s, "room.typed", roomTyped))
		}
		err = errors.Join(err, s.SetDictionary(map[string]uint16{"conn.room.echo": 1, "onPush": 2}))
		if err != nil {
			t.Fatal(err)
		}
	})
}

type flowStep struct {
	ClientSends         *hexBytes  `json:"client_sends"`
	ServerSends         *hexBytes  `json:"server_sends"`
	ServerSendsAnyOrder []hexBytes `json:"server_sends_any_order"`
	ServerSilent        bool       `json:"server_silent"`
	ServerCloses        bool       `json:"server_closes"`
}

func TestFlowVectors(t *testing.T) {
	testVectors(t, "flows", func(v struct {
		Name   string
		Server string
		Steps  []flowStep
	}) (err error) {
		synctest.Test(t, func(t *testing.T) {
			s := flowsServer(t, v.Server)
			c := s.dial(t)
			for i, step := range v.Steps {
				if v.Name == "bad protobuf argument" && i == len(v.Steps)-1 {
					err = wantSameError(c, *step.ServerSends)
				} else {
					err = flow(c, step)
				}
				if err != nil {
					err = fmt.Errorf("step %d: %w", i, err)
					return
				}
			}
		})
		return err
	})
}

// flow does one step of a conversation.
func flow(c net.Conn, step flowStep) error {
	switch {
	case step.ClientSends != nil:
		_, err := c.Write(*step.ClientSends)
		return err
	case step.ServerSends != nil:
		return wantStream(c, *step.ServerSends)
	case step.ServerSendsAnyOrder != nil:
		// Ours come in order, which is one of those allowed.
		var orders [][]byte
		got := make([]byte, len(slices.Concat(toBytes(step.ServerSendsAnyOrder)...)))
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		for _, p := range permutations(toBytes(step.ServerSendsAnyOrder)) {
			orders = append(orders, slices.Concat(p...))
		}
		if !slices.ContainsFunc(orders, func(b []byte) bool { return bytes.Equal(b, got) }) {
			return fmt.Errorf("got %x, want one of %x", got, orders)
		}
		return nil
	case step.ServerSilent:
		c.SetReadDeadline(time.Now().Add(400 * time.Millisecond))
		defer c.SetReadDeadline(time.Time{})
		n, err := c.Read(make([]byte, 1))
		var timeout net.Error
		if n != 0 || !errors.As(err, &timeout) || !timeout.Timeout() {
			return fmt.Errorf("not silent: %d bytes, %v", n, err)
		}
		return nil
	case step.ServerCloses:
		rest, err := io.ReadAll(c)
		if err != nil || len(rest) > 0 {
			return fmt.Errorf("got %x, %v, want the end of the stream", rest, err)
		}
		return nil
	}
	return errors.New("unknown step")
}

// wantSameError compares an error answer without its text, which is that of the
// protobuf library and changes from build to build.
func wantSameError(c net.Conn, want []byte) error {
	p, err := pitaya.ReadPacket(c, 0)
	if err != nil {
		return err
	}
	const head = 4 + 2 + 9 // packet, flag and id, protobuf field 1
	got, err := pitaya.AppendPacket(nil, p.Type, p.Body)
	if err != nil {
		return err
	}
	return wantBytes("error", got[4:min(head, len(got))], want[4:head])
}

// wantStream compares what comes next with what should.
func wantStream(c net.Conn, want []byte) error {
	c.SetReadDeadline(time.Now().Add(time.Second))
	defer c.SetReadDeadline(time.Time{})
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	if err != nil {
		return fmt.Errorf("got %x, %v, want %x", got[:n], err, want)
	}
	return wantBytes("stream", got, want)
}

func toBytes(list []hexBytes) (out [][]byte) {
	for _, b := range list {
		out = append(out, b)
	}
	return out
}

func permutations[T any](list []T) (out [][]T) {
	if len(list) <= 1 {
		return [][]T{list}
	}
	for i := range list {
		rest := slices.Delete(slices.Clone(list), i, i+1)
		for _, p := range permutations(rest) {
			out = append(out, append([]T{list[i]}, p...))
		}
	}
	return out
}

func TestHeartbeatVectors(t *testing.T) {
	type event struct {
		At           int       `json:"at_ms"`
		ClientSends  *hexBytes `json:"client_sends"`
		ServerSends  *hexBytes `json:"server_sends"`
		ServerCloses bool      `json:"server_closes"`
	}
	testVectors(t, "heartbeat_timing", func(v struct {
		Interval int     `json:"heartbeat_interval_ms"`
		Client   []event `json:"client"`
		Server   []event `json:"server"`
	}) (err error) {
		synctest.Test(t, func(t *testing.T) {
			s := startServer(t, pitaya.Config{Heartbeat: time.Duration(v.Interval) * time.Millisecond}, nil)
			start := time.Now()
			c := s.dial(t)
			go func() {
				for _, e := range v.Client {
					time.Sleep(time.Until(start.Add(time.Duration(e.At) * time.Millisecond)))
					c.Write(*e.ClientSends)
				}
			}()
			for _, e := range v.Server {
				if e.ServerCloses {
					if _, rerr := c.Read(make([]byte, 1)); rerr != io.EOF {
						err = fmt.Errorf("got %v, want the end of the stream", rerr)
					}
				} else {
					got := make([]byte, len(*e.ServerSends))
					if _, rerr := io.ReadFull(c, got); rerr != nil {
						err = rerr
					} else {
						err = wantBytes("packet", got, *e.ServerSends)
					}
				}
				if at := time.Since(start); err == nil && at != time.Duration(e.At)*time.Millisecond {
					err = fmt.Errorf("at %v, want %d ms", at, e.At)
				}
				if err != nil {
					return
				}
			}
		})
		return err
	})
}

// What TestHandshakeRequestVectors asks of the decoder, asked of a server: its answer, what it keeps of the handshake, and
// that a refusal is the end.
func TestHandshakeRequestFlows(t *testing.T) {
	testVectors(t, "handshake_request", func(v struct {
		Packet hexBytes `json:"packet_hex"`
		Code   int
		Stored any
		Then   string
	}) (err error) {
		synctest.Test(t, func(t *testing.T) {
			s := startServer(t, pitaya.Config{NoCompression: true}, func(s *pitaya.Server) {
				must(t, s.AddHandshakeValidator("platform", func(h *pitaya.HandshakeData) error {
					if h.Sys.Platform == "forbidden" {
						return errors.New("not this platform")
					}
					return nil
				}))
			})
			c := s.dial(t)
			must(t, flow(c, flowStep{ClientSends: &v.Packet}))
			var answer pitaya.HandshakeResponse
			must(t, json.Unmarshal(c.expect(pitaya.PacketHandshake), &answer))
			if answer.Code != v.Code {
				err = fmt.Errorf("got code %d (%q), want %d", answer.Code, answer.Msg, v.Code)
				return
			}
			if v.Then == "closed" {
				err = flow(c, flowStep{ServerCloses: true})
				return
			}
			b, merr := json.Marshal(s.onlySession(t).HandshakeData())
			must(t, merr)
			var got any
			must(t, json.Unmarshal(b, &got))
			if !reflect.DeepEqual(got, v.Stored) {
				err = fmt.Errorf("got %v, want %v", got, v.Stored)
			}
		})
		return err
	})
}
