package pitaya

// CountSessionsFrom makes the next session of a server the one behind last, as vectors have them. In a cluster ids go on with
// the time otherwise.
func CountSessionsFrom(s *Server, last int64) {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	s.table.last = last
}
