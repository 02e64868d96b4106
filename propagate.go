package pitaya

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// propagateKey is the key of the values that travel with RPCs.
type propagateKey struct{}

// AddToPropagateCtx returns a context that carries value under key to the
// servers that RPCs made with it go to, and to those that they call in turn.
// The value must be one that JSON can express; numbers arrive as float64. The
// values of ctx itself stay as they are.
//
// Under "reqTimeout", the text of a duration says how long such RPCs may take,
// if not as long as the settings say. "metric-tags" is what
// [AddMetricTagsToPropagateCtx] adds.
func AddToPropagateCtx(ctx context.Context, key string, value any) context.Context {
	old := propagatedValues(ctx)
	values := make(map[string]any, len(old)+1)
	maps.Copy(values, old)
	values[key] = value
	if key == propagatedTags {
		if c := callFromContext(ctx); c != nil {
			c.TagMetrics(tagsOf(value))
		}
	}
	return context.WithValue(ctx, propagateKey{}, values)
}

// AddMetricTagsToPropagateCtx returns a context with labels for the metrics of
// the calls that are made with it, instead of those that ctx had. They travel, so
// the servers that are called report them too. Given the context of a handler or
// remote, or one that comes from it, the response time of that call itself gets
// them as well; the last ones that are added before it is answered count.
//
// A tag goes before a label of the same name. Reporters may drop labels that they
// do not know: those for Prometheus know what [MetricsConfig].AdditionalLabels
// has. Values should be few, since each is a time series of its own.
func AddMetricTagsToPropagateCtx(ctx context.Context, tags map[string]string) context.Context {
	return AddToPropagateCtx(ctx, propagatedTags, maps.Clone(tags))
}

// tagsOf returns a value of metric-tags as texts: as it was put, or as it arrives
// from another server. What is no text is left out.
func tagsOf(value any) map[string]string {
	switch v := value.(type) {
	case map[string]string:
		return v
	case map[string]any:
		tags := make(map[string]string, len(v))
		for name, value := range v {
			if text, ok := value.(string); ok {
				tags[name] = text
			}
		}
		return tags
	}
	return nil
}

// metricTags returns the tags for a call that is made with ctx.
func metricTags(ctx context.Context) map[string]string {
	if values, ok := ctx.Value(propagateKey{}).(map[string]any); ok {
		return tagsOf(values[propagatedTags])
	}
	if c := callFromContext(ctx); c != nil {
		return c.In.tags()
	}
	return nil
}

// Keys of the values that the library itself propagates (cluster protocol,
// section 4).
const (
	propagatedID      = "request.id"
	propagatedRoute   = "req-route"
	propagatedStart   = "req-start-time"
	propagatedTimeout = "reqTimeout"
	propagatedPeer    = "peer.id"
	propagatedService = "peer.service"
	propagatedSpan    = "otel-span"
	propagatedTags    = "metric-tags"
)

// GetFromPropagateCtx returns the value that [AddToPropagateCtx] stored under
// key, here or on a server that called this one; nil if there is none. In
// handlers and remotes "request.id" is a text that tells the client's request
// from all others, and "req-route" the route as the client or the calling server
// wrote it; where another server has called,
// "peer.id" and "peer.service" are its id and type.
func GetFromPropagateCtx(ctx context.Context, key string) any {
	if c := callFromContext(ctx); c != nil {
		switch key { // without a look at what came along, which may not be decoded yet
		case propagatedID:
			return c.RequestID()
		case propagatedRoute:
			return cmp.Or(c.Text, c.Route)
		}
	}
	return propagatedValues(ctx)[key]
}

// propagatedValues returns what travels with calls made with ctx, besides what
// is added for each. It must not be changed.
func propagatedValues(ctx context.Context) map[string]any {
	if values, ok := ctx.Value(propagateKey{}).(map[string]any); ok {
		return values
	}
	if c := callFromContext(ctx); c != nil {
		return c.In.values()
	}
	return nil
}

// propagated is what another server sent along with its call. Most handlers
// never ask for it, so it is decoded only when somebody does. A nil one is
// empty. It may be used by several goroutines.
type propagated struct {
	Timeout time.Duration // how long the caller waits; 0 is not said

	raw    []byte // a JSON object
	id     string
	tagged bool // it has metric-tags
	once   sync.Once
	all    map[string]any
}

var errPropagated = errors.New("pitaya: the values sent along are no JSON object")

// decodePropagated looks at Request.metadata as far as the library itself needs
// it. Keys are those of the wire to the letter: encoding/json would take another
// case of them as well, and those are the application's.
func decodePropagated(raw []byte) (*propagated, error) {
	if trimmed := bytes.TrimLeft(raw, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' || !json.Valid(raw) {
		return nil, errPropagated // null among them, which some peers have died of
	}
	var id, timeout []byte
	tagged := false
	eachJSONKey(raw, func(key, value []byte) {
		switch string(key) {
		case propagatedID:
			id = value
		case propagatedTimeout:
			timeout = value
		case propagatedTags:
			tagged = true
		}
	})
	p := &propagated{raw: raw, tagged: tagged}
	p.id, _ = unquoteJSON(id)
	if len(timeout) == 0 || timeout[0] == 'n' { // null
		return p, nil
	}
	text, ok := unquoteJSON(timeout)
	if !ok {
		return nil, fmt.Errorf("pitaya: %s is no text", propagatedTimeout)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, fmt.Errorf("pitaya: %s is no duration", propagatedTimeout)
	}
	p.Timeout = max(d, time.Nanosecond)
	return p, nil
}

// eachJSONKey calls f for each key of an object, which is known to be valid
// JSON, with the value as it is written.
func eachJSONKey(object []byte, f func(key, value []byte)) {
	b := object[bytes.IndexByte(object, '{')+1:]
	for {
		start := bytes.IndexAny(b, `"}`)
		if start < 0 || b[start] == '}' {
			return
		}
		b = b[start:]
		n := jsonLength(b)
		key := b[1 : n-1]
		if bytes.IndexByte(key, '\\') >= 0 {
			text, _ := unquoteJSON(b[:n])
			key = []byte(text)
		}
		b = bytes.TrimLeft(b[n:], ": \t\r\n")
		n = jsonLength(b)
		f(key, b[:n])
		b = b[n:]
	}
}

// jsonLength returns the length of the value that b begins with.
func jsonLength(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return min(i+1, len(b))
			}
		case '{', '[':
			depth++
		case '}', ']':
			switch depth--; depth {
			case 0:
				return i + 1
			case -1: // of the object around a number
				return i
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}

// unquoteJSON returns a value that is a text.
func unquoteJSON(value []byte) (text string, ok bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	inner := value[1 : len(value)-1]
	if bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return string(inner), true
	}
	return text, json.Unmarshal(value, &text) == nil
}

func (p *propagated) requestID() string {
	if p == nil {
		return ""
	}
	return p.id
}

// tags returns the metric-tags that came along.
func (p *propagated) tags() map[string]string {
	if p == nil || !p.tagged {
		return nil
	}
	return tagsOf(p.values()[propagatedTags])
}

func (p *propagated) values() map[string]any {
	if p == nil {
		return nil
	}
	p.once.Do(func() {
		json.Unmarshal(p.raw, &p.all) // is valid; a number too large for float64 becomes nil
		if span, ok := p.all[propagatedSpan]; ok && !isTextMap(span) {
			delete(p.all, propagatedSpan)
		}
	})
	return p.all
}

// carrier returns the trace's context as another server has injected it, nil if
// it has not, or if that is nothing of the kind. It is decoded each time, and
// asked for once by servers with a Tracer; others never do.
func (p *propagated) carrier() map[string]string {
	if p == nil {
		return nil
	}
	var span []byte
	eachJSONKey(p.raw, func(key, value []byte) {
		if string(key) == propagatedSpan {
			span = value
		}
	})
	var carrier map[string]string
	if len(span) == 0 || json.Unmarshal(span, &carrier) != nil {
		return nil
	}
	return boundCarrier(carrier)
}

// peer returns the id and the type of the server that has called, "" where it
// does not say.
func (p *propagated) peer() (id, serverType string) {
	eachJSONKey(p.raw, func(key, value []byte) {
		switch string(key) {
		case propagatedPeer:
			id, _ = unquoteJSON(value)
		case propagatedService:
			serverType, _ = unquoteJSON(value)
		}
	})
	return id, serverType
}

// isTextMap reports whether a value from JSON is an object of texts.
func isTextMap(v any) bool {
	m, ok := v.(map[string]any)
	for _, v := range m {
		if _, text := v.(string); !text {
			return false
		}
	}
	return ok
}

// callLimit returns how long a call made with ctx may take: what was propagated
// if it was, else the setting; and never longer than ctx lasts.
func callLimit(ctx context.Context, setting time.Duration) time.Duration {
	limit := setting
	if c := callFromContext(ctx); c != nil && c.In != nil && c.In.Timeout > 0 {
		limit = c.In.Timeout
	}
	if values, ok := ctx.Value(propagateKey{}).(map[string]any); ok {
		if text, ok := values[propagatedTimeout].(string); ok {
			if d, err := time.ParseDuration(text); err == nil && d > 0 {
				limit = d
			}
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline))
	}
	return limit
}

// limitText is a limit as it travels: rounded up to milliseconds, which is what
// clocks and people tell apart.
func limitText(limit time.Duration) string {
	const unit = time.Millisecond
	if rest := limit % unit; rest > 0 && limit < math.MaxInt64-unit {
		limit += unit - rest
	}
	return limit.String()
}

// encodePropagated returns Request.metadata for a call made with ctx by the server
// with the given id and type. The span is what its Tracer has injected, nil if
// it has not: then what came along is passed on.
func encodePropagated(ctx context.Context, id, serverType string, limit time.Duration, span map[string]string) ([]byte, error) {
	old := propagatedValues(ctx)
	values := make(map[string]any, len(old)+7)
	maps.Copy(values, old)
	if span != nil {
		values[propagatedSpan] = span
	}
	if c := callFromContext(ctx); c != nil {
		values[propagatedID] = c.RequestID()
		values[propagatedRoute] = cmp.Or(c.Text, c.Route)
		if c.In == nil {
			values[propagatedStart] = c.Start.UnixNano()
		}
	}
	values[propagatedPeer] = id
	values[propagatedService] = serverType
	values[propagatedTimeout] = limitText(limit)
	b, err := json.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("pitaya: values that travel with calls: %w", err)
	}
	return b, nil
}

// appendForwarded appends Request.metadata for a client's message: the same
// object that encodePropagated makes, with the keys that such a message has.
// span may be nil.
func appendForwarded(b []byte, id, serverType, route, requestID string, start time.Time, limit time.Duration, span map[string]string) []byte {
	b = append(b, '{')
	if span != nil {
		texts, _ := json.Marshal(span) // texts can always be marshalled
		b = append(b, `"`+propagatedSpan+`":`...)
		b = append(b, texts...)
		b = append(b, ',')
	}
	b = append(b, `"`+propagatedPeer+`":`...)
	b = appendJSONText(b, id)
	b = append(b, `,"`+propagatedService+`":`...)
	b = appendJSONText(b, serverType)
	b = append(b, `,"`+propagatedRoute+`":`...)
	b = appendJSONText(b, route)
	b = append(b, `,"`+propagatedStart+`":`...)
	b = strconv.AppendInt(b, start.UnixNano(), 10)
	b = append(b, `,"`+propagatedTimeout+`":"`...)
	b = append(b, limitText(limit)...)
	b = append(b, `","`+propagatedID+`":"`...)
	b = append(b, requestID...)
	return append(b, `"}`...)
}

// appendJSONText appends a text as encoding/json writes it.
func appendJSONText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string can always be marshalled
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
