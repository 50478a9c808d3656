package secret_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/secret"
)

func TestParseRefAcceptsOnlyReferencesAndNeverRepeatsTheRest(t *testing.T) {
	for _, tc := range []struct{ in, want, err string }{
		{in: "env:HSM_PIN", want: "env:HSM_PIN"},
		{in: "file:/run/secrets/pin", want: "file:/run/secrets/pin"},
		{in: "file:/run/../run/pin", want: "file:/run/pin"},
		{in: "credential:hsm-pin", want: "credential:hsm-pin"},
		{in: plain, err: "write env:NAME"},
		{in: plain + ":with-colon", err: "write env:NAME"},
		{in: "", err: "write env:NAME"},
		{in: "ENV:" + plain, err: "write env:NAME"},
		{in: "env:" + plain, err: "letters, digits and _"},
		{in: "env:", err: "letters, digits and _"},
		{in: "env:1X", err: "letters, digits and _"},
		{in: "file:" + plain, err: "absolute path"},
		{in: "file:/" + plain + "\x00", err: "absolute path"},
		{in: "credential:../" + plain, err: "no path"},
		{in: "credential:..", err: "no path"},
		{in: "credential:", err: "no path"},
	} {
		got, err := secret.ParseRef(tc.in)
		if tc.err == "" {
			if err != nil || got.String() != tc.want {
				t.Errorf("ParseRef(%q) = %v, %v; want %s", tc.in, got, err, tc.want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("ParseRef(%q): error %v, want one with %q", tc.in, err, tc.err)
		} else if strings.Contains(err.Error(), plain) {
			t.Errorf("ParseRef(%q): the error repeats the text: %v", tc.in, err)
		}
	}
}

func TestRefSurvivesJSON(t *testing.T) {
	type doc struct{ Pin, None secret.Ref }
	var d doc
	if err := json.Unmarshal([]byte(`{"Pin":"credential:pin","None":""}`), &d); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(d)
	if err != nil || string(out) != `{"Pin":"credential:pin","None":""}` {
		t.Fatalf("%s, %v", out, err)
	}
	if !d.None.IsZero() || d.Pin.IsZero() {
		t.Fatal("IsZero does not tell the set reference from the unset one")
	}
	if err := json.Unmarshal([]byte(`{"Pin":"`+plain+`"}`), &d); err == nil || strings.Contains(err.Error(), plain) {
		t.Fatalf("a plain secret: %v", err)
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("DEALSEAL_TEST_SECRET", plain)
	t.Setenv("DEALSEAL_TEST_EMPTY", "")
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	file("cred", plain+"\n", 0o444)
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, ref, want, err string }{
		{name: "variable", ref: "env:DEALSEAL_TEST_SECRET", want: plain},
		{name: "unset variable", ref: "env:DEALSEAL_TEST_UNSET", err: "not set"},
		{name: "empty variable", ref: "env:DEALSEAL_TEST_EMPTY", err: "empty"},
		{name: "file", ref: "file:" + file("a", plain, 0o600), want: plain},
		{name: "file with newline", ref: "file:" + file("b", plain+"\n", 0o640), want: plain},
		{name: "file with CRLF", ref: "file:" + file("c", plain+"\r\n", 0o600), want: plain},
		{name: "only one newline is cut", ref: "file:" + file("d", plain+"\n\n", 0o600), want: plain + "\n"},
		{name: "open to all", ref: "file:" + file("e", plain, 0o644), err: "chmod 600"},
		{name: "empty file", ref: "file:" + file("f", "\n", 0o600), err: "empty"},
		{name: "largest", ref: "file:" + file("g", strings.Repeat("x", 64<<10)+"\n", 0o600), want: strings.Repeat("x", 64<<10)},
		{name: "too large", ref: "file:" + file("h", strings.Repeat("x", 64<<10+1), 0o600), err: "larger than"},
		{name: "missing", ref: "file:" + filepath.Join(dir, "none"), err: "no such file"},
		{name: "directory", ref: "file:" + dir, err: "not a regular file"},
		{name: "FIFO without writer", ref: "file:" + fifo, err: "not a regular file"},
		{name: "credential", ref: "credential:cred", want: plain},
		{name: "missing credential", ref: "credential:none", err: "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ref, err := secret.ParseRef(tc.ref)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ref.Resolve()
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), plain) {
					t.Fatalf("error %v, want one with %q", err, tc.err)
				}
				return
			}
			if err != nil || got.RevealString() != tc.want {
				t.Fatalf("%d bytes, %v; want %d bytes", len(got.Reveal()), err, len(tc.want))
			}
		})
	}
}

func TestCredentialOutsideAUnitSaysWhatIsMissing(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	ref, err := secret.ParseRef("credential:pin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ref.Resolve(); err == nil || !strings.Contains(err.Error(), "LoadCredential=pin") {
		t.Fatalf("got %v", err)
	}
	if _, err := (secret.Ref{}).Resolve(); err == nil {
		t.Fatal("the zero Ref resolved")
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"env:A", "file:/a", "credential:a", "x", "file:", ":", "credential:a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		hostile.Budget(t)
		ref, err := secret.ParseRef(s)
		if err != nil {
			return
		}
		again, err := secret.ParseRef(ref.String())
		if err != nil || again != ref {
			t.Fatalf("%q became %q: %v", s, again, err)
		}
	})
}
