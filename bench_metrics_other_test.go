//go:build !unix

package pitaya_test

import "time"

// processorTime is not known here, and the benchmark reports nothing of use.
func processorTime() time.Duration { return 0 }
