package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dealseal/dealseal/worker"
)

// TestMain lets this test binary be the dealseal command, and each of its own children.
func TestMain(m *testing.M) {
	if worker.IsChild() {
		os.Exit(worker.Main(children))
	}
	testscript.Main(m, map[string]func(){"dealseal": main})
}
