package pitaya_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// idleClientsEnv tells a test binary to be the clients of BenchmarkIdleConns:
// transport, address and number.
const idleClientsEnv = "PITAYA_TEST_IDLE_CLIENTS"

// TestIdleClients is no test: it is the other process of BenchmarkIdleConns, so
// that the memory of the clients is not counted.
func TestIdleClients(t *testing.T) {
	order := strings.Fields(os.Getenv(idleClientsEnv))
	if len(order) != 3 {
		t.Skip("runs within BenchmarkIdleConns only")
	}
	n, err := strconv.Atoi(order[2])
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		benchDial(t, nil, map[string]string{order[0]: order[1]}, order[0])
	}
	fmt.Println("connected")
	bufio.NewReader(os.Stdin).ReadString('\n') // until the benchmark is done
}

// BenchmarkIdleConns reports what a connection costs while nothing happens on
// it: resident bytes of heap and stacks, and goroutines.
func BenchmarkIdleConns(b *testing.B) {
	const conns = 4000
	for _, transport := range []string{"tcp", "ws", "tls"} {
		b.Run(transport, func(b *testing.B) {
			s, addr := benchServer(b)
			before, goroutines := memoryInUse()
			cmd := exec.Command(os.Args[0], "-test.run=^TestIdleClients$", "-test.v")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", idleClientsEnv, transport, addr[transport], conns))
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
			defer func() {
				in.Close()
				cmd.Wait()
			}()
			lines := bufio.NewScanner(out)
			for lines.Scan() && lines.Text() != "connected" {
			}
			if n := s.SessionCount(); n != conns {
				b.Fatalf("%d sessions, want %d", n, conns)
			}
			after, more := memoryInUse()
			for b.Loop() {
			}
			b.ReportMetric(float64(after-before)/conns, "B/conn")
			b.ReportMetric(float64(more-goroutines)/conns, "goroutines/conn")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// memoryInUse returns the bytes of heap and stacks in use after garbage
// collection, and the number of goroutines.
func memoryInUse() (bytes int64, goroutines int) {
	// Twice: stacks shrink step by step, and pools empty in two rounds.
	for range 3 {
		runtime.GC()
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse), runtime.NumGoroutine()
}
