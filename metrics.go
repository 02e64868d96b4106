package pitaya

// A Label is a name and value that tell the time series of one metric apart.
type Label struct {
	Name, Value string
}

// A Reporter receives the metrics of a server as they happen. Names, labels and
// meanings are those of Pitaya, so that dashboards keep working. Any number of
// reporters may be active; each gets everything.
//
// The methods are called from many goroutines, on the path of messages: they
// must be quick and must not block. A panic of one is recovered, and logged once
// a second. The labels are only valid during the call.
type Reporter interface {
	// Count adds delta to a counter.
	Count(name string, delta float64, labels ...Label)
	// Gauge sets a value that goes up and down.
	Gauge(name string, value float64, labels ...Label)
	// Observe adds one observation to a distribution.
	Observe(name string, value float64, labels ...Label)
}

// A seriesReporter is a Reporter that can find a time series once, so that
// reports to it need no look-up by labels. The library's own reporters are.
type seriesReporter interface {
	Reporter
	// series returns a function that does for one metric and set of labels what
	// the method of that kind does, as often as it is called, from any number of
	// goroutines. It is never nil. The labels may be changed once series returns.
	series(kind, name string, labels ...Label) func(float64)
}

// Kinds of reports: the methods of [Reporter].
const (
	reportCount   = "count"
	reportGauge   = "gauge"
	reportObserve = "observe"
)
