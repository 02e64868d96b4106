//go:build !unix

package main

import "context"

// collectOnSignal does nothing: there is no signal for it here.
func collectOnSignal(context.Context) {}
