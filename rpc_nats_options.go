//go:build !nocluster

package pitaya

import (
	"cmp"
	"time"
)

// natsDefaults fills in what the settings leave open.
func natsDefaults(c NATSConfig) NATSConfig {
	c.URL = cmp.Or(c.URL, "nats://localhost:4222")
	c.ConnectTimeout = cmp.Or(max(c.ConnectTimeout, 0), 2*time.Second)
	c.ReconnectWait = cmp.Or(max(c.ReconnectWait, 0), time.Second)
	c.ReconnectJitter = max(cmp.Or(c.ReconnectJitter, 100*time.Millisecond), 0)
	c.ReconnectJitterTLS = max(cmp.Or(c.ReconnectJitterTLS, time.Second), 0)
	c.PingInterval = cmp.Or(max(c.PingInterval, 0), 2*time.Minute)
	c.MaxPings = cmp.Or(max(c.MaxPings, 0), 3)
	c.MaxReconnects = max(c.MaxReconnects, 0)
	c.RequestTimeout = cmp.Or(max(c.RequestTimeout, 0), 5*time.Second)
	c.BufferMessages = cmp.Or(max(c.BufferMessages, 0), natsMessages)
	c.BufferPush = cmp.Or(max(c.BufferPush, 0), natsMessages)
	return c
}

// sameNATS reports whether two sides can share a connection.
func sameNATS(a, b NATSConfig) bool {
	for _, c := range []*NATSConfig{&a, &b} {
		// What has nothing to do with the connection.
		c.RequestTimeout, c.BufferMessages, c.BufferPush, c.Services = 0, 0, 0, 0
	}
	return a == b
}
