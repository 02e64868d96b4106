// Package pitaya is a game server.
package pitaya
