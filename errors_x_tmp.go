package pitaya

import "errors"

// ErrProtocol is replaced by the one of errors.go.
var ErrProtocol = errors.New("pitaya: protocol error")
