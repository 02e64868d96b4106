// Package tools pins the programs that check this repository, as tool directives in its own go.mod: in the go.mod of
// the library they would reach everyone who imports it. From the root of the repository:
//
//	go tool -modfile=internal/tools/go.mod staticcheck ./...
//	go tool -modfile=internal/tools/go.mod benchstat old.txt new.txt
//	go tool -modfile=internal/tools/go.mod govulncheck ./...
package tools
