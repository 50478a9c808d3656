//go:build wycheproof

package webhooks

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/dealseal/dealseal/secret"
)

// TestWycheproof has what proves a request judge the vectors of Project Wycheproof for HMAC-SHA256 and for the public keys that a
// sender may have. "make wycheproof" fetches them and sets the variable.
func TestWycheproof(t *testing.T) {
	dir := os.Getenv("WYCHEPROOF")
	if dir == "" {
		t.Fatal("WYCHEPROOF does not name the folder of the vectors: run make wycheproof")
	}
	for _, name := range []string{"hmac_sha256", "ed25519", "ecdsa_secp256r1_sha256", "ecdsa_secp384r1_sha256", "rsa_signature_2048_sha256", "rsa_signature_4096_sha256"} {
		text, err := os.ReadFile(filepath.Join(dir, "testvectors_v1", name+"_test.json"))
		if err != nil {
			t.Error(err)
			continue
		}
		if judged := judgeVectors(t, name, text); judged < 50 {
			t.Errorf("%s: only %d vectors were judged", name, judged)
		}
	}
}

func judgeVectors(t *testing.T, name string, text []byte) (judged int) {
	var v struct {
		Groups []struct {
			TagSize int    `json:"tagSize"`
			Key     string `json:"publicKeyDer"`
			Tests   []struct {
				ID                         int `json:"tcId"`
				Key, Msg, Tag, Sig, Result string
				Comment                    string
			} `json:"tests"`
		} `json:"testGroups"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, g := range v.Groups {
		if g.Key == "" && g.TagSize != 256 {
			continue // nobody here takes a part of an HMAC
		}
		var public crypto.PublicKey
		if g.Key != "" {
			var err error
			if public, err = x509.ParsePKIXPublicKey(bytesOf(t, g.Key)); err != nil {
				t.Fatalf("%s: a key: %v", name, err)
			}
		}
		for _, c := range g.Tests {
			message := bytesOf(t, c.Msg)
			parts := [][]byte{message[:len(message)/2], message[len(message)/2:]}
			got := false
			if public == nil {
				got = isMAC(secret.New(bytesOf(t, c.Key)), bytesOf(t, c.Tag), parts)
			} else {
				got = isSignature(public, bytesOf(t, c.Sig), parts)
			}
			judged++
			if c.Result != "acceptable" && got != (c.Result == "valid") {
				t.Errorf("%s, vector %d (%s): it is %s, and taken: %v", name, c.ID, c.Comment, c.Result, got)
			}
		}
	}
	return judged
}

func bytesOf(t *testing.T, text string) []byte {
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
