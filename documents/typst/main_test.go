package typst

import (
	"fmt"
	"os"
	"testing"

	"github.com/dealseal/dealseal/worker"
)

// TestMain lets this test binary be its own render-worker.
func TestMain(m *testing.M) {
	if worker.IsChild() {
		os.Exit(worker.Main(map[string]worker.Program{WorkerName: Program, "probe": probe}))
	}
	if _, err := os.Stat(module); err != nil {
		fmt.Fprintf(os.Stderr, "the Typst module is missing (%v): make renderer\n", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
