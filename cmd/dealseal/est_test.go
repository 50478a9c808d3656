package main

import (
	"bytes"
	"encoding/base64"
	"os/exec"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
)

// TestCertificatesAreReadFromWhatOpenSSLMakes of them, and nothing is from anything else.
func TestCertificatesAreReadFromWhatOpenSSLMakes(t *testing.T) {
	t.Parallel()
	a, err := pki.New(pki.Options{})
	must(t, err)
	openssl := exec.Command("openssl", "crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin", "-outform", "DER")
	openssl.Stdin = bytes.NewReader(pki.PEM(a.Signer.Certificate, a.Issuing.Certificate))
	der, err := openssl.Output()
	must(t, err)
	text := []byte(base64.StdEncoding.EncodeToString(der))
	folded := append(append(append([]byte{}, text[:64]...), "\r\n"...), text[64:]...)
	for _, one := range [][]byte{text, folded} {
		certs, err := certsOnly(one)
		if err != nil || len(certs) != 2 || !certs[0].Equal(a.Signer.Certificate) || !certs[1].Equal(a.Issuing.Certificate) {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
	}
	for n := range len(der) {
		if certs, err := certsOnly([]byte(base64.StdEncoding.EncodeToString(der[:n]))); err == nil {
			t.Fatalf("%d of %d bytes give %d certificates", n, len(der), len(certs))
		}
	}
}

func TestTheKeyPairThatSealsIsTheOneThatIsRenewed(t *testing.T) {
	t.Parallel()
	old := deal.Certificate{Key: "house", State: deal.CertRetiring}
	for want, active := range map[string]deal.Certificate{"": {Key: "house"}, "house-2": {Key: "house", Pair: "house-2"}} {
		active.State = deal.CertActive
		if got := sealingPair([]deal.Certificate{old, active, {Key: "house", Pair: "house-3", State: deal.CertNext}}); got != want {
			t.Errorf("a certificate for %q is asked for, want %q", got, want)
		}
	}
}

func FuzzCertsOnly(f *testing.F) {
	f.Add([]byte("MIIB"))
	f.Add([]byte(base64.StdEncoding.EncodeToString([]byte{0x30, 0x0b, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2})))
	f.Fuzz(func(t *testing.T, text []byte) {
		if certs, err := certsOnly(text); err == nil && len(certs) > maxESTCert {
			t.Errorf("%d certificates", len(certs))
		}
	})
}
