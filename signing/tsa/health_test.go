package tsa

import (
	"crypto"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/pki"
)

// two are two authorities, asked by one client with a clock that is moved by hand.
func two(t *testing.T, quota int) (first, second *pki.Authority, c *Client, now *time.Time) {
	t.Helper()
	at := time.Now().UTC().Truncate(24 * time.Hour).Add(12 * time.Hour)
	now = &at
	var err error
	if first, err = pki.New(pki.Options{Now: func() time.Time { return *now }}); err != nil {
		t.Fatal(err)
	}
	if second, err = first.WithTSA(at.AddDate(-1, 0, 0), at.AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	var servers []Server
	for _, a := range []*pki.Authority{first, second} {
		s := httptest.NewServer(http.HandlerFunc(a.ServeHTTP))
		t.Cleanup(s.Close)
		servers = append(servers, Server{URL: s.URL + pki.PathTSA, Quota: quota})
	}
	c, err = NewClient(servers, Options{Roots: first.Roots(), Now: func() time.Time { return *now }})
	if err != nil {
		t.Fatal(err)
	}
	return first, second, c, now
}

func stamp(t *testing.T, c *Client) error {
	t.Helper()
	_, err := c.Timestamp(t.Context(), make([]byte, 32), crypto.SHA256)
	return err
}

func wantAsked(t *testing.T, when string, first, second *pki.Authority, n, m int) {
	t.Helper()
	if a, b := first.Requests(pki.ServiceTSA), second.Requests(pki.ServiceTSA); a != n || b != m {
		t.Errorf("%s: %d and %d requests, want %d and %d", when, a, b, n, m)
	}
}

func TestAServerThatFailedIsAskedAfterTheOthersForAWhile(t *testing.T) {
	first, second, c, now := two(t, 0)
	first.SetFault(pki.ServiceTSA, pki.Unavailable, 1)
	for range 3 {
		if err := stamp(t, c); err != nil {
			t.Fatal(err)
		}
	}
	wantAsked(t, "after a failure", first, second, 1, 3)
	second.SetFault(pki.ServiceTSA, pki.Unavailable, 1)
	if err := stamp(t, c); err != nil {
		t.Fatal(err)
	}
	wantAsked(t, "the one that failed first is good again", first, second, 2, 4)
	*now = now.Add(rest)
	if err := stamp(t, c); err != nil {
		t.Fatal(err)
	}
	wantAsked(t, "later", first, second, 3, 4)
}

func TestAQuotaIsNotExceededAndIsThereAgainTheNextDay(t *testing.T) {
	first, second, c, now := two(t, 2)
	for range 4 {
		if err := stamp(t, c); err != nil {
			t.Fatal(err)
		}
	}
	wantAsked(t, "both quotas", first, second, 2, 2)
	err := stamp(t, c)
	failed, ok := err.(*Error)
	if !ok || failed.Permanent() || failed.RetryAfter() != maxRetryAfter || !strings.Contains(err.Error(), "quota of 2 requests is used up") {
		t.Errorf("a fifth: %v", err)
	}
	wantAsked(t, "used up", first, second, 2, 2)
	*now = now.Add(12 * time.Hour)
	if err := stamp(t, c); err != nil {
		t.Fatal(err)
	}
	wantAsked(t, "the next day", first, second, 3, 2)
}
