package pitaya_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// noExample are the exported names that no example shows, each with the reason. "T.*" stands for the methods of T.
var noExample = map[string]string{
	// What others call.
	"Base.*":              "the server calls them; each handler struct of the examples embeds it",
	"ModuleBase.*":        "the server calls them; ExampleServer_AddModule embeds it",
	"Binary.*":            "the server calls them; ExampleNewBinary adds one",
	"UniqueSession":       "a frontend adds it by itself; ExampleServer_AddModuleBefore finds it",
	"UniqueSession.*":     "the server calls them",
	"BeforeFunc":          "a function that is given to Server.Before, which has an example",
	"AfterFunc":           "a function that is given to Server.After, which has an example",
	"Condition":           "what is given to Server.NewCondTimer, whose example has one",
	"ProxyListener.*":     "those of net.Listener, which a server or another listener calls",
	"EtcdDiscovery.*":     "those of Discovery, which the server calls, and what tells of outages",
	"EtcdBindings.*":      "those of BindingStore; ExampleBindingStore has them",
	"EtcdGroups.*":        "those of GroupStore; ExampleGroupStore has them",
	"MemoryGroups.*":      "those of GroupStore, which the methods of Group call; ExampleGroup_Create has them",
	"NATSJobsOptions":     "what NewNATSJobs is given",
	"NewNATSJobs":         "needs a NATS with JetStream; examples/worker runs on one",
	"NATSJobs":            "what NewNATSJobs returns",
	"NATSJobs.*":          "those of JobStore; ExampleMemoryJobs has them",
	"MemoryJobs.*":        "those of JobStore; ExampleMemoryJobs calls them through it",
	"NATSTransport.*":     "those of Transport, which the server calls",
	"GRPCTransport.*":     "those of Transport, which the server calls",
	"Protobuf.*":          "those of Serializer; ExampleJSON has them",
	"JSON.Name":           "that of Serializer; ExampleClient has it",
	"Tracer.*":            "of pitayatest: those of pitaya.Tracer, which the server calls; ExampleTracer has them",
	"Notice":              "what a Transport carries, for those who write one",
	"NoticeKind":          "of a Notice",
	"TransportHandler":    "what a Transport calls, for those who write one",
	"MemCluster.Delay":    "is for bubbles; ExampleNewCluster of pitayatest has Cluster.Delay",
	"ErrTruncated":        "ends a session whose client closed in the midst of a packet, which no client here does",
	"ErrHandshakeTimeout": "takes its time, which an example has not",
	"ErrHeartbeat":        "takes its time, which an example has not",
	"ErrSlowClient":       "takes its time, which an example has not",
	"ErrLeftOut":          "of programs built with a tag, which TestNoClusterProgram runs",
	"ErrNoAnswer":         "of a network that fails at the wrong moment",

	// Functions of the package that are methods of the default server, as ExampleRun and ExampleConfigure show it.
	"Documentation":          "Server.Documentation",
	"AddModule":              "Server.AddModule",
	"RegisterModuleAfter":    "Server.AddModule",
	"RegisterModuleBefore":   "Server.AddModuleBefore",
	"NewCondTimer":           "Server.NewCondTimer",
	"GetMetricsReporters":    "Server.Reporters",
	"Start":                  "Run without a context",
	"ReliableRPC":            "Server.ReliableRPC",
	"ReliableRPCWithOptions": "Server.ReliableRPCWithOptions",
	"RegisterRPCJob":         "Server.RegisterRPCJob",
	"StartWorker":            "Server.StartWorker",

	// Another name for what has an example.
	"CreateStatsdReporter":          "NewStatsd",
	"Server.ReliableRPCWithOptions": "Server.ReliableRPC with the options of ExampleRetryOptions",
}

// noOutput are the examples whose output is not compared, each with the reason.
var noOutput = map[string]string{
	"ExampleTestBindingStore": suiteReason,
	"ExampleTestDiscovery":    suiteReason,
	"ExampleTestGroupStore":   suiteReason,
	"ExampleTestJobStore":     suiteReason,
	"ExampleTestSerializer":   suiteReason,
	"ExampleTestTracer":       suiteReason,
	"ExampleTestTransport":    suiteReason,
}

const suiteReason = "the suites need a *testing.T and have no output; tests of the library run each on what comes with it"

// called are methods that fmt, errors, log/slog and encoding/json call.
var called = []string{"String", "Error", "Unwrap", "LogValue", "MarshalJSON", "UnmarshalJSON"}

// TestExamples looks for names that the packages export and no example uses: functions, methods, types and errors. A type is
// used where a value of it is. Each example must have an output that is compared.
func TestExamples(t *testing.T) {
	t.Parallel()
	const path = "github.com/pitaya-go/pitaya"
	exports, err := exportFiles(".", "./pitayatest", "./examples/...") // the last for what only examples import
	if err != nil {
		t.Fatal(err)
	}
	known := exportImporter(exports)
	excepted, silent := maps.Clone(noExample), maps.Clone(noOutput)
	for _, dir := range []string{".", "pitayatest"} {
		pkg, err := known.Import(strings.TrimSuffix(path+"/"+dir, "/."))
		if err != nil {
			t.Fatal(err)
		}
		names, err := filepath.Glob(filepath.Join(dir, "example_*test.go"))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		fset := token.NewFileSet()
		var files []*ast.File
		for _, name := range names {
			f, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		var named []string
		for _, e := range doc.Examples(files...) {
			owner, method, _ := strings.Cut(e.Name, "_")
			if method, _, _ = strings.Cut(method, "_"); token.IsExported(method) { // else it tells examples of one name apart
				named = append(named, owner+"."+method)
			}
			if silent["Example"+e.Name] != "" {
				delete(silent, "Example"+e.Name)
			} else if e.Output == "" && !e.EmptyOutput {
				t.Errorf("%s: Example%s has no output to compare", dir, e.Name)
			}
		}
		used := usedNames(fset, files, known, pkg)
		for _, name := range named {
			used[name] = true // such as WSListener.ServeHTTP, which nobody calls by name
		}
		for _, name := range exportedNames(pkg) {
			if used[name] {
				continue
			}
			owner, _, method := strings.Cut(name, ".")
			switch {
			case noExample[name] != "":
				delete(excepted, name)
			case method && noExample[owner+".*"] != "":
				delete(excepted, owner+".*")
			default:
				t.Errorf("%s: no example shows %s", dir, name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(excepted)) {
		t.Errorf("noExample has %s, which an example shows, or which is not there", name)
	}
	for _, name := range slices.Sorted(maps.Keys(silent)) {
		t.Errorf("noOutput has %s, which is not there", name)
	}
}

// exportedNames returns the functions, types, methods and variables of a package. Methods of interfaces are not among them, which
// are for those who implement them, nor are those of called.
func exportedNames(pkg *types.Package) (names []string) {
	for _, name := range pkg.Scope().Names() {
		obj := pkg.Scope().Lookup(name)
		if _, constant := obj.(*types.Const); constant || !obj.Exported() {
			continue
		}
		names = append(names, name)
		if named, ok := obj.Type().(*types.Named); ok && named.Obj() == obj && !types.IsInterface(named) {
			for m := range named.Methods() {
				if m.Exported() && !slices.Contains(called, m.Name()) {
					names = append(names, name+"."+m.Name())
				}
			}
		}
	}
	return names
}

// usedNames returns the names of pkg, in the form of exportedNames, that files use.
func usedNames(fset *token.FileSet, files []*ast.File, imports types.Importer, pkg *types.Package) map[string]bool {
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object), Types: make(map[ast.Expr]types.TypeAndValue)}
	// What other files of the tests declare is not known here.
	conf := types.Config{Importer: imports, Error: func(error) {}}
	conf.Check("examples", fset, files, info)
	used := make(map[string]bool)
	mark := func(t types.Type) {
		if p, ok := types.Unalias(t).(*types.Pointer); ok {
			t = p.Elem()
		}
		if named, ok := types.Unalias(t).(*types.Named); ok && named.Obj().Pkg() == pkg {
			used[named.Obj().Name()] = true
		}
	}
	for _, tv := range info.Types {
		mark(tv.Type)
	}
	for _, obj := range info.Uses {
		if obj.Pkg() != pkg {
			continue
		}
		f, ok := obj.(*types.Func)
		if !ok || f.Signature().Recv() == nil {
			used[obj.Name()] = true
			continue
		}
		recv := types.Unalias(f.Signature().Recv().Type())
		if p, ok := recv.(*types.Pointer); ok {
			recv = types.Unalias(p.Elem())
		}
		if named, ok := recv.(*types.Named); ok {
			used[named.Obj().Name()+"."+f.Name()] = true
		}
	}
	return used
}
