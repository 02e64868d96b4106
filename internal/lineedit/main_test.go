package lineedit_test

import (
	"os"
	"testing"

	"github.com/pitaya-go/pitaya/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }
