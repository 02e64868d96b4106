package pitaya

// Pending returns the number of requests that wait for their answers.
func (c *Client) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}
