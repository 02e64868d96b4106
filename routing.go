package pitaya

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
)

// Routing functions that come with the library, for [Server.AddRoute]. They
// hold on to nothing of a server, so one of them may be given for several types.

// RouteRandom chooses at random, each server as often as the others. It is what
// types without a routing function have.
func RouteRandom(_ context.Context, _ Route, _ []byte, servers map[string]*ServerInfo) (*ServerInfo, error) {
	if len(servers) == 0 { // the caller's work: the library always has some
		return nil, nil
	}
	// The order of a map's iteration is not random enough by itself.
	n := rand.IntN(len(servers))
	for _, s := range servers {
		if n == 0 {
			return s, nil
		}
		n--
	}
	return nil, nil
}

// RouteRoundRobin returns a function that chooses one server after the other,
// in the order of their ids. When servers come or go it goes on from where it
// was. Each server of the cluster counts for itself.
func RouteRoundRobin() RoutingFunc {
	var mu sync.Mutex
	last := make(map[string]string) // id by type; as many as AddRoute was given the function for
	return func(_ context.Context, route Route, _ []byte, servers map[string]*ServerInfo) (*ServerInfo, error) {
		mu.Lock()
		defer mu.Unlock()
		before := last[route.ServerType]
		var first, next *ServerInfo // the lowest id, and the lowest above the last one
		for _, s := range servers {
			if first == nil || s.ID < first.ID {
				first = s
			}
			if s.ID > before && (next == nil || s.ID < next.ID) {
				next = s
			}
		}
		if next == nil {
			next = first
		}
		if next != nil {
			last[route.ServerType] = next.ID
		}
		return next, nil
	}
}

// routeLeastPending makes the function of [Server.RouteLeastPending]. pending
// returns the number of calls to a server that wait for their answers.
func routeLeastPending(pending func(id string) int64) RoutingFunc {
	return func(_ context.Context, _ Route, _ []byte, servers map[string]*ServerInfo) (*ServerInfo, error) {
		var best *ServerInfo
		var least int64
		equal := 0 // servers with as few
		for _, s := range servers {
			n := pending(s.ID)
			switch {
			case best == nil || n < least:
				best, least, equal = s, n, 1
			case n == least:
				// Each of k equals is taken with probability 1/k in the end.
				if equal++; rand.IntN(equal) == 0 {
					best = s
				}
			}
		}
		return best, nil
	}
}

// RouteByUID chooses by the user of the session, so that all that one user does
// leads to the same server of a type; see [RouteHash]. A session that is not
// bound has a place of its own, which it leaves when it is bound. Calls that no
// session has led to go anywhere.
func RouteByUID(ctx context.Context, _ Route, _ []byte, servers map[string]*ServerInfo) (*ServerInfo, error) {
	s := SessionFromContext(ctx)
	if s == nil {
		return RouteRandom(ctx, Route{}, nil, servers)
	}
	// Uids contain no blanks, so the two kinds of keys are not confused.
	if uid := s.UID(); uid != "" {
		return rendezvous(uid, servers), nil
	}
	return rendezvous(s.frontend()+" "+strconv.FormatInt(s.FrontendSessionID(), 10), servers), nil
}

// RouteHash returns a function that chooses by a key: the name of a room, say,
// which key finds in the payload, in the session's data, or in what travels
// with the call. All servers of the cluster choose the same server for the same
// key while they know of the same servers. When a server comes, it takes its
// share of the keys from all others; when one goes, only its keys go elsewhere
// (rendezvous hashing). Calls with an empty key go anywhere.
//
// How keys are spread does not change between versions of the library.
//
// Without a function for the key there is no routing function either: RouteHash
// returns nil, which AddRoute refuses.
func RouteHash(key func(ctx context.Context, route Route, payload []byte) string) RoutingFunc {
	if key == nil {
		return nil
	}
	return func(ctx context.Context, route Route, payload []byte, servers map[string]*ServerInfo) (*ServerInfo, error) {
		k := key(ctx, route, payload)
		if k == "" {
			return RouteRandom(ctx, route, payload, servers)
		}
		return rendezvous(k, servers), nil
	}
}

// rendezvous returns the server with the highest score for the key.
func rendezvous(key string, servers map[string]*ServerInfo) (best *ServerInfo) {
	var top uint64
	k := mix64(fnv64(key))
	for _, s := range servers {
		score := mix64(k ^ fnv64(s.ID))
		if best == nil || score > top || score == top && s.ID < best.ID {
			best, top = s, score
		}
	}
	return best
}

// fnv64 is the hash FNV-1a of a text.
func fnv64(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix64 lets each bit of its argument change half of the bits of its result
// (the finalizer of MurmurHash3). FNV alone gives ids that differ in their last
// letter scores that are alike.
func mix64(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// stickyKey is the begin of the keys of session data that hold choices.
const stickyKey = "pitaya-go.route."

// RouteSticky returns a function that lets a session stay: the server that first
// chooses for its first message to a type handles the following ones as well,
// whatever servers come. Only when it has gone, drains, or cannot be reached
// does first choose anew, and the session stays there.
//
// The choice is kept in the session's data, under "pitaya-go.route." and the
// type, so it ends with the session, travels with it, and is forgotten by
// [Session.SetData]. A backend finds in the session of a call what the frontend
// has chosen, and its own RPCs follow that. What a backend chooses for a type
// that the frontend has sent nothing to holds for the call, and for longer if
// the handler calls [Session.PushToFront]. Calls that no session has led to,
// such as those made in remotes, are all left to first.
//
// The choice comes before first is asked: to bind sessions to other servers
// when what [RouteByMetadata] looks at changes, put RouteSticky into it, and not
// around it. RouteSticky(nil) is nil, which AddRoute refuses.
func RouteSticky(first RoutingFunc) RoutingFunc {
	if first == nil {
		return nil
	}
	return func(ctx context.Context, route Route, payload []byte, servers map[string]*ServerInfo) (*ServerInfo, error) {
		session := SessionFromContext(ctx)
		if session == nil {
			return first(ctx, route, payload, servers)
		}
		key := stickyKey + route.ServerType
		old, _ := session.Get(key).(string)
		if s := servers[old]; s != nil {
			return s, nil
		}
		mine := maps.Clone(servers) // it may do with them what it likes
		s, err := first(ctx, route, payload, mine)
		if err != nil || s == nil {
			return s, err
		}
		// Another call of the session may have been faster.
		if now := session.settle(key, old, s.ID); now != s.ID && servers[now] != nil {
			return servers[now], nil
		}
		return s, nil
	}
}

// RouteByMetadata returns a function that lets next choose among the servers
// whose metadata ([Config.Metadata]) has under key what value returns: those of
// the player's region, say, or of the client's version. If there are none, the
// call fails with [CodeInternal]; value may return "", which servers without
// the key have.
//
// Without value or next it is nil, which AddRoute refuses.
func RouteByMetadata(key string, value func(ctx context.Context) string, next RoutingFunc) RoutingFunc {
	if value == nil || next == nil {
		return nil
	}
	return func(ctx context.Context, route Route, payload []byte, servers map[string]*ServerInfo) (*ServerInfo, error) {
		want := value(ctx)
		maps.DeleteFunc(servers, func(_ string, s *ServerInfo) bool { return s.Metadata[key] != want })
		if len(servers) == 0 {
			return nil, &Error{
				Code:     CodeInternal,
				Message:  fmt.Sprintf("no server of type %s has %s %q", route.ServerType, key, want),
				Metadata: map[string]string{key: want},
			}
		}
		return next(ctx, route, payload, servers)
	}
}
