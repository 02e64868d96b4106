//go:build nocluster

package pitaya

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/pitaya-go/pitaya/internal/clustermsg"
	"github.com/pitaya-go/pitaya/internal/protofile"
)

// The messages of the library's own that a serializer is given, in a program that contains generated messages only if the
// application has some: they can be encoded and decoded, and to reflection they have no fields.
type (
	errorMessage       = clustermsg.Error
	docMessage         = clustermsg.Doc
	namesMessage       = clustermsg.ProtoNames
	descriptorsMessage = clustermsg.ProtoDescriptors
)

// newEmptyMessage returns a message that has nothing.
func newEmptyMessage() proto.Message {
	if t, err := protoregistry.GlobalTypes.FindMessageByName("google.protobuf.Empty"); err == nil {
		return t.New().Interface()
	}
	return new(clustermsg.Empty)
}

// marshalFile returns a file's serialized descriptor. Its options are there if the program has the package descriptorpb.
func marshalFile(file protoreflect.FileDescriptor) ([]byte, error) {
	_, err := protoregistry.GlobalTypes.FindMessageByName("google.protobuf.FileOptions")
	return protofile.Append(nil, file, err == nil)
}
