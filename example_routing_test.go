package pitaya_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/pitaya-go/pitaya"
)

// routeExample lets a function choose among three servers, as a server that has
// been given it with AddRoute does.
func routeExample(f pitaya.RoutingFunc, payload string) string {
	servers := map[string]*pitaya.ServerInfo{
		"room-1": {ID: "room-1", Type: "room", Metadata: map[string]string{"region": "eu"}},
		"room-2": {ID: "room-2", Type: "room", Metadata: map[string]string{"region": "us"}},
		"room-3": {ID: "room-3", Type: "room", Metadata: map[string]string{"region": "eu"}},
	}
	route := pitaya.Route{ServerType: "room", Service: "chat", Method: "join"}
	s, err := f(context.Background(), route, []byte(payload), servers)
	if err != nil {
		return err.Error()
	}
	return s.ID
}

// Servers of a type take turns.
func ExampleRouteRoundRobin() {
	srv, err := pitaya.NewServer(pitaya.Config{Type: "gate", Frontend: true})
	if err != nil {
		panic(err)
	}
	turns := pitaya.RouteRoundRobin()
	if err := srv.AddRoute("room", turns); err != nil {
		panic(err)
	}
	fmt.Println(routeExample(turns, ""), routeExample(turns, ""), routeExample(turns, ""), routeExample(turns, ""))
	// Output: room-1 room-2 room-3 room-1
}

// All who want to enter a room are led to the server that has it, whichever
// frontend they are on.
func ExampleRouteHash() {
	byRoom := pitaya.RouteHash(func(_ context.Context, _ pitaya.Route, payload []byte) string {
		var join struct{ Room string }
		json.Unmarshal(payload, &join) // without a room any server will do, and will say what is wrong
		return join.Room
	})
	for _, room := range []string{"lobby", "garden"} {
		ann := routeExample(byRoom, `{"Room":"`+room+`","Name":"Ann"}`)
		bob := routeExample(byRoom, `{"Room":"`+room+`","Name":"Bob"}`)
		fmt.Println(room, ann == bob)
	}
	// Output:
	// lobby true
	// garden true
}

// A session is given the server with the least to do, and stays there.
func ExampleRouteSticky() {
	srv, err := pitaya.NewServer(pitaya.Config{Type: "gate", Frontend: true})
	if err != nil {
		panic(err)
	}
	fmt.Println(srv.AddRoute("room", pitaya.RouteSticky(srv.RouteLeastPending())))
	// Output: <nil>
}

// Players are led to servers of their region, which the session knows since
// they have logged in.
func ExampleRouteByMetadata() {
	region := func(ctx context.Context) string {
		if s := pitaya.SessionFromContext(ctx); s != nil {
			r, _ := pitaya.SessionValue[string](s, "region")
			return r
		}
		return "eu"
	}
	near := pitaya.RouteByMetadata("region", region, pitaya.RouteRoundRobin())
	fmt.Println(routeExample(near, ""), routeExample(near, ""), routeExample(near, ""))

	mars := pitaya.RouteByMetadata("region", func(context.Context) string { return "mars" }, pitaya.RouteRandom)
	fmt.Println(routeExample(mars, ""))
	// Output:
	// room-1 room-3 room-1
	// no server of type room has region "mars"
}
