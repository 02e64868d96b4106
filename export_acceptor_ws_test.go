package pitaya

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"unsafe"
)

// The door of the WebSocket listener's tests.

const WSConnSize = unsafe.Sizeof(wsConn{})

var DialWS = dialWS

func WSAcceptKey(key string) string { return string(appendWSAccept(nil, key)) }

// WSVerdicts returns the status with which l answers a request, and who it says has sent it: as this package reads it, and
// as package net/http does where the lines are in order.
func WSVerdicts(l *WSListener, request []byte) (own, standard int, ownFrom, standardFrom *net.TCPAddr) {
	verdict := func(r *wsRequest, ok bool) (int, *net.TCPAddr) {
		if !ok {
			return wsMalformed.status, nil
		}
		if refusal := l.check(r); refusal != nil {
			return refusal.status, nil
		}
		return http.StatusSwitchingProtocols, l.forwarded(r)
	}
	var scan wsHeaderScan
	n, ok := scan.take(request)
	if !ok || !scan.done() {
		return
	}
	var r wsRequest
	own, ownFrom = verdict(&r, r.parse(request[:n]))
	h, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request[:n])))
	if err == nil {
		r.take(h)
	}
	standard, standardFrom = verdict(&r, err == nil)
	return
}
