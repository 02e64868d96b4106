package kubernetes

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// privatePort is where the programs of this folder have their probes and metrics.
const (
	privatePort = 9090
	readyPath   = "/readyz"
	livePath    = "/livez"
	metricsPath = "/metrics"
)

// An object is one document of a manifest.
type object struct {
	file string
	v    any // pointer to the type of its kind
	meta metav1.ObjectMeta
}

// A workload is what the rest looks at of a Deployment or StatefulSet.
type workload struct {
	object
	replicas *int32
	selector map[string]string
	pod      corev1.PodTemplateSpec
}

// manifests decodes every document of every file, and knows no field that Kubernetes does not.
func manifests(t *testing.T) []object {
	t.Helper()
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	var list []object
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
			o, err := decode(doc)
			if err != nil {
				t.Fatalf("%s: %v\n%s", file, err, doc)
			}
			o.file = file
			list = append(list, o)
		}
	}
	return list
}

func decode(doc []byte) (object, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(doc, &kind); err != nil {
		return object{}, err
	}
	var o object
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 ConfigMap":
		o.v = new(corev1.ConfigMap)
	case "v1 Service":
		o.v = new(corev1.Service)
	case "apps/v1 Deployment":
		o.v = new(appsv1.Deployment)
	case "apps/v1 StatefulSet":
		o.v = new(appsv1.StatefulSet)
	case "policy/v1 PodDisruptionBudget":
		o.v = new(policyv1.PodDisruptionBudget)
	default:
		return object{}, errors.New("unknown kind " + kind.APIVersion + " " + kind.Kind)
	}
	if err := yaml.UnmarshalStrict(doc, o.v); err != nil {
		return object{}, err
	}
	o.meta = *o.v.(metav1.ObjectMetaAccessor).GetObjectMeta().(*metav1.ObjectMeta)
	if o.meta.Name == "" {
		return object{}, errors.New("an object without a name")
	}
	return o, nil
}

// named returns the objects of one type by their names.
func named[T any](list []object) map[string]*T {
	m := make(map[string]*T)
	for _, o := range list {
		if v, ok := o.v.(*T); ok {
			m[o.meta.Name] = v
		}
	}
	return m
}

func workloads(list []object) []workload {
	var all []workload
	for _, o := range list {
		switch v := o.v.(type) {
		case *appsv1.Deployment:
			all = append(all, workload{o, v.Spec.Replicas, v.Spec.Selector.MatchLabels, v.Spec.Template})
		case *appsv1.StatefulSet:
			all = append(all, workload{o, v.Spec.Replicas, v.Spec.Selector.MatchLabels, v.Spec.Template})
		}
	}
	return all
}

// servers are the workloads whose containers run the library.
func servers(list []object) []workload {
	return slices.DeleteFunc(workloads(list), func(w workload) bool { return w.file == "dependencies.yaml" })
}

// port returns the number of a container's port by name or number, 0 if there is none.
func port(c *corev1.Container, p intstr.IntOrString) int32 {
	for _, have := range c.Ports {
		if p.Type == intstr.String && have.Name == p.StrVal || p.Type == intstr.Int && have.ContainerPort == p.IntVal {
			return have.ContainerPort
		}
	}
	return 0
}

// TestStrict: a field that does not exist is found.
func TestStrict(t *testing.T) {
	manifests(t)
	for _, doc := range []string{
		"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{prot: 1}]}",
		"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {spec: {containers: [{name: a, readyProbe: {}}]}}}",
		"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: ClusterIP, type: LoadBalancer}",
		"apiVersion: v1\nkind: Service\nspec: {}",
		"apiVersion: v2\nkind: Service\nmetadata: {name: a}",
	} {
		if _, err := decode([]byte(doc)); err == nil {
			t.Errorf("accepted:\n%s", doc)
		}
	}
}

// TestSelectors: workloads, services and budgets find each other, and each port that a service leads to exists.
func TestSelectors(t *testing.T) {
	list := manifests(t)
	seen := make(map[string]bool)
	for _, o := range list {
		key := strings.TrimPrefix(strings.TrimPrefix(typeName(o.v), "*v1."), "*") + " " + o.meta.Name
		if seen[key] {
			t.Errorf("%s: there are two: %s", o.file, key)
		}
		seen[key] = true
	}
	selected := func(selector map[string]string) (w workload, n int) {
		for _, candidate := range workloads(list) {
			if len(selector) > 0 && contains(candidate.pod.Labels, selector) {
				w, n = candidate, n+1
			}
		}
		return w, n
	}
	for _, w := range workloads(list) {
		if _, n := selected(w.selector); n != 1 || !contains(w.pod.Labels, w.selector) {
			t.Errorf("%s: %d workloads have pods as %s wants them", w.file, n, w.meta.Name)
		}
		for _, s := range w.pod.Spec.TopologySpreadConstraints {
			if !maps.Equal(s.LabelSelector.MatchLabels, w.selector) {
				t.Errorf("%s: %s spreads other pods than its own", w.file, w.meta.Name)
			}
		}
	}
	for name, s := range named[corev1.Service](list) {
		w, n := selected(s.Spec.Selector)
		if n != 1 {
			t.Errorf("service %s leads to %d workloads", name, n)
			continue
		}
		for _, p := range s.Spec.Ports {
			if port(&w.pod.Spec.Containers[0], p.TargetPort) == 0 {
				t.Errorf("service %s leads to port %s, which %s does not have", name, p.TargetPort.String(), w.meta.Name)
			}
			if port(&w.pod.Spec.Containers[0], p.TargetPort) == privatePort {
				t.Errorf("service %s publishes the private port", name)
			}
		}
	}
	budgets := named[policyv1.PodDisruptionBudget](list)
	for _, w := range servers(list) {
		b := budgets[w.meta.Name]
		if b == nil || !maps.Equal(b.Spec.Selector.MatchLabels, w.selector) || b.Spec.MaxUnavailable.IntValue() != 1 {
			t.Errorf("%s: %s has no budget for disruptions", w.file, w.meta.Name)
		}
		if w.replicas == nil || *w.replicas < 2 {
			t.Errorf("%s: %s cannot be replaced without an outage", w.file, w.meta.Name)
		}
	}
	for _, o := range list {
		if s, ok := o.v.(*appsv1.StatefulSet); ok {
			if service := named[corev1.Service](list)[s.Spec.ServiceName]; service == nil || service.Spec.ClusterIP != corev1.ClusterIPNone {
				t.Errorf("%s: %s has no headless service", o.file, o.meta.Name)
			}
		}
	}
}

func typeName(v any) string {
	switch v.(type) {
	case *corev1.ConfigMap:
		return "ConfigMap"
	case *corev1.Service:
		return "Service"
	case *appsv1.Deployment, *appsv1.StatefulSet:
		return "workload"
	}
	return "PodDisruptionBudget"
}

func contains(labels, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// environment returns what a server's container finds in its environment, in the form of os.Environ.
func environment(t *testing.T, list []object, w workload) []string {
	t.Helper()
	c := w.pod.Spec.Containers[0]
	env := make(map[string]string)
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef == nil {
			continue // secrets
		}
		m := named[corev1.ConfigMap](list)[from.ConfigMapRef.Name]
		if m == nil {
			t.Fatalf("%s: there is no ConfigMap %s", w.file, from.ConfigMapRef.Name)
		}
		for k, v := range m.Data {
			if _, twice := env[k]; twice {
				t.Errorf("%s: %s is set twice", w.file, k)
			}
			env[k] = v
		}
	}
	for _, e := range c.Env {
		v := e.Value
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.name" {
			v = w.meta.Name + "-0"
		}
		if v == "" {
			t.Errorf("%s: %s is empty", w.file, e.Name)
		}
		env[e.Name] = v
	}
	var environ []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		environ = append(environ, k+"="+env[k])
	}
	return environ
}

// config loads the settings of a server's container as its program does: a name that the library does not know, or a value
// that it refuses, is an error.
func config(t *testing.T, list []object, w workload) *pitaya.Config {
	t.Helper()
	cfg := new(pitaya.Config)
	fs := flag.NewFlagSet(w.meta.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	if err := cfg.Load(fs, nil, environment(t, list, w)); err != nil {
		t.Fatalf("%s: %v", w.file, err)
	}
	for _, s := range cfg.Settings() {
		if s.Unused && s.Origin != pitaya.OriginDefault {
			t.Errorf("%s: %s has no effect", w.file, s.Key)
		}
	}
	if err := cfg.Validate(); err != nil {
		t.Errorf("%s: %v", w.file, err)
	}
	return cfg
}

// TestSettings: the variables are settings of the library, and what they say fits the rest of the manifest.
func TestSettings(t *testing.T) {
	list := manifests(t)
	defaults := make(map[string]string)
	for _, s := range new(pitaya.Config).Settings() {
		defaults[s.Key] = s.Default
	}
	duration := func(d time.Duration, key string) time.Duration {
		if d == 0 {
			d, _ = time.ParseDuration(defaults[key])
		}
		return d
	}
	used := make(map[string]bool)
	for _, w := range servers(list) {
		cfg := config(t, list, w)
		for _, from := range w.pod.Spec.Containers[0].EnvFrom {
			if from.ConfigMapRef != nil {
				used[from.ConfigMapRef.Name] = true
			}
		}
		if !cfg.Cluster || cfg.Type != w.meta.Name || cfg.ID != w.meta.Name+"-0" {
			t.Errorf("%s: server %q of type %q, cluster %v", w.file, cfg.ID, cfg.Type, cfg.Cluster)
		}
		if want := w.file == "frontend.yaml"; cfg.Frontend != want {
			t.Errorf("%s: frontend is %v", w.file, cfg.Frontend)
		}

		// The process is not killed while it ends in peace.
		need := duration(cfg.ShutdownTimeout, "pitaya.shutdown.timeout")
		if cfg.DrainEnabled {
			need += duration(cfg.DrainTimeout, "pitaya.session.drain.timeout")
		}
		c := w.pod.Spec.Containers[0]
		if l := c.Lifecycle; l != nil && l.PreStop != nil && l.PreStop.Sleep != nil {
			need += time.Duration(l.PreStop.Sleep.Seconds) * time.Second
		}
		const spare = 5 * time.Second
		grace := time.Duration(*w.pod.Spec.TerminationGracePeriodSeconds) * time.Second
		if grace < need+spare || grace > need+time.Minute {
			t.Errorf("%s: terminationGracePeriodSeconds is %v, the end may take %v", w.file, grace, need)
		}

		// The collector stays below the limit at which the kernel kills.
		limit := c.Resources.Limits.Memory().Value()
		for _, e := range environment(t, list, w) {
			if v, ok := strings.CutPrefix(e, "GOMEMLIMIT="); ok {
				q, err := resource.ParseQuantity(strings.TrimSuffix(v, "B"))
				if err != nil || q.Value() > limit*9/10 || q.Value() < limit*8/10 {
					t.Errorf("%s: GOMEMLIMIT is %s of %d bytes: %v", w.file, v, limit, err)
				}
			}
		}
		if cpu := c.Resources.Limits.Cpu(); !cpu.IsZero() {
			t.Errorf("%s: a limit of the processor makes pauses in which nobody is answered", w.file)
		}
		// 17 KiB for an idle connection with TLS, and some for what is under way, in half of the memory: the collector
		// wants the other half.
		if need := int64(cfg.MaxConns) * 20 << 10; need > limit/2 {
			t.Errorf("%s: %d connections do not fit in %d bytes", w.file, cfg.MaxConns, limit)
		}
	}
	for name := range named[corev1.ConfigMap](list) {
		if !used[name] {
			t.Errorf("nobody uses ConfigMap %s", name)
		}
	}
}

// TestAddresses: the addresses of etcd and NATS are those of the services for a trial.
func TestAddresses(t *testing.T) {
	list := manifests(t)
	services := named[corev1.Service](list)
	for _, w := range servers(list) {
		cfg := config(t, list, w)
		for _, addr := range append(slices.Clone(cfg.Etcd.Endpoints), cfg.NATSClient.URL, cfg.NATSServer.URL) {
			host, number, err := net.SplitHostPort(strings.TrimPrefix(addr, "nats://"))
			if err != nil {
				t.Errorf("%s: %v", w.file, err)
				continue
			}
			s := services[host]
			if s == nil || !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
				return strconv.Itoa(int(p.Port)) == number
			}) {
				t.Errorf("%s: no service has %s", w.file, addr)
			}
		}
	}
}

// TestProbes: readiness asks for readiness and liveness for life, on the private port, which is where the annotations send
// Prometheus too.
func TestProbes(t *testing.T) {
	for _, w := range servers(manifests(t)) {
		c := &w.pod.Spec.Containers[0]
		for _, p := range []struct {
			name  string
			probe *corev1.Probe
			path  string
		}{{"startup", c.StartupProbe, readyPath}, {"readiness", c.ReadinessProbe, readyPath}, {"liveness", c.LivenessProbe, livePath}} {
			if p.probe == nil || p.probe.HTTPGet == nil || p.probe.HTTPGet.Path != p.path || port(c, p.probe.HTTPGet.Port) != privatePort {
				t.Errorf("%s: the %s probe is %v", w.file, p.name, p.probe)
			}
		}
		if l := c.LivenessProbe; l != nil && l.PeriodSeconds*l.FailureThreshold < 30 {
			t.Errorf("%s: a pause of %d s ends the process", w.file, l.PeriodSeconds*l.FailureThreshold)
		}
		a := w.pod.Annotations
		if a["prometheus.io/scrape"] != "true" || a["prometheus.io/port"] != strconv.Itoa(privatePort) || a["prometheus.io/path"] != metricsPath {
			t.Errorf("%s: annotations %v", w.file, a)
		}
		var names []string
		for _, p := range c.Ports {
			names = append(names, p.Name)
			if p.Name == "grpc" {
				if d := settingDefault("pitaya.cluster.rpc.server.grpc.port"); strconv.Itoa(int(p.ContainerPort)) != d {
					t.Errorf("%s: gRPC is on %d, by default on %s", w.file, p.ContainerPort, d)
				}
			}
		}
		want := []string{"private", "grpc"}
		if w.file == "frontend.yaml" {
			want = []string{"tcp", "ws", "private"}
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: ports %v, want %v", w.file, names, want)
		}
		if s := c.SecurityContext; s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !slices.Contains(s.Capabilities.Drop, "ALL") {
			t.Errorf("%s: the container has rights that it does not need", w.file)
		}
	}
}

func settingDefault(key string) string {
	for _, s := range new(pitaya.Config).Settings() {
		if s.Key == key {
			return s.Default
		}
	}
	return ""
}

// TestDocuments: ports and paths are those of the guide for operators, and of the README beside the manifests.
func TestDocuments(t *testing.T) {
	for _, file := range []string{filepath.Join("..", "..", "docs", "operations.md"), "README.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"3250", "3251", "9090", readyPath, livePath, metricsPath, "terminationGracePeriodSeconds"} {
			if !bytes.Contains(text, []byte(want)) {
				t.Errorf("%s does not mention %s", file, want)
			}
		}
		// Variables that the documents name exist.
		for name := range strings.SplitSeq(string(regexp.MustCompile(`[^A-Z_]+`).ReplaceAll(text, []byte(" "))), " ") {
			if !strings.HasPrefix(name, "PITAYA_") || name == "PITAYA_" {
				continue
			}
			if key := strings.ToLower(strings.ReplaceAll(name, "_", ".")); settingDefault(key) == "" && !known(key) {
				t.Errorf("%s names %s, which is no setting", file, name)
			}
		}
	}
}

func known(key string) bool {
	return slices.ContainsFunc(new(pitaya.Config).Settings(), func(s pitaya.Setting) bool { return s.Key == key })
}
