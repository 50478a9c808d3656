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

func TestMetricsTellTheState(t *testing.T) {
	v := settle()
	h, m, _ := open(v)
	m.Seen("seal.redeem", 30*time.Millisecond, nil)
	m.Seen("seal.redeem", 3*time.Second, errors.New("token removed"))
	m.Seen("seal.redeem", time.Second, fmt.Errorf("stopped: %w", context.Canceled))
	m.Seen("gather.record", time.Millisecond, nil)
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
		`dealseal_poll_age_seconds{tenant="fabrikam"} 0`,
		`dealseal_crm_budget_used_ratio{tenant="acme"} 0.12345`,
		fmt.Sprintf(`dealseal_certificate_not_after_seconds{key="house"} %v`, float64(noon.AddDate(1, 2, 3).Unix())),
		fmt.Sprintf(`dealseal_build_info{goversion=%q,version="v1.2.3"} 1`, runtime.Version()),
		`dealseal_call_seconds_bucket{call="seal.redeem",le="0.05"} 1`,
		`dealseal_call_seconds_count{call="seal.redeem"} 3`,
		`dealseal_call_errors_total{call="seal.redeem"} 1`,
		`dealseal_call_errors_total{call="gather.record"} 0`,
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
	problems, err := promlint.New(strings.NewReader(scrape(t, h))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestDealsThatWaitForAPersonDoNotAgeTheQueue(t *testing.T) {
	v := settle()
	v.deals = nil
	v.move(deal.Rendered, deal.Held, 2)
	v.move(deal.Done, deal.Running, 4)
	h, _, _ := open(v)
	if text := scrape(t, h); !strings.Contains(text, `dealseal_queue_oldest_seconds{tenant="acme"} 0`+"\n") {
		t.Error(text)
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
