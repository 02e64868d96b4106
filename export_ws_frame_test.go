package pitaya

// The door of the frame codec's tests.

type WSReader = wsReader

const (
	WSContinuation, WSText, WSBinary, WSClose, WSPing, WSPong = wsContinuation, wsText, wsBinary, wsClose, wsPing, wsPong
	WSCloseNoStatus                                           = wsCloseNoStatus
)

var (
	AppendWSHeader = appendWSHeader
	AppendWSFrame  = appendWSFrame
	AppendWSClose  = appendWSClose
	ParseWSClose   = parseWSClose
	XORWSKey       = xorWSKey
)

func NewWSReader(client bool, limit int64) *WSReader { return new(newWSReader(client, limit)) }

func (r *wsReader) Decode(b []byte, control func(op byte, payload []byte) error) ([]byte, error) {
	return r.decode(b, control)
}

func (e *wsError) Code() uint16 { return e.closeCode() }
