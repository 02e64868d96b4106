// Package pb holds the protobuf messages that cross the wire between servers, and the error that protobuf clients get.
// See section 2 of the cluster protocol. The library's seams carry bytes, so nothing of this package shows in its API.
//
// The proto package is "protos", which is part of the protocol: peers and the command line client look types up by
// their full names. The paths under which the files are registered are not, and carry this folder's name, because the
// protobuf registry is one per process and a game is likely to have an error.proto of its own.
package pb

// The generator is google.golang.org/protobuf/cmd/protoc-gen-go in the version that go.mod requires.
//go:generate sh -c "cd ../.. && protoc --go_out=. --go_opt=module=github.com/pitaya-go/pitaya internal/pb/*.proto"
