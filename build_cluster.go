//go:build !nocluster

package pitaya

// hasEtcdAndNATS is whether the clients of etcd and NATS are part of the program. The tag nocluster leaves them out.
const hasEtcdAndNATS = true
