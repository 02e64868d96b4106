//go:build nocluster

package pitaya

// What export_rpc_nats_test.go has, so that the tests that need NATS compile without it, too.

func NATSServer(*NATSTransport) string { return "" }

func (*NATSTransport) DroppedOf(string) int64 { return 0 }
