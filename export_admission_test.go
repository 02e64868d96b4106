package pitaya

import "time"

// Doors for the tests of what clients may send.

// A TestBucket is a bucket with its rate.
type TestBucket struct {
	Limit    int
	Interval time.Duration
	bucket   bucket
}

func (b *TestBucket) Take(now time.Duration) bool {
	return b.bucket.take(rate{b.Limit, b.Interval}, now)
}

// An AddressTable is the table with a rate of handshakes.
type AddressTable struct {
	table *addressTable
	rate  rate
}

func NewAddressTable(limit int, interval time.Duration, max int) *AddressTable {
	r := rate{limit, interval}
	return &AddressTable{newAddressTable(rate{}, r, 0, max), r}
}

func (t *AddressTable) Len() int { return t.table.len() }

// Visit opens a connection from host, does one handshake, and closes it again. It reports whether the handshake was within
// the rate.
func (t *AddressTable) Visit(host string, now time.Duration) bool {
	a := t.table.open(host, now)
	defer t.table.close(a, now)
	return a.takeHandshake(t.rate, now)
}
