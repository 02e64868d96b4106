package pitaya_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pitaya-go/pitaya"
)

// The benchmarks of a cluster: a client's request that a frontend forwards to a
// backend, over each transport, with as many under way at once as the name
// says. The yardsticks beside them carry as many bytes in the way that a
// program without a framework would: request and reply of plain nats.go, and a
// plain HTTP/2 call. The request without a cluster tells what the client's side
// of it costs.

const (
	slowBackendTime = 2 * time.Second

	forwardedBytes = 260 // a protos.Request with a payload of 64 bytes and what goes with it
	payloadBytes   = 64
)

// benchCluster starts a frontend and a backend, and clients of the frontend.
func benchCluster(b *testing.B, over string, clients int) []*pitaya.Client {
	b.Helper()
	c := pitaya.NewMemCluster()
	var url string
	if over == "nats" {
		url = startNATS(b).URL()
	}
	start := func(cfg pitaya.Config) *testServer {
		cfg.Logger = slog.New(slog.DiscardHandler)
		cfg.Cluster = over != "none"
		var err error
		if cfg.Cluster {
			cfg.Discovery, cfg.Transport = c.Node()
		}
		switch over {
		case "nats":
			n := natsAt(pitaya.NATSConfig{}, url)
			cfg.Transport, err = pitaya.NewNATSTransport(n, n, cfg.Logger)
		case "grpc":
			cfg.Metadata = pitaya.GRPCMetadata(nil, "", "127.0.0.1", "", "", "")
			cfg.Transport, err = pitaya.NewGRPCTransport(pitaya.GRPCConfig{Port: -1}, "", cfg.Logger)
		}
		if err != nil {
			b.Fatal(err)
		}
		s := startServer(b, cfg, func(s *pitaya.Server) {
			err := errors.Join(
				pitaya.HandleRaw(s, "bench.echo", func(ctx context.Context, in []byte) ([]byte, error) { return in, nil }),
				pitaya.HandleRaw(s, "bench.slow", func(ctx context.Context, in []byte) ([]byte, error) {
					select {
					case <-time.After(slowBackendTime):
					case <-ctx.Done(): // the client has left
					}
					return in, nil
				}))
			if err != nil {
				b.Fatal(err)
			}
		})
		b.Cleanup(func() { s.stop(b) })
		return s
	}
	if over != "none" {
		start(pitaya.Config{Type: "room", ID: "room-" + rand.Text()})
	}
	l := pitaya.ListenMem()
	start(pitaya.Config{Type: "gate", ID: "gate-" + rand.Text(), Frontend: true, Listeners: []net.Listener{l}})
	var list []*pitaya.Client
	for range clients {
		nc, err := l.DialContext(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		cl, err := pitaya.NewClient(b.Context(), nc, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { cl.Close() })
		list = append(list, cl)
	}
	return list
}

func BenchmarkForward(b *testing.B) {
	for _, inflight := range []int{1, 64} {
		suffix := "/inflight=1"
		if inflight > 1 {
			suffix = "/inflight=64"
		}
		for _, over := range []string{"none", "memory", "nats", "grpc"} {
			b.Run("over="+over+suffix, func(b *testing.B) {
				clients := benchCluster(b, over, min(inflight, 8))
				route := "room.bench.echo"
				if over == "none" {
					route = "bench.echo"
				}
				payload := []byte(strings.Repeat("x", payloadBytes))
				benchInFlight(b, inflight, func(i int) error {
					_, err := clients[i%len(clients)].RequestRaw(b.Context(), route, payload)
					return err
				})
			})
		}
		body := bytes.Repeat([]byte("x"), forwardedBytes)
		b.Run("over=yardstick-nats.go"+suffix, func(b *testing.B) {
			url := startNATS(b).URL()
			there, here := natsClient(b, url), natsClient(b, url)
			if _, err := there.Subscribe("bench", func(m *nats.Msg) { m.Respond(m.Data[:payloadBytes]) }); err != nil {
				b.Fatal(err)
			}
			if err := there.Flush(); err != nil {
				b.Fatal(err)
			}
			benchInFlight(b, inflight, func(int) error {
				_, err := here.RequestWithContext(b.Context(), "bench", body)
				return err
			})
		})
		b.Run("over=yardstick-http2"+suffix, func(b *testing.B) {
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				in, _ := io.ReadAll(r.Body)
				w.Write(in[:payloadBytes])
			}))
			srv.Config.Protocols = new(http.Protocols)
			srv.Config.Protocols.SetUnencryptedHTTP2(true)
			srv.Start()
			b.Cleanup(srv.Close)
			transport := &http.Transport{Protocols: srv.Config.Protocols}
			b.Cleanup(transport.CloseIdleConnections)
			benchInFlight(b, inflight, func(int) error {
				req, err := http.NewRequestWithContext(b.Context(), "POST", srv.URL, bytes.NewReader(body))
				if err != nil {
					return err
				}
				res, err := transport.RoundTrip(req)
				if err != nil {
					return err
				}
				defer res.Body.Close()
				_, err = io.Copy(io.Discard, res.Body)
				return err
			})
		})
	}
}

// BenchmarkBesideSlowBackend makes requests one after the other, while a request of the first client is held by a backend
// for 2 s, and then the next one: requests of the same client to the frontend itself, and requests of another client to the
// same backend. It reports how long they took; the yardstick is the same without anything slow.
func BenchmarkBesideSlowBackend(b *testing.B) {
	for _, over := range []string{"memory", "nats", "grpc"} {
		for _, slow := range []bool{false, true} {
			name := "over=" + over + "/slow=none"
			if slow {
				name = "over=" + over + "/slow=2s"
			}
			b.Run(name, func(b *testing.B) {
				clients := benchCluster(b, over, 2)
				var held sync.WaitGroup
				ctx, cancel := context.WithCancel(b.Context())
				defer held.Wait()
				defer cancel()
				if slow {
					held.Go(func() {
						for ctx.Err() == nil {
							if _, err := clients[0].RequestRaw(ctx, "room.bench.slow", nil); err != nil && ctx.Err() == nil {
								b.Error(err)
								return
							}
						}
					})
				}
				payload := []byte(strings.Repeat("x", payloadBytes))
				var local, forwarded []time.Duration
				ask := func(c *pitaya.Client, route string, took *[]time.Duration) {
					start := time.Now()
					if _, err := c.RequestRaw(ctx, route, payload); err != nil {
						b.Fatal(err)
					}
					*took = append(*took, time.Since(start))
				}
				for b.Loop() {
					ask(clients[0], "gate.bench.echo", &local)
					ask(clients[1], "room.bench.echo", &forwarded)
				}
				for name, took := range map[string][]time.Duration{"local": local, "forwarded": forwarded} {
					slices.Sort(took)
					ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
					b.ReportMetric(ms(took[len(took)*99/100]), name+"-p99-ms")
					b.ReportMetric(ms(took[len(took)-1]), name+"-max-ms")
				}
			})
		}
	}
}

// benchInFlight measures f, called by so many goroutines at once.
func benchInFlight(b *testing.B, inflight int, f func(i int) error) {
	b.Helper()
	b.ReportAllocs()
	if inflight == 1 {
		for b.Loop() {
			if err := f(0); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
	b.SetParallelism(inflight / 2)
	var next atomic.Int64
	b.RunParallel(func(p *testing.PB) {
		i := int(next.Add(1))
		for p.Next() {
			if err := f(i); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
