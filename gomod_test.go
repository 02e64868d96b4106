package pitaya_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// allowedRequirements are the only modules the go.mod of the library may require directly. Who imports the package
// imports its go.mod, so the list is short and grows only by a decision.
var allowedRequirements = []string{
	"go.etcd.io/etcd/client/v3",
	"github.com/nats-io/nats.go",
	"golang.org/x/net",
	"google.golang.org/protobuf",
}

func TestGoMod(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range checkGoMod(string(text)) {
		t.Errorf("go.mod: %s", problem)
	}
}

// checkGoMod looks for direct requirements that are not allowed, and for directives that have no effect for those who
// import the module (replace, exclude) or force something on them (toolchain, tool, godebug).
func checkGoMod(text string) []string {
	var problems []string
	block := ""
	for line := range strings.Lines(text) {
		code, comment, _ := strings.Cut(line, "//")
		words := strings.Fields(code)
		if len(words) == 0 {
			continue
		}
		directive := block
		switch {
		case words[0] == ")":
			block = ""
			continue
		case block == "" && len(words) == 2 && words[1] == "(":
			block = words[0]
			continue
		case block == "":
			directive, words = words[0], words[1:]
		}
		switch directive {
		case "module", "go", "retract":
		case "require":
			module := strings.Trim(words[0], `"`)
			if strings.TrimSpace(comment) != "indirect" && !slices.Contains(allowedRequirements, module) {
				problems = append(problems, "direct requirement of "+module)
			}
		default:
			problems = append(problems, fmt.Sprintf("directive %s %s", directive, strings.Join(words, " ")))
		}
	}
	return problems
}

func TestCheckGoMod(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"empty", "", nil},
		{"minimal", "module m\n\ngo 1.26\n", nil},
		{"allowed", "module m\nrequire golang.org/x/net v0.1.0\nrequire (\n\tgoogle.golang.org/protobuf v1.2.3 // kept\n)\n", nil},
		{"indirect", "require (\n\tgoogle.golang.org/grpc v1.0.0 // indirect\n)\nrequire a.b/c v1.0.0 //indirect\n", nil},
		{"direct", "require (\n\tgolang.org/x/net v0.1.0\n\tgoogle.golang.org/grpc v1.0.0\n)\n", []string{"direct requirement of google.golang.org/grpc"}},
		{"direct line", "require golang.org/x/netx v0.1.0\n", []string{"direct requirement of golang.org/x/netx"}},
		{"replace", "replace a.b/c => ../c\n", []string{"directive replace a.b/c => ../c"}},
		{"replace block", "replace (\n\ta.b/c => ../c\n)\n", []string{"directive replace a.b/c => ../c"}},
		{"toolchain", "go 1.26\ntoolchain go1.26.8\n", []string{"directive toolchain go1.26.8"}},
		{"tool", "tool honnef.co/go/tools/cmd/staticcheck\n", []string{"directive tool honnef.co/go/tools/cmd/staticcheck"}},
		{"commented out", "// replace a => b\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := checkGoMod(tt.text); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
