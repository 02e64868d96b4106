package pitaya

import (
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
)

// What the serving side takes in before the handler has it, in all: the port is open to whoever reaches it, and the
// limits of one connection times the number of connections would be more than a machine has.
const (
	// grpcMaxServed is how many connections there may be where the settings do not say. Each costs some twenty KiB. A
	// caller has one as a rule, and grpcMaxConns at most.
	grpcMaxServed = 4096

	// grpcMaxReceiving is how many requests may be on their way in: those whose messages are not there.
	grpcMaxReceiving = 1 << 15

	// grpcMaxReceivingBytes bounds what has come of their messages. The handler has bounds of its own.
	grpcMaxReceivingBytes = 256 << 20
)

// grpcListener refuses connections beyond a number. It is served by one goroutine, which has told the server of each
// connection before it accepts the next.
type grpcListener struct {
	net.Listener
	open    *atomic.Int64 // connections there are
	most    int64         // 0 for any number
	log     *slog.Logger
	refused sampler
}

// Accept implements [net.Listener].
func (l *grpcListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.most == 0 || l.open.Load() < l.most {
			return c, nil
		}
		c.Close()
		if n, ok := l.refused.pass(); ok {
			l.log.Error("connection to the gRPC port refused, because there are too many", "addr", c.RemoteAddr(), "most", l.most, "unlogged", n)
		}
	}
}

// errGRPCReceiving refuses a request that there is no room for.
func errGRPCReceiving() *grpcStatus {
	return &grpcStatus{Code: grpcResourceExhausted, Message: fmt.Sprintf("%d requests are being received", grpcMaxReceiving)}
}
