package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// account is a tenant whose deals are made up.
type account struct {
	tenant         deal.TenantID
	account        deal.AccountID
	name           string
	object, stage  string
	salesforce     bool
	share          int // of ten deals
	writeBack      deal.WriteBack
	recordURL      string
	recordPlaces   string // of the record's ID, for fmt; five zeros are left for the number of a copy
	occurrenceForm string
}

// houses have all of the deals.
var houses = []account{
	{tenant: "acme", account: "salesforce:00D5g000004XyZAEA0", name: "Acme Industries", object: "Opportunity", stage: "Closed Won", salesforce: true, share: 6,
		writeBack:    deal.WriteBack{TransactionID: "DealSeal_Transaction_ID__c", Status: "DealSeal_Status__c", SignedAt: "DealSeal_Signed_At__c", URL: "DealSeal_Document_URL__c", Audit: "DealSeal_Audit__c"},
		recordURL:    "https://acme.my.salesforce.com/%s",
		recordPlaces: "0065g00000%05XAAQ", occurrenceForm: "0085g00000%05XAAQ"},
	{tenant: "globex", account: "hubspot:14820933", name: "Globex", object: "deals", stage: "contractsent", share: 4,
		writeBack:    deal.WriteBack{TransactionID: "dealseal_transaction_id", Status: "dealseal_status", SignedAt: "dealseal_signed_at", URL: "dealseal_document_url", Audit: "dealseal_audit"},
		recordURL:    "https://app-eu1.hubspot.com/contacts/14820933/record/0-3/%s",
		recordPlaces: "18%09d"},
}

func (a *account) kind() deal.Kind {
	kind, _ := a.account.Split()
	return kind
}

func (a *account) watch() deal.Watch {
	return deal.Watch{Rule: "order-form", Object: a.object, Stage: a.stage}
}

func (a *account) plan() deal.Plan {
	profile, _ := json.Marshal(map[string]any{"Name": "contract", "Key": "house", "Level": "B-T", "OnDowngrade": "hold"})
	return deal.Plan{TenantName: a.name, TimeZone: "Europe/London", Currency: "EUR", Rule: "order-form", Stage: a.stage, Template: "order-form@1",
		Bundle: hexOf("bundle"), Profile: profile, WriteBack: a.writeBack, IfLeft: "hold", ReEntry: "hold", Retention: "contract"}
}

// pasts makes up deals, evenly over a span of time.
type pasts struct {
	rand       *rand.Rand
	from       int // the number of the first
	deals      int
	full, open int // of the newest
	first      time.Time
	span       time.Duration
}

// all yields them, oldest first.
func (p *pasts) all(yield func(store.Past) bool) {
	for i := range p.deals {
		if !yield(p.one(i)) {
			return
		}
	}
}

// one makes up the deal that so many are before.
func (p *pasts) one(i int) store.Past {
	h := &houses[0]
	if p.rand.IntN(10) >= h.share {
		h = &houses[1]
	}
	at := p.first.Add(time.Duration(float64(p.span) * float64(i) / float64(p.deals))).Truncate(time.Millisecond)
	record := fmt.Sprintf(h.recordPlaces, p.from+i)
	c := deal.Change{Rule: "order-form", Ref: deal.Ref{Object: h.object, ID: record}, Stage: h.stage, At: at.Add(-time.Duration(p.rand.IntN(30_000)) * time.Millisecond)}
	c.Occurrence = c.Stage + "@" + c.At.Format("2006-01-02T15:04:05.000Z")
	if h.salesforce {
		c.Occurrence = fmt.Sprintf(h.occurrenceForm, p.from+i)
	}
	s := &deal.Sealing{Tx: deal.NewTxID(h.account, c.Ref, c.Rule, c.Occurrence), Tenant: h.tenant, Account: h.account, Change: c, Plan: h.plan()}
	s.Facts.RecordURL = fmt.Sprintf(h.recordURL, record)
	p.private(s)
	end := ending{deal.Done, deal.Running, "", 0}
	if left := p.deals - i; left <= p.open {
		end = endings[left%len(endings)]
	}
	whole := i >= p.deals-max(p.full, p.open)
	past := store.Past{Sealing: s, History: p.history(s, at, end, whole)}
	p.facts(s, past.History)
	return past
}

// ending is where a deal has come to.
type ending struct {
	step      deal.Step
	condition deal.Condition
	reason    string
	attempts  int
}

// endings of the newest deals: what an operator finds on any day.
var endings = []ending{
	{deal.Noticed, deal.Held, "gather: the printed total is not the amount of the record: correct the lines or the amount, then release the deal", 0},
	{deal.Rendered, deal.Held, "[left] the deal left its stage before it was sealed: release to seal it all the same, or drop", 0},
	{deal.Noticed, deal.Dead, "gather: the integration user may not read the record (after 12 attempts)", 12},
	{deal.Kept, deal.Retrying, "attach: the CRM answers 503", 3},
	{deal.Rendered, deal.Retrying, "seal: no TSA has answered", 2},
	{deal.Gathered, deal.Running, "", 0},
	{deal.Noticed, deal.Ended, "voided: the deal left its stage before it was sealed", 0},
}

// act is a commit of a deal's usual way.
type act struct {
	step   deal.Step // reached with it; empty for the one before
	what   string
	intent string
	why    string
	event  string
	brief  bool // is there in a history that is cut short
}

// way is what the ledger takes down of a deal that goes well, as the engine words it.
var way = []act{
	{step: deal.Noticed, what: "noticed", event: "envelope.created", brief: true},
	{intent: "gather"}, {step: deal.Gathered, what: "gathered", why: "the mapped fields were read and checked"},
	{intent: "render"}, {step: deal.Rendered, what: "rendered", why: "order-form@1"},
	{intent: "prepare"}, {what: "prepared", why: "level B-T, key house"},
	{what: "digest-committed", why: "this digest and no other is signed"},
	{intent: "sign"}, {what: "signed", why: "by CN=Acme Electronic Seal,O=Acme Industries,C=GB"},
	{intent: "timestamp"}, {what: "time-stamped", why: "token of 5310 bytes"},
	{intent: "complete"}, {step: deal.Sealed, what: "sealed", event: "document.signed", brief: true},
	{intent: "check"}, {step: deal.Checked, what: "verified", why: "valid, level B-T, second reader: valid", event: "document.validated"},
	{intent: "keep"}, {step: deal.Kept, what: "archived"}, {what: "audit-trail-made"},
	{intent: "attach"}, {step: deal.Attached, what: "attached", event: "document.attached", brief: true},
	{intent: "report"}, {step: deal.Reported, what: "reported", why: "the record shows signed"},
	{step: deal.Done, what: "done", event: "envelope.completed", brief: true},
}

// history walks the way up to an ending.
func (p *pasts) history(s *deal.Sealing, at time.Time, end ending, whole bool) (all []store.Happening) {
	step := deal.Noticed
	for _, a := range way {
		if a.step != "" {
			if end.step.Before(a.step) {
				break
			}
			step = a.step
		}
		if !whole && !a.brief {
			continue
		}
		h := store.Happening{At: at, Step: step, Condition: deal.Running, Entry: deal.Entry{Who: "daemon", What: a.what, Why: a.why}}
		if a.intent != "" {
			h.Intent = &deal.Intent{Step: step, What: a.intent, Lease: 2 * time.Minute}
			if a.intent == "sign" {
				h.Intent.Digest, h.Intent.Key = hexOf("digest", s.Tx), hexOf("key")
			}
		}
		if a.event != "" {
			h.Entry.Events = []deal.Event{{Type: a.event, Data: map[string]string{"sha256": hexOf("contract", s.Tx)}}}
		}
		all = append(all, h)
		at = at.Add(time.Duration(4+p.rand.IntN(90)) * time.Millisecond)
	}
	s.Step, s.Condition, s.Reason, s.Attempts = end.step, end.condition, end.reason, end.attempts
	if end.condition == deal.Retrying {
		s.Next = at.Add(time.Hour)
	}
	if end.condition != deal.Running {
		all = append(all, store.Happening{At: at, Step: end.step, Condition: end.condition, Entry: deal.Entry{Who: "daemon", What: string(end.condition), Why: end.reason}})
	}
	return all
}

// facts states what is known of a deal at the step that it has reached.
func (p *pasts) facts(s *deal.Sealing, history []store.Happening) {
	f, reached := &s.Facts, func(step deal.Step) bool { return !s.Step.Before(step) }
	at := history[len(history)-1].At
	file := func(of string) *deal.FileFact {
		return &deal.FileFact{SHA256: hexOf(of, s.Tx), MD5: hexOf("md5", s.Tx)[:32], Size: 40_000 + int64(p.rand.IntN(60_000))}
	}
	if reached(deal.Gathered) {
		f.Gathered, f.Record = history[0].At, hexOf("record", s.Tx)
	}
	if reached(deal.Rendered) {
		f.Unsigned, f.RenderKey, f.Generation = file("unsigned"), hexOf("render", s.Tx), 1
	}
	if reached(deal.Sealed) {
		f.Contract, f.Digest, f.Signature, f.SealedAt = file("contract"), hexOf("digest", s.Tx), true, at.Truncate(time.Second)
		f.Cert = &deal.CertFact{SHA256: hexOf("certificate"), SPKI: hexOf("key"), Serial: "5b2f9c41d07ae385", Subject: "CN=Acme Electronic Seal,O=Acme Industries,C=GB",
			Issuer: "CN=Example Trust Seal CA 2,O=Example Trust,C=GB", NotAfter: p.first.AddDate(5, 0, 0), Digest: "SHA-256"}
	}
	if reached(deal.Checked) {
		f.Level, f.Verdict, f.SecondOpinion = "B-T", "valid", "valid"
	}
	if reached(deal.Kept) {
		f.Archive, f.Trail = fmt.Sprintf("%s/%s/%s", s.Tenant, at.Format("2006/01"), s.Tx), file("trail")
	}
	if reached(deal.Attached) {
		f.Attachment = &deal.Attachment{ID: "file-" + string(s.Tx[:8]), URL: s.Facts.RecordURL}
		f.AuditTrail = &deal.Attachment{ID: "trail-" + string(s.Tx[:8]), URL: s.Facts.RecordURL}
	}
}

// private makes up what a person would find in the document.
func (p *pasts) private(s *deal.Sealing) {
	customer, subject := p.customer(), pick(p.rand, subjects)
	amount := fmt.Sprintf("%d.%02d", 500+p.rand.IntN(90_000), p.rand.IntN(100))
	values, document := map[string]any{}, map[string]any{
		"meta": map[string]any{"tx": s.Tx, "template": "order-form@1"}, "subject": subject, "currency": "EUR",
		"customer": map[string]any{"name": customer, "address": "Speicherstraße 8, 20457 Hamburg, Germany"},
		"total":    map[string]any{"value": amount, "currency": "EUR"},
	}
	if s.Change.Ref.Object == "deals" {
		values["dealname"], values["amount"], values["company"] = subject, amount, map[string]any{"name": customer}
	} else {
		values["Name"], values["Amount"], values["Account"] = subject, amount, map[string]any{"Name": customer}
	}
	s.Private.Values, _ = json.Marshal(values)
	s.Private.Document, _ = json.Marshal(document)
	s.Private.FileName = fmt.Sprintf("Order Form %s %s.pdf", customer, s.Tx)
}

func (p *pasts) customer() string {
	return fmt.Sprintf("%s %s %s", pick(p.rand, firsts), pick(p.rand, trades), pick(p.rand, forms))
}

var (
	firsts   = strings.Fields("Brightwater Ångström Østfold Silvershore Kowalski Müller Dubois Ferreira Tanaka Harbour Linden Northgate Castell Okafor Yılmaz Papadakis Rossi Novák Erikson Byrne")
	trades   = strings.Fields("Logistics Instruments Foods Robotics Textiles Analytics Optics Shipping Energy Ceramics Pharma Media Tools Timber Aviation Chemicals")
	forms    = strings.Fields("GmbH Ltd S.A. B.V. AB Inc. S.p.A. Oy")
	subjects = []string{"Cold chain monitoring, full roll-out", "Warehouse sensors, second site", "Support and maintenance, 36 months", "Pilot installation", "Fleet licence, 250 seats"}
)

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

// hexOf is a made-up hash that looks like one and is always the same.
func hexOf(of string, tx ...deal.TxID) string {
	sum := sha256.Sum256(fmt.Append(nil, of, tx))
	return hex.EncodeToString(sum[:])
}
