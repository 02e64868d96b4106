package load

import (
	"math/rand/v2"
	"testing"
)

// The ring does what a map would do, whatever the order of answers.
func TestPending(t *testing.T) {
	t.Parallel()
	p := pending{limit: maxPending(100)} // 128
	model := make(map[uint64]int64)
	var ids []uint64
	r := rand.New(rand.NewPCG(5, 6))
	next, oldest := uint64(1), func() uint64 {
		for _, id := range ids {
			if _, ok := model[id]; ok {
				return id
			}
		}
		return 0
	}
	for now := range int64(5000) {
		switch r.IntN(4) {
		case 0, 1:
			id, ok := p.add(now)
			if first := oldest(); ok == (first != 0 && next-first >= 128) {
				t.Fatalf("add of %d with %d as the eldest: %v", next, first, ok)
			}
			if ok {
				if id != next {
					t.Fatalf("id %d, want %d", id, next)
				}
				model[id] = now
				ids = append(ids, id)
				next++
			}
		case 2:
			if len(ids) > 0 {
				id := ids[max(len(ids)-1-r.IntN(200), 0)]
				at, ok := p.take(id)
				want, there := model[id]
				if ok != there || ok && at != want {
					t.Fatalf("take of %d: %d, %v, want %d, %v", id, at, ok, want, there)
				}
				delete(model, id)
			}
		case 3:
			if r.IntN(20) == 0 {
				before := now - int64(r.IntN(300))
				p.expire(before, func(at int64) {
					if at >= before {
						t.Fatalf("%d has expired before %d", at, before)
					}
				})
				for id, at := range model {
					if at < before {
						delete(model, id)
					}
				}
			}
		}
		if p.open != len(model) {
			t.Fatalf("%d wait, want %d", p.open, len(model))
		}
	}
	for _, id := range []uint64{0, next, next + 128, 1 << 63} {
		if _, ok := p.take(id); ok {
			t.Errorf("%d was waiting", id)
		}
	}
}
