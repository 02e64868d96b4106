package main

import (
	"context"
	"errors"
	"strings"

	"github.com/pitaya-go/pitaya"
)

// newServer returns the server that the options describe, set up to be run.
func newServer(o *options) (*pitaya.Server, error) {
	s, err := pitaya.NewServer(o.Config)
	if err != nil {
		return nil, err
	}
	switch {
	case o.Suite == suiteChat:
		err = setUpChat(s)
	case o.Suite == suiteJSON:
		err = setUpJSON(s)
	case o.Suite == suiteProtobuf:
		err = setUpProtobuf(s)
	case o.ProtoCLI:
		err = errors.Join(
			register(s, "docs", &Docs{server: s}),
			register(s, "protosvc", &ProtoSvc{}),
		)
	default:
		err = errors.Join(
			s.Group("g1").Create(context.Background(), 0),
			register(s, "docs", &Docs{server: s}),
			register(s, "testsvc", &TestSvc{server: s}),
			registerInterop(s, o.Config.Frontend),
		)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// register makes the methods of a component handlers, with names in lower case.
func register(s *pitaya.Server, name string, component any) error {
	return s.Register(component, pitaya.WithName(name), pitaya.WithNameFunc(strings.ToLower))
}
