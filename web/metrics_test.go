package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/dealseal/dealseal/deal"
)

func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	w := get(h, "/metrics")
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// Vitals are those of a machine that is well.
func (v *village) Vitals(context.Context) (Vitals, error) {
	return Vitals{Database: 7 << 20, WAL: 1 << 20, DiskFree: 9 << 30, DiskFloor: 256 << 20, Backup: noon.Add(-time.Hour),
		Outcomes: []Outcome{{"acme", "noticed", 31}, {"acme", "done", 28}}, Failing: map[deal.TenantID]int64{"acme": 2},
		Due: map[deal.TenantID]time.Time{"acme": noon.Add(-time.Hour), "nordwind": noon.Add(time.Hour)}}, v.err
}

func TestMetricsTellTheState(t *testing.T) {
	v := settle()
	h, m, _ := open(v)
	m.Seen("seal.redeem", 30*time.Millisecond, nil)
	m.Seen("seal.redeem", 3*time.Second, errors.New("token removed"))
	m.Seen("seal.redeem", time.Second, fmt.Errorf("stopped: %w", context.Canceled))
	m.Seen("gather.record", time.Millisecond, nil)
	m.Stepped("seal", "retrying", 2*time.Second)
	m.Asked("acme", "query", "ok")
	m.Signed("house", 3*time.Millisecond, nil)
	m.Stamped("https://tsa.example", time.Second, errors.New("503"))
	text := scrape(t, h)
	oldest := 0.0
	for _, d := range v.deals {
		if s := d.Sealing; s.Tenant == "acme" && queued(s.Step, s.Condition) {
			oldest = max(oldest, noon.Sub(s.Updated).Seconds())
		}
	}
	for _, line := range []string{
		`dealseal_sealings{condition="running",step="done",tenant="acme"} 3`,
		`dealseal_sealings{condition="dead",step="attached",tenant="nordwind"} 1`,
		fmt.Sprintf(`dealseal_queue_oldest_seconds{tenant="acme"} %v`, oldest),
		`dealseal_queue_oldest_seconds{tenant="fabrikam"} 0`,
		`dealseal_poll_age_seconds{tenant="acme"} 12`,
		`dealseal_listening_connected{tenant="acme"} 1`, `dealseal_listening_connected{tenant="acme-test"} 0`,
		`dealseal_listening_silent_seconds{tenant="acme"} 60`, `dealseal_listening_silent_seconds{tenant="acme-test"} 10800`,
		`dealseal_listening_lag_seconds{tenant="acme"} 1.5`, `dealseal_listening_events_total{tenant="acme"} 271`,
		`dealseal_errands{state="open",tenant="nordwind"} 3`, `dealseal_errands{state="failing",tenant="nordwind"} 2`,
		`dealseal_errands{state="refused",tenant="nordwind"} 1`, `dealseal_errands{state="refused",tenant="acme"} 0`,
		`dealseal_poll_age_seconds{tenant="fabrikam"} 0`,
		`dealseal_crm_budget_used_ratio{tenant="acme"} 0.12345`,
		fmt.Sprintf(`dealseal_certificate_not_after_seconds{key="house"} %v`, float64(noon.AddDate(1, 2, 3).Unix())),
		`dealseal_certificate_revoked{key="house"} 0`,
		`dealseal_certificate_revoked{key="seized"} 1`,
		fmt.Sprintf(`dealseal_certificate_answered_timestamp_seconds{key="house"} %v`, float64(noon.Add(-3*time.Hour).Unix())),
		fmt.Sprintf(`dealseal_build_info{goversion=%q,version="v1.2.3"} 1`, runtime.Version()),
		`dealseal_call_seconds_bucket{call="seal.redeem",le="0.05"} 1`,
		`dealseal_call_seconds_count{call="seal.redeem"} 3`,
		`dealseal_call_errors_total{call="seal.redeem"} 1`,
		`dealseal_call_errors_total{call="gather.record"} 0`,
		`dealseal_step_seconds_count{result="retrying",step="seal"} 1`,
		`dealseal_crm_calls_total{endpoint="query",result="ok",tenant="acme"} 1`,
		`dealseal_key_seconds_count{key="house"} 1`,
		`dealseal_key_errors_total{key="house"} 0`,
		`dealseal_tsa_errors_total{server="https://tsa.example"} 1`,
		`dealseal_tsa_up{server="https://tsa.example/rfc3161"} 1`,
		`dealseal_tsa_up{server="https://second.example/tsa"} 0`,
		`dealseal_tsa_quota_used_ratio{server="https://tsa.example/rfc3161"} 0.9995`,
		`dealseal_tsa_quota_used_ratio{server="https://second.example/tsa"} 0`,
		`dealseal_deals_total{outcome="done",tenant="acme"} 28`,
		`dealseal_deals_total{outcome="dead",tenant="fabrikam"} 0`,
		`dealseal_deals_failing{tenant="acme"} 2`,
		`dealseal_queue_overdue_seconds{tenant="acme"} 3600`,
		`dealseal_queue_overdue_seconds{tenant="nordwind"} 0`,
		`dealseal_queue_overdue_seconds{tenant="fabrikam"} 0`,
		`dealseal_deals_failing{tenant="fabrikam"} 0`,
		`dealseal_waiting_deals{condition="dead",tenant="nordwind"} 4`,
		`dealseal_waiting_deals{condition="held",tenant="fabrikam"} 0`,
		`dealseal_waiting_oldest_seconds{condition="held",tenant="fabrikam"} 0`,
		fmt.Sprintf(`dealseal_backup_timestamp_seconds %v`, float64(noon.Add(-time.Hour).Unix())),
		`dealseal_backup_database_timestamp_seconds 0`,
		`dealseal_disk_floor_bytes 2.68435456e+08`,
		`dealseal_database_wal_bytes 1.048576e+06`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%s is not told", line)
		}
	}
	if strings.Contains(text, `dealseal_crm_budget_used_ratio{tenant="fabrikam"}`) {
		t.Error("an allowance that the CRM has not said is told")
	}
}

func TestMetricsFollowTheConventions(t *testing.T) {
	h, m, _ := open(settle())
	m.Seen("check.verify", time.Second, errors.New("x"))
	m.Stepped("seal", "ok", time.Second)
	m.Asked("acme", "query", "ok")
	m.Signed("house", time.Second, nil)
	m.Stamped("https://tsa.example", time.Second, nil)
	problems, err := promlint.New(strings.NewReader(scrape(t, h))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestNobodyIsToldOfTheCertificateOfAKeyThatAnotherHasFollowed, neither of its end nor of its revocation: the other one seals.
func TestNobodyIsToldOfTheCertificateOfAKeyThatAnotherHasFollowed(t *testing.T) {
	for _, state := range []deal.CertState{deal.CertRetiring, deal.CertRevoked} {
		v := settle()
		v.keys = []Key{{Name: "old", FollowedBy: "new", State: state, NotAfter: noon.Add(time.Hour)}, {Name: "new", For: "old", State: deal.CertActive, NotAfter: noon.AddDate(1, 0, 0)}}
		h, _, _ := open(v)
		text := scrape(t, h)
		if strings.Contains(text, `dealseal_certificate_not_after_seconds{key="old"}`) || !strings.Contains(text, `dealseal_certificate_revoked{key="old"} 0`) ||
			!strings.Contains(text, `dealseal_certificate_not_after_seconds{key="new"}`) {
			t.Errorf("%s:\n%s", state, text)
		}
	}
}

func TestDealsThatWaitForAPersonDoNotAgeTheQueue(t *testing.T) {
	v := settle()
	v.deals = nil
	v.move(deal.Rendered, deal.Held, 2)
	v.move(deal.Done, deal.Running, 4)
	h, _, _ := open(v)
	text := scrape(t, h)
	for _, line := range []string{`dealseal_queue_oldest_seconds{tenant="acme"} 0`, `dealseal_queue_depth{tenant="acme"} 0`, `dealseal_waiting_deals{condition="held",tenant="acme"} 1`} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%s is not told", line)
		}
	}
	if strings.Contains(text, `dealseal_waiting_oldest_seconds{condition="held",tenant="acme"} 0`) {
		t.Error("deals that wait are not said to wait for any time")
	}
}

func TestWhatCanBeCollectedIsToldWhenTheHouseFails(t *testing.T) {
	v := settle()
	v.err = errors.New("database is closed")
	h, _, log := open(v)
	if text := scrape(t, h); !strings.Contains(text, "dealseal_build_info") || strings.Contains(text, "dealseal_sealings{") {
		t.Error(text)
	}
	if !strings.Contains(log.String(), "database is closed") {
		t.Errorf("log: %q", log)
	}
}
