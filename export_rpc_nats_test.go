package pitaya

// NATSServer is the address of the NATS server that a transport calls through; "" if there is none.
func NATSServer(t *NATSTransport) string {
	if l := t.calling.link.Load(); l != nil {
		return l.nc.ConnectedUrl()
	}
	return ""
}
