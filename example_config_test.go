package pitaya_test

import (
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya"
)

// A main function loads its settings with three lines; flag.CommandLine, os.Args[1:] and os.Environ() stand in the
// place of the literal values.
func ExampleConfig_Load() {
	cfg := pitaya.Config{Type: "chat", Frontend: true, MaxConns: 1000}
	fs := flag.NewFlagSet("chat", flag.ContinueOnError)
	err := cfg.Load(fs, []string{"-pitaya.conn.max=5000"}, []string{"PITAYA_HEARTBEAT_INTERVAL=10s"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range cfg.Settings() {
		if s.Origin != pitaya.OriginDefault {
			fmt.Println(s)
		}
	}
	// Output:
	// pitaya.server.type = chat (code)
	// pitaya.server.frontend = true (code)
	// pitaya.heartbeat.interval = 10s (environment PITAYA_HEARTBEAT_INTERVAL)
	// pitaya.conn.max = 5000 (flag -pitaya.conn.max)
}

func ExampleReadConfig() {
	var cfg pitaya.Config
	fs := flag.NewFlagSet("chat", flag.ContinueOnError)
	cfg.Bind(fs)
	err := pitaya.ReadConfig(fs, strings.NewReader(`{
		"pitaya": {
			"heartbeat": {"intervall": "10s"},
			"handler": {"timeout": 5}
		},
		"rooms": {"size": 8}
	}`))
	fmt.Println(err)
	// Output:
	// pitaya: settings:4: pitaya.handler.timeout = "5": a duration needs a unit, such as "30s"
	// pitaya: settings:3: pitaya.heartbeat.intervall is no setting; the nearest is pitaya.heartbeat.interval
}

// What is wrong with settings is said before anything is started, all of it.
func ExampleConfig_Validate() {
	cfg := pitaya.Config{
		Frontend:   true,
		Heartbeat:  1500 * time.Millisecond,
		SlowClient: pitaya.SlowClientPolicy(7),
		Etcd:       pitaya.EtcdConfig{TLS: pitaya.TLSFiles{Cert: "cert.pem"}},
	}
	fmt.Println(cfg.Validate())
	// Output:
	// pitaya: code: pitaya.heartbeat.interval = "1.5s": must be whole seconds
	// pitaya: code: pitaya.buffer.agent.slowclient = "7": must be one of: close, drop
	// pitaya: code: pitaya.cluster.sd.etcd.tls.cert = "cert.pem": certificate and key must be set together
}

// Each kind of value is written as text in files, flags and variables.
func ExampleConfig_Bind() {
	var cfg pitaya.Config
	fs := flag.NewFlagSet("chat", flag.ContinueOnError)
	cfg.Bind(fs)
	err := fs.Parse([]string{"-pitaya.serializertype=2", "-pitaya.handler.messages.pushcodes=never"})
	fmt.Println(err)
	err = pitaya.ReadEnv(fs, []string{"PITAYA_BUFFER_AGENT_SLOWCLIENT=drop", "HOME=/root"})
	fmt.Println(err)
	fmt.Println(cfg.SerializerType == pitaya.SerializerProtobuf, cfg.PushCodes == pitaya.PushCodesNever, cfg.SlowClient == pitaya.SlowClientDrop)

	// The settings as text, for a page or the log. Passwords are not shown.
	cfg.Etcd.Password = "secret"
	for line := range strings.Lines(cfg.String()) {
		if strings.Contains(line, "sd.etcd.pass") || strings.Contains(line, "slowclient") {
			fmt.Print(line)
		}
	}
	// Output:
	// <nil>
	// <nil>
	// true true true
	// pitaya.buffer.agent.slowclient = drop (environment PITAYA_BUFFER_AGENT_SLOWCLIENT)
	// pitaya.cluster.sd.etcd.pass = *** (code)
}
