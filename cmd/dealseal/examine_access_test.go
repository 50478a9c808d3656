package main

import (
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
