package pitaya

import (
	"context"
	"errors"
)

// ErrNoBinding says that a user is on no frontend of the type that was asked for. It comes wrapped, with the uid.
var ErrNoBinding = errors.New("pitaya: user is not bound to a frontend")

// A BindingStore tells which frontend a user is on. Transports that cannot address a user without knowing that, as gRPC
// cannot, need one; over NATS there is no use for it. A frontend writes the bindings of its own sessions, and every server
// reads those of all.
//
// Implementations keep these rules:
//
//   - All methods may be called at any time by any number of goroutines; Put and Delete calls for one user do not overlap.
//   - A binding ends with Delete, or when the server that wrote it is gone for the store's time. While that server lives
//     its bindings last, also when the store loses its data.
//   - Of several servers of one type that put the same user, the last one has it. Delete of another changes nothing then,
//     nor does its end.
type BindingStore interface {
	// Put says that the user is on this server.
	Put(ctx context.Context, uid string) error
	// Get returns the id of the server that the user is on, among those of a frontend type. Without one it returns
	// an error that wraps ErrNoBinding.
	Get(ctx context.Context, uid, frontendType string) (serverID string, err error)
	// Delete takes back what Put said. It is no error if another server has the user meanwhile, or none. If it
	// fails, the store goes on trying.
	Delete(ctx context.Context, uid string) error
	// Close takes all of this server's bindings back. ctx bounds the politeness: what cannot be taken back ends by
	// itself later.
	Close(ctx context.Context) error
}
