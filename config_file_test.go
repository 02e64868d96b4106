package pitaya_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pitaya-go/pitaya"
)

func TestReadConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		doc  string
		want []string // lines of the settings that are no defaults, or
		err  []string // what the lines of the error contain
	}{
		{name: "empty", doc: `{}`},
		{name: "byte order mark", doc: "\uFEFF{}"},
		{name: "only the game's", doc: `{"rooms": {"max": 3}, "pitayas": 1, "pitay": {"a": null}}`},
		{name: "null is no value", doc: `{"pitaya": {"conn": {"max": null, "ratelimiting": null}, "metrics": null}}`},
		{name: "null at the top", doc: `{"pitaya": null}`},
		{
			name: "all forms together",
			doc:  "{\"pitaya\": {\"conn.max\": 3,\n\"heartbeat\": {\"interval\": \"10s\"}},\n\n\"Pitaya.Session\": {\"Unique\": false}}",
			want: []string{
				"pitaya.heartbeat.interval = 10s (file settings:2)",
				"pitaya.conn.max = 3 (file settings:1)",
				"pitaya.session.unique = false (file settings:4)",
			},
		},
		{
			name: "parts of a map",
			doc:  `{"pitaya.metrics.constlabels.Env": "prod", "pitaya": {"metrics": {"ConstLabels": {"k8s.zone": "a"}, "constlabels.a.b": 1}}}`,
			want: []string{"pitaya.metrics.constlabels = Env=prod,a.b=1,k8s.zone=a (file settings:1)"},
		},
		{
			name: "parts of the custom metrics",
			doc:  `{"pitaya.metrics.custom.Counters": [{"name": "a"}], "pitaya.metrics.custom": {"gauges": [{"name": "b"}]}}`,
			want: []string{`pitaya.metrics.custom = {"counters":[{"name":"a"}],"gauges":[{"name":"b"}]} (file settings:1)`},
		},
		{
			name: "a map that text cannot show",
			doc:  `{"pitaya.server.metadata": {"a": "1,2"}}`,
			want: []string{`pitaya.server.metadata = {"a":"1,2"} (file settings:1)`},
		},
		{
			name: "same value twice",
			doc:  `{"pitaya.worker.redis.url": "a", "pitaya": {"worker.redis.serverurl": "a"}}`,
			want: []string{"pitaya.worker.redis.serverurl = a (file settings:1)"},
		},
		{
			name: "zero is off where the field's zero is the default",
			doc:  `{"pitaya": {"handler.slow": "0s", "worker.retry": {"max": 0, "mindelay": 0}, "metrics.statsd.prefix": ""}}`,
			want: []string{
				"pitaya.handler.slow = 0s (file settings:1)",
				"pitaya.metrics.statsd.prefix =  (file settings:1)",
				"pitaya.worker.retry.max = 0 (file settings:1)",
				"pitaya.worker.retry.mindelay = 0s (file settings:1)",
			},
		},
		{
			name: "secrets",
			doc: `{"pitaya": {"cluster": {"sd.etcd": {"pass": "hunter2", "endpoints": ["https://u:hunter2@e:1", "e:2"]},
				"rpc.client.nats": {"token": "hunter2", "connect": "nats://hunter2@n:1,nats://u:hunter,2@n:2"}}}}`,
			want: []string{
				"pitaya.cluster.sd.etcd.endpoints = https://***@e:1,e:2 (file settings:1)",
				"pitaya.cluster.sd.etcd.pass = *** (file settings:1)",
				"pitaya.cluster.rpc.client.nats.connect = nats://***@n:1,nats://***@n:2 (file settings:2)",
				"pitaya.cluster.rpc.client.nats.token = *** (file settings:2)",
			},
		},

		{name: "no text", doc: ``, err: []string{"settings:1: unexpected end"}},
		{name: "no object", doc: "\n[]", err: []string{"settings:2: not a JSON object"}},
		{name: "syntax", doc: "{\n\"pitaya\": {,}}", err: []string{"settings:2: invalid character ','"}},
		{name: "something after it", doc: "{}\n{}", err: []string{"settings:2: invalid character '{'"}},
		{name: "too deep", doc: strings.Repeat(`{"pitaya":`, 20000) + `1` + strings.Repeat(`}`, 20000), err: []string{"exceeded max depth"}},
		{name: "too long", doc: strings.Repeat(" ", 17<<20), err: []string{"more than 16777216 bytes"}},
		{
			name: "unknown names",
			doc:  "{\"pitaya\": {\"heartbeat\": {\"intervall\": \"1s\"}, \"conn\": {\n\"maxx\": 1}}, \"pitaya.session.uniqeu\": true, \"pitaya.metrics.costTags\": {}}",
			err: []string{
				"settings:1: pitaya.heartbeat.intervall is no setting; the nearest is pitaya.heartbeat.interval",
				"settings:2: pitaya.conn.maxx is no setting; the nearest is pitaya.conn.max",
				"settings:2: pitaya.session.uniqeu is no setting; the nearest is pitaya.session.unique",
				"settings:2: pitaya.metrics.costTags is no setting; the nearest is pitaya.metrics.constlabels",
			},
		},
		{name: "unknown and long", doc: `{"pitaya.` + strings.Repeat("x", 1<<20) + `": 1}`, err: []string{"xxx… is no setting"}},
		{name: "below a setting", doc: `{"pitaya.conn.max.x": 1}`, err: []string{"pitaya.conn.max.x is no setting; the nearest is pitaya.conn.max"}},
		{
			name: "wrong types",
			doc: `{"pitaya": {"conn.max": "many", "heartbeat.interval": 30, "handler.slow": true, "session": 1, "handler.timeout": "30",
				"server.type": 7, "cluster.sd.etcd.endpoints": {}, "metrics.constlabels": {"a": []}, "conn": {"maxpacketsize": 1.5}, "session.unique": "perhaps",
				"metrics.custom": {"timers": []}, "acceptor.trustedproxies": ["here"], "worker.redis.password": 12345, "groups.etcd.endpoints": [1]}}`,
			err: []string{
				`settings:1: pitaya.heartbeat.interval = "30": a duration needs a unit, such as "30s"`,
				`settings:2: pitaya.conn.maxpacketsize = "1.5": not a whole number of bytes, such as 65536 or "64KiB"`,
				`settings:1: pitaya.conn.max = "many": not a whole number`,
				`settings:3: pitaya.acceptor.trustedproxies = "[\"here\"]": must be networks such as 10.0.0.0/8, or addresses`,
				`settings:1: pitaya.handler.timeout = "30": a duration needs a unit, such as "30s"`,
				`settings:2: pitaya.session.unique = "perhaps": neither true nor false`,
				`settings:3: pitaya.groups.etcd.endpoints = "[1]": must be a list of texts`,
				`settings:2: pitaya.metrics.constlabels = "{\"a\": []}": "a" is not a text`,
				`settings:3: pitaya.metrics.custom = "{\"timers\": []}": json: unknown field "timers"`,
				`settings:1: pitaya.handler.slow = "true": wrong type, want duration`,
				`settings:1: pitaya.session is a group of settings, so it must be an object`,
				`settings:2: pitaya.server.type = "7": wrong type, want text`,
				`settings:2: pitaya.cluster.sd.etcd.endpoints = "{}": wrong type, want list`,
				`settings:3: pitaya.worker.redis.password = "***": wrong type, want text`,
			},
		},
		{
			name: "out of range",
			doc: `{"pitaya": {"conn.max": -1, "conn.maxpacketsize": 16777216, "conn.maxhandshakesize": 0, "heartbeat.interval": "1500ms", "metrics.statsd.rate": 2,
				"metrics.prometheus.port": 70000, "serializertype": 3, "cluster.sd.etcd.endpoints": [], "conn.handshaketimeout": "-1s",
				"server.type": "a.b", "buffer.agent.bytes": "9007199254740993GiB", "metrics.statsd.host": "here", "cluster.rpc.client.nats.connect": ""}}`,
			err: []string{
				`pitaya.server.type = "a.b": must be without '.'`,
				`pitaya.heartbeat.interval = "1500ms": must be whole seconds`,
				`pitaya.conn.handshaketimeout = "-1s": must be above 0`,
				`pitaya.buffer.agent.bytes = "9007199254740993GiB": out of range`,
				`pitaya.conn.maxpacketsize = "16777216": must be at most 16777215`,
				`pitaya.conn.maxhandshakesize = "0": must be above 0`,
				`pitaya.conn.max = "-1": must not be below 0`,
				`pitaya.serializertype = "3": must be one of: 1 or json, 2 or protobuf`,
				`pitaya.cluster.sd.etcd.endpoints = "[]": must not be empty`,
				`pitaya.cluster.rpc.client.nats.connect = "": must not be empty`,
				`pitaya.metrics.prometheus.port = "70000": must be at most 65535`,
				`pitaya.metrics.statsd.host = "here": must be host:port`,
				`pitaya.metrics.statsd.rate = "2": must be above 0 and at most 1`,
			},
		},
		{
			name: "given twice",
			doc: `{"pitaya": {"metrics.tags": {"a": "1"}, "worker.redis.url": "a", "conn.max": 1, "conn": {"max": 2}}, "pitaya.metrics.constlabels": {"a": "2"},
				"pitaya.worker.redis.serverurl": "b", "pitaya.server.metadata": {"a": "1", "a": "2"}, "pitaya.metrics.custom": {"gauges": [], "Gauges": []}}`,
			err: []string{
				`settings:2: pitaya.server.metadata = "{\"a\": \"1\", \"a\": \"2\"}": has "a" twice`,
				`settings:1: pitaya.conn.max = "2": differs from pitaya.conn.max at settings:1, which is the same setting`,
				`settings:1: pitaya.metrics.constlabels = "{\"a\": \"2\"}": differs from pitaya.metrics.tags at settings:1, which is the same setting`,
				`settings:2: pitaya.metrics.custom = "{\"gauges\": [], \"Gauges\": []}": has "gauges" twice`,
				`settings:2: pitaya.worker.redis.serverurl = "b": differs from pitaya.worker.redis.url at settings:1, which is the same setting`,
			},
		},
		{name: "the file's own name", doc: `{"pitaya.config": "other.json"}`, err: []string{"settings:1: pitaya.config cannot be set in a file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, fs := bindConfig(t)
			checkErrorLines(t, pitaya.ReadConfig(fs, strings.NewReader(tt.doc)), tt.err)
			if tt.err != nil {
				return
			}
			var got []string
			for _, s := range cfg.Settings() {
				if s.Origin != pitaya.OriginDefault {
					got = append(got, s.String())
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// checkErrorLines checks that err has as many lines as want, each with one of want in it, in that order, and begins each
// with the name of the package.
func checkErrorLines(t *testing.T, err error, want []string) {
	t.Helper()
	var lines []string
	if err != nil {
		lines = strings.Split(err.Error(), "\n")
	}
	ok := len(lines) == len(want)
	for i, line := range lines {
		ok = ok && strings.HasPrefix(line, "pitaya: ") && strings.Contains(line, want[i])
	}
	if !ok {
		t.Errorf("error\n%v\nwant lines with\n%s", err, strings.Join(want, "\n"))
	}
}

func TestReadConfigManyUnknown(t *testing.T) {
	_, fs := bindConfig(t)
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, `, "pitaya.x%d": 1`, i)
	}
	err := pitaya.ReadConfig(fs, strings.NewReader("{"+b.String()[1:]+"}"))
	if err == nil || strings.Count(err.Error(), "\n") != 10 || !strings.HasSuffix(err.Error(), "pitaya: 990 more names are no settings") {
		t.Errorf("got %v", err)
	}
}

func TestReadEnv(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  []string
		want string // of pitaya.metrics.prometheus.port
		err  []string
	}{
		{name: "others", env: []string{"HOME=/", "pitaya_conn_max=1", "PITAYA=1", "X"}, want: "9090"},
		{name: "empty is not set", env: []string{"PITAYA_METRICS_PROMETHEUS_PORT="}, want: "9090"},
		{name: "the last one counts", env: []string{"PITAYA_METRICS_PROMETHEUS_PORT=1", "PITAYA_METRICS_PROMETHEUS_PORT=2"}, want: "2"},
		{
			name: "Kubernetes service links",
			env: []string{
				"PITAYA_SERVICE_HOST=10.0.0.1", "PITAYA_SERVICE_PORT=80", "PITAYA_SERVICE_PORT_WS=80", "PITAYA_PORT=tcp://10.0.0.1:80",
				"PITAYA_PORT_80_TCP=tcp://10.0.0.1:80", "PITAYA_CHAT_PORT_80_TCP_ADDR=10.0.0.1", "PITAYA_CHAT_PORT_80_UDP_PROTO=udp",
				"PITAYA_TCP_PORT=tcp://10.0.0.1:80", "PITAYA_TCP_PORT_80_TCP=tcp://10.0.0.1:80", "PITAYA_TCP_PORT_80_TCP_PORT=80",
				"PITAYA_METRICS_PROMETHEUS_PORT=tcp://10.0.0.1:9090",
			},
			want: "9090",
		},
		{
			name: "mistakes",
			env:  []string{"PITAYA_METRICS_PROMETHEUS_PROT=1", "PITAYA_CONN_MAX=x", "PITAYA_METRICS_PORT=1", "PITAYA_METRICS_PROMETHEUS_PORT=2"},
			want: "2",
			err: []string{
				`PITAYA_CONN_MAX: pitaya.conn.max = "x": not a whole number`,
				"PITAYA_METRICS_PORT is no setting; the nearest is ",
				"PITAYA_METRICS_PROMETHEUS_PROT is no setting; the nearest is PITAYA_METRICS_PROMETHEUS_PORT",
			},
		},
		{
			name: "two names", env: []string{"PITAYA_METRICS_TAGS=a=1", "PITAYA_METRICS_CONSTTAGS=a=2"}, want: "9090",
			err: []string{`PITAYA_METRICS_TAGS: pitaya.metrics.constlabels = "a=1": differs from PITAYA_METRICS_CONSTTAGS at PITAYA_METRICS_CONSTTAGS`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, fs := bindConfig(t)
			checkErrorLines(t, pitaya.ReadEnv(fs, tt.env), tt.err)
			if s := configSetting(t, cfg, "pitaya.metrics.prometheus.port"); s.Value != tt.want {
				t.Errorf("%v, want %s", s, tt.want)
			}
		})
	}
}

func TestConfigNotBound(t *testing.T) {
	fs := flag.NewFlagSet("game", flag.ContinueOnError)
	fs.String("pitaya.config", "", "not ours")
	for _, err := range []error{pitaya.ReadConfig(fs, strings.NewReader("{}")), pitaya.ReadEnv(fs, nil)} {
		if err == nil || !strings.Contains(err.Error(), "call Config.Bind first") {
			t.Errorf("got %v", err)
		}
	}
}

func TestConfigLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "game.json")
	if err := os.WriteFile(file, []byte("{\n\"pitaya\": {\"conn.max\": 7, \"handler.timeout\": \"1s\", \"session.drain.timeout\": \"1m\"}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func(cfg *pitaya.Config, args []string, env ...string) (string, error) {
		var out bytes.Buffer
		fs := flag.NewFlagSet("game", flag.ContinueOnError)
		fs.SetOutput(&out)
		fs.Int("port", 3250, "where players connect")
		return out.String(), errors.Join(cfg.Load(fs, args, env))
	}

	t.Run("all sources", func(t *testing.T) {
		for _, tt := range []struct {
			name string
			cfg  pitaya.Config
			args []string
			env  []string
		}{
			{"named by flag", pitaya.Config{File: "none"}, []string{"-pitaya.config", file}, []string{"PITAYA_CONFIG=none"}},
			{"named by variable", pitaya.Config{File: "none"}, nil, []string{"PITAYA_CONFIG=" + file}},
			{"named in code", pitaya.Config{File: file}, nil, nil},
		} {
			t.Run(tt.name, func(t *testing.T) {
				args := append(tt.args, "-port=1", "--Pitaya.Heartbeat.Interval=5s", "-pitaya.metrics.Constlabels", "a=b")
				_, err := load(&tt.cfg, args, append(tt.env, "PITAYA_HANDLER_TIMEOUT=2s")...)
				if err != nil {
					t.Fatal(err)
				}
				c := tt.cfg
				if c.MaxConns != 7 || c.HandlerTimeout != 2*time.Second || c.Heartbeat != 5*time.Second || c.DrainTimeout != time.Minute || c.Metrics.ConstLabels["a"] != "b" {
					t.Errorf("got\n%v", c)
				}
				if s := configSetting(t, &c, "pitaya.conn.max"); s.Source != file+":2" {
					t.Errorf("%v", s)
				}
			})
		}
	})
	t.Run("all mistakes at once", func(t *testing.T) {
		cfg := pitaya.Config{File: "none.json", Worker: pitaya.WorkerConfig{RetryMinDelay: time.Minute, RetryMaxDelay: time.Second}}
		out, err := load(&cfg, []string{"-pitaya.conn.max=x", "-pitaya.heartbeat.interval=30", "-pitaya.worker.redis.url=a", "-pitaya.worker.redis.serverurl=b"}, "PITAYA_CON_MAX=1")
		checkErrorLines(t, err, []string{
			`pitaya: -pitaya.conn.max = "x": not a whole number`,
			`pitaya: -pitaya.heartbeat.interval = "30": a duration needs a unit, such as "30s"`,
			`pitaya: -pitaya.worker.redis.serverurl = "b": differs from -pitaya.worker.redis.url, which is the same setting`,
			`pitaya: PITAYA_CON_MAX is no setting; the nearest is PITAYA_CONN_MAX`,
			`none.json`,
			`pitaya: code: pitaya.worker.retry.mindelay = "1m": must not be above pitaya.worker.retry.maxdelay`,
		})
		if out != "" {
			t.Errorf("printed %s", out)
		}
	})
	t.Run("one of a pair", func(t *testing.T) {
		// Each is beyond the default of the other, which nobody set.
		for _, arg := range []string{"-pitaya.worker.retry.mindelay=20", "-pitaya.worker.retry.maxdelay=5"} {
			if _, err := load(new(pitaya.Config), []string{arg}); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("unknown flag", func(t *testing.T) {
		out, err := load(new(pitaya.Config), []string{"-pitaya.conn.maximum", "3"})
		checkErrorLines(t, err, []string{"pitaya: -pitaya.conn.maximum is no setting; the nearest is pitaya.conn.max"})
		if out != "" {
			t.Errorf("printed %s", out)
		}
	})
	t.Run("unknown parts of a flag", func(t *testing.T) {
		for name, want := range map[string]string{
			"clustr.sd.foo":                     "cluster.sd.etcd.",
			"clustr.sd.etcd.endpoint":           "cluster.sd.etcd.endpoints",
			"rpc.client.nats.conect":            "cluster.rpc.client.nats.connect",
			"cluster.rpc.server.nats.buffer.x":  "cluster.rpc.server.nats.buffer.",
			"metrics.prom.port":                 "metrics.prometheus.port",
			"concurrency.handlers.dispatch.max": "concurrency.handler.dispatch",
		} {
			_, err := load(new(pitaya.Config), []string{"-pitaya." + name, "3"})
			if err == nil || !strings.Contains(err.Error(), "-pitaya."+name+" is no setting; the nearest is pitaya."+want) {
				t.Errorf("got %v, want pitaya.%s", err, want)
			}
		}
	})
	t.Run("the program's own flags", func(t *testing.T) {
		_, err := load(new(pitaya.Config), []string{"-port=x"})
		if err == nil || !strings.Contains(err.Error(), "-port") {
			t.Errorf("got %v", err)
		}
		_, err = load(new(pitaya.Config), []string{"--", "-pitaya.no.flag"})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("help", func(t *testing.T) {
		var out bytes.Buffer
		fs := flag.NewFlagSet("game", flag.ContinueOnError)
		fs.SetOutput(&out)
		fs.Int("port", 3250, "where players connect")
		cfg := pitaya.Config{Heartbeat: 7 * time.Second}
		if err := cfg.Load(fs, []string{"-help"}, []string{"PITAYA_NONSENSE=1"}); err != flag.ErrHelp {
			t.Errorf("got %v", err)
		}
		text := out.String()
		if own, all := strings.Index(text, "-port int\n"), strings.Index(text, "-pitaya.config"); own < 0 || all < own {
			t.Errorf("the program's flags do not come first:\n%s", text)
		}
		for _, want := range []string{"  -pitaya.heartbeat.interval duration\n    \thow often heartbeats are sent, in whole seconds; 0: no heartbeats (default 7s)\n", "(default 64KiB)", "(default true)", "(default 30s), no effect in this version\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
		if strings.Contains(text, "writetimeout") {
			t.Error("other names are printed")
		}
	})
	t.Run("bound before", func(t *testing.T) {
		cfg, fs := bindConfig(t)
		if err := cfg.Load(fs, []string{"-pitaya.conn.max=1"}, nil); err != nil || cfg.MaxConns != 1 {
			t.Errorf("%v, %d", err, cfg.MaxConns)
		}
	})
}

func TestFlagError(t *testing.T) {
	_, fs := bindConfig(t)
	err := fs.Parse([]string{"-pitaya.heartbeat.interval", "30"})
	if want := `invalid value "30" for flag -pitaya.heartbeat.interval: a duration needs a unit, such as "30s"`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add([]byte(`{"pitaya": {"heartbeat": {"interval": "10s"}, "conn.max": 5000}, "pitaya.session.unique": false}`), "PITAYA_METRICS_TAGS", "a=1")
	f.Add([]byte(`{"pitaya.metrics.constlabels.a": 1, "pitaya.metrics.tags": {"a": "1"}}`), "PITAYA_CONN_MAX", "7")
	f.Add([]byte(`{"pitaya.metrics.custom": `+customText+`}`), "PITAYA_METRICS_CUSTOM", customText)
	f.Add([]byte(`{"pitaya": {"cluster.sd.etcd.endpoints": ["[::1]:1"]}}`), "PITAYA_CLUSTER_SD_ETCD_ENDPOINTS", "[::1]:1,a")
	f.Add([]byte(`{"pitaya": {"acceptor.trustedproxies": "10.0.0.0/8", "metrics.statsd.rate": 1e-9}}`), "PITAYA_HEARTBEAT_INTERVAL", "1h0m1s")
	f.Fuzz(func(t *testing.T, doc []byte, name, value string) {
		cfg, fs := bindConfig(t)
		err := errors.Join(pitaya.ReadConfig(fs, bytes.NewReader(doc)), pitaya.ReadEnv(fs, []string{name + "=" + value}))
		if err != nil {
			if len(err.Error()) > 1<<20 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		// What was read is printed in a form that gives the same settings back.
		again, fs := bindConfig(t)
		for _, s := range cfg.Settings() {
			if s.Origin == pitaya.OriginDefault || strings.Contains(s.Value, "***") {
				continue
			}
			if err := fs.Set(s.Key, s.Value); err != nil {
				t.Errorf("%v cannot be set again: %v", s, err)
			}
			if got := configSetting(t, again, s.Key); got.Value != s.Value {
				t.Errorf("%v, set again: %v", s, got)
			}
		}
	})
}

// FuzzConfigSources gives one setting the same text as a flag, a variable and in a file: all take it, and mean the same, or none
// does.
func FuzzConfigSources(f *testing.F) {
	cfg, _ := bindConfig(f)
	settings := cfg.Settings()
	for i, s := range settings {
		f.Add(uint16(i), s.Value)
	}
	for i, text := range []string{" 1", "1s", "true", "-1", "a=1,b=2", "a,b", "[\"a\"]", "{\"a\":\"b\"}", "1e3", "0x10", "none", "null"} {
		for n := i; n < len(settings); n += 40 {
			f.Add(uint16(n), text)
		}
	}
	f.Fuzz(func(t *testing.T, n uint16, text string) {
		key := settings[int(n)%len(settings)].Key
		doc, err := json.Marshal(map[string]string{key: text})
		if err != nil || text == "" || key == "pitaya.config" || !utf8.ValidString(text) {
			return // an empty variable is none, a file names no other, and it is text
		}
		byFlag, flags := bindConfig(t)
		errFlag := flags.Parse([]string{"-" + key + "=" + text})
		byEnv, env := bindConfig(t)
		name := strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		errEnv := pitaya.ReadEnv(env, []string{name + "=" + text})
		byFile, file := bindConfig(t)
		errFile := pitaya.ReadConfig(file, bytes.NewReader(doc))
		if (errFlag == nil) != (errEnv == nil) || (errFlag == nil) != (errFile == nil) {
			t.Fatalf("%s %q: as a flag %v, as a variable %v, in a file %v", key, text, errFlag, errEnv, errFile)
		}
		if errFlag != nil {
			return
		}
		want := configSetting(t, byFlag, key).Value
		if e, d := configSetting(t, byEnv, key).Value, configSetting(t, byFile, key).Value; e != want || d != want {
			t.Fatalf("%s %q: as a flag %q, as a variable %q, in a file %q", key, text, want, e, d)
		}
	})
}
