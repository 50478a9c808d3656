package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// minNode is the oldest Node.js that the clients declare they run on (@hubspot/api-client 14: 22).
const minNode = 22

// TestClientsOfOthersGetAlongWithTheMocks runs clients that others wrote, unchanged, against mockcrm: what they refuse is
// not how the CRM answers. It needs npm and, the first time, a package registry.
func TestClientsOfOthersGetAlongWithTheMocks(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("npm is not installed: the mocks are NOT compared with clients that others wrote. Install it with: apt-get install npm")
	}
	clients := install(t, "clients")
	node := findNode(t)
	for client, steps := range map[string]int{"jsforce.mjs": 20, "hubspot.mjs": 22, "hubspot.mjs @hubspot/api-client-13": 22, "pubsub.mjs": 5} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			vectors, err := os.ReadFile("../../webhooks/testdata/hubspot.json")
			if err != nil {
				t.Fatal(err)
			}
			input, err := json.Marshal(struct {
				credentials
				Vectors json.RawMessage `json:"vectors"`
			}{s.credentials, vectors})
			if err != nil {
				t.Fatal(err)
			}
			words := strings.Fields(client)
			words[0] = filepath.Join(clients, words[0])
			cmd := exec.CommandContext(t.Context(), node, words...)
			cmd.Stdin = bytes.NewReader(input)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if n := strings.Count(string(out), "ok "); n < steps {
				t.Errorf("only %d steps were taken:\n%s", n, out)
			}
		})
	}
}

// install copies a folder of testdata to the build folder with what its package-lock.json names, once for each content,
// and returns the copy. Nothing that was fetched runs while it is installed.
func install(t *testing.T, name string) string {
	t.Helper()
	source := filepath.Join("testdata", name)
	target := filepath.Join("..", "..", "build", "node", name+"-"+fingerprint(t, source))
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock := lock(t, target)
	defer unlock()
	if _, err := os.Stat(filepath.Join(target, "installed")); err == nil {
		return target
	}
	for _, f := range list(t, source) {
		content, err := os.ReadFile(filepath.Join(source, f))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(target, f), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = target
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(target, "installed"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return target
}

// lock keeps two test runs from installing into one folder.
func lock(t *testing.T, dir string) (unlock func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}

// list names the files of a folder that belong to it.
func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names
}

func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	for _, f := range list(t, dir) {
		content, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		h.Write([]byte(f + "\x00" + strconv.Itoa(len(content)) + "\x00"))
		h.Write(content)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// findNode returns the machine's Node.js, or the pinned one where that is too old.
func findNode(t *testing.T) string {
	t.Helper()
	if node, err := exec.LookPath("node"); err == nil && nodeVersion(t.Context(), node) >= minNode {
		return node
	}
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	if arch == "" {
		t.Skipf("Node.js %d or newer is not installed, and there is no pinned one for %s: the mocks are NOT compared with clients that others wrote", minNode, runtime.GOARCH)
	}
	node, err := filepath.Abs(filepath.Join(install(t, "node"), "node_modules", "node-linux-"+arch, "bin", "node"))
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// nodeVersion is the major version, 0 if it cannot be told.
func nodeVersion(ctx context.Context, node string) int {
	out, err := exec.CommandContext(ctx, node, "--version").Output()
	if err != nil {
		return 0
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(string(out), "v"), ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		return 0
	}
	return n
}
