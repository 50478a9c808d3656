package keyservice_test

import (
	"crypto/elliptic"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/kms"
	"github.com/dealseal/dealseal/signing/keyservice"
	"github.com/dealseal/dealseal/signing/keyservice/awskms"
	"github.com/dealseal/dealseal/signing/keyservice/gcpkms"
	"github.com/dealseal/dealseal/signing/keyservice/vault"
)

// TestMachinesLogInWithWhatTheyAre uses a key, has the login taken away under it, and uses the key again.
func TestMachinesLogInWithWhatTheyAre(t *testing.T) {
	approle, _ := tokenFile(t, kms.VaultSecret)
	for name, open := range map[string]func(t *testing.T, store *kms.Store) (keyservice.Service, error){
		"vault approle": func(t *testing.T, store *kms.Store) (keyservice.Service, error) {
			return vault.New(vault.Config{Address: serveVault(t, store), Key: "seal", Version: 1, Login: &vault.Login{Method: "approle", Role: kms.VaultRole, Secret: approle}})
		},
		"vault kubernetes": func(t *testing.T, store *kms.Store) (keyservice.Service, error) {
			return vault.New(vault.Config{Address: serveVault(t, store), Key: "seal", Version: 1, Login: &vault.Login{Method: "kubernetes", Role: kms.VaultRole, Secret: approle}})
		},
		"google": func(t *testing.T, store *kms.Store) (keyservice.Service, error) {
			server := httptest.NewServer(store.Google(false))
			t.Cleanup(server.Close)
			return gcpkms.New(gcpkms.Config{Version: kms.GoogleVersion(1), Attached: true, Metadata: server.URL, Endpoint: server.URL})
		},
		"aws": func(t *testing.T, store *kms.Store) (keyservice.Service, error) {
			metadata := httptest.NewServer(store.AWSInstance())
			t.Cleanup(metadata.Close)
			return awskms.New(awskms.Config{Region: "eu-central-1", Key: kms.AWSKeyID, Instance: true, Metadata: metadata.URL, Endpoint: serveAWS(t, store)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := kms.NewStore()
			store.Add("seal", newEC(elliptic.P256()))
			s, err := open(t, store)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := s.Public(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			store.SetToken("the next token")
			if _, err := s.Public(t.Context()); err == nil || isPermanent(err) || strings.Contains(err.Error(), kms.Token) {
				t.Errorf("with a login that is over: %v", err)
			}
			if _, err := s.Public(t.Context()); err != nil {
				t.Errorf("after another login: %v", err)
			}
		})
	}
}

// TestAMachineThatIsNobodyWaitsForAPerson has addresses that know no role.
func TestAMachineThatIsNobodyWaitsForAPerson(t *testing.T) {
	nobody := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(nobody.Close)
	store := kms.NewStore()
	wrong, file := tokenFile(t, "another-secret")
	for name, open := range map[string]func() (keyservice.Service, error){
		"vault": func() (keyservice.Service, error) {
			return vault.New(vault.Config{Address: serveVault(t, store), Key: "seal", Version: 1, Login: &vault.Login{Method: "approle", Role: kms.VaultRole, Secret: wrong}})
		},
		"google": func() (keyservice.Service, error) {
			return gcpkms.New(gcpkms.Config{Version: kms.GoogleVersion(1), Attached: true, Metadata: nobody.URL, Endpoint: nobody.URL})
		},
		"aws": func() (keyservice.Service, error) {
			return awskms.New(awskms.Config{Region: "eu-central-1", Key: kms.AWSKeyID, Instance: true, Metadata: nobody.URL, Endpoint: nobody.URL})
		},
	} {
		s, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Public(t.Context()); !isPermanent(err) || !strings.Contains(err.Error(), "its login") || strings.Contains(err.Error(), "another-secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

func TestALoginIsEitherTheMachinesOrAFiles(t *testing.T) {
	ref, _ := tokenFile(t, "x")
	good := vault.Login{Method: "approle", Role: "r", Secret: ref}
	for field, err := range map[string]error{
		"login":            second(vault.New(vault.Config{Address: "https://v", Key: "k", Version: 1, Token: ref, Login: &good})),
		"login.method":     second(vault.New(vault.Config{Address: "https://v", Key: "k", Version: 1, Login: &vault.Login{Method: "userpass", Role: "r", Secret: ref}})),
		"login.mount":      second(vault.New(vault.Config{Address: "https://v", Key: "k", Version: 1, Login: &vault.Login{Method: "approle", Mount: "../sys", Role: "r", Secret: ref}})),
		"login.role":       second(vault.New(vault.Config{Address: "https://v", Key: "k", Version: 1, Login: &vault.Login{Method: "approle", Secret: ref}})),
		"login.secret":     second(vault.New(vault.Config{Address: "https://v", Key: "k", Version: 1, Login: &vault.Login{Method: "approle", Role: "r"}})),
		"attached_account": second(gcpkms.New(gcpkms.Config{Version: kms.GoogleVersion(1), Attached: true, Credentials: ref})),
		"instance_role":    second(awskms.New(awskms.Config{Region: "eu-central-1", Key: kms.AWSKeyID, Instance: true, Credentials: ref})),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), field+" ") || !isPermanent(err) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
