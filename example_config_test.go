package pitaya_test

import (
	"flag"
	"fmt"
	"strings"

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
