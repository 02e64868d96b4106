package pitaya

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// What is here has the names of the collectors that Prometheus' client library
// starts with, which Pitaya's dashboards know. As there, these metrics are of
// the process and have no constant labels.

func oneSample(kind metricKind, name, help string, value float64) familySample {
	return familySample{name: name, help: help, kind: kind, series: []seriesSample{{value: value}}}
}

// goMetrics are those of the Go runtime.
func goMetrics() []familySample {
	all := runtimeMetrics(goMetricRows())
	gc := debug.GCStats{PauseQuantiles: make([]time.Duration, 5)}
	debug.ReadGCStats(&gc)
	pauses := seriesSample{count: uint64(gc.NumGC), value: gc.PauseTotal.Seconds()}
	for i, p := range gc.PauseQuantiles {
		pauses.quantiles = append(pauses.quantiles, pointSample{float64(i) / float64(len(gc.PauseQuantiles)-1), p.Seconds()})
	}
	last := 0.0
	if !gc.LastGC.IsZero() {
		last = float64(gc.LastGC.UnixNano()) / 1e9
	}
	threads, _ := runtime.ThreadCreateProfile(nil)
	version := `version=` + string(appendLabelValue(nil, legalValue(runtime.Version())))
	return append(all,
		familySample{name: "go_gc_duration_seconds", help: "Times that garbage collections have stopped all goroutines.", kind: kindSummary,
			series: []seriesSample{pauses}},
		oneSample(kindGauge, "go_memstats_last_gc_time_seconds", "When the last garbage collection ended, in seconds since 1970.", last),
		oneSample(kindGauge, "go_threads", "Threads of the system that were made.", float64(threads)),
		familySample{name: "go_info", help: "The version of Go.", kind: kindGauge,
			series: []seriesSample{{labels: version, own: version, value: 1}}},
	)
}

// A goMetricRow is a metric of the Go runtime.
type goMetricRow struct {
	name string
	kind metricKind
	of   []string // what runtime/metrics has, added up
	help string
}

// goMetricRows are those that runtime/metrics has the numbers of.
func goMetricRows() []goMetricRow {
	const (
		objects      = "/memory/classes/heap/objects:bytes"
		unused       = "/memory/classes/heap/unused:bytes"
		released     = "/memory/classes/heap/released:bytes"
		free         = "/memory/classes/heap/free:bytes"
		stacks       = "/memory/classes/heap/stacks:bytes"
		osStacks     = "/memory/classes/os-stacks:bytes"
		mspan        = "/memory/classes/metadata/mspan/inuse:bytes"
		mspanFree    = "/memory/classes/metadata/mspan/free:bytes"
		mcache       = "/memory/classes/metadata/mcache/inuse:bytes"
		mcacheFree   = "/memory/classes/metadata/mcache/free:bytes"
		profiling    = "/memory/classes/profiling/buckets:bytes"
		gcMemory     = "/memory/classes/metadata/other:bytes"
		other        = "/memory/classes/other:bytes"
		total        = "/memory/classes/total:bytes"
		allocated    = "/gc/heap/allocs:bytes"
		allocs       = "/gc/heap/allocs:objects"
		frees        = "/gc/heap/frees:objects"
		tiny         = "/gc/heap/tiny/allocs:objects"
		live         = "/gc/heap/objects:objects"
		goal         = "/gc/heap/goal:bytes"
		gogc         = "/gc/gogc:percent"
		memoryLimit  = "/gc/gomemlimit:bytes"
		maxProcs     = "/sched/gomaxprocs:threads"
		goroutineNum = "/sched/goroutines:goroutines"
	)
	return []goMetricRow{
		{"go_gc_gogc_percent", kindGauge, []string{gogc}, "Growth of the heap, in percent, that starts a garbage collection (GOGC)."},
		{"go_gc_gomemlimit_bytes", kindGauge, []string{memoryLimit}, "Memory that the runtime tries to stay below (GOMEMLIMIT)."},
		{"go_goroutines", kindGauge, []string{goroutineNum}, "Goroutines that exist."},
		{"go_memstats_alloc_bytes", kindGauge, []string{objects}, "Bytes of objects on the heap, equal to go_memstats_heap_alloc_bytes."},
		{"go_memstats_alloc_bytes_total", kindCounter, []string{allocated}, "Bytes allocated on the heap since the start."},
		{"go_memstats_buck_hash_sys_bytes", kindGauge, []string{profiling}, "Bytes for the tables of profiles."},
		{"go_memstats_frees_total", kindCounter, []string{frees, tiny}, "Objects freed since the start."},
		{"go_memstats_gc_sys_bytes", kindGauge, []string{gcMemory}, "Bytes for what the garbage collector keeps."},
		{"go_memstats_heap_alloc_bytes", kindGauge, []string{objects}, "Bytes of objects on the heap."},
		{"go_memstats_heap_idle_bytes", kindGauge, []string{released, free}, "Bytes of the heap that wait to be used."},
		{"go_memstats_heap_inuse_bytes", kindGauge, []string{objects, unused}, "Bytes of the heap that are in use."},
		{"go_memstats_heap_objects", kindGauge, []string{live}, "Objects on the heap."},
		{"go_memstats_heap_released_bytes", kindGauge, []string{released}, "Bytes of the heap given back to the system."},
		{"go_memstats_heap_sys_bytes", kindGauge, []string{objects, unused, released, free}, "Bytes of the heap had from the system."},
		{"go_memstats_mallocs_total", kindCounter, []string{allocs, tiny}, "Objects allocated since the start."},
		{"go_memstats_mcache_inuse_bytes", kindGauge, []string{mcache}, "Bytes of mcache structures in use."},
		{"go_memstats_mcache_sys_bytes", kindGauge, []string{mcache, mcacheFree}, "Bytes of mcache structures had from the system."},
		{"go_memstats_mspan_inuse_bytes", kindGauge, []string{mspan}, "Bytes of mspan structures in use."},
		{"go_memstats_mspan_sys_bytes", kindGauge, []string{mspan, mspanFree}, "Bytes of mspan structures had from the system."},
		{"go_memstats_next_gc_bytes", kindGauge, []string{goal}, "Size of the heap that starts the next garbage collection."},
		{"go_memstats_other_sys_bytes", kindGauge, []string{other}, "Bytes had from the system for other ends."},
		{"go_memstats_stack_inuse_bytes", kindGauge, []string{stacks}, "Bytes of stacks in use."},
		{"go_memstats_stack_sys_bytes", kindGauge, []string{stacks, osStacks}, "Bytes of stacks had from the system."},
		{"go_memstats_sys_bytes", kindGauge, []string{total}, "Bytes had from the system."},
		{"go_sched_gomaxprocs_threads", kindGauge, []string{maxProcs}, "Threads that may run Go code at once (GOMAXPROCS)."},
	}
}

// runtimeMetrics reads what rows say, and leaves out what this runtime has not.
func runtimeMetrics(rows []goMetricRow) []familySample {
	var samples []metrics.Sample
	place := make(map[string]int)
	for _, r := range rows {
		for _, name := range r.of {
			if _, ok := place[name]; !ok {
				place[name] = len(samples)
				samples = append(samples, metrics.Sample{Name: name})
			}
		}
	}
	metrics.Read(samples)
	var all []familySample
rows:
	for _, r := range rows {
		sum := 0.0
		for _, name := range r.of {
			v := samples[place[name]].Value
			if v.Kind() != metrics.KindUint64 {
				continue rows // a later runtime may lack it
			}
			sum += float64(v.Uint64())
		}
		all = append(all, oneSample(r.kind, r.name, r.help, sum))
	}
	return all
}

// processMetrics are what /proc tells of the process. There are none where the
// system has no such files.
func processMetrics() []familySample {
	var all []familySample
	add := func(kind metricKind, name, help string, value float64) {
		all = append(all, oneSample(kind, name, help, value))
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return nil
	}
	// The second field is the name of the program, which may have anything in it.
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	field := func(n int) float64 { // as proc(5) counts them
		if n-3 >= len(fields) {
			return 0
		}
		x, _ := strconv.ParseFloat(fields[n-3], 64)
		return x
	}
	const ticks = 100 // a second, on every Linux
	add(kindCounter, "process_cpu_seconds_total", "Processor time of the process, in seconds.", (field(14)+field(15))/ticks)
	add(kindGauge, "process_virtual_memory_bytes", "Virtual memory in bytes.", field(23))
	add(kindGauge, "process_resident_memory_bytes", "Resident memory in bytes.", field(24)*float64(os.Getpagesize()))
	if boot, ok := bootTime(); ok {
		add(kindGauge, "process_start_time_seconds", "When the process was started, in seconds since 1970.", boot+field(22)/ticks)
	}
	if dir, err := os.Open("/proc/self/fd"); err == nil {
		names, err := dir.Readdirnames(-1)
		dir.Close()
		if err == nil {
			add(kindGauge, "process_open_fds", "Files that are open.", float64(len(names)-1)) // without this one
		}
	}
	limits, _ := os.ReadFile("/proc/self/limits")
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			add(kindGauge, "process_max_fds", "Files that may be open.", softLimit(rest))
		}
		if rest, ok := strings.CutPrefix(line, "Max address space"); ok {
			add(kindGauge, "process_virtual_memory_max_bytes", "Virtual memory that the process may have, in bytes.", softLimit(rest))
		}
	}
	return all
}

// bootTime is when the system was started, in seconds since 1970.
func bootTime() (float64, bool) {
	stat, _ := os.ReadFile("/proc/stat")
	for line := range strings.Lines(string(stat)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			x, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return x, err == nil
		}
	}
	return 0, false
}

// softLimit is the first limit of a line of /proc/self/limits. No limit is the
// largest number, as in Prometheus' client library.
func softLimit(line string) float64 {
	if fields := strings.Fields(line); len(fields) > 0 {
		if x, err := strconv.ParseFloat(fields[0], 64); err == nil {
			return x
		}
	}
	return math.MaxUint64
}
