package pitaya_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

// TestGRPCConnectionLimit: connections beyond the limit are closed at once, and there is room again when others end.
func TestGRPCConnectionLimit(t *testing.T) {
	t.Parallel()
	const most = 5
	_, to := openGRPC(t, "b", pitaya.GRPCConfig{MaxConnections: most}, grpcHandler{}, nil)
	addr := pitaya.GRPCAddress("", to.Metadata)
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		must(t, err)
		t.Cleanup(func() { c.Close() })
		must(t, c.SetReadDeadline(time.Now().Add(eventTime)))
		return c
	}
	// Those that speak HTTP/2 keep their connections for as long as they like.
	var hostile []net.Conn
	for range most {
		c := dial()
		_, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		must(t, err)
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		hostile = append(hostile, c)
	}
	for range 20 {
		if _, err := dial().Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
			t.Errorf("one more: %v, want that it is closed", err)
		}
	}
	caller := grpcCaller(t, pitaya.GRPCConfig{RequestTimeout: eventTime})
	if _, err := doCall(t.Context(), caller, to, "x"); !errors.Is(err, pitaya.ErrUnreachable) {
		t.Errorf("a server beyond the limit: %v", err)
	}
	hostile[0].Close()
	eventually(t, func() bool {
		got, err := doCall(t.Context(), caller, to, "x")
		return err == nil && got == "x"
	})
}

// TestGRPCContextStatus: a context that cannot be understood is refused with a status, and not with an answer (cluster
// protocol, section 6.1).
func TestGRPCContextStatus(t *testing.T) {
	t.Parallel()
	c := grpcCluster{pitaya.NewMemCluster(), t}
	s := c.start(pitaya.Config{Type: "room", ID: "r"}, func(s *pitaya.Server) { must(t, s.RegisterRemote(RoomRemote{})) })
	caller := grpcCaller(t, pitaya.GRPCConfig{})
	to := s.ServerByID("r")
	for _, metadata := range []string{"", "no JSON", "[]", "null"} {
		r := pitaya.RPCRequest{Type: 1, Metadata: []byte(metadata), Msg: pitaya.RPCMsg{Route: []byte("room.RoomRemote.Upper")}}
		answer, err := doCall(t.Context(), caller, to, string(r.Encode()))
		if err == nil || !strings.Contains(err.Error(), "gRPC status Unknown: ") {
			t.Errorf("metadata %q: answered with %q, %v", metadata, answer, err)
		}
	}
}
