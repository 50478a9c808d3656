package engine

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/mocks/pki"
)

// The canary is the subject, the customer, the goods and a part of the quotation's name. Deals go every way that an error
// can take; then it must be found in no log, no reason, no audit line, no receipt and in no file in the clear.
func TestNoRecordValueReachesALogAnErrorOrAnAuditLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	templated := w.rule(withTemplate(t), func(p *deal.Plan) { p.Rule, p.Stage = "order-form", stageLost })
	tenant := d.Tenants[0]
	tenant.Rules = append(tenant.Rules, templated)
	d.Tenants = nil
	d.addTenant(tenant)

	w.won()
	d.wantDone(d.run())
	w.move(w.deal(), stageLost)
	d.wantDone(d.run())

	wrong := w.deal()
	must(t, w.org.SetRaw(wrong, "Amount", "31415.92"))
	w.move(wrong, stageLost)
	if s := d.run(); s.Condition != deal.Held || strings.Contains(s.Reason, "31415") {
		t.Errorf("a wrong total: %s, %q", s.Condition, s.Reason)
	}
	hostile := w.deal()
	must(t, w.org.Update(hostile, map[string]any{"Name": canary + "\u202e"}))
	w.move(hostile, stageLost)
	if s := d.run(); s.Condition != deal.Held {
		t.Errorf("a text that runs backwards: %s", s.Condition)
	}
	for _, f := range []mock.Fault{
		{Kind: mock.KindUpdate, Effect: mock.ValidationRule, Message: canary},
		{Kind: mock.KindUpload, Effect: mock.APIError, Status: 400, Code: "STRING_TOO_LONG", Message: canary},
		{Kind: mock.KindQuery, Path: "FROM Opportunity WHERE", Effect: mock.APIError, Status: 400, Code: "MALFORMED_QUERY", Message: canary},
	} {
		w.won()
		tx := d.notice()
		w.fault(f)
		d.finish()
		if s := d.load(tx); s.Condition != deal.Dead {
			t.Errorf("%s refused: the deal is %s", f.Kind, s.Condition)
		}
		w.org.ClearFaults()
	}
	w.authority.SetFault(pki.ServiceTSA, pki.Garbage, -1)
	w.won()
	d.run()
	d.tell()

	if strings.Contains(d.log.String(), canary) {
		t.Error("the log quotes a record")
	}
	for tx := range d.all() {
		story := d.story(tx)
		for _, l := range story.Trail {
			if strings.Contains(l.What+l.Why, canary) {
				t.Errorf("an audit line quotes the record: %s, %s", l.What, l.Why)
			}
		}
		if s := story.Sealing; strings.Contains(s.Reason, canary) || strings.Contains(w.shown(s.Change.Ref.ID, fieldAudit), canary) {
			t.Errorf("a reason or receipt quotes the record: %s", s.Reason)
		}
	}
	d.close()
	notInTheClear(t, d.dir)
}

// notInTheClear reads every file below dir.
func notInTheClear(t *testing.T, dir string) {
	t.Helper()
	read := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(canary)) {
			t.Errorf("%s holds a record value in the clear", filepath.Base(path))
		}
		read++
		return err
	})
	must(t, err)
	if read < 5 {
		t.Errorf("only %d files were looked into", read)
	}
}
