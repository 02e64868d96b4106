package pitaya_test

import (
	"log/slog"
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pitaya-go/pitaya"
)

// FuzzStatsd reports under any names, with any labels, and reads what is sent as strictly as the format allows: a line for
// each report, with every text in the place where it belongs.
func FuzzStatsd(f *testing.F) {
	f.Add(false, "", "connector", "env", "prod", "requests", "route", "connector.h.echo", 2.0)
	f.Add(false, "my.game.", "ro|om", "serverType", "x", "a:b|c@d#e\nf", "a:b,c", "c:d|e,f#g\nh\x00\xff\x7f\r", -0.25)
	f.Add(true, ":|@#\n", "", "c", "", "channel_capacity", "", "", -5.0)
	f.Add(false, "\x00", "日本", "ü", "\u2028", "handler_delay_ns", strings.Repeat("é", 101), strings.Repeat("x", 198)+"\xe6\x97\xa5", 1e-320)
	f.Add(false, "", "t", "c", "v", "", "x", "y", 1.0)
	f.Add(false, "p", "t", "c", "v", "", "\xff", strings.Repeat("\xff", 300), 9.3e18)
	f.Fuzz(func(t *testing.T, plain bool, prefix, serverType, constName, constValue, name, labelName, labelValue string, x float64) {
		prefix = prefix[:min(len(prefix), 200)] // so that it is known where the name begins
		var d datagrams
		cfg := pitaya.MetricsConfig{ConstLabels: map[string]string{constName: constValue},
			Statsd: pitaya.StatsdConfig{Plain: plain, Prefix: prefix, NoPrefix: prefix == ""}}
		s, err := pitaya.NewStatsdOver(serverType, cfg, slog.New(slog.DiscardHandler), d.dial)
		if err != nil {
			return // a setting that is refused
		}
		label := pitaya.Label{Name: labelName, Value: labelValue}
		var want []statsdLine
		for _, kind := range []string{"gauge", "count", "observe"} {
			l := statsdLine{prefix: prefix, name: name, kind: map[string]string{"gauge": "g", "count": "c", "observe": "ms"}[kind], value: x}
			if !plain {
				l.tags = [][2]string{{"serverType", serverType}}
				if constName != "serverType" {
					l.tags = append(l.tags, [2]string{constName, constValue})
				}
				l.tags = append(l.tags, [2]string{labelName, labelValue})
				if kind == "observe" && name == "channel_capacity" {
					l.kind = "h"
				}
			}
			if kind == "count" {
				if !math.IsNaN(x) && math.Abs(x) < 1 {
					continue // nothing to say
				}
				l.value = math.Trunc(x)
			}
			// As an application reports, and as the dispatcher does.
			switch kind {
			case "gauge":
				s.Gauge(name, x, label)
			case "count":
				s.Count(name, x, label)
			default:
				s.Observe(name, x, label)
			}
			pitaya.MetricSeries(s, kind, name, label)(x)
			if prefix == "" && name == "" || math.IsNaN(x) || math.IsInf(x, 0) || kind == "count" && math.Abs(x) >= 1<<63 {
				continue // no such line can be
			}
			if kind == "gauge" && plain && x < 0 {
				zero := l
				zero.value = 0
				want = append(want, zero, l, zero, l)
			} else {
				want = append(want, l, l)
			}
		}
		s.Close()
		sent := d.take()
		for _, p := range sent {
			if len(p) > 1432 {
				t.Errorf("a datagram of %d bytes", len(p))
			}
		}
		got := lines(sent)
		if int64(len(want)-len(got)) > s.Dropped() {
			t.Fatalf("%d lines for %d, and %d dropped", len(got), len(want), s.Dropped())
		}
		if len(got) != len(want) {
			return // longer than any datagram, which the texts of a few labels can be only together
		}
		for i, l := range got {
			want[i].check(t, l)
		}
	})
}

// A statsdLine is what a line is to say.
type statsdLine struct {
	prefix, name, kind string
	value              float64
	tags               [][2]string // nil: none, not even the sign for them
}

func (w statsdLine) check(t *testing.T, line string) {
	t.Helper()
	if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("%q has bytes that are no text", line)
	}
	name, rest, _ := strings.Cut(line, ":")
	fields := strings.Split(rest, "|")
	if name == "" {
		t.Errorf("%q is without a name", line)
	}
	n := min(len(w.prefix), len(name))
	wantStatsdText(t, "prefix", name[:n], w.prefix, ":|@#,")
	wantStatsdText(t, "name", name[n:], w.name, ":|@#,")
	if x, err := strconv.ParseFloat(fields[0], 64); err != nil || math.Abs(x-w.value) > max(1e-6, math.Abs(w.value)*1e-9) {
		t.Errorf("%q: value %q, want %v", line, fields[0], w.value)
	}
	if len(fields) < 2 || fields[1] != w.kind {
		t.Fatalf("%q: want the kind %q behind the value", line, w.kind)
	}
	if w.tags == nil {
		if len(fields) != 2 {
			t.Errorf("%q: want nothing behind the kind", line)
		}
		return
	}
	if len(fields) != 3 || !strings.HasPrefix(fields[2], "#") {
		t.Fatalf("%q: want the tags behind the kind, and nothing else", line)
	}
	tags := strings.Split(fields[2][1:], ",")
	if len(tags) != len(w.tags) {
		t.Fatalf("%q: %d tags, want %d", line, len(tags), len(w.tags))
	}
	for i, tag := range tags {
		name, value, ok := strings.Cut(tag, ":")
		if !ok {
			t.Errorf("%q: tag %q is without a value", line, tag)
		}
		wantStatsdText(t, "name of a tag", name, w.tags[i][0], ":|#,")
		wantStatsdText(t, "value of a tag", value, w.tags[i][1], "|#,")
	}
}

// wantStatsdText checks that a text is as it was given, but for what has a meaning where it stands and what is no text, and
// for its end if it is long.
func wantStatsdText(t *testing.T, what, got, text, special string) {
	t.Helper()
	var want []byte
	for i, r := range text {
		_, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 || r < ' ' || r == 0x7f || strings.ContainsRune(special, r) {
			want = append(want, '_')
		} else {
			want = append(want, text[i:i+n]...)
		}
	}
	if got != string(want) && (len(text) <= 200 || len(got) < 196 || !strings.HasPrefix(string(want), got)) {
		t.Errorf("%s: %q became %q, want %q", what, text, got, want)
	}
}
