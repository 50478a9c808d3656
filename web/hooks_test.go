package web

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// office is a post office with three endpoints.
type office struct{}

func (office) Endpoints(context.Context) ([]Endpoint, error) {
	return []Endpoint{
		{ID: "acme/erp", Host: "https://erp.example", Dialect: "standard-webhooks", Succeeded: noon.Add(-time.Minute)},
		{ID: "acme/slow", Host: "https://slow.example", Dialect: "sdf", Events: []string{"document.signed"}, Failures: 7, Pending: 1200, Failed: 2, Oldest: noon.Add(-time.Hour)},
		{ID: "acme/gone", Host: "https://gone.example", Dialect: "certyneo", Disabled: true, Reason: "its receiver answered 410: it is gone"},
	}, nil
}

func (office) Deliveries(_ context.Context, endpoint, state string, _ int) ([]Delivery, error) {
	all := []Delivery{
		{ID: 3, Endpoint: "acme/slow", Type: "document.signed", Tx: "tx3", At: noon, State: "pending", Attempts: 2, Due: noon.Add(time.Minute), Problem: "it answered 503"},
		{ID: 2, Endpoint: "acme/slow", Type: "document.signed", Tx: "tx2", At: noon, State: "failed", Attempts: 4, Problem: "<no answer in time>"},
		{ID: 1, Endpoint: "acme/erp", Type: "envelope.created", Tx: "tx1", At: noon, State: "delivered", Attempts: 1},
	}
	var out []Delivery
	for _, d := range all {
		if (endpoint == "" || d.Endpoint == endpoint) && (state == "" || d.State == state) {
			out = append(out, d)
		}
	}
	return out, nil
}

func (office) Attempts(_ context.Context, delivery int64) ([]Attempt, error) {
	if delivery != 2 {
		return nil, ErrNotFound
	}
	return []Attempt{{N: 1, At: noon, Took: 1500 * time.Millisecond, Status: 500, Problem: "it answered 500"}, {N: 2, At: noon}}, nil
}

func TestThePagesOfWebhooksAreForReadersAndSayWhatWaits(t *testing.T) {
	h, _, _ := open(settle(), func(o *Options) { o.Hooks = office{} })
	for _, path := range []string{"/webhooks", "/webhooks/deliveries/2"} {
		if w := get(stranger(h), path); w.Code != http.StatusForbidden {
			t.Errorf("%s shows a stranger %d", path, w.Code)
		}
	}
	for path, want := range map[string][]string{
		"/webhooks":                     {"acme/erp", "7 in a row", number(1200), "its receiver answered 410", "document.signed", "/webhooks/deliveries/3", "given up", "&lt;no answer in time&gt;", `aria-current="page">Webhooks`},
		"/webhooks?endpoint=acme%2Ferp": {"acme/erp", "envelope.created"},
		"/webhooks/deliveries/2":        {"1.5s", "it answered 500", "under way"},
		"/":                             {`href="/webhooks"`},
	} {
		w := get(h, path)
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
		for _, text := range want {
			if !strings.Contains(w.Body.String(), text) {
				t.Errorf("%s lacks %s:\n%s", path, text, w.Body)
			}
		}
	}
	if page := get(h, "/webhooks?endpoint=acme%2Ferp").Body.String(); strings.Contains(page, "slow.example") {
		t.Error("the page of one endpoint shows another")
	}
	for _, path := range []string{"/webhooks/deliveries/9", "/webhooks/deliveries/x"} {
		if w := get(h, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	without, _, _ := open(settle())
	if w := get(without, "/webhooks"); w.Code != http.StatusNotFound || strings.Contains(get(without, "/").Body.String(), `href="/webhooks"`) {
		t.Error("there is a page of webhooks where there are none")
	}
}
