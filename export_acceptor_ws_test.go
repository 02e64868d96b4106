package pitaya

import "unsafe"

// The door of the WebSocket listener's tests.

const WSConnSize = unsafe.Sizeof(wsConn{})

var (
	DialWS      = dialWS
	WSAcceptKey = wsAcceptKey
)
