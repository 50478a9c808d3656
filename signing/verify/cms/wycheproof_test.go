//go:build wycheproof

package cms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/signing/pades"
)

// vectors is one file of Wycheproof, as far as it concerns signatures.
type vectors struct {
	Groups []struct {
		Type string `json:"type"`
		Hash string `json:"sha"`
		MGF  string `json:"mgfSha"`
		Salt int    `json:"sLen"`
		Key  string `json:"publicKeyDer"`
		// PublicKeyAsn is what files of PKCS #1 and PSS have in the place of publicKeyDer.
		Asn   string `json:"publicKeyAsn"`
		Tests []struct {
			ID      int      `json:"tcId"`
			Comment string   `json:"comment"`
			Flags   []string `json:"flags"`
			Message string   `json:"msg"`
			Value   string   `json:"sig"`
			Result  string   `json:"result"`
		} `json:"tests"`
	} `json:"testGroups"`
}

var hashes = map[string]crypto.Hash{"SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}

// TestWycheproof has both of our verifiers judge the vectors of Project Wycheproof: the one of package pades, which checks what a key has just made, and
// the one of this package, which judges what others made. Both have to agree with every vector of a key and hash that they accept; what Wycheproof only
// tolerates ("acceptable") may go either way. "make wycheproof" fetches the vectors and sets the variable.
func TestWycheproof(t *testing.T) {
	dir := os.Getenv("WYCHEPROOF")
	if dir == "" {
		t.Fatal("WYCHEPROOF does not name the folder of the vectors: run make wycheproof")
	}
	judged := map[pades.Scheme]int{}
	for _, pattern := range []string{"ecdsa_secp256r1_*", "ecdsa_secp384r1_*", "ecdsa_secp521r1_*", "rsa_signature_*", "rsa_pss_*"} {
		files, err := filepath.Glob(filepath.Join(dir, "testvectors_v1", pattern+"_test.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no vectors %s: %v", pattern, err)
		}
		for _, file := range files {
			if strings.Contains(file, "p1363") || strings.Contains(file, "webcrypto") || strings.Contains(file, "shake") || strings.Contains(file, "_params_") {
				continue // other forms of a value, hashes that nobody here takes, and keys that are bound to a hash
			}
			judgeFile(t, file, judged)
		}
	}
	t.Logf("judged: %v", judged)
	for _, scheme := range []pades.Scheme{pades.ECDSA, pades.RSAPKCS1, pades.RSAPSS} {
		if judged[scheme] < 500 {
			t.Errorf("only %d vectors of %s were judged", judged[scheme], scheme)
		}
	}
}

func judgeFile(t *testing.T, file string, judged map[pades.Scheme]int) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for _, g := range v.Groups {
		h := hashes[g.Hash]
		if h == 0 {
			continue
		}
		der := unhex(t, g.Key)
		if g.Key == "" {
			der = unhex(t, g.Asn)
		}
		pub, err := publicKey(der)
		if err != nil {
			t.Fatalf("%s: the key: %v", file, err)
		}
		scheme, parameters := pades.ECDSA, []byte(nil)
		oid := map[crypto.Hash]asn1.ObjectIdentifier{crypto.SHA256: {1, 2, 840, 10045, 4, 3, 2}, crypto.SHA384: {1, 2, 840, 10045, 4, 3, 3}, crypto.SHA512: {1, 2, 840, 10045, 4, 3, 4}}[h]
		switch g.Type {
		case "RsassaPkcs1Verify":
			scheme, oid = pades.RSAPKCS1, oidRSA
		case "RsassaPssVerify":
			if g.MGF != g.Hash || g.Salt != h.Size() {
				continue // nobody here makes or takes PSS with two hashes or another length of the salt
			}
			scheme, oid, parameters = pades.RSAPSS, oidPSS, pssParameters(t, h)
		}
		for _, c := range g.Tests {
			message, value := unhex(t, c.Message), unhex(t, c.Value)
			d := h.New()
			d.Write(message)
			one := pades.Algorithm{Scheme: scheme, Hash: h}.Verify(pub, d.Sum(nil), value) == nil
			signer := &Signer{Hash: h, signedSet: message, algorithm: oid, parameters: parameters, Signature: value}
			two := signer.CheckSignature(&x509.Certificate{PublicKey: pub}) == nil
			good := c.Result == "valid"
			judged[scheme]++
			if c.Result != "acceptable" && (one != good || two != good) || one != two {
				t.Errorf("%s, vector %d (%s %s): %s, and pades says %v, cms %v", filepath.Base(file), c.ID, c.Comment, strings.Join(c.Flags, " "), c.Result, one, two)
			}
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func publicKey(der []byte) (crypto.PublicKey, error) {
	if key, err := x509.ParsePKCS1PublicKey(der); err == nil {
		return key, nil
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	switch pub.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return pub, nil
	}
	return nil, err
}

// pssParameters is RSASSA-PSS-params (RFC 4055) with one hash throughout.
func pssParameters(t *testing.T, h crypto.Hash) []byte {
	type identifier struct {
		Algorithm  asn1.ObjectIdentifier
		Parameters asn1.RawValue `asn1:"optional"`
	}
	last := slices.Index([]crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}, h) + 1
	hash := identifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, last}, Parameters: asn1.NullRawValue}
	inner, err := asn1.Marshal(hash)
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Hash identifier `asn1:"explicit,tag:0"`
		MGF  identifier `asn1:"explicit,tag:1"`
		Salt int        `asn1:"explicit,tag:2"`
	}{hash, identifier{oidMGF1, asn1.RawValue{FullBytes: inner}}, h.Size()})
	if err != nil {
		t.Fatal(err)
	}
	return der
}
