//go:build !unix

package load

import "time"

// ownCPU returns 0: unknown.
func ownCPU() time.Duration { return 0 }
