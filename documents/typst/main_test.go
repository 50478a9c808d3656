package typst

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/dealseal/dealseal/worker"
)

// TestMain lets this test binary be its own render-worker.
func TestMain(m *testing.M) {
	if worker.IsChild() {
		os.Exit(worker.Main(map[string]worker.Program{WorkerName: Program, probeName: probe}))
	}
	if _, err := os.Stat(module); err != nil {
		fmt.Fprintf(os.Stderr, "the Typst module is missing (%v): make renderer\n", err)
		os.Exit(1)
	}
	code := m.Run()
	if r, err := shared(); err == nil && r.Close() != nil {
		code = 1
	}
	os.Exit(code)
}

const probeName = "render-probe"

// probe is a render-worker that has been taken over: it tries to reach what the header names.
func probe(context.Context, []byte) (worker.Handler, error) {
	return func(_ context.Context, f worker.Frame) (worker.Frame, error) {
		var target string
		if err := json.Unmarshal(f.Header, &target); err != nil {
			return worker.Frame{}, err
		}
		var err error
		switch f.Op {
		case "read":
			_, err = os.ReadFile(target)
		case "write":
			err = os.WriteFile(target, nil, 0o600)
		case "dial":
			var conn net.Conn
			if conn, err = net.Dial("tcp", target); err == nil {
				err = conn.Close()
			}
		}
		if err != nil {
			return worker.Frame{Op: "refused", Body: []byte(err.Error())}, nil
		}
		return worker.Frame{Op: "done"}, nil
	}, nil
}
