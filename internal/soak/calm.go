package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// What must hold once nothing is wrong any more, and how long it may take.
const (
	answerTime   = 20 * time.Second // until no request waits for its answer
	convergeTime = 40 * time.Second // until all servers know each other and are healthy
	uniqueTime   = 20 * time.Second // until each user has one session at most
	settleTime   = 60 * time.Second // until all bots play
	countTime    = 60 * time.Second // until no session is there but theirs, and nothing is used but for them
	probeTime    = 15 * time.Second // until everybody has been reached
	fairTime     = 4 * time.Second  // of play while nothing is wrong
)

// until polls until nothing is missing, and returns what was missing in the end and how long it took.
func (r *run) until(limit time.Duration, missing func() (string, error)) (time.Duration, error) {
	began, lag := time.Now(), r.world.lag.Total()
	for {
		asked := time.Now()
		what, err := missing()
		took, cost := time.Since(began), time.Since(asked)
		switch {
		case r.ctx.Err() != nil:
			return took, r.ctx.Err()
		case err != nil:
			what = err.Error()
		case what == "":
			return took, nil
		}
		if took-10*(r.world.lag.Total()-lag) > limit {
			return took, errors.New(what)
		}
		timer := time.NewTimer(max(100*time.Millisecond, 3*cost))
		select {
		case <-timer.C:
		case <-r.ctx.Done():
			timer.Stop()
		}
	}
}

// hold checks that something comes to hold, which is a violation otherwise, and keeps the time that it took.
func (r *run) hold(what string, limit time.Duration, missing func() (string, error)) bool {
	took, err := r.until(limit, missing)
	if r.ctx.Err() != nil {
		return false
	}
	if err != nil {
		r.report.Violation("cluster", fmt.Sprintf("%s: not within %v: %v", what, limit, err), nil)
		return false
	}
	r.report.Max("until "+what+", ms", int(took.Milliseconds()))
	r.report.Logf("%s: after %v", what, took.Round(time.Millisecond))
	return true
}

// calm lets the cluster come to rest, when all faults have been mended, and checks what must hold then. It reports false if
// there is no use in going on.
func (r *run) calm(ctx context.Context) bool {
	r.world.mode.set(modeQuiet)
	ok := r.hold("requests are answered", answerTime, r.unanswered) &&
		r.hold("servers know each other", convergeTime, r.strangers) &&
		r.hold("each user has one session", uniqueTime, r.doubles)
	if !ok {
		return false
	}
	lost := r.cluster.groupsLost.Swap(false)
	if lost {
		if _, err := r.until(probeTime, func() (string, error) { return "", r.createGroups() }); err != nil {
			r.report.Violation("cluster", fmt.Sprintf("making the groups again: %v", err), nil)
			return false
		}
	}
	for _, b := range r.bots {
		b.unsettle(lost)
	}
	r.world.mode.set(modeSettle)
	ok = r.hold("all bots play", settleTime, r.unsettled) &&
		r.hold("bindings are those of the bots", countTime, r.bindings) &&
		r.hold("groups are those of the bots", probeTime, r.members)
	if !ok {
		return false
	}
	conns := make(map[*bot]botState)
	for _, b := range r.bots {
		conns[b] = b.state()
	}
	r.probe++
	ok = r.reach() && r.hold("nothing is left over", countTime, func() (string, error) { return r.leftOver(false) })
	for b, before := range conns {
		if now := b.state(); ok && now.Conn != before.Conn && !r.world.lag.Recent() {
			b.complain("the connection was lost while nothing was wrong")
		}
	}
	ok = ok && r.fair()
	r.journals()
	if err := r.cluster.readLogs(); err != nil {
		r.report.Violation("logs", err.Error(), nil)
	}
	return ok
}

// fair lets the bots play while nothing is wrong: every request has its result, every push arrives, and no connection ends.
func (r *run) fair() bool {
	for _, b := range r.bots {
		b.fairWeather(true)
	}
	r.world.mode.set(modeFair)
	r.sleep(fairTime)
	r.world.mode.set(modeQuiet)
	ok := r.hold("requests are answered in fair weather", requestTimeout, r.unanswered)
	for _, b := range r.bots {
		b.fairWeather(false)
	}
	return ok
}

func (r *run) unanswered() (string, error) {
	n := 0
	var who *bot
	for _, b := range r.bots {
		if b.state().Pending > 0 {
			n++
			who = b
		}
	}
	if n == 0 {
		return "", nil
	}
	who.mu.Lock()
	defer who.mu.Unlock()
	return fmt.Sprintf("%d bots wait, %s among them:\n%s", n, who.name(), strings.Join(who.log.lines(), "\n")), nil
}

func (r *run) strangers() (string, error) {
	want := make(map[string]string)
	for _, n := range r.cluster.nodes {
		id, _ := n.now()
		want[id] = n.kind
	}
	list, err := r.cluster.states(false)
	for _, s := range list {
		if !maps.Equal(s.Servers, want) {
			return fmt.Sprintf("%s knows %v, and there are %v", s.Process, s.Servers, want), err
		}
		if s.Unhealthy != "" {
			return fmt.Sprintf("%s is not healthy: %s", s.Process, s.Unhealthy), err
		}
	}
	return "", err
}

func (r *run) doubles() (string, error) {
	list, err := r.cluster.states(false)
	where := make(map[string]string)
	for _, s := range list {
		for uid, n := range s.Users {
			if other := where[uid]; other != "" || n > 1 {
				return fmt.Sprintf("%s is on %s (%d times) and on %s\n%s", uid, s.Process, n, other, r.histories(uid)), err
			}
			where[uid] = s.Process
		}
	}
	return "", err
}

func (r *run) unsettled() (string, error) {
	n := 0
	var who *bot
	for _, b := range r.bots {
		if !b.state().Settled {
			n++
			who = b
		}
	}
	if n == 0 {
		return "", nil
	}
	state := who.state()
	who.mu.Lock()
	defer who.mu.Unlock()
	return fmt.Sprintf("%d bots do not, %s among them (%+v, groups %v):\n%s", n, who.name(), state, who.groups, strings.Join(who.log.lines(), "\n")), nil
}

// histories returns what the bots of a user have done and seen.
func (r *run) histories(uid string) string {
	var text []string
	for _, b := range r.bots {
		if b.uid != uid {
			continue
		}
		b.mu.Lock()
		text = append(append(text, b.name()+":"), b.log.lines()...)
		b.mu.Unlock()
	}
	return strings.Join(text, "\n")
}

// bindings compares the users that gates have with the bots that are connected to them.
func (r *run) bindings() (string, error) {
	list, err := r.cluster.states(false)
	if err != nil {
		return "", err
	}
	for _, s := range list {
		want := make(map[string]int)
		for _, b := range r.bots {
			if state := b.state(); state.Bound && state.Process == s.Process {
				want[b.uid] = 1
			}
		}
		if !maps.Equal(s.Users, want) {
			return fmt.Sprintf("%s has %d users, and %d bots are bound there: %s", s.Process, len(s.Users), len(want), difference(s.Users, want)), nil
		}
		if n := s.Stats.Sessions; int(n) != len(want) || s.Away > 0 {
			return fmt.Sprintf("%s has %d sessions, %d of which wait, and %d bots are there", s.Process, n, s.Away, len(want)), nil
		}
	}
	return "", nil
}

// difference names some keys that stand in one of two maps only.
func difference(got, want map[string]int) string {
	var list []string
	for key := range got {
		if want[key] == 0 {
			list = append(list, "+"+key)
		}
	}
	for key := range want {
		if got[key] == 0 {
			list = append(list, "-"+key)
		}
	}
	slices.Sort(list)
	return strings.Join(list[:min(len(list), 5)], " ")
}

func (r *run) createGroups() error {
	return r.cluster.nodes[0].get(r.ctx, "/create", r.groupForm(), nil)
}

func (r *run) groupForm() url.Values {
	return url.Values{"groups": {strings.Join(r.groups, " ")}}
}

// members compares what each room reads of the groups with the bots that have joined them.
func (r *run) members() (string, error) {
	want := make(map[string]map[string]int)
	for _, b := range r.bots {
		for _, group := range b.homes {
			if want[group] == nil {
				want[group] = make(map[string]int)
			}
			want[group][b.uid] = 1
		}
	}
	for _, n := range r.cluster.nodes {
		var got map[string][]string
		if err := n.get(r.ctx, "/members", r.groupForm(), &got); err != nil {
			return "", err
		}
		for _, group := range r.groups {
			uids := make(map[string]int)
			for _, uid := range got[group] {
				uids[uid]++
			}
			if !maps.Equal(uids, want[group]) {
				return fmt.Sprintf("%s has, for %s, %s", n.place, group, difference(uids, want[group])), nil
			}
		}
	}
	return "", nil
}

// reach lets each room push to each group and user, and checks that this arrives, once. Twice would be against the order.
func (r *run) reach() bool {
	for _, b := range r.bots {
		b.expect(r.probe)
	}
	var from []string
	for _, n := range r.cluster.nodes {
		if n.kind != typeRoom {
			continue
		}
		_, process := n.now()
		from = append(from, process)
		form := r.groupForm()
		form.Set("probe", fmt.Sprint(r.probe))
		form.Set("users", strings.Join(r.world.users, " "))
		if err := n.get(r.ctx, "/probe", form, nil); err != nil {
			r.report.Violation(n.place, fmt.Sprintf("pushing while nothing is wrong: %v", err), nil)
			return false
		}
	}
	return r.hold("all are reached", probeTime, func() (string, error) {
		for _, b := range r.bots {
			if b.shadow {
				continue
			}
			if missing := b.missing(from); len(missing) > 0 {
				return fmt.Sprintf("%s has not got %v", b.name(), missing), nil
			}
		}
		return "", nil
	})
}

// A use is what a server uses, without what belongs to its connections.
type use struct {
	Goroutines, Files int
	Heap              uint64
}

// Slack is what a server may use above its base: what is pooled, timers that run, a connection to etcd that is being made.
const (
	slackGoroutines    = 12
	slackFiles         = 8
	slackHeap          = 8 << 20
	heapPerConn        = 48 << 10 // with buffers of a burst
	subscriptionsOfUID = 2        // for pushes and kicks
)

// measure asks all servers for what they use, beyond one goroutine and one descriptor for each connection of a client.
func (r *run) measure() (list []serverState, uses []use, subscriptions int, err error) {
	if list, err = r.cluster.states(true); err != nil {
		return nil, nil, 0, err
	}
	users := 0
	for _, s := range list {
		open := int(s.Stats.Open)
		uses = append(uses, use{s.Goroutines - open, s.Files - open, s.Heap})
		users += len(s.Users)
	}
	subscriptions, err = r.cluster.subscriptions()
	return list, uses, subscriptions - subscriptionsOfUID*users, err
}

// leftOver compares what servers use with what they did at the beginning.
func (r *run) leftOver(end bool) (string, error) {
	list, uses, subscriptions, err := r.measure()
	if err != nil {
		return "", err
	}
	if subscriptions != r.base.subscriptions {
		return fmt.Sprintf("NATS has %d subscriptions beside those of users, and had %d", subscriptions, r.base.subscriptions), nil
	}
	violations := 0
	for i, s := range list {
		u, base := uses[i], r.base.uses[i]
		room := uint64(slackHeap) + uint64(s.Stats.Open)*heapPerConn
		switch {
		case u.Goroutines > base.Goroutines+slackGoroutines:
			return fmt.Sprintf("%s has %d goroutines beside those of connections, and had %d", s.Process, u.Goroutines, base.Goroutines), nil
		case u.Files > base.Files+slackFiles:
			return fmt.Sprintf("%s has %d descriptors beside those of connections, and had %d", s.Process, u.Files, base.Files), nil
		case u.Heap > base.Heap+room:
			return fmt.Sprintf("%s has a heap of %d bytes, and had %d", s.Process, u.Heap, base.Heap), nil
		case end && (s.Stats.Sessions != 0 || s.Stats.Open != 0 || s.Stats.Waiting != 0 || s.Stats.QueueBytes != 0 || len(s.Users) != 0):
			return fmt.Sprintf("%s still has something: %+v", s.Process, s.Stats), nil
		case s.Stats.Panics > 0:
			return fmt.Sprintf("%s has recovered %d panics", s.Process, s.Stats.Panics), nil
		}
		n := s.Stats
		violations += int(n.Violations)
		if n.Requests != n.Answered+n.Failed+n.Unanswerable+n.Lost {
			return fmt.Sprintf("%s counts %d requests, and %d answered, %d failed, %d lost", s.Process, n.Requests, n.Answered, n.Failed, n.Lost), nil
		}
	}
	if cut := r.report.Counts()[cutPacket]; violations > cut {
		return fmt.Sprintf("servers have ended %d connections for violations, and bots have cut off %d packets", violations, cut), nil
	}
	r.last = list
	r.lastUses, r.lastSubscriptions = uses, subscriptions
	return "", nil
}

// journals checks what servers say they have handled.
func (r *run) journals() {
	err := r.cluster.readJournals(r.handled, func(process string, bot int, text string) {
		b := r.bots[bot]
		b.complain("%s", text)
	})
	if err != nil {
		r.report.Violation("journals", err.Error(), nil)
	}
}
