package pitaya

// Each opens the way of broadcasts through a group to the tests and benchmarks.
func (m *MemoryGroups) Each(group string, f func(uid string)) error { return m.each(group, f) }

// Held returns how many groups are in memory, expired ones included.
func (m *MemoryGroups) Held() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		n += len(s.groups)
		s.mu.RUnlock()
	}
	return n
}
