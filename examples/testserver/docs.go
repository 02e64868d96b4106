package main

import (
	"context"
	"encoding/json"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/pb"
)

// Docs is the service docs, by which the command line client learns the
// server's routes and messages (client protocol, section 13).
type Docs struct{ server *pitaya.Server }

// Docs returns the documentation of the server as JSON.
func (d *Docs) Docs(ctx context.Context) (*pb.Doc, error) {
	doc, err := d.server.Documentation(true)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	return &pb.Doc{Doc: string(b)}, nil
}

// Descriptors returns the file descriptors of the given messages, in order.
func (d *Docs) Descriptors(ctx context.Context, names *pb.ProtoNames) (*pb.ProtoDescriptors, error) {
	all := &pb.ProtoDescriptors{}
	// A client could name one message ten thousand times, which must cost
	// neither the time nor the memory of that many.
	made := make(map[string][]byte)
	size := 0
	for _, name := range names.Name {
		desc, ok := made[name]
		if !ok {
			var err error
			if desc, err = pitaya.Descriptor(name); err != nil {
				return nil, err
			}
			made[name] = desc
		}
		if size += len(desc); size > pitaya.MaxPacketSize {
			return nil, pitaya.Errorf(pitaya.CodeBadRequest, "descriptors of more than %d bytes", pitaya.MaxPacketSize)
		}
		all.Desc = append(all.Desc, desc)
	}
	return all, nil
}
