package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/pitaya-go/pitaya"
)

// options are what the command line says.
type options struct {
	Port, WSPort int
	Standalone   bool
	GRPC         bool
	Debug        bool
	ProtoCLI     bool
	Suite        string
	Fixtures     string
	Config       pitaya.Config
}

// The values of -suite.
const (
	suiteChat     = "chat"
	suiteJSON     = "sdk-json"
	suiteProtobuf = "sdk-protobuf"
)

// parse reads flags and environment. Flags that stand for a setting of the
// library are another name for it, and so go before the environment.
func parse(args, environ []string, output io.Writer) (*options, error) {
	o := &options{Config: pitaya.Config{
		Type:            "connector",
		Frontend:        true,
		NoLoopback:      true,                    // the family's testing server has none
		ShutdownTimeout: 2500 * time.Millisecond, // whoever stops the program waits five
	}}
	fs := flag.NewFlagSet("testserver", flag.ContinueOnError)
	fs.SetOutput(output)
	fs.IntVar(&o.Port, "port", 32222, "TCP `port` of the frontend; 0: none")
	fs.IntVar(&o.WSPort, "wsport", 0, "WebSocket `port` of the frontend; 0: none")
	fs.BoolVar(&o.Standalone, "standalone", false, "no cluster, and neither etcd nor NATS")
	fs.BoolVar(&o.GRPC, "grpc", false, "gRPC instead of NATS, with the users' frontends in etcd")
	fs.BoolVar(&o.Debug, "debug", false, "debug logging")
	fs.BoolVar(&o.ProtoCLI, "protocli", false, "only the services docs and protosvc")
	fs.StringVar(&o.Suite, "suite", "", "a standalone frontend for a client's test `suite`: chat, sdk-json or sdk-protobuf")
	fs.StringVar(&o.Fixtures, "fixtures", "", "`folder` with server/pitaya.crt and server/pitaya.key, for the TLS port of a suite")
	setting := func(name, key, usage string) {
		fs.Func(name, usage, func(value string) error { return fs.Set(key, value) })
	}
	setting("type", "pitaya.server.type", "server `type` (default connector)")
	setting("serializer", "pitaya.serializertype", "`json` or protobuf (default json)")
	setting("sdprefix", "pitaya.cluster.sd.etcd.prefix", "`prefix` of discovery in etcd (default pitaya/)")
	setting("grpcport", "pitaya.cluster.rpc.server.grpc.port", "`port` of the gRPC server (default 3434)")
	fs.BoolFunc("frontend", "clients connect to this server (default true)", func(value string) error {
		return fs.Set("pitaya.server.frontend", value)
	})
	o.Config.Bind(fs)
	if err := o.Config.Load(fs, args, environ); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return o, o.complete()
}

// complete works out what the options mean together.
func (o *options) complete() error {
	if !slices.Contains([]string{"", suiteChat, suiteJSON, suiteProtobuf}, o.Suite) {
		return fmt.Errorf("there is no suite %q", o.Suite)
	}
	if o.Suite != "" {
		// A suite is a server of its own, whatever else is set.
		o.Standalone = true
		o.Config.Frontend = true
		o.Config.Type = "connector"
		o.Config.SerializerType = pitaya.SerializerJSON
	}
	switch o.Suite {
	case suiteChat:
		o.Config.Type = "chat"
		o.Config.NoCompression = true // the JavaScript clients know none
	case suiteProtobuf:
		o.Config.SerializerType = pitaya.SerializerProtobuf
	}
	o.Config.Cluster = !o.Standalone
	for _, a := range o.addrs() {
		if a.Port < 0 || a.Port > 65535 {
			return fmt.Errorf("there is no port %d", a.Port)
		}
	}
	return nil
}

// protocol is what is spoken on a port.
type protocol string

const (
	protocolTCP protocol = "TCP"
	protocolTLS protocol = "TLS"
	protocolWS  protocol = "WebSocket"
)

// endpoint is a port for clients.
type endpoint struct {
	Protocol protocol
	Port     int
}

// addrs returns the ports to listen on.
func (o *options) addrs() []endpoint {
	var list []endpoint
	add := func(p protocol, port int) { list = append(list, endpoint{p, port}) }
	switch {
	case !o.Config.Frontend:
	case o.Suite == suiteChat && o.Port != 0:
		add(protocolWS, o.Port)
	case o.Suite != "" && o.Port != 0:
		add(protocolWS, o.Port)
		add(protocolTCP, o.Port+1)
		if o.Fixtures != "" {
			add(protocolTLS, o.Port+2)
		}
	case o.Suite == "":
		if o.Port != 0 {
			add(protocolTCP, o.Port)
		}
		if o.WSPort != 0 {
			add(protocolWS, o.WSPort)
		}
	}
	return list
}

// listen opens the ports. If one cannot be opened none is.
func (o *options) listen() ([]net.Listener, error) {
	var list []net.Listener
	for _, e := range o.addrs() {
		l, err := o.listenOn(e.Protocol, ":"+strconv.Itoa(e.Port))
		if err != nil {
			for _, l := range list {
				err = errors.Join(err, l.Close())
			}
			return nil, fmt.Errorf("%s port: %w", e.Protocol, err)
		}
		list = append(list, l)
	}
	return list, nil
}

func (o *options) listenOn(p protocol, addr string) (net.Listener, error) {
	switch p {
	case protocolWS:
		return pitaya.ListenWS(addr, nil)
	case protocolTLS:
		cert, err := tls.LoadX509KeyPair(filepath.Join(o.Fixtures, "server", "pitaya.crt"), filepath.Join(o.Fixtures, "server", "pitaya.key"))
		if err != nil {
			return nil, err
		}
		return pitaya.ListenTCP(addr, &tls.Config{Certificates: []tls.Certificate{cert}})
	}
	return pitaya.ListenTCP(addr, nil)
}
