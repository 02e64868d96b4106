package main

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
)

func TestPorts(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want []endpoint
	}{
		{"default", nil, []endpoint{{protocolTCP, 32222}}},
		{"both", []string{"-port", "1", "-wsport", "2"}, []endpoint{{protocolTCP, 1}, {protocolWS, 2}}},
		{"WebSocket only", []string{"-port=0", "-wsport=2"}, []endpoint{{protocolWS, 2}}},
		{"none", []string{"-port", "0"}, nil},
		{"backend", []string{"-frontend=false", "-wsport", "2"}, nil},
		{"chat", []string{"-suite", "chat", "-port", "7", "-fixtures", "x"}, []endpoint{{protocolWS, 7}}},
		{"JSON", []string{"-suite", "sdk-json", "-port", "7"}, []endpoint{{protocolWS, 7}, {protocolTCP, 8}}},
		{"TLS", []string{"-suite", "sdk-protobuf", "-port", "7", "-fixtures", "x"}, []endpoint{{protocolWS, 7}, {protocolTCP, 8}, {protocolTLS, 9}}},
		{"suite without ports", []string{"-suite", "sdk-json", "-port", "0"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o, err := parse(test.args, nil, t.Output())
			if err != nil {
				t.Fatal(err)
			}
			if got := o.addrs(); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	o, err := parse(
		[]string{
			"-type", "game", "--frontend=false", "-sdprefix", "test/", "-grpc=true", "-grpcport", "4000",
			"-standalone", "-debug", "-protocli", "-serializer", "protobuf",
		},
		[]string{
			"PITAYA_SERVER_TYPE=env", "PITAYA_METRICS_PROMETHEUS_PORT=9100", "PITAYA_CLUSTER_RPC_CLIENT_NATS_CONNECT=nats://a:1",
			"PITAYA_CLUSTER_RPC_SERVER_NATS_CONNECT=nats://a:2", "PITAYA_CLUSTER_RPC_CLIENT_GRPC_LAZYCONNECTION=true",
			"PITAYA_CLUSTER_SD_ETCD_ENDPOINTS=a:1,b:2", "PITAYA_MODULES_BINDINGSTORAGE_ETCD_ENDPOINTS=c:3",
			"PITAYA_CLUSTER_SD_ETCD_SYNCSERVERS_INTERVAL=1s", "PITAYA_CLUSTER_SD_ETCD_HEARTBEAT_TTL=2s",
			"PITAYA_METRICS_PROMETHEUS_ENABLED=true", "PITAYA_SESSION_UNIQUE=false", "PITAYA_HEARTBEAT_INTERVAL=7s",
			"PITAYA_HANDLER_MESSAGES_COMPRESSION=false", "PITAYA_BUFFER_AGENT_MESSAGES=11", "PITAYA_CONCURRENCY_HANDLER_DISPATCH=12",
		}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	c := &o.Config
	for name, ok := range map[string]bool{
		"type":                c.Type == "game",
		"frontend":            !c.Frontend,
		"sdprefix":            c.Etcd.Prefix == "test/",
		"binding prefix":      c.BindingEtcd.Prefix == "",
		"grpc":                o.GRPC && c.GRPC.Port == 4000,
		"switches":            o.Standalone && o.Debug && o.ProtoCLI,
		"serializer":          c.SerializerType == pitaya.SerializerProtobuf,
		"shutdown":            c.ShutdownTimeout == 2500*time.Millisecond,
		"prometheus":          c.Metrics.Prometheus == pitaya.PrometheusConfig{Enabled: true, Port: 9100},
		"NATS":                c.NATSClient.URL == "nats://a:1" && c.NATSServer.URL == "nats://a:2",
		"lazy":                c.GRPC.LazyConnection,
		"etcd":                slices.Equal(c.Etcd.Endpoints, []string{"a:1", "b:2"}) && slices.Equal(c.BindingEtcd.Endpoints, []string{"c:3"}),
		"etcd times":          c.Etcd.SyncInterval == time.Second && c.Etcd.HeartbeatTTL == 2*time.Second,
		"unique":              c.NoUniqueSession,
		"heartbeat":           c.Heartbeat == 7*time.Second,
		"compression":         c.NoCompression,
		"buffer, concurrency": c.QueueMessages == 11 && c.Dispatch == 12,
	} {
		if !ok {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	tests := []struct {
		name    string
		args    []string
		environ []string
		status  int
		text    string
	}{
		{"etcd", []string{"-grpc", "-port", "0", "-grpcport", strconv.Itoa(freePorts(t, 1))}, []string{"PITAYA_CLUSTER_SD_ETCD_ENDPOINTS=127.0.0.1:1", "PITAYA_CLUSTER_SD_ETCD_DIALTIMEOUT=50ms"}, 1, "testserver: pitaya: join the cluster: "},
		{"suite", []string{"-suite", "x"}, nil, 2, `there is no suite "x"`},
		{"serializer", []string{"-serializer", "x"}, nil, 2, "pitaya.serializertype"},
		{"argument", []string{"-standalone", "x"}, nil, 2, `unexpected argument "x"`},
		{"port", []string{"-suite", "sdk-json", "-port", "65535"}, nil, 2, "there is no port 65536"},
		{"environment", nil, []string{"PITAYA_HEARTBEAT=1s"}, 2, "PITAYA_HEARTBEAT"},
		{"help", []string{"-help"}, nil, 0, "-standalone"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			if status := run(t.Context(), test.args, test.environ, &out); status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			if !strings.Contains(out.String(), test.text) {
				t.Errorf("output %q lacks %q", out.String(), test.text)
			}
		})
	}
}

// A port that cannot be opened is an error, and those opened before it are
// closed again.
func TestListenFails(t *testing.T) {
	o, err := parse([]string{"-suite", "sdk-json", "-fixtures", t.TempDir()}, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	o.Port = freePorts(t, 3)
	if _, err := o.listen(); err == nil || !strings.HasPrefix(err.Error(), "TLS port: ") {
		t.Fatalf("got %v, want an error about the TLS port", err)
	}
	o.Fixtures = makeFixtures(t)
	list, err := o.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, l := range list {
			l.Close()
		}
	}()
	if len(list) != 3 {
		t.Errorf("%d listeners, want 3", len(list))
	}
	if _, err := o.listen(); err == nil {
		t.Error("no error for a port that is taken")
	}
}
