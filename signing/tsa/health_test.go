package tsa

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

// full is a Counter that cannot write.
type full struct{}

func (full) CountStamp(context.Context, string, string, int) (bool, error) {
	return false, errors.New("no space left")
}

func TestAServerWithAQuotaIsNotAskedWhenTheRequestCannotBeCounted(t *testing.T) {
	first, second, c, _ := two(t, 2)
	c.options.Counter = full{}
	c.servers[1].Quota = 0
	if err := stamp(t, c); err != nil {
		t.Fatal(err)
	}
	wantAsked(t, "one without a quota stands in", first, second, 0, 1)
	c.servers[1].Quota = 2
	if err := stamp(t, c); err == nil || !strings.Contains(err.Error(), "cannot be counted: no space left") {
		t.Errorf("none without a quota: %v", err)
	}
	wantAsked(t, "none without a quota", first, second, 0, 1)
}

func TestHealthTellsHowTheNewestRequestEnded(t *testing.T) {
	first, _, c, now := two(t, 7)
	want := []Health{{Server: c.servers[0].name, Quota: 7}, {Server: c.servers[1].name, Quota: 7}}
	mustBe := func(when string) {
		t.Helper()
		if diff := cmp.Diff(want, c.Health()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	mustBe("before the first request")
	first.SetFault(pki.ServiceTSA, pki.Unavailable, 1)
	if err := stamp(t, c); err != nil {
		t.Fatal(err)
	}
	want[0].Asked, want[0].Why, want[0].Rests, want[1].Asked = *now, "HTTP status 503", true, *now
	mustBe("after a failure")
	*now = now.Add(rest)
	want[0].Rests = false
	mustBe("after its rest")
	if err := stamp(t, c); err != nil {
		t.Fatal(err)
	}
	want[0].Asked, want[0].Why = *now, ""
	mustBe("after a success")
}

func TestTwoAccountsAtOneAddressAreToldApart(t *testing.T) {
	c, err := NewClient([]Server{{URL: "https://tsa.example/?account=1", Quota: 1}, {URL: "https://tsa.example/?account=2", Quota: 1}}, Options{Roots: x509.NewCertPool()})
	if err != nil {
		t.Fatal(err)
	}
	h := c.Health()
	if h[0].Server != "https://tsa.example/" || h[1].Server != "https://tsa.example/ (2)" {
		t.Errorf("%+v", h)
	}
	if c.take(t.Context(), c.servers[0]) != nil || c.take(t.Context(), c.servers[0]) == nil || c.take(t.Context(), c.servers[1]) != nil {
		t.Error("they share a quota")
	}
}
