package pitaya_test

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/pitaya-go/pitaya"
)

// TestProtocolExamples decodes the examples of docs/protocol.md: blocks marked "hex", with bytes on the left, what they are
// on the right, and what the packets say behind "=". The second word names the file of vectors that has the bytes, or is
// "own" for what no other implementation has.
func TestProtocolExamples(t *testing.T) {
	t.Parallel()
	const doc = "docs/protocol.md"
	text, err := os.ReadFile(filepath.FromSlash(doc))
	if err != nil {
		t.Fatal(err)
	}
	dict, err := pitaya.NewDictionary(map[string]uint16{"conn.room.echo": 1, "onPush": 2})
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, b := range codeBlocks(string(text)) {
		if len(b.Words) == 0 || b.Words[0] != "hex" {
			continue
		}
		examples++
		where := fmt.Sprintf("%s:%d", doc, b.Line)
		if len(b.Words) != 2 {
			t.Errorf("%s: does not say where the bytes are from", where)
			continue
		}
		raw, want, err := readExample(b.Text)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		if source := b.Words[1]; source != "own" {
			vectors, err := os.ReadFile(filepath.Join("testdata", "vectors", source+".json"))
			if err != nil {
				t.Errorf("%s: %v", where, err)
			} else if !strings.Contains(string(vectors), `"`+hex.EncodeToString(raw)+`"`) {
				t.Errorf("%s: no vector of %s has these bytes", where, source)
			}
		}
		got, err := describePackets(raw, dict)
		if err != nil {
			t.Errorf("%s: %v", where, err)
		} else if !slices.Equal(got, want) {
			t.Errorf("%s: these bytes say\n%s", where, strings.Join(got, "\n"))
		}
	}
	if examples < 10 {
		t.Errorf("%s has %d examples", doc, examples)
	}
}

// readExample takes the bytes and the summary from an example. A line is bytes of two digits with single spaces between
// them, and behind two spaces or more what they are.
func readExample(text string) (b []byte, summary []string, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "= ") {
			summary = append(summary, line)
			continue
		}
		digits, _, _ := strings.Cut(line, "  ")
		for digit := range strings.SplitSeq(digits, " ") {
			one, err := hex.DecodeString(digit)
			if err != nil || len(one) != 1 {
				return nil, nil, fmt.Errorf("%q is no line of bytes", line)
			}
			b = append(b, one...)
		}
	}
	return b, summary, nil
}

// describePackets says in words what packets are.
func describePackets(b []byte, dict *pitaya.Dictionary) (lines []string, err error) {
	for len(b) > 0 {
		var p pitaya.Packet
		if p, b, err = pitaya.DecodePacket(b, 0); err != nil {
			return nil, err
		}
		line := ""
		switch p.Type {
		case pitaya.PacketHandshake:
			line, err = "handshake", nil
			if len(p.Body) > 0 && p.Body[0] == 0x78 {
				p.Body, err = unzip(p.Body)
			} else if bytes.Contains(p.Body, []byte(`"user"`)) {
				_, err = pitaya.DecodeHandshake(p.Body)
			}
		case pitaya.PacketHandshakeAck:
			line = "acknowledgement"
		case pitaya.PacketHeartbeat:
			line = "heartbeat"
		case pitaya.PacketKick:
			line = "kick"
		case pitaya.PacketData:
			if line, err = describeMessage(p.Body, dict); err == nil {
				lines = append(lines, "= "+line)
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		if len(p.Body) > 0 {
			line += " " + readable(p.Body)
		}
		lines = append(lines, "= "+line)
	}
	return lines, nil
}

func describeMessage(body []byte, dict *pitaya.Dictionary) (string, error) {
	m, err := pitaya.DecodeMessage(body, dict)
	if err != nil {
		return "", err
	}
	if err := m.Inflate(0); err != nil {
		return "", err
	}
	line := m.Type.String()
	if m.Err {
		line = "error " + line
	}
	if m.Type == pitaya.MessageRequest || m.Type == pitaya.MessageResponse {
		line += fmt.Sprintf(" %d", m.ID)
	}
	if m.Type != pitaya.MessageResponse {
		line += ", route " + m.Route
	}
	if len(m.Payload) > 0 {
		line += ", payload " + readable(m.Payload)
	}
	return line, nil
}

// readable returns text as it is, and all else in hexadecimal.
func readable(b []byte) string {
	if utf8.Valid(b) && bytes.IndexFunc(b, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return string(b)
	}
	return "0x" + hex.EncodeToString(b)
}

func unzip(b []byte) ([]byte, error) {
	r, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
