package pitaya

import (
	"errors"
	"fmt"
	"strings"
)

// What the tag nocluster means for the settings: those of etcd and NATS are refused, as settings that do not exist are, and
// so is a cluster that would stand on them.

// needsEtcdOrNATS reports whether a setting concerns nothing but the clients of etcd and NATS.
func (k *configKey) needsEtcdOrNATS() bool {
	if k.name == "cluster.rpc.client.nats.requesttimeout" {
		return false // bounds the calls over any transport that has no bound of its own
	}
	for _, group := range []string{
		"cluster.sd.etcd.", "groups.etcd.", "modules.bindingstorage.etcd.", "cluster.rpc.client.nats.", "cluster.rpc.server.nats.",
	} {
		if strings.HasPrefix(k.name, group) {
			return true
		}
	}
	return false
}

// checkSeams says what a server in a cluster would need of etcd and NATS and cannot have. It is no part of Validate, since
// programs set the seams after they have loaded the settings.
func (c *Config) checkSeams() error {
	if hasEtcdAndNATS || !c.Cluster {
		return nil
	}
	var errs []error
	if c.Discovery == nil {
		errs = append(errs, fmt.Errorf("%w: pitaya.server.cluster needs Config.Discovery", ErrLeftOut))
	}
	if c.Transport == nil {
		errs = append(errs, fmt.Errorf("%w: pitaya.server.cluster needs Config.Transport", ErrLeftOut))
	}
	return errors.Join(errs...)
}
