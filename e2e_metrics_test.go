package pitaya_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/transporttest"
)

func e2eMetricsCases() []e2eCase {
	return []e2eCase{
		{"metrics/forward", (*e2e).forwardMetrics},
		{"metrics/rpc", (*e2e).rpcMetrics},
		{"metrics/servers", (*e2e).serverMetrics},
	}
}

// seen waits until series of a metric have been observed as often as wanted, and fails if there are others. Times are
// not compared.
func (e *e2e) seen(r *recorder, metric string, want map[string]int) {
	e.Helper()
	got := make(map[string]int)
	until(e, metric, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		clear(got)
		n, wanted := 0, 0
		for key, list := range r.observed {
			if labels, ok := strings.CutPrefix(key, metric); ok && labels[0] == '{' {
				got[labels] = len(list)
				n += len(list)
			}
		}
		for _, k := range want {
			wanted += k
		}
		return n >= wanted
	})
	if !maps.Equal(got, want) {
		e.Errorf("%s: got\n%v\nwant\n%v", metric, got, want)
	}
	r.take(metric)
}

// Both servers report a message that is forwarded, each in its way, and routes that nobody has are one.
func (e *e2e) forwardMetrics() {
	front, back := newRecorder(), newRecorder()
	gate := e.start(pitaya.Config{Type: "gate", ID: "g", Frontend: true, Reporters: []pitaya.Reporter{front}}, nil)
	notified := make(chan bool, 1)
	e.start(pitaya.Config{Type: "room", ID: "r", Reporters: []pitaya.Reporter{back}}, func(s *pitaya.Server) {
		e.raw(s, "h.echo", func(_ context.Context, in string) (string, error) { return in, nil })
		e.raw(s, "h.coded", func(context.Context, string) (string, error) { return "", pitaya.Errorf("SHOP-1", "no gold") })
		e.raw(s, "h.note", func(context.Context, string) (string, error) { notified <- true; return "", nil })
	})
	c := gate.Client(e)
	e.ask(c, "room.h.echo", "")
	e.refused(c, "room.h.coded", "", "SHOP-1", "*")
	e.refused(c, "room.made.up", "", pitaya.CodeNotFound, "*")
	e.refused(c, "hall.h.echo", "", pitaya.CodeInternal, "*")
	e.noError(c.NotifyRaw(e.ctx(), "room.h.note", nil))
	transporttest.Await(e, notified)
	e.seen(front, "response_time_ns", map[string]int{
		"{route=room.h.echo,status=ok,type=handler,code=}":            1,
		"{route=room.h.echo,status=ok,type=rpc,code=}":                1,
		"{route=room.h.coded,status=failed,type=handler,code=SHOP-1}": 1,
		"{route=room.h.coded,status=failed,type=rpc,code=SHOP-1}":     1,
		"{route=unknown,status=failed,type=handler,code=PIT-404}":     1,
		"{route=unknown,status=failed,type=rpc,code=PIT-404}":         1,
		"{route=unknown,status=failed,type=handler,code=PIT-500}":     1,
		"{route=room.h.note,status=ok,type=rpc,code=}":                1,
	})
	e.seen(back, "response_time_ns", map[string]int{
		"{route=room.h.echo,status=ok,type=forwarded,code=}":            1,
		"{route=room.h.coded,status=failed,type=forwarded,code=SHOP-1}": 1,
		"{route=room.h.note,status=ok,type=forwarded,code=}":            1,
	})
	e.seen(back, "handler_delay_ns", map[string]int{
		"{route=room.h.echo,type=forwarded}": 1, "{route=room.h.coded,type=forwarded}": 1, "{route=room.h.note,type=forwarded}": 1,
	})
	// A route that is known by now keeps its name when it fails, and in the delay.
	front.take("handler_delay_ns")
	e.ask(c, "room.h.echo", "")
	e.seen(front, "handler_delay_ns", map[string]int{"{route=room.h.echo,type=remote}": 1})
}

// Calls between servers are reported by both, with the right codes over each transport, and with the tags that travel;
// what a handler calls does not change what it is itself reported with.
func (e *e2e) rpcMetrics() {
	e.timeout = 2 * time.Second
	front, back := newRecorder(), newRecorder()
	gate := e.start(pitaya.Config{Type: "gate", ID: "g", Frontend: true, Reporters: []pitaya.Reporter{front}}, func(s *pitaya.Server) {
		e.raw(s, "h.call", func(ctx context.Context, in string) (string, error) {
			if in != "untagged" {
				ctx = pitaya.AddMetricTagsToPropagateCtx(ctx, map[string]string{"shard": "s1"})
			}
			return rpc(ctx, s, "room.r.Do", in)
		})
	})
	release := make(chan struct{})
	e.start(pitaya.Config{Type: "room", ID: "r", Reporters: []pitaya.Reporter{back}}, func(s *pitaya.Server) {
		e.remote(s, "r", func(ctx context.Context, in string) (string, error) {
			switch in {
			case "coded":
				return "", pitaya.NewError(errors.New("no gold"), "SHOP-1", nil)
			case "panic":
				panic("secret")
			case "late":
				<-release
			}
			return fmt.Sprint(pitaya.GetFromPropagateCtx(ctx, "metric-tags")), nil
		})
	})
	c := gate.Client(e)
	e.want("answer", e.ask(c, "gate.h.call", "untagged"), "<nil>")
	e.want("answer", e.ask(c, "h.call", "tagged"), "map[shard:s1]")
	e.refused(c, "h.call", "coded", "SHOP-1", "*")
	e.refused(c, "h.call", "panic", pitaya.CodeInternal, "*")
	e.refused(c, "h.call", "late", pitaya.CodeTimeout, "*")
	close(release)
	if _, err := rpc(e.ctx(), gate.Server.Server, "room.r.nope", ""); err == nil {
		e.Error("a remote that does not exist")
	}
	e.seen(front, "response_time_ns", map[string]int{
		"{route=gate.h.call,status=ok,type=handler,code=}":                1,
		"{route=h.call,status=ok,type=handler,code=,shard=s1}":            1,
		"{route=h.call,status=failed,type=handler,code=SHOP-1,shard=s1}":  1,
		"{route=h.call,status=failed,type=handler,code=PIT-500,shard=s1}": 1,
		"{route=h.call,status=failed,type=handler,code=PIT-408,shard=s1}": 1,
		"{route=room.r.Do,status=ok,type=rpc,code=}":                      1,
		"{route=room.r.Do,status=ok,type=rpc,code=,shard=s1}":             1,
		"{route=room.r.Do,status=failed,type=rpc,code=SHOP-1,shard=s1}":   1,
		"{route=room.r.Do,status=failed,type=rpc,code=PIT-500,shard=s1}":  1,
		"{route=room.r.Do,status=failed,type=rpc,code=PIT-408,shard=s1}":  1,
		"{route=room.r.nope,status=failed,type=rpc,code=PIT-404}":         1,
	})
	e.seen(back, "response_time_ns", map[string]int{
		"{route=room.r.Do,status=ok,type=remote,code=}":                     1,
		"{route=room.r.Do,status=ok,type=remote,code=,shard=s1}":            2, // the late one among them
		"{route=room.r.Do,status=failed,type=remote,code=SHOP-1,shard=s1}":  1,
		"{route=room.r.Do,status=failed,type=remote,code=PIT-500,shard=s1}": 1,
	})
}

// Servers are counted by type, and what a cluster has of queues and pools is reported.
func (e *e2e) serverMetrics() {
	r := newRecorder()
	period := pitaya.MetricsConfig{Period: 50 * time.Millisecond}
	gate := e.start(pitaya.Config{Type: "gate", ID: "g", Frontend: true, Reporters: []pitaya.Reporter{r}, Metrics: period}, nil)
	a := e.room("a", func(s *pitaya.Server) {
		e.raw(s, "h.echo", func(_ context.Context, in string) (string, error) { return in, nil })
	})
	e.room("b", nil)
	number := func(series string, want float64) {
		e.Helper()
		until(e, fmt.Sprint(series, " is ", want), func() bool { return r.number(series) == want })
	}
	number("count_servers{type=gate}", 1)
	number("count_servers{type=room}", 2)
	a.Stop()
	number("count_servers{type=room}", 1)
	number("total_workers{pool=rpc_server_remote}", 65536)
	number("busy_workers{pool=rpc_server_remote}", 0)
	c := gate.Client(e)
	e.refused(c, "room.h.echo", "", pitaya.CodeNotFound, "*")
	number("forwards{}", 1)
	number("failed{}", 1)
	number("connected_clients{}", 1)
	channels := func() (list []string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for key, values := range r.observed {
			if channel, ok := strings.CutPrefix(key, "channel_capacity{channel="); ok && values[0] > 0 {
				list = append(list, strings.TrimSuffix(channel, "}"))
			}
		}
		slices.Sort(list)
		return list
	}
	want := []string{"agent_chsend", "handler_chlocalprocess", "handler_chremoteprocess"}
	if e.kind == e2eNATS {
		want = append(want, "rpc_server_bindingschan", "rpc_server_subchan", "rpc_server_userkickchan", "rpc_server_userpushchan")
		number("dropped_messages{}", 0)
	}
	if got := channels(); !slices.Equal(got, want) {
		e.Errorf("channels %q, want %q", got, want)
	}
}
