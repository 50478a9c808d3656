package cms_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing/verify/cms"
)

var content = []byte("what is signed")

func newAuthority(t testing.TB, algorithm pki.Algorithm) *pki.Authority {
	t.Helper()
	a, err := pki.New(pki.Options{Algorithm: algorithm})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// sign lets openssl make a detached signature.
func sign(t testing.TB, id *pki.Identity, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is missing: install the Debian package openssl")
	}
	key, err := x509.MarshalPKCS8PrivateKey(id.Key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"data": content, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), "cert.pem": pki.PEM(id.Certificate), "chain.pem": pki.PEM(id.Chain()[1:]...),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("openssl", append([]string{"cms", "-sign", "-binary", "-in", "data", "-signer", "cert.pem", "-inkey", "key.pem", "-certfile", "chain.pem", "-outform", "DER", "-out", "cms"}, args...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	der, err := os.ReadFile(filepath.Join(dir, "cms"))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// judge checks all that can be checked of a signature over content.
func judge(der []byte) error {
	sd, err := cms.Parse(der)
	if err != nil {
		return err
	}
	if len(sd.Signers) != 1 {
		return errors.New("not one signer")
	}
	s := sd.Signers[0]
	if s.Hash == 0 {
		return cms.ErrUnsupported
	}
	h := s.Hash.New()
	h.Write(content)
	if err := s.CheckContent(cms.OIDData, h.Sum(nil)); err != nil {
		return err
	}
	cert := sd.Certificate(s)
	if cert == nil {
		return errors.New("no certificate")
	}
	if err := s.CheckSignature(cert); err != nil {
		return err
	}
	if s.HasSigningCertificate() {
		return s.CheckSigningCertificate(cert)
	}
	return nil
}

func TestSignaturesOfOpenSSLAreUnderstood(t *testing.T) {
	ec, rsa := newAuthority(t, pki.P256), newAuthority(t, pki.RSA2048)
	pss := []string{"-keyopt", "rsa_padding_mode:pss", "-keyopt"}
	for name, c := range map[string]struct {
		authority *pki.Authority
		args      []string
		names     [2]string
	}{
		"ECDSA":             {ec, []string{"-md", "sha256"}, [2]string{"SHA-256", "ECDSA-SHA256"}},
		"ECDSA SHA-512":     {ec, []string{"-md", "sha512", "-cades"}, [2]string{"SHA-512", "ECDSA-SHA512"}},
		"RSA":               {rsa, []string{"-md", "sha256", "-cades"}, [2]string{"SHA-256", "RSA"}},
		"RSA SHA-384":       {rsa, []string{"-md", "sha384", "-cades"}, [2]string{"SHA-384", "RSA"}},
		"PSS":               {rsa, append([]string{"-md", "sha256"}, append(pss, "rsa_pss_saltlen:digest")...), [2]string{"SHA-256", "RSA-PSS"}},
		"PSS maximum salt":  {rsa, append([]string{"-md", "sha512"}, append(pss, "rsa_pss_saltlen:max")...), [2]string{"SHA-512", "RSA-PSS"}},
		"by key identifier": {ec, []string{"-md", "sha256", "-keyid"}, [2]string{"SHA-256", "ECDSA-SHA256"}},
	} {
		t.Run(name, func(t *testing.T) {
			der := sign(t, c.authority.Signer, c.args...)
			if err := judge(der); err != nil {
				t.Error(err)
			}
			sd, err := cms.Parse(der)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.names, [2]string{sd.Signers[0].DigestName(), sd.Signers[0].AlgorithmName()}); diff != "" {
				t.Errorf("algorithms (-want +got):\n%s", diff)
			}
			if n, err := cms.ElementLength(append(bytes.Clone(der), 0, 0, 0)); err != nil || n != len(der) {
				t.Errorf("length %d, %v; want %d", n, err, len(der))
			}
		})
	}
}

func TestWhatCannotBeJudgedIsUnsupportedAndNotInvalid(t *testing.T) {
	ec, rsa := newAuthority(t, pki.P256), newAuthority(t, pki.RSA2048)
	for name, der := range map[string][]byte{
		"SHA-1":              sign(t, rsa.Signer, "-md", "sha1"),
		"no attributes":      sign(t, ec.Signer, "-md", "sha256", "-noattr"),
		"PSS, hashes differ": sign(t, rsa.Signer, "-md", "sha256", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_mgf1_md:sha512"),
		"PSS without salt":   sign(t, rsa.Signer, "-md", "sha256", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:0"),
	} {
		t.Run(name, func(t *testing.T) {
			if err := judge(der); !errors.Is(err, cms.ErrUnsupported) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestChecksFailForAnythingElse(t *testing.T) {
	a, other := newAuthority(t, pki.P256), newAuthority(t, pki.P256)
	rsa := newAuthority(t, pki.RSA2048)
	sd, err := cms.Parse(sign(t, a.Signer, "-md", "sha256", "-cades"))
	if err != nil {
		t.Fatal(err)
	}
	s := sd.Signers[0]
	h := crypto.SHA256.New()
	h.Write(content)
	good := h.Sum(nil)
	renewed, err := a.IssueSigner(a.Signer.Key.Public(), a.Signer.Certificate.Subject)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"other digest":                       s.CheckContent(cms.OIDData, make([]byte, 32)),
		"short digest":                       s.CheckContent(cms.OIDData, good[:31]),
		"other content type":                 s.CheckContent(cms.OIDSigningTime, good),
		"other key":                          s.CheckSignature(other.Signer.Certificate),
		"key of another kind":                s.CheckSignature(rsa.Signer.Certificate),
		"other certificate":                  s.CheckSigningCertificate(other.Signer.Certificate),
		"other certificate of the same key":  s.CheckSigningCertificate(renewed[0]),
		"issuer's certificate":               s.CheckSigningCertificate(a.Issuing.Certificate),
		"attribute that is there in no form": func() error { _, err := s.Signed.Single(cms.OIDTimeStampToken); return err }(),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if errors.Is(err, cms.ErrUnsupported) {
			t.Errorf("%s: %v is no verdict", name, err)
		}
	}
	if err := s.CheckSignature(renewed[0]); err != nil {
		t.Errorf("the same key under a renewed certificate: %v", err)
	}
}

func TestNoChangedByteGoesUnnoticedWhereItMatters(t *testing.T) {
	a := newAuthority(t, pki.P256)
	der := sign(t, a.Signer, "-md", "sha256", "-cades")
	sd, err := cms.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	signature := bytes.Index(der, sd.Signers[0].Signature)
	attributes := bytes.Index(der, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03})
	for i := range der {
		changed := bytes.Clone(der)
		changed[i] ^= 0x80
		if err := judge(changed); err == nil && i >= attributes && i < signature-20 {
			t.Errorf("byte %d of the signed attributes was changed unnoticed", i)
		} else if err == nil && i >= signature {
			t.Errorf("byte %d of the signature was changed unnoticed", i)
		}
	}
}

func TestSyntaxErrorsNameTheField(t *testing.T) {
	a := newAuthority(t, pki.P256)
	der := sign(t, a.Signer, "-md", "sha256")
	for name, c := range map[string]struct {
		der  []byte
		want string
	}{
		"empty":          {nil, "ContentInfo"},
		"text":           {[]byte("hello"), "ContentInfo"},
		"cut":            {der[:len(der)-1], "ContentInfo"},
		"followed":       {append(bytes.Clone(der), 0), "1 bytes follow it"},
		"indefinite":     {[]byte{0x30, 0x80, 0, 0}, "ContentInfo"},
		"other type":     {[]byte{0x30, 0x07, 0x06, 0x01, 0x2a, 0xa0, 0x02, 0x30, 0x00}, "1.2 is not SignedData"},
		"empty contents": {[]byte{0x30, 0x0f, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02, 0xa0, 0x02, 0x30, 0x00}, "SignedData"},
		"huge":           {make([]byte, 5<<20), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cms.Parse(c.der)
			var syntax *cms.SyntaxError
			if !errors.As(err, &syntax) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	ec, rsa := newAuthority(f, pki.P256), newAuthority(f, pki.RSA2048)
	f.Add(sign(f, ec.Signer, "-md", "sha256", "-cades"))
	f.Add(sign(f, rsa.Signer, "-md", "sha256", "-keyopt", "rsa_padding_mode:pss"))
	f.Add(sign(f, ec.Signer, "-md", "sha256", "-nodetach", "-keyid"))
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		hostile.Budget(t)
		if n, err := cms.ElementLength(der); err == nil && n > len(der) {
			t.Errorf("an element of %d bytes in %d", n, len(der))
		}
		_ = judge(der) // must return
	})
}
