package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// A run is one soak.
type run struct {
	options
	ctx     context.Context
	report  *reporter
	world   *world
	cluster *cluster
	bots    []*bot
	groups  []string
	handled *handled
	probe   int
	rounds  int

	base struct { // at the beginning, without bots
		uses          []use
		subscriptions int
	}
	last              []serverState // what was measured last
	lastUses          []use
	lastSubscriptions int
}

// errBroken is what a run ends with that has found a violation.
var errBroken = errors.New("promises were broken")

// usersOfGroup is how many users a group has, about.
const usersOfGroup = 12

func soak(ctx context.Context, o options, out io.Writer) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &run{options: o, ctx: ctx, handled: newHandled()}
	r.report = newReporter(o.Seed, o.Violations, out, cancel)
	fmt.Fprintf(out, "soak: seed %d, %d bots, %d frontends, %d backends, for %v\n", o.Seed, o.Bots, o.Gates, o.Rooms, o.For)
	devcluster, err := buildDevcluster(ctx)
	if err != nil {
		return err
	}
	folder := o.Keep
	if folder == "" {
		if folder, err = os.MkdirTemp("", "soak"); err != nil {
			return err
		}
	} else {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		if folder, err = os.MkdirTemp(folder, "soak"); err != nil { // what was kept of other runs is not of this one
			return err
		}
	}
	defer func() {
		if err != nil {
			fmt.Fprintf(out, "logs are in %s\n", folder)
		} else if o.Keep == "" {
			err = os.RemoveAll(folder)
		}
	}()
	r.world = &world{report: r.report, think: o.Think, over: ctx.Done(), kicks: make(map[string]time.Time), harmed: make(map[string]bool)}
	// What the processes live in does not end with ctx: a run that is interrupted still ends in order.
	living, end := context.WithCancel(context.Background())
	r.cluster, err = startCluster(living, r.report, r.world, folder, devcluster, o.Gates, o.Rooms)
	if r.cluster != nil {
		defer r.cluster.end()
	}
	defer end()
	if err != nil {
		return err
	}
	r.people()
	r.world.beside.Go(func() { r.world.lag.measure(ctx) })
	began := time.Now()
	err = r.play()
	r.summary(out, time.Since(began))
	cancel()
	r.world.beside.Wait()
	if r.report.Violations() > 0 {
		return fmt.Errorf("%w: %d, with seed %d", errBroken, r.report.Violations(), o.Seed)
	}
	return err
}

// people makes the bots. Each fifth user is played by two of them.
func (r *run) people() {
	groups := max(1, r.Bots/usersOfGroup)
	for i := range groups {
		r.groups = append(r.groups, fmt.Sprint("group", i))
	}
	var main *bot
	for i := range r.Bots {
		rng := rand.New(rand.NewPCG(r.Seed, uint64(i)))
		if i%6 == 5 {
			b := newBot(r.world, i, main.uid, main.homes, rng)
			b.shadow, b.twin, main.twin = true, true, true
			r.bots = append(r.bots, b)
			continue
		}
		uid := fmt.Sprint("user", i)
		homes := []string{r.groups[i%groups]}
		if second := r.groups[(i*7+1)%groups]; second != homes[0] {
			homes = append(homes, second)
		}
		main = newBot(r.world, i, uid, homes, rng)
		r.bots = append(r.bots, main)
		r.world.users = append(r.world.users, uid)
	}
}

// play lets the bots play: in storms, with a rest behind each.
func (r *run) play() error {
	if err := r.createGroups(); err != nil {
		return fmt.Errorf("making groups: %w", err)
	}
	if _, err := r.until(convergeTime, r.strangers); err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	var playing sync.WaitGroup
	playCtx, stop := context.WithCancel(r.ctx)
	defer playing.Wait()
	defer stop()
	start := func() {
		for _, b := range r.bots {
			playing.Go(func() { b.run(playCtx) })
		}
	}
	// Once without faults: what a server makes at the first use of it belongs to its base.
	r.world.mode.set(modeStorm)
	start()
	r.sleep(min(5*time.Second, r.For/10))
	if err := r.rest(&playing); err != nil {
		return err
	}
	r.world.mode.set(modeSettle)
	start()
	rng := rand.New(rand.NewPCG(r.Seed, 1<<32))
	end := time.Now().Add(r.For)
	for ok := r.calm(r.ctx); ok && r.ctx.Err() == nil && time.Now().Before(end); ok = r.calm(r.ctx) {
		r.rounds++
		storm, over := context.WithTimeout(r.ctx, min(r.Storm, time.Until(end)))
		r.report.Logf("storm %d", r.rounds)
		r.world.mode.set(modeStorm)
		if r.Every > 0 {
			r.cluster.storm(storm, rng, r.Every)
		} else {
			<-storm.Done()
		}
		over()
	}
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	r.world.mode.set(modeLeave)
	playing.Wait()
	r.hold("nothing is left at the end", countTime, func() (string, error) { return r.leftOver(true) })
	r.journals()
	return nil
}

// rest lets all bots leave, and measures what servers use then.
func (r *run) rest(playing *sync.WaitGroup) error {
	r.world.mode.set(modeLeave)
	playing.Wait()
	if _, err := r.until(countTime, func() (string, error) {
		list, err := r.cluster.states(false)
		for _, s := range list {
			if s.Stats.Open > 0 || s.Stats.Sessions > 0 {
				return fmt.Sprintf("%s has %d connections and %d sessions", s.Process, s.Stats.Open, s.Stats.Sessions), err
			}
		}
		return "", err
	}); err != nil {
		return fmt.Errorf("the bots have left: %w", err)
	}
	r.sleep(time.Second) // for what ends with connections
	var err error
	_, r.base.uses, r.base.subscriptions, err = r.measure()
	return err
}

func (r *run) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ctx.Done():
	}
}

// summary prints the table at the end.
func (r *run) summary(out io.Writer, took time.Duration) {
	n := r.report.Counts()
	rows := [][2]string{
		{"seed", fmt.Sprint(r.Seed)},
		{"duration", took.Round(time.Second).String()},
		{"bots; frontends; backends", fmt.Sprintf("%d; %d; %d", r.Bots, r.Gates, r.Rooms)},
		{"storms, with a check of the cluster at rest behind each", fmt.Sprint(r.rounds)},
		{"faults", group(n, "fault: ")},
		{"connections; resumed", fmt.Sprintf("%s; %s", thousands(n["connected"]), thousands(n["resumed"]))},
		{"connections that bots have broken; reading stopped", fmt.Sprintf("%s; %s", thousands(n["vanished"]), thousands(n["stalled"]))},
		{"not resumed", group(n, "not resumed: ")},
		{"requests; notifies", fmt.Sprintf("%s; %s", thousands(n["requests"]), thousands(n["notifies"]))},
		{"answered with a result", thousands(n["answered"])},
		{"answered with an error", group(n, "error ")},
		{"unanswered, because their connection ended", thousands(n["unanswered, connection ended"])},
		{"messages handled, none twice", thousands(r.handled.Messages)},
		{"pushes received", group(n, "push ")},
		{"kicks", group(n, "kicked: ")},
	}
	for _, what := range []string{"requests are answered", "servers know each other", "each user has one session", "all bots play",
		"bindings are those of the bots", "groups are those of the bots", "all are reached", "nothing is left over"} {
		rows = append(rows, [2]string{"longest until " + what,
			(time.Duration(n["until "+what+", ms"]) * time.Millisecond).Round(10 * time.Millisecond).String()})
	}
	rows = append(rows, [2]string{"longest end of a server that was told to",
		(time.Duration(n["longest end of a server, ms"]) * time.Millisecond).Round(10 * time.Millisecond).String()})
	for i, s := range r.last {
		if i >= len(r.base.uses) || i >= len(r.lastUses) {
			break
		}
		b, u := r.base.uses[i], r.lastUses[i]
		rows = append(rows, [2]string{s.Process, fmt.Sprintf("goroutines %d → %d, descriptors %d → %d, heap %.1f → %.1f MB, resident %.0f MB, CPU %v",
			b.Goroutines, u.Goroutines, b.Files, u.Files, float64(b.Heap)/1e6, float64(u.Heap)/1e6, float64(s.Resident)/1e6,
			s.CPU.Round(10*time.Millisecond))})
	}
	rows = append(rows,
		[2]string{"subscriptions of NATS beside those of users", fmt.Sprintf("%d → %d", r.base.subscriptions, r.lastSubscriptions)},
		[2]string{"time that the machine had for others only", r.world.lag.Total().Round(time.Millisecond).String()},
		[2]string{"warnings and errors in logs", group(n, "log: ")},
		[2]string{"violations", fmt.Sprint(r.report.Violations())},
	)
	fmt.Fprintln(out)
	table(out, append([][2]string{{"", ""}, {"---", "---"}}, rows...))
}
