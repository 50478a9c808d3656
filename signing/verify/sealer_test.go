package verify_test

import (
	"bytes"
	"crypto/x509/pkix"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/softkey"
	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/signing/verify"
)

// TestSealMadeWithKeyFileAndTSAIsJudged goes the whole way of a seal: a key from its file, a token from a server, a report from a child.
func TestSealMadeWithKeyFileAndTSAIsJudged(t *testing.T) {
	var a *pki.Authority
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.ServeHTTP(w, r) }))
	defer server.Close()
	a = mustAuthority(pki.Options{BaseURL: server.URL})
	stamper, err := tsa.NewClient([]tsa.Server{{URL: a.URL(pki.PathTSA)}}, tsa.Options{Roots: a.Roots()})
	if err != nil {
		t.Fatal(err)
	}
	sealer := signing.NewSealer(keyFile(t, a), stamper, time.Now)
	doc := contract()
	ticket, err := sealer.Prepare(t.Context(), bytes.NewReader(doc), signing.Request{
		Profile: signing.Profile{Name: "contract", Key: "house", Level: pades.BT, SignerName: "Acme Ltd"},
		Field:   "seal", Text: []string{"Acme Ltd", "sealed"},
	})
	if err != nil {
		t.Fatal(err)
	}
	value, err := sealer.Redeem(t.Context(), ticket)
	if err != nil {
		t.Fatal(err)
	}
	token, err := sealer.Timestamp(t.Context(), ticket, value)
	if err != nil {
		t.Fatal(err)
	}
	tail, _, err := sealer.Complete(ticket, value, token)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newChecker(t, verify.CheckerOptions{}).Check(t.Context(), bytes.NewReader(slices.Concat(doc, tail)), trust(a))
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, verify.Valid, "")
	if s := r.Newest(); s == nil || s.Level != pades.BT || s.Field != "seal" || r.SecondOpinion.Verdict != verify.OpinionValid {
		t.Errorf("newest %+v, second opinion %+v", s, r.SecondOpinion)
	}
}

func keyFile(t *testing.T, a *pki.Authority) signing.Keys {
	t.Helper()
	dir := t.TempDir()
	path, passphrase := filepath.Join(dir, "key.age"), filepath.Join(dir, "passphrase")
	if err := os.WriteFile(passphrase, []byte("correct horse battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ref, err := secret.ParseRef("file:" + passphrase)
	if err != nil {
		t.Fatal(err)
	}
	word, err := ref.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	key, err := softkey.Generate(softkey.P256)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.IssueSigner(key.Public(), pkix.Name{CommonName: "Acme Ltd Seal"})
	if err != nil {
		t.Fatal(err)
	}
	if key, err = key.WithChain(chain); err != nil {
		t.Fatal(err)
	}
	if err := key.Save(path, word); err != nil {
		t.Fatal(err)
	}
	return softkey.New(map[string]softkey.Config{"house": {Path: path, Passphrase: ref}})
}

// TestRandomDamageIsNeverValid changes, drops, repeats and inserts bytes of twice sealed documents. The signature values are left alone: some of their
// bytes, such as version numbers, are protected by nothing and mean nothing.
func TestRandomDamageIsNeverValid(t *testing.T) {
	a := authority()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, doc := range [][]byte{contract(), selfContaining()} {
		sealed := seal(t, seal(t, doc, sealOf(a).stamped(a)), sealOf(a))
		signatures := check(t, sealed, trust(a)).Signatures
		var covered []int
		for i := range len(sealed) - 20 {
			if !slices.ContainsFunc(signatures, func(s verify.Signature) bool {
				return int64(i+20) >= s.ByteRange[1] && int64(i) < s.ByteRange[2]
			}) {
				covered = append(covered, i)
			}
		}
		for range 1000 {
			damaged := damage(rng, sealed, covered)
			r := check(t, damaged, trust(a))
			if r.Verdict == verify.Valid && !bytes.Equal(damaged, sealed) {
				t.Errorf("a damaged document is valid:\n%s", explain(r))
			}
		}
	}
}

// damage damages doc from its end to its beginning, so that the positions keep their meaning.
func damage(rng *rand.Rand, doc []byte, positions []int) []byte {
	b := bytes.Clone(doc)
	var at []int
	for range 1 + rng.IntN(4) {
		at = append(at, positions[rng.IntN(len(positions))])
	}
	slices.Sort(at)
	slices.Reverse(at)
	for _, i := range slices.Compact(at) {
		end := i + 1 + rng.IntN(19)
		switch rng.IntN(4) {
		case 0:
			b[i] = byte(rng.IntN(256))
		case 1:
			b = slices.Delete(b, i, min(end, len(b)))
		case 2:
			b = slices.Insert(b, i, bytes.Clone(b[i:min(end, len(b))])...)
		case 3:
			b[i] = "0123456789<>[]/ "[rng.IntN(16)]
		}
	}
	return b
}
