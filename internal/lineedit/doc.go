// Package lineedit lets somebody type lines at a terminal: cursor keys, history, completion, and text that appears above
// the line meanwhile. It needs nothing beyond the standard library.
//
//	keys.go               bytes from a terminal to keys
//	buffer.go, width.go   the text that is edited; how wide it is
//	editor.go, search.go  what keys do
//	screen.go             where the text stands on the screen
//	history.go            lines typed before, and their file
//	term_*.go             raw mode and the size of a terminal, by system
//
// An [Editor] does no input of its own and starts no goroutine: whoever reads the terminal gives it the bytes. It writes
// a redraw in one piece, and knows the escape sequences that all terminals of today have in common.
package lineedit
