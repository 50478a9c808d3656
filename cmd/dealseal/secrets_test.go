package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/connectors/hubspot"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/secret"
)

func TestSecretsThatStayTheSameForTooLongAreShown(t *testing.T) {
	now := time.Now()
	ref := func(name, value string, written time.Time) secret.Ref {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		must(t, os.WriteFile(path, []byte(value), 0o600))
		must(t, os.Chtimes(path, written, written))
		r, err := secret.ParseRef("file:" + path)
		must(t, err)
		return r
	}
	missing, err := secret.ParseRef("file:/nowhere/at/all")
	must(t, err)
	old := now.Add(-100 * 24 * time.Hour)
	file := &config.Tenant{Push: []config.Push{{Source: config.PushHubSpot, Secrets: []secret.Ref{ref("kept", "a", now), missing}}}, Webhooks: []config.Webhook{{Secret: ref("hook", "b", old)}},
		Vendors: []config.Vendor{{Token: ref("vendor", "e", old)}}}
	file.Tenant.ID = "contoso"
	contoso := tenant{file: file, with: hubspot.Config{Auth: hubspot.Auth{Flow: hubspot.FlowOAuth, ClientSecret: ref("client", "c", now), RefreshToken: ref("refresh", "d", now)}}}

	// Of one the store knows that it is older than its file.
	known := func(_ context.Context, tenant deal.TenantID, secrets []secret.Secret) (since []time.Time, err error) {
		for _, s := range secrets {
			since = append(since, map[string]time.Time{"a": old}[s.RevealString()])
			if since[len(since)-1].IsZero() {
				since[len(since)-1] = now.Add(-time.Minute)
			}
		}
		return since, nil
	}
	x := &examiner{secretsSince: known}
	want := map[string]doctor.Result{"push.0.secrets.0": doctor.Warning, "webhooks.0.secret": doctor.Warning, "vendors.0.token": doctor.Warning}
	found := doctor.Run(t.Context(), []doctor.Examination{x.examineSecrets(contoso)})
	for _, f := range found {
		if want[f.Subject] != f.Result {
			t.Errorf("%s: %s, %s", f.Subject, f.Result, f.What)
		}
		if !strings.Contains(f.What, old.Format(time.DateOnly)+" or longer: 100 days") {
			t.Errorf("%s", f.What)
		}
	}
	if len(found) != len(want) {
		t.Errorf("%d findings, want %d: %v", len(found), len(want), found)
	}
	cfg := &config.Config{SignIn: &config.SignIn{ClientSecret: ref("sign-in", "f", old)}}
	cfg.Notify.Channels = []config.Channel{{HeadersFrom: map[string]secret.Ref{"Authorization": ref("header", "g", old), "X-Key": ref("young", "h", now)}}}
	cfg.Signing.Keys = map[string]config.Key{"house": {PIN: ref("pin", "i", old), Passphrase: ref("phrase", "j", old)}}
	var of []string
	for _, f := range doctor.Run(t.Context(), []doctor.Examination{(&examiner{house: &house{cfg: cfg}, secretsSince: known}).examineHouseSecrets()}) {
		of = append(of, f.Subject)
	}
	if !slices.Equal(of, []string{"notify.channels.0.headers_from.Authorization", "sign_in.client_secret"}) && !slices.Equal(of, []string{"sign_in.client_secret", "notify.channels.0.headers_from.Authorization"}) {
		t.Errorf("of the house, old are %q", of)
	}
	ages, err := secretAges(t.Context(), "contoso", contoso.places(), known)
	must(t, err)
	metrics := make(chan prometheus.Metric, 10)
	(&secretWatch{ages: map[deal.TenantID][]secretAge{"contoso": ages}}).Collect(metrics)
	if len(metrics) != 5 {
		t.Errorf("%d ages are told, want those of the five that can be read", len(metrics))
	}
}
