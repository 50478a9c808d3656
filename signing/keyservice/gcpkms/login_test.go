package gcpkms

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/hostile"
)

func TestWhatIsNoServiceAccountIsRefusedWithoutRepeatingIt(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"hunter": "x"}, Bytes: der})))
	if err != nil {
		t.Fatal(err)
	}
	good := `{"type":"service_account","client_email":"a@b","private_key":` + string(text) + `,"token_uri":"https://oauth2.googleapis.com/token"}`
	if _, err := parseAccount([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{{"service_account", "authorized_user"}, {"a@b", ""}, {"BEGIN", "BEGUN"}, {"https:", "http:"}, {"{", "hunter"}} {
		if _, err := parseAccount([]byte(strings.Replace(good, change[0], change[1], 1))); err == nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: %v", change, err)
		}
	}
}

func FuzzParseAccount(f *testing.F) {
	f.Add([]byte(`{"type":"service_account","client_email":"a@b","private_key":"x","token_uri":"https://x/token"}`))
	f.Add([]byte(`{"type":"service_account","token_uri":":"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		hostile.Budget(t)
		if c, err := parseAccount(text); err == nil && (c.Email == "" || !strings.HasPrefix(c.TokenURL, "http")) {
			t.Fatalf("%+v", c)
		}
	})
}
