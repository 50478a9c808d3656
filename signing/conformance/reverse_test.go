//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

// reverseFiles are the documents that others sign for us to judge.
const reverseFiles = 6

// keyStore writes a key with its chain as PKCS #12, which both signers read.
func (h *house) keyStore(t *testing.T, name string) string {
	t.Helper()
	k := h.keys[name]
	der, err := x509.MarshalPKCS8PrivateKey(k.Signer)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "key.pem"), filepath.Join(dir, "key.p12")
	text := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pki.PEM(k.chain...)...)
	if err := os.WriteFile(in, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t.Context(), "openssl", "pkcs12", "-export", "-in", in, "-out", out, "-passout", "pass:password"); err != nil {
		t.Fatalf("openssl pkcs12: %v\n%s", err, out)
	}
	return out
}

// judgeOthersSignatures has pyHanko and EU DSS sign, and our verifier judge: valid, at the level that was made; and never
// valid with one byte changed.
func (h *house) judgeOthersSignatures(t *testing.T, report *report, from []original) {
	if err := os.MkdirAll(work(t, "reverse"), 0o755); err != nil {
		t.Fatal(err)
	}
	from = from[:min(reverseFiles, len(from))]
	stores := []string{h.keyStore(t, signer("RSA-2048", 0)), h.keyStore(t, signer("P-256", 0))}
	for _, s := range []struct {
		name  string
		judge *program
		level func(pades.Level) string
	}{
		{"pyHanko", startPyHanko(t, h.root), func(l pades.Level) string { return string(l) }},
		{"EU DSS", startDSS(t, h.root), func(l pades.Level) string {
			return map[pades.Level]string{pades.BB: "PAdES_BASELINE_B", pades.BT: "PAdES_BASELINE_T", pades.BLT: "PAdES_BASELINE_LT", pades.BLTA: "PAdES_BASELINE_LTA"}[l]
		}},
	} {
		if s.judge == nil {
			continue
		}
		for i, o := range from {
			for _, level := range levels {
				name := fmt.Sprintf("%s by %s, %s", o.name, s.name, level)
				path := work(t, "reverse", fmt.Sprintf("%s-%d-%s.pdf", strings.ReplaceAll(s.name, " ", "-"), i, level))
				err := s.judge.ask(new(any), "sign", o.path, path, s.level(level), h.authority.URL(pki.PathTSA), stores[i%len(stores)])
				if err != nil {
					report.refuse("reverse", name, err)
					continue
				}
				report.verdict("reverse", "signed by "+s.name, level, name, h.judgeOther(t.Context(), path, level))
			}
		}
	}
}

func (h *house) judgeOther(ctx context.Context, path string, level pades.Level) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f := &sealed{content: content, level: level}
	if err := h.ours(ctx, f); err != nil {
		return err
	}
	r, err := verify.Verify(ctx, bytes.NewReader(content), h.roots())
	if err != nil {
		return err
	}
	f.content = bytes.Clone(content)
	f.content[r.Signatures[0].ByteRange[1]/2] ^= 1
	if h.ours(ctx, f) == nil {
		return errors.New("it is valid with one bit changed as well")
	}
	return nil
}
