package pitaya_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// TestTranscripts replays what real clients say, whole conversations in the bytes of the client, and compares all that the
// server answers with testdata/transcripts, byte for byte; "go test -run TestTranscripts -update ." writes that. The bytes of
// the clients are those of testdata/vectors, which were taken from the programs themselves. A handshake begins a connection.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	for _, client := range []string{"client_libpitaya", "client_js", "client_go"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(filepath.Join("testdata", "vectors", client+".json"))
			must(t, err)
			var f struct {
				Vectors []struct {
					Name, Direction string
					Hex             hexBytes
				}
			}
			must(t, json.Unmarshal(b, &f))
			var list []saidPacket
			for _, v := range f.Vectors {
				if v.Direction != "decode" {
					list = append(list, saidPacket{v.Name, v.Hex})
				}
			}
			file := filepath.Join("testdata", "transcripts", client+".txt")
			got := replay(t, list, 0)
			if *update {
				must(t, os.WriteFile(file, []byte(got), 0o644))
			}
			want, err := os.ReadFile(file)
			must(t, err)
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			// It does not matter how the network cuts what the client sends.
			for _, size := range []int{1, 3, 7} {
				if got := replay(t, list, size); got != string(want) {
					t.Errorf("in pieces of %d bytes: got\n%s\nwant\n%s", size, got, want)
				}
			}
		})
	}
}

// A saidPacket is a packet of a client.
type saidPacket struct {
	name string
	data []byte
}

// replay has a server of the vectors' conversations answer a client that sends these packets, each when the one before has
// been dealt with. size is how many bytes are written at once; 0: all of a packet.
func replay(t *testing.T, list []saidPacket, size int) (text string) {
	synctest.Test(t, func(t *testing.T) {
		s := flowsServer(t, "json")
		var out strings.Builder
		var c *rawClient
		var reading sync.WaitGroup
		var mu sync.Mutex
		var got bytes.Buffer
		answers := func() {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if got.Len() > 0 {
				fmt.Fprintf(&out, "S %x\n", got.Bytes())
			}
			got.Reset()
		}
		over := func() {
			if c != nil {
				c.Close()
				reading.Wait()
				got.Reset()
			}
		}
		for _, p := range list {
			if strings.HasPrefix(p.name, "handshake") {
				over()
				c = s.dial(t)
				reading.Go(func() {
					b := make([]byte, 4<<10)
					for {
						n, err := c.Read(b)
						mu.Lock()
						got.Write(b[:n])
						if err == io.EOF {
							got.WriteString("<end>")
						}
						mu.Unlock()
						if err != nil {
							return
						}
					}
				})
			}
			fmt.Fprintf(&out, "# %s\nC %x\n", p.name, p.data)
			step := size
			if step == 0 {
				step = len(p.data)
			}
			for b := p.data; len(b) > 0; b = b[min(step, len(b)):] {
				if _, err := c.Write(b[:min(step, len(b))]); err != nil {
					break // the server has ended the connection
				}
				synctest.Wait()
			}
			answers()
		}
		over()
		text = out.String()
	})
	return text
}
