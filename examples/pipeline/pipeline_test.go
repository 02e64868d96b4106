package main

import (
	"testing"

	"github.com/pitaya-go/pitaya/internal/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

// The program as it is used: what the client is told, and what the server notes meanwhile.
func TestProgram(t *testing.T) {
	server := exampletest.Start(t, run, "-listen", "127.0.0.1:0")
	got := exampletest.Run(t, run, "-connect", server.Expect(`pipeline -connect (\S+)`)[1])
	const want = `2 sword: 40 gold left
2 sword: SHOP-NO-GOLD, not enough gold: 60 for 40
-2 sword: SHOP-INVALID, cannot sell -2 of anything
1 dragon: SHOP-NO-ITEM, "dragon": there is no such item
1 magic lamp: PIT-500, the shop is closed, come again later
`
	if got != want {
		t.Errorf("the client printed\n%s\nwant\n%s", got, want)
	}
	// The request that was not valid has come to no function behind that: four are left.
	server.Stop()
	for _, result := range []string{"ok", "SHOP-NO-GOLD", "SHOP-NO-ITEM", "PIT-500"} {
		if took := server.Expect(`^shop\.Counter\.Buy took (\S+): (.*)$`); took[2] != result {
			t.Errorf("the server noted %q, want %s", took[0], result)
		}
	}
}
