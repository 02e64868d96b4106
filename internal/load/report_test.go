package load

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya/internal/load/hist"
)

var update = flag.Bool("update", false, "write the files that tests compare with, instead of comparing")

// golden compares with a file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (go test ./internal/load -run Golden -update writes it); got\n%s", file, got)
	}
}

// sample is a report in which everything occurs.
func sample() *Report {
	rep := &Report{
		Format: Format, Target: "tcp://127.0.0.1:3250", Scenario: "mixed", Load: "open", Interrupted: true, Notes: []string{"a note"},
		Settings:    Settings{Connections: 50, InFlight: 4, Rate: 1500, Arrival: "poisson", Route: "a.b <&>", BodyBytes: 64, Warmup: 1, Duration: 6, Timeout: 10},
		Connections: Connections{Opened: 50, AtEnd: 49},
		Total:       Counts{Connections: 50, Requests: 9000, Notifies: 10, Answered: 8990, Failed: 10, Late: 1, Pushes: 12345678, Heartbeats: 3, BytesSent: 872300, BytesReceived: 12},
		Errors:      []ErrorCount{{"answer", "PIT-429", 10}, {"disconnect", "connection reset by peer", 1}}, ErrorSum: 11,
		Server: &ServerReport{PIDs: []int{1, 2}, Available: true, UserSeconds: 1.5, SystemSecs: 0.75, Cores: 0.375, CPUPerOp: new(12.345), AfterCollect: true,
			Before: Memory{RSS: 20e6, Anon: 10e6, PSS: 19e6}, AtEnd: Memory{RSS: 21e6, Anon: 11e6, PSS: 20e6}, RSSPerConn: 20000, PSSPerConn: 20000},
		Generator: GeneratorReport{Go: "go1.26", OS: "linux", CPUs: 1, CPUSecs: 0.5, Cores: 0.1, CPUPerOp: new(2.5)},
	}
	h := new(hist.Hist)
	for i := range 9000 {
		d := time.Duration(100+i%1000) * time.Microsecond
		if i%500 == 0 {
			d *= 40
		}
		h.Add(d)
	}
	rep.Measured = Measured{Seconds: 6, Count: 9000, Failed: 10, PerSecond: 1500, Latency: newLatency(h), Corrected: new(newLatency(h.Corrected(time.Millisecond)))}
	rep.Histogram = bars(h)
	rep.Steps = []StepReport{{Step: "request a.b", Count: 9000, Failed: 10, Latency: newLatency(h)}}
	for i := range 6 {
		p := Point{T: float64(i), Count: 1500, PerSecond: 1500, P50: 600 + 50*float64(i), P90: 1000, P99: 3000, Max: 30000 + 1000*float64(i), Open: 50}
		switch i {
		case 3:
			p = Point{T: 3, Failed: 10, Open: 50} // a stall
		case 4:
			p.Count, p.PerSecond, p.Max = 3000, 3000, 1.2e6
		}
		rep.Series = append(rep.Series, p)
	}
	return rep
}

func TestGoldenReports(t *testing.T) {
	t.Parallel()
	full, closed, cast, none := sample(), sample(), sample(), sample()
	closed.Scenario, closed.Load, closed.Interrupted, closed.Steps, closed.Notes = "echo", "closed", false, nil, nil
	closed.Settings.Rate, closed.Settings.Arrival = 0, ""
	closed.Server = &ServerReport{PIDs: []int{1}, Note: "figures of other processes are not available on this system"}
	cast.Scenario, cast.Load, cast.Steps, cast.Measured.Corrected = "broadcast", "closed", nil, nil
	cast.Broadcast = &BroadcastReport{Rounds: 90, AtOnce: 10, Wanted: 9000, Delivered: 8999, LeastPerClient: 179, MostPerClient: 180}
	*none = Report{Format: Format, Scenario: "idle", Load: "closed", Errors: []ErrorCount{}, Series: []Point{}, Histogram: []Bar{}, Notes: []string{},
		Server: &ServerReport{Available: true, AtEnd: Memory{RSS: 1 << 20}}}
	for name, rep := range map[string]*Report{"full": full, "closed": closed, "broadcast": cast, "nothing": none} {
		for ext, write := range map[string]func(io.Writer) error{"txt": rep.WriteText, "json": rep.WriteJSON, "svg": rep.WriteSVG} {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			golden(t, name+"."+ext, b.Bytes())
			switch ext {
			case "json":
				if !json.Valid(b.Bytes()) {
					t.Errorf("%s.json is not JSON", name)
				}
			case "svg":
				wellFormed(t, name, b.Bytes())
			}
			if err := write(failing{}); !errors.Is(err, io.ErrShortWrite) {
				t.Errorf("%s.%s: writing to what fails: %v", name, ext, err)
			}
		}
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// wellFormed reads a plot as XML, and sees that it is self-contained and that all of it is inside.
func wellFormed(t *testing.T, name string, b []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%s.svg: %v", name, err)
		}
		if el, ok := tok.(xml.StartElement); ok {
			for _, a := range el.Attr {
				if a.Name.Local == "href" || a.Name.Local == "src" {
					t.Errorf("%s.svg refers to %s", name, a.Value)
				}
			}
		}
	}
	if s := string(b); strings.Contains(s, "NaN") || strings.Contains(s, "Inf") || strings.Contains(s, `"-`) {
		t.Errorf("%s.svg has coordinates outside of it", name)
	}
}

func TestBars(t *testing.T) {
	t.Parallel()
	h := new(hist.Hist)
	h.Add(0)
	h.AddN(90*time.Microsecond, 5)
	h.AddN(math.MaxInt64, 2)
	list := bars(h)
	var sum int64
	for i, b := range list {
		if i > 0 && b.From != list[i-1].To || b.To <= b.From {
			t.Errorf("bar %d is from %v to %v", i, b.From, b.To)
		}
		sum += b.Count
	}
	if sum != 8 || list[0].Count != 1 || list[len(list)-1].Count != 2 || len(list) > 60 {
		t.Errorf("%d in %d bars: %v", sum, len(list), list)
	}
	if got := bars(new(hist.Hist)); len(got) != 0 {
		t.Errorf("bars of nothing: %v", got)
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for _, tt := range [][2]string{
		{micro(0.26), "0.26 µs"}, {micro(0), "0 µs"}, {micro(12.345), "12.3 µs"}, {micro(999), "999 µs"}, {micro(1500), "1.50 ms"}, {micro(2.5e6), "2.50 s"}, {micro(9.999e9), "9999 s"},
		{size(0), "0 B"}, {size(999), "999 B"}, {size(4600), "4.60 kB"}, {size(-2e6), "-2.00 MB"}, {size(3e9), "3.00 GB"},
		{integer(0), "0"}, {integer(999), "999"}, {integer(1000), "1,000"}, {integer(-1234567), "-1,234,567"}, {integer(-123), "-123"},
		{number(12.34), "12.3"}, {number(1234.5), "1,235"},
	} {
		if tt[0] != tt[1] {
			t.Errorf("got %q, want %q", tt[0], tt[1])
		}
	}
}
