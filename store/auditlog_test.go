package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

func TestTheAuditLogListsWhatIsAboutNoDeal(t *testing.T) {
	s, c := newStore(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, tenant := range []deal.TenantID{"acme", "", "beta", "acme"} {
		must(s.update(t.Context(), "commit/operate", func(x *txn) error {
			return x.auditShared(tenant, "", deal.Entry{Who: fmt.Sprint("person ", i), What: "thing.done", Why: "a test", Cert: "aa", Detail: map[string]string{"n": fmt.Sprint(i)}})
		}))
		c.advance(time.Hour)
	}
	list := func(q AuditQuery) (said string) {
		t.Helper()
		q.What = "thing.done"
		all, err := s.AuditLog(t.Context(), q)
		must(err)
		for _, l := range all {
			said += l.Who[len("person "):]
			if l.Why != "a test" || l.Cert != "aa" || l.Detail["n"] != l.Who[len("person "):] {
				t.Errorf("%+v", l)
			}
		}
		return said
	}
	for want, q := range map[string]AuditQuery{
		"3210": {Limit: 100},
		"32":   {Limit: 2},
		"30":   {Limit: 100, Tenant: "acme"},
		"321":  {Limit: 100, Since: s.now().Add(-3 * time.Hour)},
		"":     {Limit: 100, Tenant: "gamma"},
	} {
		if got := list(q); got != want {
			t.Errorf("%+v: %s, want %s", q, got, want)
		}
	}
	must(s.update(t.Context(), "commit/operate", func(x *txn) error {
		return x.exec(`UPDATE audit SET private = zeroblob(80) WHERE n = (SELECT max(n) FROM audit)`)
	}))
	var tampered *TamperedError
	if _, err := s.AuditLog(t.Context(), AuditQuery{Limit: 1}); !errors.As(err, &tampered) {
		t.Errorf("altered: %v", err)
	}
}
