//go:build nocluster

package pitaya

// hasEtcdAndNATS is whether the clients of etcd and NATS are part of the program: they are not.
const hasEtcdAndNATS = false
