// Package clusterpb holds what the servers of the cluster example say to each other.
package clusterpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative cluster.proto
