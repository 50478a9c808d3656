package store

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
)

func TestASecretIsAsOldAsItsContentIsKnownAndNotKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	clock := newClock()
	s := open(t, options(dir, clock.Now))
	since := func(tenant deal.TenantID, values ...string) []time.Time {
		t.Helper()
		var secrets []secret.Secret
		for _, v := range values {
			secrets = append(secrets, secret.New([]byte(v)))
		}
		got, err := s.SecretsSince(t.Context(), tenant, secrets)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	want := func(what string, got []time.Time, want ...time.Time) {
		t.Helper()
		if !slices.EqualFunc(got, want, time.Time.Equal) {
			t.Errorf("%s: known since %s, want %s", what, got, want)
		}
	}
	const first, second = "a first secret of the tenant", "a second secret of the tenant"
	began := clock.now
	want("new", since(acme, first), began)
	clock.now = clock.now.Add(100 * 24 * time.Hour)
	later := clock.now
	want("one has stayed, one is new", since(acme, second, first), later, began)
	want("another tenant's is another", since("contoso", first), later)
	want("taken up again", since(acme, first), began)
	clock.now = clock.now.Add(399 * 24 * time.Hour)
	want("after a year", since(acme, first), began)
	clock.now = clock.now.Add(2 * 24 * time.Hour)
	want("one that nobody used", since(acme, first, second), began, clock.now)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(first)) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
