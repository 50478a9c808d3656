package main

import (
	"bytes"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web/api"
)

// TestTheCAForDevelopmentIsReadyForUse: what "dealseal ca" makes serves the API, lets a program in, and lets a proxy say for whom
// it asks, as docs/api.md has it.
func TestTheCAForDevelopmentIsReadyForUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}})
	dir := w.path("ca")
	stdout, stderr, code := mint(dir)
	if code != exitOK || !strings.Contains(stdout, "for development and tests only") {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	for _, args := range [][]string{{"client", "edge"}, {"client", "other"}, {"server", "::1"}} {
		if stdout, stderr, code := mint(append([]string{dir}, args...)...); code != exitOK || !strings.Contains(stdout, "for development and tests only") {
			t.Fatalf("%v: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
	w.madeAsAsked(t, dir)
	before, err := os.ReadFile(dir + "/root.pem")
	must(t, err)
	for _, args := range [][]string{{}, {"client", "edge"}, {"client", "root"}, {"server", "::1"}, {"client", "../edge"}, {"server", "a b"}, {"client"}} {
		if _, stderr, code := mint(append([]string{dir}, args...)...); code == exitOK || stderr == "" {
			t.Errorf("%v: exit code %d\n%s", args, code, stderr)
		}
	}
	if after, err := os.ReadFile(dir + "/root.pem"); err != nil || string(after) != string(before) {
		t.Error("the root was written over")
	}
	if _, stderr, code := mint(w.path("nowhere"), "client", "edge"); code == exitOK || !strings.Contains(stderr, "makes a CA there") {
		t.Errorf("without a CA: %d %s", code, stderr)
	}

	text, err := os.ReadFile(w.config)
	must(t, err)
	must(t, os.WriteFile(w.config, fmt.Appendf(text, `api:
  listen: "127.0.0.1:0"
  tls: {certificate: %[1]s/server.pem, key: "file:%[1]s/server-key.pem"}
  proxies: {addresses: [127.0.0.1], certificates: [%[1]s/edge.pem], header: X-Client-Cert, client_ca: %[1]s/root.pem}
`, dir), 0o600))
	s := w.begin(t)
	if stdout, stderr, code := s.run(t, "tokens", "create", caClient, "--role", "viewer", "--all", "--test", "--certificate", dir+"/"+caClient+".pem", "--why", "a test"); code != exitOK {
		t.Fatalf("tokens create: %d\n%s%s", code, stdout, stderr)
	}
	address := strings.TrimPrefix(s.daemon.programs(t), "http://")
	known, err := os.ReadFile(dir + "/" + caClient + ".pem")
	must(t, err)
	for what, c := range map[string]struct {
		as, header string
		want       int
	}{
		"the client":                    {caClient, "", 200},
		"another client of the CA":      {"other", "", 401},
		"nobody":                        {"", "", 401},
		"nobody with the header":        {"", url.PathEscape(string(known)), 401},
		"another client and the header": {"other", url.PathEscape(string(known)), 401},
		"the proxy":                     {"edge", "", 401},
		"the proxy for the client":      {"edge", url.PathEscape(string(known)), 200},
		"the proxy for who knows whom":  {"edge", "nobody", 400},
	} {
		if got := askOver(t, dir, address, c.as, c.header); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
	s.daemon.stop(t)
	stdout, stderr, code = s.run(t, "audit", "log", "--json")
	edge := fingerprintOf(t, dir+"/edge.pem")[:16]
	for _, says := range []string{"GET /v1/token 200: 1", "127.0.0.1 (" + edge + ")", "api.refused", "holds no PEM certificate"} {
		if code != exitOK || !strings.Contains(stdout, says) {
			t.Errorf("the audit log has no %q: %d\n%s%s", says, code, stdout, stderr)
		}
	}
}

// mint is "dealseal ca".
func mint(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = run(append([]string{"ca"}, args...), strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

// askOver asks the API as one of the CA's clients, or nobody, and returns the status.
func askOver(t *testing.T, dir, address, as, header string) int {
	t.Helper()
	conf := &tls.Config{RootCAs: x509.NewCertPool()}
	root, err := os.ReadFile(dir + "/root.pem")
	must(t, err)
	conf.RootCAs.AppendCertsFromPEM(root)
	if as != "" {
		pair, err := tls.LoadX509KeyPair(dir+"/"+as+".pem", dir+"/"+as+"-key.pem")
		must(t, err)
		conf.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: conf}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/v1/token", nil)
	must(t, err)
	if header != "" {
		req.Header.Set(api.HeaderPEM, header)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	must(t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	must(t, err)
	return resp.StatusCode
}

func fingerprintOf(t *testing.T, file string) string {
	t.Helper()
	certs, err := readCertificates(file)
	must(t, err)
	return api.Fingerprint(certs[0].Raw)
}

// madeAsAsked compares the certificates with what was asked of a CA for development.
func (w *world) madeAsAsked(t *testing.T, dir string) {
	t.Helper()
	const day = 24 * time.Hour
	roots := x509.NewCertPool()
	for _, c := range []struct {
		name, cn   string
		bits, days int
		use        x509.ExtKeyUsage
		hosts      []string
	}{
		{"root", "dealseal development CA", 4096, 3650, 0, nil},
		{"server", "localhost", 2048, 825, x509.ExtKeyUsageServerAuth, []string{"localhost", "127.0.0.1", "::1"}},
		{caClient, "crm-integration-client", 2048, 825, x509.ExtKeyUsageClientAuth, nil},
		{"edge", "edge", 2048, 825, x509.ExtKeyUsageClientAuth, nil},
		{"--1", "::1", 2048, 825, x509.ExtKeyUsageServerAuth, []string{"::1"}},
	} {
		certs, err := readCertificates(filepath.Join(dir, c.name+".pem"))
		must(t, err)
		one := certs[0]
		if c.name == "root" {
			roots.AddCert(one)
		}
		if bits := one.PublicKey.(*rsa.PublicKey).N.BitLen(); bits != c.bits || one.Subject.CommonName != c.cn || one.NotAfter.Sub(one.NotBefore).Round(day) != time.Duration(c.days)*day {
			t.Errorf("%s: %d bits, %s, from %s to %s", c.name, bits, one.Subject, one.NotBefore, one.NotAfter)
		}
		if _, err := one.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{c.use}}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, h := range c.hosts {
			if err := one.VerifyHostname(h); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		info, err := os.Stat(filepath.Join(dir, c.name+"-key.pem"))
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("the key of %s has mode %v", c.name, info.Mode())
		}
	}
}
