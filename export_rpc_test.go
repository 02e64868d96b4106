package pitaya

import "time"

// Doors for the tests of what travels between servers.

type (
	RPCRequest     = rpcRequest
	RPCResponse    = rpcResponse
	RPCMsg         = rpcMsg
	RPCPush        = rpcPush
	RPCUsers       = rpcUsers
	RPCClaim       = rpcClaim
	RPCClaimAnswer = rpcClaimAnswer
	RPCEvent       = rpcEvent
)

func (r *rpcRequest) Encode() []byte     { return r.encode() }
func (r *rpcResponse) Encode() []byte    { return r.encode() }
func (p *rpcPush) Encode() []byte        { return p.encode() }
func (u *rpcUsers) Encode() []byte       { return u.encode() }
func (c *rpcClaim) Encode() []byte       { return c.encode() }
func (c *rpcClaimAnswer) Encode() []byte { return c.encode() }
func (e *rpcEvent) Encode() []byte       { return e.encode() }
func (s *rpcSession) Encode() []byte     { return s.append(nil) }

func (r *rpcRequest) Decode(b []byte) error     { return r.decode(b) }
func (r *rpcResponse) Decode(b []byte) error    { return r.decode(b) }
func (p *rpcPush) Decode(b []byte) error        { return p.decode(b) }
func (u *rpcUsers) Decode(b []byte) error       { return u.decode(b) }
func (c *rpcClaim) Decode(b []byte) error       { return c.decode(b) }
func (c *rpcClaimAnswer) Decode(b []byte) error { return c.decode(b) }
func (e *rpcEvent) Decode(b []byte) error       { return e.decode(b) }

// RPCSession is a session in an envelope.
type RPCSession = rpcSession

func (s *rpcSession) Decode(b []byte) error { return s.decode(b) }

// DecodePropagated returns what a server reads of Request.metadata.
func DecodePropagated(raw []byte) (id string, timeout time.Duration, values map[string]any, err error) {
	p, err := decodePropagated(raw)
	if err != nil {
		return "", 0, nil, err
	}
	return p.requestID(), p.Timeout, p.values(), nil
}

// AppendForwarded is Request.metadata of a client's message.
func AppendForwarded(id, serverType, route, requestID string, start time.Time, limit time.Duration, span map[string]string) []byte {
	return appendForwarded(nil, id, serverType, route, requestID, start, limit, span)
}

// CarrierOf is the trace's context in Request.metadata, which must be valid.
func CarrierOf(raw []byte) map[string]string {
	p, err := decodePropagated(raw)
	if err != nil {
		return nil
	}
	return p.carrier()
}

// LimitText is a time limit as it travels.
func LimitText(d time.Duration) string { return limitText(d) }

var (
	CheckSessionData  = checkSessionData
	DecodeSessionData = decodeSessionData
	DecodeRPCError    = decodeRPCError
)

// A DataSession is a session that has nothing but data.
type DataSession struct{ *Session }

func NewDataSession(values map[string]any) DataSession {
	return DataSession{&Session{values: values}}
}

func (s DataSession) Replace(b []byte) error { return s.replaceData(b) }
func (s DataSession) Merge(b []byte) error   { return s.mergeChanges(b) }
func (s DataSession) Encoded() []byte        { return s.encodedData() }
