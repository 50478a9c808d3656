package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/hostile"
)

// provesItself fetches the evidence bundle of a deal, has it checked by the command with a root alone and its signature by
// OpenSSL, and then changes one thing after the other.
func (s *stage) provesItself(t *testing.T, tx deal.TxID) {
	t.Helper()
	file := s.path(string(tx) + ".zip")
	if _, stderr, code := s.run(t, "evidence", string(tx), "-o", file); code != exitOK {
		t.Fatalf("evidence: exit code %d\n%s", code, stderr)
	}
	content, err := os.ReadFile(file)
	must(t, err)
	parts := unzip(t, content)
	for _, name := range []string{bundleContract, bundleRecord, bundleAudit, "evidence/report.json", "evidence/signature.p7s", "evidence/timestamp.tst", "evidence/archive-timestamp.tst",
		"evidence/ocsp-1.ors", "evidence/revocation-list-1.crl", "evidence/certificate-1.cer"} {
		if parts[name] == nil {
			t.Errorf("the bundle lacks %s", name)
		}
	}
	if err := judgement("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", written(t, parts[bundleSignature]), "-content", written(t, parts[bundleManifest]),
		"-CAfile", s.path("root.pem"), "-purpose", "any", "-cades", "-out", os.DevNull); err != nil {
		t.Errorf("openssl cms: %v", err)
	}
	s.mustJudge(t, "as it came", content, exitOK, "VALID", "sealed by", "with the key that signed the manifest", "PAdES B-LTA")
	other := func(name string, change func(b []byte) []byte) []byte {
		changed := map[string][]byte{}
		for n, b := range parts {
			changed[n] = b
		}
		if changed[name] = change(bytes.Clone(parts[name])); changed[name] == nil {
			delete(changed, name)
		}
		return zipped(t, changed)
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	gone := func([]byte) []byte { return nil }
	for _, c := range []struct {
		what, name string
		change     func([]byte) []byte
		code       int
		says       string
	}{
		{"another contract", bundleContract, flip, exitInvalid, "contract.pdf has another content"},
		{"another record", bundleRecord, flip, exitInvalid, "record.json has another content"},
		{"other evidence", "evidence/ocsp-1.ors", flip, exitInvalid, "evidence/ocsp-1.ors has another content"},
		{"another log", bundleAudit, func(b []byte) []byte {
			return bytes.Replace(b, []byte("digest-committed"), []byte("digest-forgotten"), 1)
		}, exitInvalid, "audit log"},
		{"a log that is not there", bundleAudit, gone, exitInvalid, "audit.json is missing"},
		{"evidence that is not there", "evidence/timestamp.tst", gone, exitInvalid, "evidence/timestamp.tst is missing"},
		{"a file too many", "evidence/more.cer", func([]byte) []byte { return []byte("more") }, exitInvalid, "more.cer is not named"},
		{"another manifest", bundleManifest, func(b []byte) []byte { return bytes.Replace(b, []byte("B-LTA"), []byte("B-LTB"), 1) }, exitInvalid, "it is over other bytes"},
		{"the seal's own signature", bundleSignature, func([]byte) []byte { return parts["evidence/signature.p7s"] }, exitInvalid, "its signature: it is over other bytes"},
		{"no signature", bundleSignature, gone, exitIndeterminate, "nobody has signed it"},
	} {
		s.mustJudge(t, c.what, other(c.name, c.change), c.code, c.says)
	}
	story := storyOf(t, s.ops, tx)
	said := ""
	for _, line := range story.Trail {
		said += line.What + " " + line.Why + "\n"
	}
	if !strings.Contains(said, "downloaded evidence bundle") || !strings.Contains(said, "attesting the manifest") || intents(story, "sign") != 1 {
		t.Errorf("the audit log says of it:\n%s", said)
	}
	tenant := string(story.Sealing.Tenant)
	s.mustRun(t, "tenants", "pause", tenant, "--why", "the key may be known to others")
	later := s.path(string(tx) + "-paused.zip")
	s.mustRun(t, "evidence", string(tx), "-o", later)
	content, err = os.ReadFile(later)
	must(t, err)
	s.mustJudge(t, "while its tenant is paused", content, exitIndeterminate, "nobody has signed it")
	s.mustRun(t, "tenants", "resume", tenant, "--why", "it is not")
}

func (s *stage) mustJudge(t *testing.T, what string, bundle []byte, code int, says ...string) {
	t.Helper()
	// It needs neither a configuration nor a daemon.
	cmd := s.command(t.Context(), s.config, "verify", written(t, bundle), "--trust", s.path("root.pem"))
	cmd.Args = cmd.Args[:len(cmd.Args)-2]
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code says more
	stdout, stderr, got := out.String(), errs.String(), cmd.ProcessState.ExitCode()
	if got != code {
		t.Errorf("%s: exit code %d, want %d\n%s%s", what, got, code, stdout, stderr)
	}
	for _, w := range says {
		if !strings.Contains(stdout+stderr, w) {
			t.Errorf("%s: %q is not said:\n%s%s", what, w, stdout, stderr)
		}
	}
}

func unzip(t *testing.T, content []byte) map[string][]byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	must(t, err)
	parts := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		must(t, err)
		parts[f.Name], err = io.ReadAll(r)
		must(t, err)
	}
	return parts
}

func zipped(t testing.TB, parts map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	var names []string
	for name := range parts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(parts[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func FuzzOpenBundle(f *testing.F) {
	m, err := json.Marshal(manifest{Form: bundleForm, Files: map[string]bundleFile{bundleContract: bundleFileOf([]byte("x"))}})
	if err != nil {
		f.Fatal(err)
	}
	good := zipped(f, map[string][]byte{bundleManifest: m, bundleContract: []byte("x"), "evidence/a.cer": []byte("y")})
	f.Add(good)
	for _, mutant := range hostile.Mutants(1, good, 200) {
		f.Add(mutant)
	}
	f.Add(zipped(f, map[string][]byte{bundleManifest: m, "../x": []byte("y")}))
	f.Fuzz(func(t *testing.T, content []byte) {
		hostile.Budget(t)
		b, err := openBundle(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			return
		}
		for name, part := range b.files {
			if !bundleName.MatchString(name) || part.Size() > int64(len(content)) {
				t.Errorf("%q has %d bytes", name, part.Size())
			}
			if _, err := io.Copy(io.Discard, part); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
}
