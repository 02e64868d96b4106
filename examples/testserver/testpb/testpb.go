// Package testpb holds the protobuf messages of the testing server.
package testpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative test.proto sdk.proto
