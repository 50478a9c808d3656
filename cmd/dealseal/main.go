// Command dealseal is the daemon and its tools in one binary: "dealseal serve" runs it, the other commands check its
// configuration, look into it, and seal and verify files without a CRM.
package main

import (
	"os"
	_ "time/tzdata" // tenants have time zones, and bare systems have none

	"github.com/dealseal/dealseal/documents/typst"
	"github.com/dealseal/dealseal/signing/pkcs11"
	"github.com/dealseal/dealseal/signing/verify"
	"github.com/dealseal/dealseal/worker"
)

// version is set at link time.
var version = "unknown"

// children are the programs that run in processes of their own.
var children = map[string]worker.Program{
	"render-worker": typst.Program,
	"hsm-agent":     pkcs11.Program,
	"read-worker":   verify.Program,
}

func main() {
	if worker.IsChild() {
		os.Exit(worker.Main(children))
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
