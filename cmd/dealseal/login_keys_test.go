package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
)

// loginFromHSM moves the key with which Salesforce is logged in to from its file into the token of the seal's key.
func loginFromHSM(w *world) string {
	k := newToken(w)
	der, err := x509.MarshalPKCS8PrivateKey(w.login)
	must(w.t, err)
	file := w.path("login.pem")
	must(w.t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	k.tool("softhsm2-util", "--import", file, "--token", "e2e", "--label", "login", "--id", "02", "--pin", k.pin)
	c := w.crms[0].(*salesforceCRM)
	must(w.t, os.Remove(file))
	must(w.t, os.Remove(strings.TrimPrefix(c.key, "file:")))
	w.lines = fmt.Sprintf("login_keys:\n  salesforce: {module: %q, token: e2e, label: login, pin: %q, env: {SOFTHSM2_CONF: %q}, write: [%q]}\n", k.module, k.pinRef, k.conf, w.path("token"))
	return k.config()
}

func TestSalesforceIsLoggedInToWithAKeyThatNeverLeavesTheHSM(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.Salesforce}, key: loginFromHSM})
	c := w.crms[0].(*salesforceCRM)
	w.rewrite(t, "tenants/"+c.tenant()+".yaml", fmt.Sprintf("private_key: %q", c.key), "hsm_key: salesforce")

	identity, h := w.logIn(t)
	must(t, identity)
	x := h.newExaminer(t.Context(), quietLog())
	if f := onlyFinding(t, x, "salesforce"); f.Result != doctor.Pass || !strings.Contains(f.What, "token e2e") {
		t.Errorf("the doctor says %+v", f)
	}
	x.close()

	// What a person has to mend is told from a device that comes back by itself.
	pin := w.path("pin")
	right, err := os.ReadFile(pin)
	must(t, err)
	must(t, os.WriteFile(pin, []byte("0000"), 0o600))
	identity, h = w.logIn(t)
	if !deal.IsPermanent(identity) || connectors.LoginTrouble(identity) != connectors.LoginMisconfigured || !strings.Contains(fmt.Sprint(identity), "auth.hsm_key") || !strings.Contains(fmt.Sprint(identity), "PIN") {
		t.Errorf("with a wrong PIN: %v", identity)
	}
	x = h.newExaminer(t.Context(), quietLog())
	if f := onlyFinding(t, x, "salesforce"); f.Result != doctor.Failure || !strings.Contains(f.Cure, "login_keys.salesforce") {
		t.Errorf("with a wrong PIN the doctor says %+v", f)
	}
	x.close()
	must(t, os.WriteFile(pin, right, 0o600))
	w.rewrite(t, "dealseal.yaml", "token: e2e, label: login", "token: unplugged, label: login")
	if identity, _ = w.logIn(t); deal.IsPermanent(identity) || !connectors.IsLogin(identity) {
		t.Errorf("with a token that is not there: %v", identity)
	}
	w.rewrite(t, "dealseal.yaml", "token: unplugged, label: login", `token: e2e, id: "01"`)
	if _, err := loadHouse(w.config); err == nil || !strings.Contains(err.Error(), "may be the key signing.keys.house") {
		t.Errorf("a key that may be the one that seals logs in: %v", err)
	}
	same := w.path("token/same.so") // the same module to PKCS#11, and not to the configuration
	must(t, os.Symlink(softHSM(t), same))
	named := fmt.Sprintf("module: %q, token: e2e, id", softHSM(t))
	w.rewrite(t, "dealseal.yaml", named, strings.Replace(named, softHSM(t), same, 1))
	if identity, _ = w.logIn(t); !deal.IsPermanent(identity) || !strings.Contains(fmt.Sprint(identity), "signing.keys.house, which seals") {
		t.Errorf("the key that seals logs in, reached by another module: %v", identity)
	}
	w.rewrite(t, "dealseal.yaml", strings.Replace(named, softHSM(t), same, 1), named)
	w.rewrite(t, "dealseal.yaml", `token: e2e, id: "01"`, "token: e2e, label: seal")
	if _, err := loadHouse(w.config); err == nil || !strings.Contains(err.Error(), "signing.keys.house, which seals") {
		t.Errorf("the key that seals logs in: %v", err)
	}
	w.rewrite(t, "dealseal.yaml", "  salesforce: {module", "  other: {module")
	w.rewrite(t, "dealseal.yaml", "token: e2e, label: seal, pin: "+fmt.Sprintf("%q", "file:"+pin)+", env", "token: e2e, label: login, pin: "+fmt.Sprintf("%q", "file:"+pin)+", env")
	if _, err := loadHouse(w.config); err == nil || !strings.Contains(err.Error(), c.tenant()+".yaml:") || !strings.Contains(err.Error(), "not under login_keys") {
		t.Errorf("a key that is not configured: %v", err)
	}
}

// logIn asks the CRM who it is, as a daemon does that has just started.
func (w *world) logIn(t *testing.T) (error, *house) {
	t.Helper()
	h, err := loadHouse(w.config)
	must(t, err)
	crm, err := h.tenants[0].connect(quietLog(), nil)
	must(t, err)
	_, err = crm.Identity(t.Context())
	t.Cleanup(func() { h.logins.Close() })
	return err, h
}

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func onlyFinding(t *testing.T, x *examiner, key string) doctor.Finding {
	t.Helper()
	found := doctor.Run(t.Context(), []doctor.Examination{x.examineLoginKey(key)})
	if len(found) != 1 {
		t.Fatalf("%d findings: %+v", len(found), found)
	}
	return found[0]
}
