// Package kubernetes holds manifests, and the test that compares them with the types of Kubernetes and the settings of the
// library. It is a module of its own, so that nobody who imports the library has to require those types.
package kubernetes
