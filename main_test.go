package pitaya_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/pitaya-go/pitaya/internal/leaktest"
)

var update = flag.Bool("update", false, "write the files that tests compare with, instead of comparing")

// TestMain fails a run that passed but left goroutines behind: what a test starts has to end with it.
func TestMain(m *testing.M) {
	flag.Parse()
	if *outageChild != "" {
		if err := runOutageChild(*outageChild); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if *benchChild != "" {
		if err := runBenchChild(*benchChild); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if *workerChild != "" {
		if err := runWorkerChild(*workerChild); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leaktest.Run(m))
}
