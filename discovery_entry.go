package pitaya

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A serverEntry is a server as JSON, as it stands in etcd: see section 10.1 of the cluster protocol. The order of the keys
// is fixed, and each is always present.
type serverEntry struct {
	ID       string            `json:"id"`
	Type     string            `json:"type"`
	Metadata map[string]string `json:"metadata"`
	Frontend bool              `json:"frontend"`
	Hostname string            `json:"hostname"`
}

func encodeServer(s *ServerInfo) ([]byte, error) {
	return json.Marshal(serverEntry{ID: s.ID, Type: s.Type, Metadata: s.Metadata, Frontend: s.Frontend, Hostname: s.Hostname})
}

// decodeServer is for what others wrote: it ignores unknown keys and returns an error for everything that is no server.
func decodeServer(b []byte) (*ServerInfo, error) {
	var e *serverEntry
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, err
	}
	if e == nil {
		return nil, errors.New("the value is null")
	}
	s := &ServerInfo{ID: e.ID, Type: e.Type, Metadata: e.Metadata, Frontend: e.Frontend, Hostname: e.Hostname}
	return s, checkServerInfo(s)
}

// checkServerInfo refuses an id or type that cannot stand in a key of etcd, or in a route.
func checkServerInfo(s *ServerInfo) error {
	for _, f := range []struct{ name, text, forbidden string }{{"id", s.ID, "/"}, {"type", s.Type, "/."}} {
		switch {
		case f.text == "":
			return fmt.Errorf("no %s", f.name)
		case !utf8.ValidString(f.text):
			return fmt.Errorf("%s %q is not UTF-8", f.name, f.text)
		case strings.ContainsAny(f.text, f.forbidden):
			return fmt.Errorf("%s %q contains one of %q", f.name, f.text, f.forbidden)
		case strings.ContainsFunc(f.text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
			return fmt.Errorf("%s %q contains white space or a control character", f.name, f.text)
		}
	}
	return nil
}

// sameServer reports whether two descriptions say the same.
func sameServer(a, b *ServerInfo) bool {
	return a.ID == b.ID && a.Type == b.Type && a.Frontend == b.Frontend && a.Hostname == b.Hostname &&
		maps.Equal(a.Metadata, b.Metadata)
}
