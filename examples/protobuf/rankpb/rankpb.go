// Package rankpb holds the messages of the protobuf example.
package rankpb

// The generator is google.golang.org/protobuf/cmd/protoc-gen-go in the version that go.mod requires.
//go:generate protoc --go_out=. --go_opt=paths=source_relative rank.proto
