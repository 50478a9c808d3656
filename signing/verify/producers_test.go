package verify_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dealseal/dealseal/signing/verify"
)

// TestOurVerdictIsThatOfPyHanko judges files that pyHanko has signed, certified and changed, and compares with what its own validation says of each
// signature. testdata/pyhanko/make.py makes them.
func TestOurVerdictIsThatOfPyHanko(t *testing.T) {
	dir := filepath.Join("testdata", "pyhanko")
	var expected struct {
		At    time.Time                  `json:"at"`
		Valid map[string]map[string]bool `json:"valid"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "verdicts.json"))
	if err == nil {
		err = json.Unmarshal(text, &expected)
	}
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(filepath.Join(dir, "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(root)
	trusted, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if len(expected.Valid) < 15 {
		t.Fatalf("only %d files", len(expected.Valid))
	}
	for name, signatures := range expected.Valid {
		t.Run(name, func(t *testing.T) {
			doc, err := os.ReadFile(filepath.Join(dir, name+".pdf"))
			if err != nil {
				t.Fatal(err)
			}
			r := check(t, doc, verify.Options{Roots: []*x509.Certificate{trusted}, Now: expected.At})
			seen := 0
			for _, s := range r.Signatures {
				valid, ok := signatures[s.Field]
				if !ok {
					continue
				}
				seen++
				if (s.Verdict == verify.Valid) != valid {
					t.Errorf("the signature %q: pyHanko says %v\n%s", s.Field, valid, explain(r))
				}
			}
			if seen != len(signatures) {
				t.Errorf("%d of %d signatures were judged\n%s", seen, len(signatures), explain(r))
			}
		})
	}
}
