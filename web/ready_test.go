package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestReadinessSaysWhatIsWrong(t *testing.T) {
	well := Check{Name: "store", Run: func(context.Context) error { return nil }}
	ill := Check{Name: "key house", Run: func(context.Context) error { return errors.New("the token is gone: put it back") }}
	odd := ill
	odd.Advisory = true
	for name, c := range map[string]struct {
		checks []Check
		code   int
		want   readiness
	}{
		"no checks": {nil, http.StatusOK, readiness{Ready: true, Checks: []finding{}}},
		"all well":  {[]Check{well}, http.StatusOK, readiness{Ready: true, Checks: []finding{{Name: "store", OK: true}}}},
		"one ill": {[]Check{ill, well}, http.StatusServiceUnavailable, readiness{Checks: []finding{
			{Name: "key house", Why: "the token is gone: put it back"}, {Name: "store", OK: true}}}},
		"one that only advises": {[]Check{odd, well}, http.StatusOK, readiness{Ready: true, Checks: []finding{
			{Name: "key house", Why: "the token is gone: put it back"}, {Name: "store", OK: true}}}},
	} {
		t.Run(name, func(t *testing.T) {
			h, _, _ := open(settle(), func(o *Options) { o.Checks = c.checks })
			w := get(h, "/readyz")
			var got readiness
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if w.Code != c.code || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%d %q", w.Code, w.Header().Get("Content-Type"))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestACheckThatHangsIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := Check{Name: "crm", Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		h, _, _ := open(settle(), func(o *Options) { o.Checks = []Check{hang, hang} })
		start := time.Now()
		if w := get(h, "/readyz"); w.Code != http.StatusServiceUnavailable || time.Since(start) != checkLimit {
			t.Errorf("%d after %s: %s", w.Code, time.Since(start), w.Body)
		}
	})
}

func TestTheProcessIsAliveWhateverTheHouseSays(t *testing.T) {
	v := settle()
	v.err = errors.New("down")
	h, _, _ := open(v)
	if w := get(h, "/healthz"); w.Code != http.StatusOK || w.Body.String() != "ok\n" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

func TestAMetricTellsWhetherTheDaemonIsReady(t *testing.T) {
	fails := func(context.Context) error { return errors.New("the disk is full") }
	for want, checks := range map[string][]Check{
		"dealseal_ready 1\n": {{Name: "files", Advisory: true, Run: fails}},
		"dealseal_ready 0\n": {{Name: "disk", Run: fails}},
	} {
		registry := prometheus.NewRegistry()
		registry.MustRegister(Readiness(checks))
		h, _, _ := open(settle(), func(o *Options) { o.Metrics = registry })
		if text := scrape(t, h); !strings.Contains(text, want) {
			t.Errorf("%q is not told:\n%s", want, text)
		}
	}
}
