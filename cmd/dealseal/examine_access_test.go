package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/secret"
)

func TestTheDoctorNamesTokensBeforeTheirProgramsAreTurnedAway(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	token := func(lasts, left time.Duration) deal.Token {
		return deal.Token{Name: "erp", Role: deal.RoleViewer, Made: now.Add(left - lasts), Until: now.Add(left), Used: now.Add(left - lasts + time.Hour)}
	}
	revoked, idle := token(90*day, 13*day), token(90*day, -day)
	revoked.Revoked, idle.Used = now, time.Time{}
	for _, c := range []struct {
		what  string
		token deal.Token
		want  doctor.Result
		says  string
	}{
		{"a fresh one", token(90*day, 60*day), doctor.Pass, "viewer"},
		{"one that ends in two weeks", token(90*day, 14*day), doctor.Warning, "it ends at 2026-12-04"},
		{"one for nine days, on its second", token(9*day, 8*day), doctor.Pass, "viewer"},
		{"one for nine days, on its seventh", token(9*day, 3*day), doctor.Warning, "it ends at"},
		{"one that ended yesterday", token(90*day, -day), doctor.Warning, "turned away"},
		{"one that ended long ago", token(90*day, -15*day), "", ""},
		{"a revoked one", revoked, "", ""},
		{"one that nobody ever used", idle, "", ""},
	} {
		f, ok := tokenFinding(c.token, now)
		if ok != (c.says != "") || f.Result != c.want || !strings.Contains(f.What, c.says) {
			t.Errorf("%s: %v %+v", c.what, ok, f)
		}
	}
}

func TestTheDoctorNamesTheCertificateOfAListenerBeforeItEnds(t *testing.T) {
	dir := t.TempDir()
	pair := clientCertificate(t, 100*24*time.Hour)
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	must(t, err)
	chain, keyFile := filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	ref, err := secret.ParseRef("file:" + keyFile)
	must(t, err)
	c := newCertificate(&config.Config{File: filepath.Join(dir, "dealseal.yaml")}, config.TLS{Certificate: "chain.pem", Key: ref})
	end := pair.Leaf.NotAfter
	for left, want := range map[time.Duration]doctor.Result{50 * 24 * time.Hour: doctor.Pass, 13 * 24 * time.Hour: doctor.Warning, -time.Hour: doctor.Failure, 300 * 24 * time.Hour: doctor.Failure} {
		if f := listenerFinding(c, end.Add(-left)); f.Result != want {
			t.Errorf("with %s left: %+v", left, f)
		}
	}
	must(t, os.Remove(chain))
	if f := listenerFinding(c, end.Add(-50*24*time.Hour)); f.Result != doctor.Failure {
		t.Errorf("without its file: %+v", f)
	}
}

func TestTheDoctorNamesWhoIssuesCallersCertificatesBeforeTheyEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	put := func(all ...tls.Certificate) {
		var text []byte
		for _, c := range all {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})...)
		}
		must(t, os.WriteFile(file, text, 0o600))
	}
	day := 24 * time.Hour
	short, long := clientCertificate(t, 100*day), clientCertificate(t, 300*day)
	check := func(what string, left time.Duration, want doctor.Result, says string) {
		t.Helper()
		f := authoritiesFinding(checkListener, file, "then restart", short.Leaf.NotAfter.Add(-left))
		if f.Result != want || !strings.Contains(f.What, says) {
			t.Errorf("%s, with %s left: %+v", what, left, f)
		}
	}
	put(short)
	check("the only one", 50*day, doctor.Pass, "until")
	check("the only one", 13*day, doctor.Warning, "ends at")
	check("the only one", -time.Hour, doctor.Failure, "every caller")
	put(long, short)
	check("with a successor", 50*day, doctor.Pass, short.Leaf.NotAfter.Format(time.DateOnly))
	check("with a successor", 13*day, doctor.Warning, "ends at")
	check("with a successor", -time.Hour, doctor.Warning, "has ended")
	check("with a successor", -250*day, doctor.Failure, "every caller")
	x := &examiner{house: &house{cfg: &config.Config{File: filepath.Join(filepath.Dir(file), "dealseal.yaml"), API: config.API{Proxies: &config.Proxies{ClientCA: "ca.pem"}}}}}
	var found []doctor.Finding
	for _, e := range x.examinations() {
		if e.Subject == "api.proxies.client_ca" {
			e.Run(t.Context(), func(f doctor.Finding) { found = append(found, f) })
		}
	}
	if len(found) != 1 || found[0].Result != doctor.Pass || found[0].Subject != "api.proxies.client_ca" {
		t.Errorf("as it is configured: %+v", found)
	}
	must(t, os.WriteFile(file, nil, 0o600))
	check("without any", 50*day, doctor.Failure, "no PEM certificate")
}
