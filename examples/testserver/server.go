package main

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/pitaya-go/pitaya"
)

// newServer returns the server that the options describe, set up to be run.
func newServer(o *options) (*pitaya.Server, error) {
	cfg := o.Config
	cfg.ID = cmp.Or(cfg.ID, newUID())
	if cfg.Cluster && o.GRPC {
		if err := useGRPC(&cfg); err != nil {
			return nil, err
		}
	}
	s, err := pitaya.NewServer(cfg)
	if err == nil {
		err = setUp(s, o)
	}
	if err != nil {
		if cfg.Bindings != nil {
			err = errors.Join(err, cfg.Bindings.Close(context.Background()))
		}
		return nil, err
	}
	return s, nil
}

// useGRPC makes servers call each other directly. They find out in etcd which
// frontend a user is on.
func useGRPC(cfg *pitaya.Config) (err error) {
	cfg.GRPC.Port = cmp.Or(cfg.GRPC.Port, 3434)
	cfg.Metadata = pitaya.GRPCMetadata(cfg.Metadata, cfg.Region, "127.0.0.1", strconv.Itoa(cfg.GRPC.Port), "", "")
	if cfg.Transport, err = pitaya.NewGRPCTransport(cfg.GRPC, cfg.Region, cfg.Logger); err != nil {
		return err
	}
	cfg.Bindings, err = pitaya.NewEtcdBindings(cfg.BindingEtcd, cfg.Type, cfg.ID, cfg.Logger)
	return err
}

// setUp registers what the options ask for.
func setUp(s *pitaya.Server, o *options) error {
	switch {
	case o.Suite == suiteChat:
		return setUpChat(s)
	case o.Suite == suiteJSON:
		return setUpJSON(s)
	case o.Suite == suiteProtobuf:
		return setUpProtobuf(s)
	case o.ProtoCLI:
		return errors.Join(
			s.RegisterDocs(pitaya.DocsOptions{}),
			register(s, "protosvc", &ProtoSvc{}),
		)
	}
	err := errors.Join(
		s.Group("g1").Create(context.Background(), 0),
		s.RegisterDocs(pitaya.DocsOptions{}),
		register(s, "testsvc", &TestSvc{server: s}),
		registerInterop(s, o.Config.Frontend),
	)
	if o.Config.Cluster {
		err = errors.Join(err,
			registerRemote(s, "testremotesvc", &TestRemoteSvc{}),
			registerRemote(s, "interopremote", &InteropRemote{server: s}),
		)
	}
	return err
}

// register makes the methods of a component handlers, with names in lower case.
func register(s *pitaya.Server, name string, component any) error {
	return s.Register(component, pitaya.WithName(name), pitaya.WithNameFunc(strings.ToLower))
}

// registerRemote makes them remotes.
func registerRemote(s *pitaya.Server, name string, component any) error {
	return s.RegisterRemote(component, pitaya.WithName(name), pitaya.WithNameFunc(strings.ToLower))
}
