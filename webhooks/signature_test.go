package webhooks

import (
	"crypto/ed25519"
	"encoding/base64"
	"testing"
	"time"
)

// The values were computed with openssl dgst -hmac, and are those of a receiver that is written from each description.
func TestSignaturesAreThoseOfTheDescriptions(t *testing.T) {
	secret, body, at := []byte("a secret of thirty-two characters"), []byte(`{"event":"document.signed"}`), time.Unix(1700000000, 0)
	for _, c := range []struct{ name, got, want string }{
		{"sdf", signSDF(secret, body), "sha256=2af3fde7693ade6e5749fbba2ed4a30a346435ceb02baabd514b1c81147a2f9c"},
		{"certyneo", signCertyneo(secret, at, body), "754cb937b067f2525a911677909a72c0bc4648dda02e088f37596e773ba3a3d4"},
		{"standard", signStandard(secret, "msg_1", at, body), "v1,2IHDThop1OS/tLbIAHO1UlFunF/hIgLM6WKz/wdgShg="},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
}

func TestKeysOfStandardWebhooks(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString(private)
	seed := base64.StdEncoding.EncodeToString(private.Seed())
	for _, form := range []string{text, prefixPrivate + text, prefixPrivate + seed} {
		key, err := standardPrivate(form)
		if err != nil || !key.Equal(private) {
			t.Errorf("a private key of %d characters: %v", len(form), err)
		}
	}
	got, err := standardPublic(prefixPublic + base64.StdEncoding.EncodeToString(public))
	if err != nil || !got.Equal(public) {
		t.Errorf("public key: %v", err)
	}
	strange := append([]byte(private[:32:32]), private[:32]...) // the second half is another key's
	for _, wrong := range []string{"", prefixPrivate + "AAAA", prefixPrivate + "%", prefixPrivate + base64.StdEncoding.EncodeToString(strange)} {
		if _, err := standardPrivate(wrong); err == nil {
			t.Errorf("%q was taken as a private key", wrong)
		}
	}
	if _, err := standardSecret(prefixSecret + "not base64"); err == nil {
		t.Error("a secret that is not base64 was taken")
	}
}
