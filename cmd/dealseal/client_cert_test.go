package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whether a program was let in is not known where the daemon's answer was lost: then it may need the key that was made for it. One
// that was refused is good for nothing.
func TestAClientKeyIsKeptUnlessItIsKnownToBeGoodForNothing(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kept   bool
		says   string
	}{
		"lost": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				conn.Close()
			}
		}, true, "dealseal tokens list"},
		"cut short": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("{"))
		}, true, "dealseal tokens list"},
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "there is one already", http.StatusConflict)
		}, false, "there is one already"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "ds") // the name of a socket must be short
			must(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			socket := controlSocket(dir)
			must(t, os.MkdirAll(filepath.Dir(socket), 0o700))
			l, err := net.Listen("unix", socket)
			must(t, err)
			server := &http.Server{Handler: c.answer}
			go server.Serve(l)
			t.Cleanup(func() { server.Close() })
			file, key := filepath.Join(dir, "dealseal.yaml"), filepath.Join(dir, "erp.pem")
			must(t, os.WriteFile(file, []byte("state_dir: "+dir+"\n"), 0o600))
			var stderr bytes.Buffer
			code := run([]string{"tokens", "create", "erp", "--role", "viewer", "--all", "--days", "14", "--new-certificate", key, "--why", "a test", "--config", file}, nil, &stderr, &stderr)
			if _, err := os.Stat(key); errors.Is(err, fs.ErrNotExist) == c.kept || code == exitOK || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("exit code %d, the file: %v\n%s", code, err, stderr.String())
			}
		})
	}
}
