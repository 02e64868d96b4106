// Package ptytest gives tests a terminal: a pseudo-terminal of the system, with a screen in memory that shows what is
// written to it. It exists on Linux only.
package ptytest
