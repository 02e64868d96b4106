package pitaya

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// checkServerType says what is wrong with a server type, which is part of routes, NATS subjects and etcd keys.
func checkServerType(s string) error {
	if strings.Contains(s, ".") {
		return errors.New("must be without '.', which ends it in a route")
	}
	return checkServerID(s)
}

// checkServerID says what is wrong with a server id, which is part of NATS subjects and etcd keys.
func checkServerID(s string) error {
	bad := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("/*>", r) }
	switch {
	case len(s) > 128:
		return errors.New("must be at most 128 bytes")
	case !utf8.ValidString(s), strings.ContainsFunc(s, bad), slices.Contains(strings.Split(s, "."), ""):
		return errors.New("must be without white space, '/', '*', '>' and empty parts between dots")
	}
	return nil
}

func checkHostPort(s string) error {
	if _, _, err := net.SplitHostPort(s); err != nil {
		return errors.New("must be host:port")
	}
	return nil
}

// checkNamespace says what is wrong with the namespace of jobs.
func checkNamespace(s string) error {
	if len(s) > maxJobNamespace || !utf8.ValidString(s) {
		return fmt.Errorf("must be at most %d bytes of UTF-8", maxJobNamespace)
	}
	return nil
}

// Validate reports what is wrong with the settings, all of it, joined. It looks at values that were set in code too;
// [NewServer] calls it.
func (c *Config) Validate() error {
	var errs []error
	rows := make(map[string]configKey)
	report := func(name string, err error) {
		k := rows[name]
		errs = append(errs, k.error(c.from(k), k.value.text(), err))
	}
	for k := range c.keys() {
		rows[k.name] = k
		if err := k.value.check(); err != nil {
			report(k.name, err)
		}
	}
	for _, t := range []struct {
		name string
		TLSFiles
	}{
		{"cluster.sd.etcd.tls.cert", c.Etcd.TLS},
		{"groups.etcd.tls.cert", c.GroupsEtcd.TLS},
		{"modules.bindingstorage.etcd.tls.cert", c.BindingEtcd.TLS},
		{"cluster.rpc.client.nats.tls.cert", c.NATSClient.TLS},
		{"cluster.rpc.server.nats.tls.cert", c.NATSServer.TLS},
		{"cluster.rpc.client.grpc.tls.cert", c.GRPC.ClientTLS},
		{"cluster.rpc.server.grpc.tls.cert", c.GRPC.ServerTLS},
	} {
		if (t.Cert == "") != (t.Key == "") {
			report(t.name, errors.New("certificate and key must be set together"))
		}
	}
	// Only where both were set: a file that sets one of them to what is beyond the default of the other is a good one in
	// Pitaya, and must load here.
	if w := c.Worker; w.RetryMinDelay > 0 && w.RetryMaxDelay != 0 && w.RetryMinDelay > w.RetryMaxDelay {
		report("worker.retry.mindelay", errors.New("must not be above pitaya.worker.retry.maxdelay"))
	}
	if c.Metrics.Prometheus.Enabled {
		for _, labels := range []struct {
			name string
			m    map[string]string
		}{
			{"metrics.constlabels", c.Metrics.ConstLabels},
			{"metrics.additionallabels", c.Metrics.AdditionalLabels},
		} {
			for _, l := range slices.Sorted(maps.Keys(labels.m)) {
				if !isMetricName(l) {
					report(labels.name, fmt.Errorf("%q is no label for Prometheus: it may have letters, digits and _ only", l))
				}
			}
		}
	}
	if !hasEtcdAndNATS {
		for k := range c.keys() {
			if k.needsEtcdOrNATS() && c.from(k).origin != OriginDefault {
				report(k.name, ErrLeftOut)
			}
		}
	}
	for i, l := range c.Listeners {
		if l == nil {
			errs = append(errs, fmt.Errorf("pitaya: Config.Listeners[%d] is nil", i))
		}
	}
	for i, r := range c.Reporters {
		if r == nil {
			errs = append(errs, fmt.Errorf("pitaya: Config.Reporters[%d] is nil", i))
		}
	}
	return errors.Join(errs...)
}

// error wraps err, the reason why text was refused for k.
func (k *configKey) error(r configRecord, text string, err error) error {
	source := r.source
	if source == "" {
		source = r.origin.String()
	}
	if r.origin != OriginFlag { // the source of a flag is its key
		source += ": " + configPrefix + k.name
	}
	return fmt.Errorf("pitaya: %s = %q: %w", source, clipConfig(k.show(text)), err)
}

// clipConfig shortens what was read from outside for a message.
func clipConfig(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
