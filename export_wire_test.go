package pitaya

// Doors for the tests of the wire layer.

var (
	ErrShortHeader = errShortHeader
	ErrShortBody   = errShortBody

	WireError           = wireError
	MarshalErrorPayload = marshalErrorPayload
	DecodeErrorPayload  = decodeErrorPayload

	DecodeMessageView = decodeMessageView
	PutPacketHeader   = putPacketHeader

	Deflate = deflate
	Inflate = inflate

	AppendHandshake         = appendHandshake
	AppendHandshakeResponse = appendHandshakeResponse
	DecodeHandshakeResponse = decodeHandshakeResponse
)

const (
	DeflateMin   = deflateMin
	InflateFloor = inflateFloor
	InflateRatio = inflateRatio
)

func (h *HandshakeData) Inflates() bool       { return h.inflates() }
func (h *HandshakeData) KnowsPushCodes() bool { return h.knowsPushCodes() }
