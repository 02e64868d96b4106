package pitaya

// DecodeServer, EncodeServer and SameServer open the entries of discovery to the fuzz test.
func DecodeServer(b []byte) (*ServerInfo, error) { return decodeServer(b) }
func EncodeServer(s *ServerInfo) ([]byte, error) { return encodeServer(s) }
func SameServer(a, b *ServerInfo) bool           { return sameServer(a, b) }
