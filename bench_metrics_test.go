package pitaya_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// What metrics cost: the processor time of a server for a request, with reporters and without, both measured in one run
// and in turns. The servers are processes of their own, so the clients are not in the figures.

var benchChild = flag.String("bench.child", "", "be the server of BenchmarkMetricsCost, with metrics on or off")

// runBenchChild is that server: it says where it listens, and ends with its standard input.
func runBenchChild(mode string) error {
	l, err := pitaya.ListenTCP("127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	cfg := pitaya.Config{Type: "conn", Frontend: true, Listeners: []net.Listener{l}, Logger: slog.New(slog.DiscardHandler)}
	if mode == "on" {
		m, err := pitaya.NewMetrics(cfg.Type, pitaya.MetricsConfig{})
		if err != nil {
			return err
		}
		cfg.Reporters = []pitaya.Reporter{m}
	}
	s, err := pitaya.NewServer(cfg)
	if err != nil {
		return err
	}
	err = pitaya.Handle(s, "echo.json", func(ctx context.Context, in *benchMessage) (*benchMessage, error) { return in, nil })
	if err == nil {
		err = pitaya.HandleRaw(s, "cpu.used", func(context.Context, []byte) ([]byte, error) {
			return strconv.AppendInt(nil, int64(processorTime()), 10), nil
		})
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println(l.Addr())
	return s.Run(ctx)
}

// A benchPeer is such a server, and clients of it.
type benchPeer struct {
	b     *testing.B
	conns []net.Conn
	used  *rawClient
	calls uint64
}

func newBenchPeer(b *testing.B, mode string, clients int) *benchPeer {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-bench.child="+mode)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1") // idle processors that look for work are not what is measured
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	p := &benchPeer{b: b}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Errorf("server with metrics %s: %v", mode, err)
		}
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	for range clients + 1 {
		nc, err := net.Dial("tcp", strings.TrimSpace(addr))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { nc.Close() })
		p.used = &rawClient{Conn: nc, t: b}
		p.used.handshake(`{"sys":{}}`)
		p.conns = append(p.conns, nc)
	}
	p.conns = p.conns[:clients]
	return p
}

// processor returns the processor time that the server has used, in nanoseconds.
func (p *benchPeer) processor() int64 {
	p.calls++
	p.used.request(p.calls, "cpu.used", "")
	n, err := strconv.ParseInt(string(p.used.message().Payload), 10, 64)
	if err != nil {
		p.b.Fatal(err)
	}
	return n
}

// round makes n requests on each connection, so many in flight, and returns the processor time that they took.
func (p *benchPeer) round(request []byte, n, inFlight int) int64 {
	batch := []byte(strings.Repeat(string(request), inFlight))
	before := p.processor()
	var wg sync.WaitGroup
	for _, c := range p.conns {
		wg.Go(func() {
			in := bufio.NewReaderSize(c, 16<<10)
			var head [4]byte
			for k := 0; k < n; k += inFlight {
				if _, err := c.Write(batch); err != nil {
					p.b.Error(err)
					return
				}
				for range inFlight {
					if _, err := io.ReadFull(in, head[:]); err != nil {
						p.b.Error(err)
						return
					}
					if _, err := in.Discard(int(binary.BigEndian.Uint32(head[:]) & 0xffffff)); err != nil {
						p.b.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return p.processor() - before
}

// BenchmarkMetricsCost reports the ratio of what a request costs with a registry of metrics to what it costs without:
// the median of many pairs of short rounds, since other work on the machine disturbs some of them. An operation is a
// pair, of which the server without metrics is first in every other one.
func BenchmarkMetricsCost(b *testing.B) {
	for _, load := range []struct {
		name     string
		inFlight int
	}{{"one in flight", 1}, {"16 in flight", 16}} {
		b.Run(load.name, func(b *testing.B) {
			const clients, requests = 8, 320
			off, on := newBenchPeer(b, "off", clients), newBenchPeer(b, "on", clients)
			request := benchRequest(b, "conn.echo.json", benchPayload(128))
			for range 5 {
				off.round(request, requests, load.inFlight)
				on.round(request, requests, load.inFlight)
			}
			var without, with, ratios []float64
			for i := range b.N {
				var x, y int64
				if i%2 == 0 {
					x = off.round(request, requests, load.inFlight)
					y = on.round(request, requests, load.inFlight)
				} else {
					y = on.round(request, requests, load.inFlight)
					x = off.round(request, requests, load.inFlight)
				}
				without, with = append(without, float64(x)), append(with, float64(y))
				ratios = append(ratios, float64(y)/float64(x))
			}
			median := func(list []float64) float64 {
				slices.Sort(list)
				return list[len(list)/2]
			}
			b.ReportMetric(median(without)/(clients*requests), "ns-off/request")
			b.ReportMetric(median(with)/(clients*requests), "ns-on/request")
			b.ReportMetric(median(ratios), "on/off")
			b.ReportMetric(0, "ns/op")
		})
	}
}
