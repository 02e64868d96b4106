package pitaya_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// wireOtherwise names each vector of the wire layer whose recorded result is deliberately not ours, as file/name, with
// the reason.
var wireOtherwise = map[string]string{
	"packet_encode/data 16777216 bytes": "24 bits cannot express the length; the reference wraps it to 0, which corrupts the stream",

	"message_encode/push, 300-byte route":          "the length byte cannot express it; the reference cuts the length, which corrupts the message",
	"message_encode/response, route in dictionary": "responses have no route, so the bit that says it is a code is never set",

	"message_decode/request, eleven-byte id":          "an id over 64 bits is an error: dropping bits would answer another request",
	"message_decode/response, unterminated id":        "the reference reads it as 0 and leaves its bytes in the payload",
	"error_payload/json: plain error, empty text":     "the text is never empty: Unity's libpitaya throws without it",
	"error_payload/protobuf: plain error, empty text": "the text is never empty: Unity's libpitaya throws without it",
	"error_payload/json: coded, empty code":           "the code is never empty: Unity's libpitaya throws without it",
	"error_payload/protobuf: coded, empty code":       "the code is never empty: Unity's libpitaya throws without it",
	"error_payload/protobuf: invalid UTF-8 text":      "the text is made valid, so that the client gets its answer",

	"nats_publish/push with an empty server type (PITFALL: goes nowhere)": "an error: nobody would get it",

	"flows/other server type on a standalone server": "every request is answered: PIT-500",
	"flows/panic with a string":                      "PIT-500 with a generic text and an id: what went wrong is not the client's business",
	"flows/result that cannot be serialized":         "the answer is flagged as an error",
	"flows/result that is not a protobuf message":    "the answer is flagged as an error",
	"flows/kick":                          "the body tells the reason; some clients throw on an empty one",
	"flows/push-type message from client": "clients do not push: the connection is closed",
	"flows/ack without handshake":         "it would pass the validators by: the connection is closed",

	"rpc_request/forward a request, fresh session": "session data is always an object: the C# library cannot change data that arrives empty",
	"rpc_response/user: panic":                     "PIT-500 with a generic text and an id: what went wrong is not the caller's business",
	"context/decode: null":                         "refused, as all that is no object",
	"session_data/after a hop":                     "numbers stay as they are written: none is rounded on its way",
	"session_data/null":                            "goes on as an empty object: frontends of Pitaya panic of null",

	"frontend_flows/backend binds a session, pushes, then kicks by rpc": "the body of a kick tells the reason; some clients throw on an empty one",
	"frontend_flows/kick by publish":                                    "the body of a kick tells the reason",
	"frontend_flows/same user bound on another frontend of the type":    "the body of a kick tells the reason",
	"frontend_flows/backend known but not listening":                    "PIT-500, as for a type that has no server: the backend is gone, and nobody made a mistake",
}

// wireLoosely says what of a vector varies, and is compared within limits or not at all, by file.
var wireLoosely = map[string]string{
	"rpc_request":    "request.id and req-start-time, as recorded ones are of their time",
	"rpc_response":   "texts of the libraries below, where the vector says that they are informative; code and metadata are compared",
	"backend_flows":  "reqTimeout: a call made for another tells how much of that one's time is left, not the whole again",
	"frontend_flows": "request.id and req-start-time; the metadata of a timeout, which is that of the setting",
}

// testVectors runs check on each vector of a file of testdata/vectors. An error of check means that we do otherwise than
// recorded, which must be so exactly for the vectors that wireOtherwise names.
func testVectors[V any](t *testing.T, file string, check func(v V) error) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "vectors", file+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Vectors []json.RawMessage
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Vectors) == 0 {
		t.Fatal("no vectors")
	}
	seen := map[string]bool{}
	for _, raw := range f.Vectors {
		var id struct{ Name string }
		var v V
		if err := json.Unmarshal(raw, &id); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatalf("%s: %v", id.Name, err)
		}
		key := file + "/" + id.Name
		seen[key] = true
		t.Run(id.Name, func(t *testing.T) {
			err := check(v)
			reason, otherwise := wireOtherwise[key]
			switch {
			case otherwise && err == nil:
				t.Errorf("matches, but is listed as answered otherwise (%s)", reason)
			case !otherwise && err != nil:
				t.Error(err)
			}
		})
	}
	for key := range wireOtherwise {
		if strings.HasPrefix(key, file+"/") && !seen[key] {
			t.Errorf("%q is listed as answered otherwise, but there is no such vector", key)
		}
	}
}

// TestWireOtherwise finds entries for files that no test reads.
func TestWireOtherwise(t *testing.T) {
	for _, key := range slices.Concat(slices.Collect(maps.Keys(wireOtherwise)), slices.Collect(maps.Keys(wireLoosely))) {
		file, _, _ := strings.Cut(key, "/")
		if _, err := os.Stat(filepath.Join("testdata", "vectors", file+".json")); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
}

// hexBytes is a key of a vector that ends in "hex".
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

// symbols are the words of the vectors for our errors.
var symbols = map[string]error{
	"wrong_packet_type":             pitaya.ErrPacketType,
	"packet_too_large":              pitaya.ErrPacketTooLarge,
	"closed":                        io.EOF,
	"invalid_header":                pitaya.ErrShortHeader,
	"body_shorter_than_header_says": pitaya.ErrShortBody,
	"wrong_message_type":            pitaya.ErrMessageType,
	"invalid_message":               pitaya.ErrInvalidMessage,
	"unknown_route_code":            pitaya.ErrRouteCode,
	"bad_compressed_data":           pitaya.ErrCompressed,
}

// wantError compares an error with the word of a vector; the empty word means none.
func wantError(err error, word string) error {
	want, ok := symbols[word]
	if word != "" && !ok {
		return fmt.Errorf("unknown word %q", word)
	}
	if !errors.Is(err, want) {
		return fmt.Errorf("got error %v, want %s (%v)", err, word, want)
	}
	return nil
}

func wantBytes(what string, got, want []byte) error {
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s:\ngot  %x\nwant %x", what, got, want)
	}
	return nil
}

func TestPacketEncodeVectors(t *testing.T) {
	testVectors(t, "packet_encode", func(v struct {
		Type        byte
		Payload     hexBytes `json:"payload_hex"`
		Zeros       int      `json:"payload_zero_bytes"`
		Expect      hexBytes `json:"expect_hex"`
		Header      hexBytes `json:"expect_header_hex"`
		TotalLength int      `json:"expect_total_length"`
		Error       string
	}) error {
		body := []byte(v.Payload)
		if v.Zeros > 0 {
			body = make([]byte, v.Zeros)
		}
		got, err := pitaya.AppendPacket(nil, pitaya.PacketType(v.Type), body)
		if err != nil || v.Error != "" {
			return wantError(err, v.Error)
		}
		if v.Header == nil {
			return wantBytes("packet", got, v.Expect)
		}
		if len(got) != v.TotalLength {
			return fmt.Errorf("got %d bytes, want %d", len(got), v.TotalLength)
		}
		return wantBytes("header", got[:4], v.Header)
	})
}

func TestPacketDecodeVectors(t *testing.T) {
	testVectors(t, "packet_decode", func(v struct {
		Input   hexBytes `json:"input_hex"`
		Packets []struct {
			Type    byte
			Payload hexBytes `json:"payload_hex"`
		}
		Error string
	}) error {
		rest := []byte(v.Input)
		var got []pitaya.Packet
		for {
			p, r, err := pitaya.DecodePacket(rest, 0)
			if err == io.ErrUnexpectedEOF {
				break // the tail waits for more
			}
			if err != nil {
				return wantError(err, v.Error) // the packets before it count for nothing: the connection ends
			}
			got, rest = append(got, p), r
		}
		if len(got) != len(v.Packets) || v.Error != "" {
			return fmt.Errorf("got %d packets, want %d and error %q", len(got), len(v.Packets), v.Error)
		}
		for i, want := range v.Packets {
			if got[i].Type != pitaya.PacketType(want.Type) || !bytes.Equal(got[i].Body, want.Payload) {
				return fmt.Errorf("packet %d: got %v %x, want %d %x", i, got[i].Type, got[i].Body, want.Type, want.Payload)
			}
		}
		return nil
	})
}

func TestTCPReadVectors(t *testing.T) {
	testVectors(t, "tcp_read", func(v struct {
		Input    hexBytes   `json:"input_hex"`
		Messages []hexBytes `json:"messages_hex"`
		End      string
	}) error {
		r := bytes.NewReader(v.Input)
		for i := 0; ; i++ {
			p, err := pitaya.ReadPacket(r, 0)
			if err != nil {
				if i != len(v.Messages) {
					return fmt.Errorf("got %d packets, want %d", i, len(v.Messages))
				}
				return wantError(err, v.End)
			}
			got, err := pitaya.AppendPacket(nil, p.Type, p.Body)
			if err != nil {
				return err
			}
			if i >= len(v.Messages) || !bytes.Equal(got, v.Messages[i]) {
				return fmt.Errorf("packet %d: got %x, want one of %x", i, got, v.Messages)
			}
		}
	})
}

func messageDictionary(t *testing.T) *pitaya.Dictionary {
	return newDictionary(t, map[string]uint16{
		"conn.room.echo": 1, "onPush": 2, "mid.code.route": 258, "big.code.route": 65535, "zero.code.route": 0,
	})
}

func newDictionary(t testing.TB, routes map[string]uint16) *pitaya.Dictionary {
	t.Helper()
	d, err := pitaya.NewDictionary(routes)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var messageTypes = map[string]pitaya.MessageType{"request": 0, "notify": 1, "response": 2, "push": 3, "number 4": 4}

func TestMessageEncodeVectors(t *testing.T) {
	d := messageDictionary(t)
	testVectors(t, "message_encode", func(v struct {
		Compression bool `json:"compression_enabled"`
		Type        string
		ID          uint64 `json:",string"`
		Route       string
		Repeat      struct {
			Char  string
			Count int
		} `json:"route_repeat"`
		ErrorFlag  bool     `json:"error_flag"`
		Payload    hexBytes `json:"payload_hex"`
		Expect     hexBytes `json:"expect_hex"`
		DecodeOnly bool     `json:"decode_only"`
		ExpectFlag hexBytes `json:"expect_flag"`
		Error      string
	}) error {
		m := pitaya.Message{Type: messageTypes[v.Type], ID: v.ID, Route: v.Route, Payload: v.Payload, Err: v.ErrorFlag}
		if v.Repeat.Count > 0 {
			m.Route = strings.Repeat(v.Repeat.Char, v.Repeat.Count)
		}
		if v.Compression {
			if b, ok := pitaya.Deflate(nil, m.Payload); ok {
				m.Payload, m.Compressed = b, true
			}
		}
		got, err := pitaya.AppendMessage(nil, m, d)
		if err != nil || v.Error != "" {
			return wantError(err, v.Error)
		}
		if !v.DecodeOnly {
			return wantBytes("message", got, v.Expect)
		}
		if got[0] != v.ExpectFlag[0] {
			return fmt.Errorf("got flag %02x, want %x", got[0], v.ExpectFlag)
		}
		for _, b := range [][]byte{got, v.Expect} {
			m, err := pitaya.DecodeMessage(b, d)
			if err == nil {
				err = m.Inflate(0)
			}
			if err != nil {
				return err
			}
			if m.Type != messageTypes[v.Type] || m.ID != v.ID || m.Route != v.Route || m.Err != v.ErrorFlag {
				return fmt.Errorf("decoded again: got %+v", m)
			}
			if err := wantBytes("payload", m.Payload, v.Payload); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestMessageDecodeVectors(t *testing.T) {
	d := messageDictionary(t)
	testVectors(t, "message_decode", func(v struct {
		Input     hexBytes `json:"input_hex"`
		Type      string
		ID        json.RawMessage
		Route     string
		ErrorFlag bool     `json:"error_flag"`
		Payload   hexBytes `json:"payload_hex"`
		Error     string
	}) error {
		m, err := pitaya.DecodeMessage(v.Input, d)
		if err == nil {
			err = m.Inflate(0)
		}
		if err != nil || v.Error != "" {
			return wantError(err, v.Error)
		}
		id, err := strconv.ParseUint(strings.Trim(string(v.ID), `"`), 10, 64)
		if err != nil {
			return err
		}
		if m.Type != messageTypes[v.Type] || m.ID != id || m.Route != v.Route || m.Err != v.ErrorFlag {
			return fmt.Errorf("got %+v", m)
		}
		return wantBytes("payload", m.Payload, v.Payload)
	})
}

func TestRouteVectors(t *testing.T) {
	testVectors(t, "route", func(v struct {
		Route, Service, Method, Full, Short, Error string

		ServerType string `json:"server_type"`
	}) error {
		r, err := pitaya.ParseRoute(v.Route)
		if v.Error != "" {
			want := map[string]string{"empty_part": "route field can not be empty", "wrong_number_of_parts": "invalid route"}[v.Error]
			if err == nil || err.Error() != want || pitaya.ErrorCode(err) != pitaya.CodeBadRequest || !errors.Is(err, pitaya.ErrRoute) {
				return fmt.Errorf("got %#v, want %q", err, want)
			}
			return nil
		}
		if err != nil {
			return err
		}
		if want := (pitaya.Route{ServerType: v.ServerType, Service: v.Service, Method: v.Method}); r != want {
			return fmt.Errorf("got %#v, want %#v", r, want)
		}
		if r.String() != v.Full || r.Short() != v.Short {
			return fmt.Errorf("got %q and %q, want %q and %q", r.String(), r.Short(), v.Full, v.Short)
		}
		return nil
	})
}

// oneWholePacket decodes a packet that must be all of b.
func oneWholePacket(b []byte) (pitaya.Packet, error) {
	p, rest, err := pitaya.DecodePacket(b, 0)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes behind the packet", len(rest))
	}
	return p, err
}

func TestHandshakeRequestVectors(t *testing.T) {
	testVectors(t, "handshake_request", func(v struct {
		Packet hexBytes `json:"packet_hex"`
		Code   int
		Stored any
	}) error {
		p, err := oneWholePacket(v.Packet)
		if err != nil {
			return err
		}
		code := 200
		h, err := pitaya.DecodeHandshake(p.Body)
		switch {
		case errors.Is(err, pitaya.ErrProtocol):
			code = 400
		case err != nil:
			return err
		case h.Sys.Platform == "forbidden": // the validator of these vectors
			code = 400
		}
		if code != v.Code {
			return fmt.Errorf("got %d (%v), want %d", code, err, v.Code)
		}
		if v.Stored == nil {
			return nil
		}
		b, err := json.Marshal(h)
		if err != nil {
			return err
		}
		var got any
		if err := json.Unmarshal(b, &got); err != nil {
			return err
		}
		if !reflect.DeepEqual(got, v.Stored) {
			return fmt.Errorf("got %v, want %v", got, v.Stored)
		}
		return nil
	})
}

func TestHandshakeResponseVectors(t *testing.T) {
	testVectors(t, "handshake_response", func(v struct {
		Name   string
		Config struct {
			Heartbeat   float64 `json:"heartbeat_ms"`
			Serializer  string
			Compression bool `json:"compression_enabled"`
			Dictionary  map[string]uint16
		}
		Packet     hexBytes `json:"packet_hex"`
		Plain      string   `json:"plain_json"`
		Compressed bool
		DecodeOnly bool `json:"decode_only"`
	}) error {
		r := &pitaya.HandshakeResponse{Code: 200}
		if strings.HasSuffix(v.Name, "reject") {
			r.Code = 400
		}
		r.Sys.Dict = v.Config.Dictionary
		r.Sys.Heartbeat = v.Config.Heartbeat / 1000
		r.Sys.Serializer = v.Config.Serializer
		body, err := pitaya.AppendHandshakeResponse(nil, r)
		if err != nil {
			return err
		}
		if err := wantBytes("plain", body, []byte(v.Plain)); err != nil {
			return err
		}
		if v.Config.Compression {
			shorter, ok := pitaya.Deflate(nil, body)
			if ok != v.Compressed {
				return fmt.Errorf("got compressed %v, want %v", ok, v.Compressed)
			}
			if ok {
				body = shorter
			}
		}
		packet, err := pitaya.AppendPacket(nil, pitaya.PacketHandshake, body)
		if err != nil {
			return err
		}
		if !v.DecodeOnly {
			if err := wantBytes("packet", packet, v.Packet); err != nil {
				return err
			}
		}
		if r.Sys.Dict == nil {
			r.Sys.Dict = map[string]uint16{}
		}
		for _, b := range [][]byte{packet, v.Packet} {
			p, err := oneWholePacket(b)
			if err != nil {
				return err
			}
			got, err := pitaya.DecodeHandshakeResponse(p.Body)
			if err != nil {
				return err
			}
			if !reflect.DeepEqual(got, r) {
				return fmt.Errorf("decoded again: got %+v, want %+v", got, r)
			}
		}
		return nil
	})
}

func TestErrorPayloadVectors(t *testing.T) {
	testVectors(t, "error_payload", func(v struct {
		Serializer    string
		PlainError    string   `json:"plain_error"`
		PlainErrorHex hexBytes `json:"plain_error_hex"`
		CodedError    *struct {
			Code, Message string
			Metadata      map[string]string
		} `json:"coded_error"`
		Expect hexBytes `json:"expect_hex"`
		Packet hexBytes `json:"as_data_packet_id_7"`
		Error  bool
	}) error {
		var s pitaya.Serializer = pitaya.JSON{}
		if v.Serializer == "protobuf" {
			s = pitaya.Protobuf{}
		}
		err := errors.New(v.PlainError + string(v.PlainErrorHex))
		if c := v.CodedError; c != nil {
			err = &pitaya.Error{Code: c.Code, Message: c.Message, Metadata: c.Metadata}
		}
		payload, err := pitaya.MarshalErrorPayload(s, pitaya.WireError(err))
		if (err != nil) != v.Error {
			return fmt.Errorf("got error %v, want %v", err, v.Error)
		}
		if err := wantBytes("payload", payload, v.Expect); err != nil {
			return err
		}
		m := pitaya.Message{Type: pitaya.MessageResponse, ID: 7, Err: true, Payload: payload}
		body, err := pitaya.AppendMessage(nil, m, nil)
		if err != nil {
			return err
		}
		packet, err := pitaya.AppendPacket(nil, pitaya.PacketData, body)
		if err != nil {
			return err
		}
		return wantBytes("packet", packet, v.Packet)
	})
}

// clientPacket decodes a packet from a client. For data it returns the message, inflated, after it has checked that we
// would encode what was not compressed the same way.
func clientPacket(b []byte, d *pitaya.Dictionary) (pitaya.Packet, pitaya.Message, error) {
	p, err := oneWholePacket(b)
	if err != nil || p.Type != pitaya.PacketData {
		return p, pitaya.Message{}, err
	}
	m, err := pitaya.DecodeMessage(p.Body, d)
	if err != nil {
		return p, m, err
	}
	again, err := pitaya.AppendMessage(nil, m, d)
	if err != nil {
		return p, m, err
	}
	if err := wantBytes("encoded again", again, p.Body); err != nil {
		return p, m, err
	}
	return p, m, m.Inflate(0)
}

func TestClientLibpitayaVectors(t *testing.T) {
	testVectors(t, "client_libpitaya", func(v struct {
		Name  string
		Hex   hexBytes
		Plain hexBytes `json:"plain_payload_hex"`
	}) error {
		p, m, err := clientPacket(v.Hex, nil)
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(v.Name, " ")
		switch {
		case name == "handshake":
			h, err := pitaya.DecodeHandshake(p.Body)
			if err != nil {
				return err
			}
			if !h.Inflates() || h.KnowsPushCodes() || h.Sys.Platform != "linux" || h.Sys.LibVersion != "4.6.2-" {
				return fmt.Errorf("got %+v, inflates %v, push codes %v", h, h.Inflates(), h.KnowsPushCodes())
			}
		case name == "request" || name == "notify":
			if m.Type.String() != name || !strings.HasPrefix(m.Route, "conn.room.") {
				return fmt.Errorf("got %+v", m)
			}
			if v.Plain != nil {
				return wantBytes("payload", m.Payload, v.Plain)
			}
		case p.Type.String() != name || len(p.Body) > 0:
			return fmt.Errorf("got %v %x", p.Type, p.Body)
		}
		return nil
	})
}

func TestClientGoVectors(t *testing.T) {
	// The recording server's dictionary had a second route, which its description leaves out.
	d := newDictionary(t, map[string]uint16{"cli.dict.route": 9, "conn.room.echo": 1})
	testVectors(t, "client_go", func(v struct {
		Name string
		Hex  hexBytes
	}) error {
		p, m, err := clientPacket(v.Hex, d)
		if err != nil {
			return err
		}
		switch v.Name {
		case "handshake":
			h, err := pitaya.DecodeHandshake(p.Body)
			if err != nil {
				return err
			}
			if !h.Inflates() || !h.KnowsPushCodes() {
				return fmt.Errorf("inflates %v, push codes %v", h.Inflates(), h.KnowsPushCodes())
			}
		case "request", "notify":
			if m.Type.String() != v.Name || string(m.Payload) != "hi" {
				return fmt.Errorf("got %+v", m)
			}
		case "request on a dictionary route":
			if m.Route != "cli.dict.route" || m.ID != 3 {
				return fmt.Errorf("got %+v", m)
			}
		default:
			if p.Type.String() != v.Name {
				return fmt.Errorf("got %v", p.Type)
			}
		}
		return nil
	})
}

func TestClientJSVectors(t *testing.T) {
	d := newDictionary(t, map[string]uint16{"one": 1, "two": 2, "many": 258})
	encoded := []string{"handshake", "ack", "heartbeat"}
	testVectors(t, "client_js", func(v struct {
		Name, Direction string
		Hex             hexBytes
		Sees            struct {
			ID         uint64
			Type       pitaya.MessageType
			Code       int `json:"compressRoute"`
			Route      any
			Compressed int `json:"compressGzip"`
			Body       hexBytes
		} `json:"js_sees"`
	}) error {
		if v.Direction == "encode" {
			p, m, err := clientPacket(v.Hex, d)
			if err != nil {
				return err
			}
			if p.Type == pitaya.PacketHandshake {
				h, err := pitaya.DecodeHandshake(p.Body)
				if err != nil {
					return err
				}
				if h.Inflates() || !h.KnowsPushCodes() || h.Sys.Type != "js-websocket" {
					return fmt.Errorf("got %+v, inflates %v, push codes %v", h, h.Inflates(), h.KnowsPushCodes())
				}
			}
			if slices.Contains(encoded, v.Name) {
				if p.Type.String() != v.Name {
					return fmt.Errorf("got %v", p.Type)
				}
				return nil
			}
			if !strings.HasPrefix(v.Name, m.Type.String()) || string(m.Payload) != `{"msg":"hi"}` {
				return fmt.Errorf("got %+v", m)
			}
			if id, ok := strings.CutPrefix(v.Name, "request id "); ok && id != strconv.FormatUint(m.ID, 10) {
				return fmt.Errorf("got id %d", m.ID)
			}
			return nil
		}
		// The library does not inflate, so what it sees compares with the message before that.
		m, err := pitaya.DecodeMessage(v.Hex, d)
		if err != nil {
			return err
		}
		var route any
		if m.Route != "" {
			route = m.Route
		}
		if v.Sees.Code == 1 {
			code, _ := d.Code(m.Route)
			route = float64(code)
		}
		if m.ID != v.Sees.ID || m.Type != v.Sees.Type || m.Compressed != (v.Sees.Compressed == 1) || route != v.Sees.Route {
			return fmt.Errorf("got %+v", m)
		}
		return wantBytes("payload", m.Payload, v.Sees.Body)
	})
}
