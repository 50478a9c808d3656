package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	foreign "github.com/digitorus/pdfsign/sign"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/esign"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/softkey"
	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/store"
)

// delegating is a world in which one rule of its only tenant is a vendor's.
type delegating struct {
	*stage
	c      crm
	vendor *esign.Vendor
	kind   esign.Kind
	// key is the vendor's, with the certificates of an authority that nobody else trusts.
	key   *softkey.Key
	trust *pki.Authority
}

// ruleDelegated watches the stage of a rule that it takes the place of.
const ruleDelegated = ruleStrict

func newDelegating(t *testing.T, crmKind deal.Kind, kind esign.Kind, binary string) *delegating {
	t.Helper()
	w := newWorld(t, worldOptions{crms: []deal.Kind{crmKind}, binary: binary})
	w.logEverything()
	d := &delegating{stage: &stage{world: w}, c: w.crms[0], kind: kind}
	d.newVendor(t)
	return d
}

// newVendor makes the vendor with a certificate authority of its own, and has the tenant delegate to it.
func (d *delegating) newVendor(t *testing.T) {
	t.Helper()
	var authority http.Handler
	url := d.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { authority.ServeHTTP(w, r) }))
	a, err := pki.New(pki.Options{BaseURL: url, Organisation: "Vendor Trust"})
	must(t, err)
	authority, d.trust = a, a
	d.key, err = softkey.Generate(softkey.P256)
	must(t, err)
	chain, err := a.IssueSigner(d.key.Public(), pkix.Name{CommonName: "Vendor Seal", Organization: []string{"Vendor"}})
	must(t, err)
	d.key, err = d.key.WithChain(chain)
	must(t, err)
	must(t, os.WriteFile(d.path("vendor.pem"), a.RootPEM(), 0o600))

	var documents http.Handler
	at := d.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { documents.ServeHTTP(w, r) }))
	secret, token := rand.Text(), rand.Text()
	sign, level := d.withOurs, "B-T"
	name, dialect, where, header := "certyneo", "certyneo", at+"/documents/", ""
	switch d.kind {
	case esign.CertyneoCRM:
		dialect = "x-certyneo"
	case esign.SDF: // whose documents another library signs, in a form that is no level of PAdES
		sign, level = d.withOthers, "any"
		name, dialect, where, header = "sdf", "sdf", at+"/documents/{id}/proof.pdf", ", header: X-API-Key"
	}
	d.vendor = esign.New(esign.Options{Kind: d.kind, URL: at, Secret: secret, Token: token, Sign: sign})
	documents = d.vendor
	d.rewrite(t, "dealseal.yaml", `listen: {admin: "127.0.0.1:0"}`, fmt.Sprintf(`listen: {admin: "127.0.0.1:0", public: "127.0.0.1:0", url: %q}`, senderURL))
	file := "tenants/" + d.c.tenant() + ".yaml"
	d.rewrite(t, file, `document: {attachment: "Quote*.pdf"}, seal: strict, audit_trail: none`, fmt.Sprintf("delegated: {vendor: %s, envelope: %s, level: %s}, audit_trail: audit-trail@1", name, envelopeField(d.c), level))
	d.rewrite(t, file, "rules:\n", fmt.Sprintf("vendors:\n  - {name: %s, dialect: %s, secrets: [%q], documents: %q, token: %q%s, trust: [%q]}\nrules:\n", name, dialect,
		d.secretFile("vendor-secret", secret), where, d.secretFile("vendor-token", token), header, d.path("vendor.pem")))
	if c, ok := d.c.(*hubspotCRM); ok {
		must(t, c.portal.AddProperty("deals", hubspot.Property{Name: envelopeField(d.c), Label: "Envelope", Type: "string", FieldType: "text", GroupName: "dealinformation"}))
	}
}

// envelopeField is where the vendor's integration with the CRM writes the ID of an envelope.
func envelopeField(c crm) string {
	if c.kind() == deal.HubSpot {
		return "certyneo_transaction_id"
	}
	return "NextStep"
}

// name has the vendor's integration write the ID of an envelope to a record.
func (d *delegating) name(record, envelope string) {
	switch c := d.c.(type) {
	case *hubspotCRM:
		c.set(record, envelopeField(c), envelope)
	case *salesforceCRM:
		c.update(record, envelopeField(c), envelope)
	}
}

// begin starts the daemon, for the first time or again.
func (d *delegating) begin(t *testing.T, env ...string) {
	t.Helper()
	d.daemon = d.start(t, env...)
	d.ops = d.control(t, d.stateDir)
	d.connect(t)
}

// connect has the vendor post to the daemon that runs now.
func (d *delegating) connect(t *testing.T) {
	t.Helper()
	source := map[esign.Kind]string{esign.SDF: "sdf"}[d.kind]
	if source == "" {
		source = "certyneo"
	}
	d.vendor.Target(senderURL+"/webhooks/"+d.c.tenant()+"/"+source, d.daemon.sender(t))
}

// withOurs signs to B-T.
func (d *delegating) withOurs(pdf []byte) ([]byte, error) {
	roots := x509.NewCertPool()
	roots.AddCert(d.trust.Root.Certificate)
	stamper, err := tsa.NewClient([]tsa.Server{{URL: d.trust.URL(pki.PathTSA)}}, tsa.Options{Roots: roots})
	if err != nil {
		return nil, err
	}
	ctx, sealer := context.Background(), signing.NewSealer(oneKey{d.key}, stamper, time.Now)
	doc := bytes.NewReader(pdf)
	t, err := sealer.Prepare(ctx, doc, signing.Request{Profile: signing.Profile{Key: "vendor", Level: pades.BT}})
	if err != nil {
		return nil, err
	}
	value, err := sealer.Redeem(ctx, t)
	if err != nil {
		return nil, err
	}
	token, err := sealer.Timestamp(ctx, t, value)
	if err != nil {
		return nil, err
	}
	tail, _, err := sealer.Complete(t, value, token)
	return append(bytes.Clone(pdf), tail...), err
}

// withOthers signs with digitorus/pdfsign.
func (d *delegating) withOthers(pdf []byte) ([]byte, error) {
	dir, err := os.MkdirTemp(d.dir, "foreign")
	if err != nil {
		return nil, err
	}
	in, out := filepath.Join(dir, "in.pdf"), filepath.Join(dir, "out.pdf")
	if err := os.WriteFile(in, pdf, 0o600); err != nil {
		return nil, err
	}
	err = foreign.SignFile(in, out, foreign.SignData{
		Signature: foreign.SignDataSignature{CertType: foreign.CertificationSignature, DocMDPPerm: foreign.DoNotAllowAnyChangesPerms, Info: foreign.SignDataSignatureInfo{Date: time.Now()}},
		Signer:    d.key, DigestAlgorithm: crypto.SHA256, Certificate: d.key.Chain()[0], CertificateChains: [][]*x509.Certificate{d.key.Chain()},
	})
	if err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

// oneKey is one key under every name.
type oneKey struct{ signing.Key }

func (k oneKey) Open(context.Context, string) (signing.Key, error) { return k.Key, nil }
func (k oneKey) Close() error                                      { return nil }

// enterWith moves a record into the stage of the delegated rule; its envelope is named if it has one yet.
func (d *delegating) enterWith(envelope string) (record string) {
	record = d.c.open(sale{})
	if envelope != "" {
		d.name(record, envelope)
	}
	d.c.move(record, ruleDelegated)
	return record
}

func (d *delegating) tell(t *testing.T, envelope, what, note string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, d.vendor.Tell(ctx, envelope, what, note))
}

func (d *delegating) awaiting(t *testing.T, record string, words ...string) *store.Story {
	t.Helper()
	return await(t, d.ops, record, 1, fmt.Sprintf("awaiting, saying %q", words), func(m store.Summary) bool {
		ok := m.Condition == deal.Retrying && strings.HasPrefix(m.Reason, deal.ReasonAwaiting)
		for _, word := range words {
			ok = ok && strings.Contains(m.Reason, word)
		}
		return ok
	})
}

// mustBeDelegated holds a deal that is done against what its vendor has signed.
func (d *delegating) mustBeDelegated(t *testing.T, record, envelope, level string) *store.Story {
	t.Helper()
	story := awaitDone(t, d.ops, record)
	mustUseTheKey(t, story, 0)
	mustShow(t, d.c, record, deal.StatusSigned)
	mustBear(t, d.c, record, 1)
	f := story.Sealing.Facts
	if f.Digest != "" || f.Signature || f.Level != level || f.Verdict != "VALID" || f.Cert == nil || !strings.Contains(f.Cert.Subject, "Vendor Seal") || f.Envelope != envelope {
		t.Errorf("the contract of %s: level %q, verdict %s, by %+v, digest %q, envelope %q", record, f.Level, f.Verdict, f.Cert, f.Digest, f.Envelope)
	}
	trails := 0
	for _, file := range d.c.files(record) {
		switch {
		case file.contract() && !bytes.Equal(file.content, d.vendor.Document(envelope)):
			t.Errorf("%s bears other bytes than those that were signed", record)
		case file.trail():
			trails++
		}
	}
	if trails != 1 {
		t.Errorf("%s bears %d audit trails", record, trails)
	}
	audit, ok := deal.ReadAuditRecord(d.c.shown(record)["audit"])
	if !ok || audit.Fingerprint != f.Cert.SHA256 || audit.Level != level {
		t.Errorf("%s: the audit record is %+v", record, audit)
	}
	return story
}

func TestAVendorSignsInOurPlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		crm   deal.Kind
		kind  esign.Kind
		level string
	}{
		"certyneo, salesforce":  {deal.Salesforce, esign.Certyneo, "B-T"},
		"certyneo-crm, hubspot": {deal.HubSpot, esign.CertyneoCRM, "B-T"},
		"sdf, hubspot":          {deal.HubSpot, esign.SDF, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDelegating(t, c.crm, c.kind, "")
			d.begin(t)
			d.follows(t, c.level)
			if c.kind == esign.Certyneo {
				d.answers(t)
			}
			d.daemon.stop(t)
			d.tellsNothing(t)
		})
	}
}

// follows takes a deal to its end whose envelope is started after it has entered its stage.
func (d *delegating) follows(t *testing.T, level string) {
	t.Helper()
	record := d.enterWith("")
	d.awaiting(t, record, "names no envelope")
	mustShow(t, d.c, record, deal.StatusAwaiting)
	d.vendor.Send("env_1", "Order of "+hiddenCustomer)
	d.name(record, "env_1")
	d.tell(t, "env_1", "sent", "")
	d.awaiting(t, record, "env_1", "sent")
	must(t, d.vendor.Sign("env_1", quotation(1)))
	d.vendor.Refuse(1, http.StatusServiceUnavailable)
	d.tell(t, "env_1", "completed", "")
	d.mustBeDelegated(t, record, "env_1", level)
	d.tell(t, "env_1", "completed", "") // again, at another time
	if given, strangers := d.vendor.Fetched(); given != 1 || strangers != 0 {
		t.Errorf("the document was given %d times, and %d strangers came", given, strangers)
	}
	// An event may come before the record names its envelope, and before the deal itself.
	d.vendor.Send("env_2", "")
	must(t, d.vendor.Sign("env_2", quotation(2)))
	d.tell(t, "env_2", "completed", "")
	d.tell(t, "env_2", "sent", "")
	d.mustBeDelegated(t, d.enterWith("env_2"), "env_2", level)
}

// answers tries what the vendor, or somebody else, may post.
func (d *delegating) answers(t *testing.T) {
	t.Helper()
	body := func(envelope, what string) []byte {
		t.Helper()
		b, err := d.vendor.Body(envelope, what, "", time.Now())
		must(t, err)
		return b
	}
	now := time.Now()
	again := body("env_foreign", "completed")
	for _, step := range []struct {
		what string
		body []byte
		at   time.Time
		want int
	}{
		{"an envelope that is no deal's", again, now, http.StatusOK},
		{"the very same once more, as after an answer that was lost", again, now, http.StatusOK},
		{"the same, signed anew", again, now.Add(time.Second), http.StatusOK},
		{"an event that is not known here", []byte(`{"event":"recipient.bounced","envelope_id":"env_1","occurred_at":"2026-03-15T14:32:10Z","data":{}}`), now, http.StatusOK},
		{"signed too long ago", body("env_foreign", "sent"), now.Add(-10 * time.Minute), http.StatusBadRequest},
		{"no event", []byte(`{"hello":1,"event":"envelope.sent"}`), now, http.StatusBadRequest},
	} {
		if got, err := d.vendor.Post(t.Context(), step.body, step.at); err != nil || got != step.want {
			t.Errorf("%s: answered %d, %v; want %d", step.what, got, err, step.want)
		}
	}
	forger := esign.New(esign.Options{Kind: d.kind, Secret: "guessed", Target: senderURL + "/webhooks/" + d.c.tenant() + "/certyneo", Client: d.daemon.sender(t)})
	if got, err := forger.Post(t.Context(), again, now); err != nil || got != http.StatusUnauthorized {
		t.Errorf("a forger is answered %d, %v", got, err)
	}
	record := d.enterWith("env_foreign") // whose document cannot be had
	d.vendor.Send("env_foreign", "")
	awaitHeld(t, d.ops, record, 1, "the vendor answers 404", "have the vendor tell of the envelope again")
	mustShow(t, d.c, record, deal.StatusHeld)
	d.name(record, "env_declined")
	conclude(t, d.ops, "release", sealings(t, d.ops, record)[0].Tx)
	d.awaiting(t, record, "env_declined")
	d.tell(t, "env_declined", "declined", hiddenText)
	story := await(t, d.ops, record, 1, "refused", func(m store.Summary) bool { return m.Condition == deal.Ended })
	mustShow(t, d.c, record, deal.StatusRefused)
	if said := d.c.shown(record)["audit"]; !strings.Contains(said, hiddenText) {
		t.Errorf("the record does not say why: %s", said)
	}
	if stdout, stderr, code := d.run(t, "explain", string(story.Sealing.Tx)); code != exitOK || !strings.Contains(stdout, "signed at certyneo") || !strings.Contains(stdout, "env_declined") || strings.Contains(stdout, hiddenText) {
		t.Errorf("explain: exit code %d\n%s%s", code, stdout, stderr)
	}
}

// tellsNothing searches what the daemon has said and kept.
func (d *delegating) tellsNothing(t *testing.T) {
	t.Helper()
	log := d.daemon.log()
	for _, hidden := range append(d.secrets, hiddenCustomer, hiddenPerson, hiddenMail, hiddenText) {
		if strings.Contains(log, hidden) {
			t.Errorf("the log holds %.10q…", hidden)
		}
	}
	must(t, filepath.WalkDir(d.stateDir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, hidden := range []string{hiddenCustomer, hiddenPerson, hiddenMail, hiddenText, "proof.pdf"} {
			if bytes.Contains(b, []byte(hidden)) {
				t.Errorf("%s holds %.10q…", path, hidden)
			}
		}
		return err
	}))
}
