//go:build !nocluster

package pitaya

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/pitaya-go/pitaya/internal/pb"
)

// The messages of the library's own that a serializer is given: generated ones, which are known to the library of protobuf.
type (
	errorMessage       = pb.Error
	docMessage         = pb.Doc
	namesMessage       = pb.ProtoNames
	descriptorsMessage = pb.ProtoDescriptors
)

// newEmptyMessage returns a message that has nothing.
func newEmptyMessage() proto.Message { return new(emptypb.Empty) }

// marshalFile returns a file's serialized descriptor.
func marshalFile(file protoreflect.FileDescriptor) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(file))
}
