//go:build !linux && !darwin

package load

// needFiles finds nothing to check: what bounds open connections here is not known.
func needFiles(n int) error { return nil }
