//go:build !linux

package load

// newSleeper returns nil: there are no timers here that are better than those of the runtime.
func newSleeper() sleeper { return nil }
