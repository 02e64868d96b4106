package kubernetes

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pitaya-go/pitaya"
	"github.com/pitaya-go/pitaya/internal/devtest"
	corev1 "k8s.io/api/core/v1"
)

// program is the example that the image is made of, as a package in the root module.
const program = "./examples/operate"

// TestProgram runs a gate and a room as the manifests do: with their arguments and variables, but for the addresses, which
// are those of an etcd and a NATS of the test, and ports that are free. Probes, Prometheus and clients find what they want.
func TestProgram(t *testing.T) {
	list := manifests(t)
	etcd, nats := devtest.Etcd(t).URL(), devtest.NATS(t).URL()
	binary := filepath.Join(t.TempDir(), "server")
	build := exec.Command("go", "build", "-o", binary, program)
	build.Dir = filepath.Join("..", "..")
	build.Env = append(build.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if b, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	// Rooms first: the gate forwards to them.
	all := servers(list)
	slices.SortFunc(all, func(a, b workload) int { return strings.Compare(b.meta.Name, a.meta.Name) })
	clients := make(map[string][]string)
	for _, w := range all {
		c := w.pod.Spec.Containers[0]
		env := slices.DeleteFunc(environment(t, list, w), func(e string) bool { return strings.Contains(e, "_CONNECT=") || strings.Contains(e, "_ENDPOINTS=") })
		env = append(env, "PITAYA_CLUSTER_SD_ETCD_ENDPOINTS="+etcd,
			"PITAYA_CLUSTER_RPC_CLIENT_NATS_CONNECT="+nats, "PITAYA_CLUSTER_RPC_SERVER_NATS_CONNECT="+nats)
		private, addrs := startServer(t, binary, withFreePorts(t, w), env)
		clients[w.meta.Name] = addrs

		for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
			if status, body := get(t, private+p.HTTPGet.Path); status != http.StatusOK {
				t.Errorf("%s: %s: %d, %s", w.file, p.HTTPGet.Path, status, body)
			}
		}
		status, body := get(t, private+w.pod.Annotations["prometheus.io/path"])
		for _, want := range []string{`game="game"`, `serverType="` + w.meta.Name + `"`} {
			if status != http.StatusOK || !strings.Contains(body, want) {
				t.Errorf("%s: %d, and no %s in its metrics", w.file, status, want)
			}
		}
	}
	if len(clients["room"]) != 0 || len(clients["gate"]) != 2 {
		t.Fatalf("clients can connect to %v, want TCP and WebSocket of the gate", clients)
	}
	for i, scheme := range []string{"tcp://", "ws://"} {
		c, err := pitaya.Dial(t.Context(), scheme+clients["gate"][i], nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		// A few, since one in 200 is an error of the game.
		for range 3 {
			if err = c.Request(t.Context(), "room.table.play", map[string]int{"x": 1}, nil); pitaya.ErrorCode(err) != "GAME-TURN" {
				break
			}
		}
		if err != nil {
			t.Errorf("%s: %v", scheme, err)
		}
		c.Close() // or the gate would wait for it when it ends
	}
}

// withFreePorts returns the arguments of a server with ports that are free instead of its container's, which it wants to be
// the same ones.
func withFreePorts(t *testing.T, w workload) []string {
	t.Helper()
	c := w.pod.Spec.Containers[0]
	flags := map[string]string{"-listen": "tcp", "-ws": "ws", "-private": "private"}
	var args, named []string
	for _, arg := range c.Args {
		name, addr, _ := strings.Cut(arg, "=")
		_, number, err := net.SplitHostPort(addr)
		if err != nil || flags[name] == "" {
			t.Fatalf("%s: argument %q: %v", w.file, arg, err)
		}
		named = append(named, flags[name])
		args = append(args, name+"=127.0.0.1:0")
		if !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
			return p.Name == flags[name] && strconv.Itoa(int(p.ContainerPort)) == number
		}) {
			t.Errorf("%s: %s is no port of the container", w.file, arg)
		}
	}
	for _, p := range c.Ports {
		if p.Name != "grpc" && !slices.Contains(named, p.Name) {
			t.Errorf("%s: nobody listens on port %s", w.file, p.Name)
		}
	}
	return args
}

// startServer starts the program and waits until it is ready. It ends with the test, as the kubelet ends it.
func startServer(t *testing.T, binary string, args, env []string) (private string, clients []string) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env, cmd.Stderr = env, t.Output()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		slow := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
		defer slow.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	stuck := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		switch what, value, _ := strings.Cut(lines.Text(), " "); what {
		case "private":
			private = strings.TrimSuffix(strings.TrimSpace(value), "/")
		case "clients":
			clients = append(clients, strings.TrimSpace(value))
		case "ready":
			return private, clients
		}
	}
	t.Fatal("it has not become ready")
	return "", nil
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// TestDockerfile: the image is made of the program that the test runs, and of the user that the manifests run it as.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte("/server "+program+"\n")) {
		t.Errorf("the image is not made of %s", program)
	}
	root, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(string(root), "\ngo ")
	version, _, _ = strings.Cut(version, "\n")
	if _, image, _ := strings.Cut(string(text), "FROM golang:"); !strings.HasPrefix(version, strings.Fields(image + " -")[0]) {
		t.Errorf("the image is built with another Go than %s", version)
	}
	for _, w := range servers(manifests(t)) {
		user := w.pod.Spec.SecurityContext.RunAsUser
		if user == nil || !bytes.Contains(text, []byte("\nUSER "+strconv.FormatInt(*user, 10)+"\n")) {
			t.Errorf("%s: the image has another user", w.file)
		}
		if len(w.pod.Spec.Containers[0].Command) > 0 {
			t.Errorf("%s: the image has an entry point", w.file)
		}
	}
}
