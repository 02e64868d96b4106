package pitaya_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// layers is the order of the files of the package, from the ground up. A file may use what its own row and the rows
// above it declare, and nothing below. That is what keeps one flat package from growing into a heap: the wire layer
// knows no connection, a connection knows no session, and nothing before the last rows has heard of Config or Server.
// A lower layer that has to tell a higher one something declares a small interface and is handed an implementation.
//
// Each row is a description and then its units. A unit is a list of files without ".go" (a * stands for any text); the
// unexported fields of its structs are its own, other units go through methods or capitalised fields. "name: files"
// gives a unit a name, and units of one name in different rows are one.
var layers = [][]string{
	{"ground: the manual; the seam for numbers; distributions; pooled buffers and goroutines; rare log records", "doc", "metrics metrics_names", "stats",
		"meter", "histogram", "buffer", "runner", "log", "sampler", "build: build_*"},
	{"coded errors, and the formats of payloads, theirs included; the seam for spans", "protobuf_*", "errors", "serializer: serializer serializer_json",
		"tracing tracing_parent"},
	{"wire: packets, routes, messages and their compression, as functions on bytes", "packet", "route", "message compress"},
	{"wire: what both ends say first", "handshake"},
	{"wire: the frames of RFC 6455", "ws: ws_frame"},
	{"what clients may send: rates, verdicts, what addresses have used up", "admission admission_table"},
	{"acceptors: each makes a net.Listener", "tcp: acceptor_tcp acceptor_tcp_linux acceptor_tcp_other", "proxy", "ws: acceptor_ws acceptor_ws_conn acceptor_ws_header acceptor_ws_request", "acceptor_mem"},
	{"connection: one client's bytes in both directions; knows no session", "conn conn_*", "heartbeat"},
	{"the other end of a connection", "client client_*"},
	{"what the debug page knows of messages and errors", "inspect"},
	{"sessions: one, its data, all of them", "session session_* mailbox multicast"},
	{"what travels with a call, and what runs around it", "context", "propagate", "context_log", "pipeline"},
	{"cluster: its seams, and servers as JSON", "discovery discovery_entry", "transport", "binding", "rpc"},
	{"dispatch: finding the handler, decode, order, call, recover", "handler handler_* remote component dispatch dispatch_*"},
	{"cluster: this server in it: members, calls, clients' messages to others and from them, users elsewhere", "members", "routing",
		"node node_*"},
	{"what handlers use: groups, modules, timers", "group_store", "group", "module", "module_*", "timer"},
	{"reliable RPC: where jobs are kept, and what they are", "worker_store", "worker_mem", "worker_job"},
	{"settings and where they come from", "config config_*"},
	{"metrics: what there is, and those who keep or send it", "metrics_builtin",
		"registry: metrics_registry metrics_series metrics_window metrics_text metrics_http metrics_expvar metrics_process", "metrics_listener", "metrics_statsd metrics_statsd_send"},
	{"a cluster in one process", "cluster_mem cluster_mem_transport"},
	{"cluster in etcd: client and lease, who is there, groups, who is on which frontend", "etcd", "discovery_etcd discovery_etcd_*", "group_etcd",
		"binding_etcd"},
	{"cluster in NATS: addresses, options, attempts to connect", "nats"},
	{"cluster: what carries calls between servers", "nats: rpc_nats rpc_nats_*", "grpc: rpc_grpc rpc_grpc_*"},
	{"reliable RPC: jobs in NATS, and who does jobs", "nats_jobs: worker_nats worker_nats_*", "worker"},
	{"the names of what stands on etcd and NATS, in programs without them", "nocluster"},
	{"server: wiring, start, drain, stop", "server server_*"},
	{"the calls on the package, over one server", "default"},
}

// layerPlatforms are the platforms the package is checked for; together they must build every file.
var layerPlatforms = []build.Context{
	layerPlatform("linux", "amd64"),
	layerPlatform("darwin", "arm64"),
	layerPlatform("windows", "amd64"),
	layerPlatform("linux", "amd64", "nocluster"),
}

func layerPlatform(goos, goarch string, tags ...string) build.Context {
	c := build.Default
	c.GOOS, c.GOARCH, c.CgoEnabled, c.BuildTags = goos, goarch, false, tags
	return c
}

// builds reports whether a file of that name and text belongs to the package on a platform.
func builds(platform build.Context, name, text string) (bool, error) {
	platform.OpenFile = func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	return platform.MatchFile(".", name)
}

func TestLayers(t *testing.T) {
	t.Parallel()
	for _, problem := range checkLayers(layers, sourceFiles(t), exportData(t)) {
		t.Error(problem)
	}
}

// checkLayers holds files (name to text) against a table and returns what is wrong. The importer may fail on any or all
// imports: what depends on them is then of no known type, and fields behind it are not seen.
func checkLayers(table [][]string, files map[string]string, imports types.Importer) []string {
	var problems []string
	report := func(format string, args ...any) {
		if s := fmt.Sprintf(format, args...); !slices.Contains(problems, s) {
			problems = append(problems, s)
		}
	}
	places := placeFiles(table, slices.Sorted(maps.Keys(files)), report)

	seen := make(map[string]bool)
	for _, platform := range layerPlatforms {
		fset := token.NewFileSet()
		var parsed []*ast.File
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if ok, err := builds(platform, name, files[name]); err != nil {
				report("%s: %v", name, err)
			} else if !ok {
				continue
			}
			seen[name] = true
			f, err := parser.ParseFile(fset, name, files[name], parser.SkipObjectResolution)
			if err != nil {
				report("%v", err)
				continue
			}
			parsed = append(parsed, f)
		}
		checkUses(fset, parsed, places, imports, report)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !seen[name] {
			report("%s: no platform of layerPlatforms builds it", name)
		}
	}
	slices.Sort(problems)
	return problems
}

// A filePlace is where the table puts a file.
type filePlace struct {
	row  int
	what string // description of the row
	unit string
}

func placeFiles(table [][]string, names []string, report func(string, ...any)) map[string]filePlace {
	places := make(map[string]filePlace)
	for i, row := range table {
		for j, cell := range row[1:] {
			unit, list, named := strings.Cut(cell, ":")
			if !named {
				unit, list = fmt.Sprintf("%d.%d", i, j), cell
			}
			for pattern := range strings.FieldsSeq(list) {
				found := false
				for _, name := range names {
					if ok, err := path.Match(pattern+".go", name); err != nil {
						report("layers, row %q: %q: %v", row[0], pattern, err)
					} else if ok {
						found = true
						if _, twice := places[name]; twice {
							report("%s stands in the table of layers twice", name)
						}
						places[name] = filePlace{row: i, what: row[0], unit: unit}
					}
				}
				if !found {
					report("layers, row %q: there is no file %s.go", row[0], pattern)
				}
			}
		}
	}
	for _, name := range names {
		if _, ok := places[name]; !ok {
			report("%s stands in no row of the table of layers (layers_test.go)", name)
		}
	}
	return places
}

// checkUses type-checks the files of one platform and looks at each identifier that refers to another file.
func checkUses(fset *token.FileSet, files []*ast.File, places map[string]filePlace, imports types.Importer,
	report func(string, ...any)) {
	info := &types.Info{
		Uses:  make(map[*ast.Ident]types.Object),
		Types: make(map[ast.Expr]types.TypeAndValue),
	}
	// Errors are for the compiler to report. Here they come from imports that the importer does not have.
	conf := types.Config{Importer: imports, Error: func(error) {}}
	pkg, _ := conf.Check("pitaya", fset, files, info)

	// Fields and methods stand in another file only by the struct or receiver type, so one rule covers them all. The
	// first use of a name in a file is enough of a report.
	type use struct{ file, name, from string }
	late, private := make(map[use]bool), make(map[use]bool)
	inOrder := func(a, b *ast.Ident) int { return cmp.Compare(a.Pos(), b.Pos()) }
	for _, id := range slices.SortedFunc(maps.Keys(info.Uses), inOrder) {
		obj := info.Uses[id]
		if _, isImport := obj.(*types.PkgName); isImport || obj.Pkg() != pkg || !obj.Pos().IsValid() {
			continue
		}
		at, from := fset.Position(id.Pos()), fset.Position(obj.Pos()).Filename
		user, okUser := places[at.Filename]
		owner, okOwner := places[from]
		if !okUser || !okOwner {
			continue // in no row, which is reported
		}
		u := use{at.Filename, id.Name, from}
		if owner.row > user.row && !late[u] {
			late[u] = true
			report("%s: uses %s of %s, which is in a later row (%q uses %q)", at, id.Name, from, user.what, owner.what)
		}
		if v, ok := obj.(*types.Var); ok && v.IsField() && !v.Exported() && owner.unit != user.unit && !private[u] {
			private[u] = true
			report("%s: touches the field %s, which belongs to the unit of %s; add a method, or capitalise the field of "+
				"plain data", at, id.Name, from)
		}
	}
	// A literal without keys names no field and yet sets them.
	for expr, tv := range info.Types {
		lit, ok := expr.(*ast.CompositeLit)
		if !ok || len(lit.Elts) == 0 || tv.Type == nil {
			continue
		}
		if _, keyed := lit.Elts[0].(*ast.KeyValueExpr); keyed {
			continue
		}
		st, ok := tv.Type.Underlying().(*types.Struct)
		if !ok {
			continue
		}
		for f := range st.Fields() {
			at, from := fset.Position(lit.Pos()), fset.Position(f.Pos()).Filename
			if f.Pkg() == pkg && !f.Exported() && places[from].unit != places[at.Filename].unit {
				report("%s: sets the field %s, which belongs to the unit of %s", at, f.Name(), from)
			}
		}
	}
}

// TestMapOfFiles compares the map in the package documentation with the files. The map may say x_*.go for several.
func TestMapOfFiles(t *testing.T) {
	t.Parallel()
	files := sourceFiles(t)
	_, text, ok := strings.Cut(files["doc.go"], "// # Map of files\n")
	text, _, _ = strings.Cut(text, "\n// # ")
	if !ok {
		t.Fatal("doc.go has no map of files")
	}
	mapped := make(map[string]bool)
	for line := range strings.Lines(text) {
		entry, ok := strings.CutPrefix(line, "//\t")
		if !ok {
			continue // prose, which names layers_test.go
		}
		for pattern := range strings.FieldsSeq(entry) {
			if pattern = strings.TrimSuffix(pattern, ","); !strings.HasSuffix(pattern, ".go") {
				continue
			}
			found := false
			for name := range files {
				if ok, err := path.Match(pattern, name); err != nil {
					t.Fatal(err)
				} else if ok {
					found, mapped[name] = true, true
				}
			}
			if !found {
				t.Errorf("the map in doc.go names %s, which does not exist", pattern)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !mapped[name] {
			t.Errorf("%s is not in the map of files in doc.go", name)
		}
	}
}

// noImports has no package at all.
type noImports struct{}

func (noImports) Import(path string) (*types.Package, error) {
	return nil, fmt.Errorf("no package %s", path)
}

func TestCheckLayers(t *testing.T) {
	table := [][]string{
		{"ground", "low", "low2"},
		{"wire", "ws: frame", "raw_*"},
		{"top", "high high_more", "ws: listener"},
	}
	const (
		low = "package p\n\nimport \"example.com/unknown\"\n\ntype small struct {\n\tn int\n\tN int\n\tu unknown.T\n}\n" +
			"\nfunc (s *small) get() int { return s.n }\n"
		high     = "package p\n\ntype big struct{ small }\n\nfunc (b *big) num() int { return b.get() + b.N + raw() }\n"
		frame    = "package p\n\ntype reader struct{ state int }\n"
		listener = "package p\n\nfunc open(r *reader) { r.state = 1 }\n"
		unix     = "//go:build unix\n\npackage p\n\nfunc raw() int { return 1 }\n"
		other    = "//go:build !unix\n\npackage p\n\nfunc raw() int { return 2 }\n"
	)
	good := map[string]string{
		"low.go": low, "low2.go": "package p\n", "frame.go": frame, "raw_unix.go": unix, "raw_other.go": other,
		"high.go": high, "high_more.go": "package p\n\nvar _ = (&big{}).small\n", "listener.go": listener,
	}
	tests := []struct {
		name   string
		change map[string]string // text to put in place; "" removes the file
		want   []string          // part of each problem, in any order
	}{
		{name: "good"},
		{
			name:   "function of a later row",
			change: map[string]string{"low2.go": "package p\n\nvar x = raw()\n"},
			want:   []string{"low2.go:3:9: uses raw of raw_unix.go", "low2.go:3:9: uses raw of raw_other.go"},
		},
		{
			name:   "type of a later row in a tagged file",
			change: map[string]string{"raw_other.go": other + "\nvar b *big\n"},
			want:   []string{"raw_other.go:7:8: uses big of high.go"},
		},
		{
			name: "method of a later row",
			change: map[string]string{
				"high.go": high + "\nfunc (s *small) late() {}\n",
				"low2.go": "package p\n\nfunc f(s *small) { s.late() }\n",
			},
			want: []string{"low2.go:3:22: uses late of high.go"},
		},
		{
			name:   "field of another unit in the same row",
			change: map[string]string{"low2.go": "package p\n\nfunc f(s *small) int { return s.n + s.N + s.get() }\n"},
			want:   []string{"low2.go:3:33: touches the field n, which belongs to the unit of low.go"},
		},
		{
			name:   "field through an embedded struct",
			change: map[string]string{"high.go": high + "\nfunc (b *big) bad() { b.n++ }\n"},
			want:   []string{"high.go:7:25: touches the field n"},
		},
		{
			name:   "field in a literal",
			change: map[string]string{"low2.go": "package p\n\nvar s = small{n: 1}\n"},
			want:   []string{"low2.go:3:15: touches the field n"},
		},
		{
			name: "fields in a literal without keys",
			change: map[string]string{
				"listener.go": listener + "\ntype pair struct{ a, b int }\n",
				"high.go":     high + "\nvar q = pair{1, 2}\n",
			},
			want: []string{"high.go:7:9: sets the field a", "high.go:7:9: sets the field b"},
		},
		{
			name:   "file in no row",
			change: map[string]string{"new.go": "package p\n"},
			want:   []string{"new.go stands in no row"},
		},
		{
			name:   "row without its file",
			change: map[string]string{"high_more.go": ""},
			want:   []string{`row "top": there is no file high_more.go`},
		},
		{
			name: "pattern takes in a new file",
			change: map[string]string{
				"raw_unix.go": "", "raw_other.go": "", "raw_low.go": "package p\n\nfunc raw() int { return 0 }\n",
			},
		},
		{
			name:   "file that nobody builds",
			change: map[string]string{"raw_plan9.go": "package p\n"},
			want:   []string{"raw_plan9.go: no platform"},
		},
		{
			name:   "syntax error",
			change: map[string]string{"low2.go": "package p\n\nfunc {\n"},
			want:   []string{"low2.go:3:6: expected 'IDENT'"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := maps.Clone(good)
			for name, text := range tt.change {
				if files[name] = text; text == "" {
					delete(files, name)
				}
			}
			matchProblems(t, checkLayers(table, files, noImports{}), tt.want)
		})
	}
	t.Run("file in two rows of the table", func(t *testing.T) {
		twice := append(slices.Clone(table), []string{"again", "low"})
		got := placeProblems(twice, slices.Sorted(maps.Keys(good)))
		matchProblems(t, got, []string{"low.go stands in the table of layers twice"})
	})
	t.Run("pattern that is none", func(t *testing.T) {
		got := placeProblems([][]string{{"bad", "["}}, []string{"low.go"})
		matchProblems(t, got, []string{"syntax error in pattern", "there is no file [.go", "low.go stands in no row"})
	})
}

func placeProblems(table [][]string, names []string) []string {
	var got []string
	placeFiles(table, names, func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) })
	return got
}

// matchProblems checks that there is exactly one problem for each text in want, and none besides.
func matchProblems(t *testing.T, got, want []string) {
	t.Helper()
	left := slices.Clone(got)
	for _, w := range want {
		i := slices.IndexFunc(left, func(s string) bool { return strings.Contains(s, w) })
		if i < 0 {
			t.Errorf("no problem with %q among %q", w, got)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, s := range left {
		t.Errorf("unexpected problem: %s", s)
	}
}
