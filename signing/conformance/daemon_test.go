//go:build conformance

package conformance

import (
	"bytes"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/softkey"
)

// variant is a profile of the daemon's, whatever its level.
type variant struct {
	name      string
	algorithm softkey.Algorithm
	profile   string // further keys of the profile
}

var variants = []variant{
	{"P-256", softkey.P256, ""},
	{"RSA-3072 PSS, certified 2", softkey.RSA3072, ", pss: true, certify: 2"},
	{"P-384 SHA-384, certified 1", softkey.P384, ", hash: SHA-384, certify: 1"},
}

// stages of HubSpot's own pipeline, one for each level.
var stages = map[pades.Level]string{pades.BB: "qualifiedtobuy", pades.BT: "presentationscheduled", pades.BLT: "decisionmakerboughtin", pades.BLTA: "contractsent"}

// judgeTheDaemons has the daemon itself make contracts of deals, in a box with logo and QR code, at every level that a
// profile can ask for.
func (h *house) judgeTheDaemons(t *testing.T, report *report) {
	binary := work(t, "dealseal")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/dealseal").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if err := os.MkdirAll(work(t, "daemon"), 0o755); err != nil {
		t.Fatal(err)
	}
	pdfa := veraPDF(t, h.root)
	for i, v := range variants {
		for level, content := range h.contracts(t, binary, v) {
			f := &sealed{name: fmt.Sprintf("order-form@1 by the daemon: %s %s", level, v.name), path: work(t, "daemon", fmt.Sprintf("%d-%s.pdf", i, level)),
				content: content, level: level, signatures: 1, sound: true}
			if err := os.WriteFile(f.path, content, 0o644); err != nil {
				t.Error(err)
			}
			if !bytes.Contains(content, []byte("/Image")) {
				t.Errorf("%s has no picture in its box", f.name)
			}
			report.judge(t, "daemon", f)
			if pdfa != nil {
				report.verdict("daemon", "veraPDF", level, f.name, pdfa(f.path))
			}
		}
	}
}

// contracts runs a daemon until it has sealed a deal at each level, and returns what is on the records then.
func (h *house) contracts(t *testing.T, binary string, v variant) map[pades.Level][]byte {
	t.Helper()
	dir, err := os.MkdirTemp("", "conformance-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const token = "pat-eu1-conformance"
	portal := hubspot.New(hubspot.Options{AccountType: "SANDBOX", Tokens: []hubspot.Token{{Value: token}}})
	for _, f := range hubspot.WriteBackProperties() {
		if err := portal.AddProperty("deals", f); err != nil {
			t.Fatal(err)
		}
	}
	crm := httptest.NewServer(portal)
	defer crm.Close()
	h.configureDaemon(t, dir, crm.URL, token, v)
	log := filepath.Join(dir, "log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	daemon := exec.Command(binary, "serve", "--config", filepath.Join(dir, "dealseal.yaml"))
	daemon.Stderr, daemon.SysProcAttr = out, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	defer func() {
		_ = daemon.Process.Signal(syscall.SIGTERM) // one that has ended already is what was wanted
		<-ended
	}()
	records := map[pades.Level]string{}
	for _, level := range levels {
		if records[level], err = enter(portal, stages[level]); err != nil {
			t.Fatal(err)
		}
	}
	made := map[pades.Level][]byte{}
	for level, record := range records {
		if made[level], err = await(portal, record, ended); err != nil {
			text, _ := os.ReadFile(log) // the error itself comes first
			t.Fatalf("%s %s: %v\n%s", level, v.name, err, text)
		}
	}
	return made
}

// enter makes a deal that is complete, in a stage.
func enter(portal *hubspot.Portal, stage string) (record string, err error) {
	record, err = portal.CreateDeal(map[string]string{"dealname": "Zażółć gęślą jaźń, metering", "pipeline": "default", "dealstage": "appointmentscheduled",
		"amount": "18400.00", "deal_currency_code": "EUR", "closedate": time.Now().UTC().Format(time.RFC3339)})
	if err != nil {
		return "", err
	}
	if _, err := portal.AddCompany(record, map[string]string{"name": "Müller & Söhne GmbH", "address": "Königstraße 1a", "zip": "70173", "city": "Stuttgart", "country": "Germany"}); err != nil {
		return "", err
	}
	if _, err := portal.AddContact(record, map[string]string{"firstname": "Zoé", "lastname": "Lefèvre", "email": stage + "@example.com", "jobtitle": "Head of Purchasing"}, "Signer"); err != nil {
		return "", err
	}
	if _, err := portal.AddLineItem(record, map[string]string{"name": "Metering platform", "hs_sku": "MP-100", "quantity": "1", "price": "18400.00", "amount": "18400.00", "hs_position_on_quote": "0"}); err != nil {
		return "", err
	}
	return record, portal.MoveStage(record, stage)
}

// await returns the contract of a record once the record says that it is sealed.
func await(portal *hubspot.Portal, record string, ended chan error) ([]byte, error) {
	limit := time.After(5 * time.Minute)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			ended <- err
			return nil, fmt.Errorf("the daemon ended: %v", err)
		case <-limit:
			return nil, fmt.Errorf("the deal is not sealed after five minutes")
		case <-tick.C:
		}
		r, err := portal.Record(record)
		if err != nil {
			return nil, err
		}
		switch status := r.Properties["dealseal_status"]; status {
		case "", "queued":
		case "signed":
			return contractOn(portal, record)
		default:
			return nil, fmt.Errorf("the record says %s: %s", status, r.Properties["dealseal_audit"])
		}
	}
}

func contractOn(portal *hubspot.Portal, record string) ([]byte, error) {
	files, err := portal.Files(record)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if strings.Contains(f.Path, "Order Form") || strings.Contains(f.Path, "order-form") {
			return f.Content, nil
		}
	}
	return nil, fmt.Errorf("none of the %d files on the record is the contract", len(files))
}

// configureDaemon writes what an administrator would. The box of the seal has a logo and a QR code.
func (h *house) configureDaemon(t *testing.T, dir, crm, token string, v variant) {
	t.Helper()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(path("templates"), os.DirFS("../../templates")); err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(path("templates/order-form/template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	const box = `role: seal, who: "Sealed by the supplier"`
	if !bytes.Contains(manifest, []byte(box)) {
		t.Fatal("the order form has no box to put a logo into")
	}
	write("templates/order-form/template.yaml", strings.Replace(string(manifest), box, box+`, logo: assets/logo.png, qr: "https://contracts.example/{tx}"`, 1))
	write("templates/order-form/assets/logo.png", string(logo(t)))
	master := make([]byte, 32)
	rand.Read(master)
	write("master-key", base64.StdEncoding.EncodeToString(master))
	write("passphrase", "a passphrase for conformance")
	write("token", token)
	h.saveKey(t, path("seal.key"), v)
	var profiles, rules strings.Builder
	for _, level := range levels {
		fmt.Fprintf(&profiles, "    p%s: {key: house, level: %s, name: Example, reason: \"Contract of transaction {tx}\", location: Paris, on_downgrade: fail%s}\n", level, level, v.profile)
		fmt.Fprintf(&rules, "  - {id: r%s, when: {stage: %s}, start_from: 2020-01-01T00:00:00Z, document: {template: order-form@1}, seal: p%s, write_back: {transaction_id: dealseal_transaction_id, "+
			"status: {field: dealseal_status}, signed_at: dealseal_signed_at, url: dealseal_document_url, audit: dealseal_audit}}\n", strings.ToLower(string(level)), stages[level], level)
	}
	wasm, err := filepath.Abs("../../build/typst.wasm")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	cache := work(t, "renderer") // what this test binary compiles is of no use to the daemon
	if err := os.MkdirAll(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(cache, path("state/renderer")); err != nil {
		t.Fatal(err)
	}
	write("dealseal.yaml", fmt.Sprintf("state_dir: %q\nmaster_key: %q\ntemplates: %q\nlisten: {admin: \"127.0.0.1:0\"}\nrenderer: {wasm: %q, children: 1, timeout: 5m}\nsigning:\n"+
		"  keys: {house: {kind: soft, file: %q, passphrase: %q}}\n  tsa: [{url: %q}]\n  trust: [%q]\n  profiles:\n%s",
		path("state"), "file:"+path("master-key"), path("templates"), wasm, path("seal.key"), "file:"+path("passphrase"), h.authority.URL(pki.PathTSA), h.root, profiles.String()))
	write("tenants/example.yaml", fmt.Sprintf("tenant: {id: example, name: Example, environment: sandbox, test_mark: off, time_zone: Europe/Paris, currency: EUR, seller: {address: \"1 Harbour Street, Bristol\"}}\n"+
		"crm: {kind: hubspot, with: {base_url: %q, auth: {flow: token, token: %q}, poll: 1s}}\nrules:\n%s", crm, "file:"+path("token"), rules.String()))
}

func (h *house) saveKey(t *testing.T, file string, v variant) {
	t.Helper()
	key, err := softkey.Generate(v.algorithm)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := h.authority.IssueSigner(key.Public(), pkix.Name{Country: []string{"FR"}, Organization: []string{"Example"}, CommonName: "Example Seal " + v.name})
	if err != nil {
		t.Fatal(err)
	}
	if key, err = key.WithChain(chain); err != nil {
		t.Fatal(err)
	}
	if err := key.Save(file, secret.New([]byte("a passphrase for conformance"))); err != nil {
		t.Fatal(err)
	}
}
