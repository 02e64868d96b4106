package buckets_test

import (
	"testing"

	"github.com/pitaya-go/pitaya/internal/buckets"
)

// Each value lies in its bucket, buckets follow each other without a gap, and none is wider than promised.
func TestBuckets(t *testing.T) {
	t.Parallel()
	for _, steps := range []uint{1, 3, 7} {
		var next uint64
		for i := range 30 << steps {
			low, width := buckets.Bounds(i, steps)
			if low != next {
				t.Fatalf("steps %d: bucket %d begins at %d, the one before ends at %d", steps, i, low, next)
			}
			if width > 1 && width<<steps > low {
				t.Fatalf("steps %d: bucket %d is %d wide at %d", steps, i, width, low)
			}
			next = low + width
			for _, v := range []uint64{low, low + width/2, next - 1} {
				if got := buckets.Index(v, steps); got != i {
					t.Fatalf("steps %d: %d is in bucket %d, want %d", steps, v, got, i)
				}
			}
		}
	}
}
