package pitaya

// The door of the PROXY protocol's tests.

var ReadProxyHeader = readProxyHeader
