package pitaya_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pitaya-go/pitaya"
)

// docs/configuration.md is made from the table: go test -run TestConfigDocs -update
func TestConfigDocs(t *testing.T) {
	file := filepath.Join("docs", "configuration.md")
	want := configDocs()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is out of date; run: go test -run TestConfigDocs -update", file)
	}
}

func configDocs() string {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Made from the table in config_table.go: go test -run TestConfigDocs -update -->

A server is configured by a ` + "`pitaya.Config`" + `. Its fields can be set in code, in a JSON file, in environment variables and
with flags. What stands further right in that list goes before what stands further left. One call does it all:

` + "```go fragment" + `
cfg := pitaya.Config{Type: "chat", Frontend: true}
if err := cfg.Load(flag.CommandLine, os.Args[1:], os.Environ()); err != nil {
	log.Fatal(err)
}
` + "```" + `

- **File**: named by ` + "`-pitaya.config`, `PITAYA_CONFIG` or `Config.File`" + `. A key is written as nested objects, as one name with dots,
  or as a mixture: ` + "`{\"pitaya\": {\"heartbeat\": {\"interval\": \"10s\"}, \"conn.max\": 5000}}`" + `. Case does not matter. What is
  not below ` + "`pitaya`" + ` belongs to the game and is ignored. ` + "`null`" + ` leaves a setting as it is.
- **Environment**: the key in upper case with underscores for the dots, ` + "`PITAYA_HEARTBEAT_INTERVAL=10s`" + `. Empty means not
  set. The variables that Kubernetes makes for services are left alone.
- **Flags**: ` + "`-pitaya.heartbeat.interval=10s`" + `. ` + "`-help`" + ` lists them all.

A name below ` + "`pitaya.`" + ` that does not exist is an error that names the nearest one, and so is a value of the wrong type or out
of range; all mistakes are reported at once. ` + "`fmt.Print(cfg)`" + ` shows the values in force and where each is from, without
passwords.

- **duration**: ` + "`500ms`, `30s`, `1m30s`" + `. A number without a unit is an error, except where
  numbers of seconds are documented.
- **bytes**: a number, or a number with ` + "`KiB`, `MiB` or `GiB`" + `.
- **list**: a JSON list, or texts with commas between.
- **map**: a JSON object, or ` + "`name=value`" + ` with commas between. The names in it keep their case.

Settings marked † are accepted, and this version makes no use of them. Where a default is not Pitaya's, Pitaya's stands in
brackets.
`)
	docs := pitaya.ConfigDocs()
	section := ""
	var others strings.Builder
	for i, s := range new(pitaya.Config).Settings() {
		if docs[i].Section != section {
			section = docs[i].Section
			fmt.Fprintf(&b, "\n## %s\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n", section)
		}
		mark := ""
		if s.Unused {
			mark = " †"
		}
		def := ""
		if s.Default != "" {
			def = "`" + s.Default + "`"
		}
		if docs[i].Pitaya != "" {
			def += " (" + docs[i].Pitaya + ")"
		}
		fmt.Fprintf(&b, "| `%s`%s | %s | %s | %s |\n", s.Key, mark, s.Type, def, s.Help)
		for _, a := range s.Aliases {
			if !strings.EqualFold(a, s.Key) && a == strings.ToLower(a) {
				fmt.Fprintf(&others, "| `%s` | `%s` |\n", a, s.Key)
			}
		}
	}
	b.WriteString("\n## Other names\n\nThese names of earlier versions and documents are accepted as well. Giving one setting two values under two names is an error.\n\n| name | key |\n| --- | --- |\n")
	b.WriteString(others.String())
	return b.String()
}
