package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

// Envelopes is what is known of what vendors have people sign. Safe for concurrent use.
type Envelopes interface {
	// VendorTold returns what a vendor has told of an envelope, in the order in which it came.
	VendorTold(ctx context.Context, e deal.Envelope) ([]deal.VendorEvent, error)
	// EnvelopeHolder returns the transaction whose an envelope is, "" if nobody's. Advance makes Facts.Envelope the sealing's
	// own, and has one that is to wait for its vendor go on if more was told than Facts.Heard.
	EnvelopeHolder(ctx context.Context, e deal.Envelope) (deal.TxID, error)
}

// Vendor has people sign documents in the place of our key.
type Vendor interface {
	// Fetch writes the document of an envelope, at most limit bytes of it, or returns an error: half of one is none. url is where
	// the vendor has said that it is, if it has.
	Fetch(ctx context.Context, envelope, url string, to io.Writer, limit int64) error
	// Check reads a document of the vendor's with both readers.
	Check(ctx context.Context, doc pades.Document) (*verify.Report, error)
}

// followStep is between gathered and sealed for deals whose contract a vendor has people sign: it takes the place of making and
// sealing one. No key of ours is anywhere near.
var followStep = step{name: "follow", from: deal.Gathered, do: (*run).follow, asks: true,
	begins: []string{"follow", "fetch"}, calls: []string{"record", "document"}, advances: []string{"told", "fetched"}}

// DelegatedPoints lists the places of that step at which a crash must lose and double nothing, as Points does of the others.
func DelegatedPoints() []string { return pointsOf([]step{followStep}) }

// stepOf is the step that leads on from where a sealing is, nil at the end of the way.
func stepOf(s *deal.Sealing) *step {
	if s.Plan.Delegated != nil && s.Step == followStep.from {
		return &followStep
	}
	return stepFrom(s.Step)
}

// longestSilence is the most time between two looks at a record whose vendor says nothing. Events are not waited for that long:
// this is for those that were lost, and for records that name another envelope than before.
const longestSilence = 6 * time.Hour

// awaitError says that the vendor's turn has not come to its end. It is no failure, and uses up no attempt.
type awaitError struct {
	what string
	// cause is what others may wake the deal for, besides its own envelope; empty for nothing.
	cause string
}

func (e *awaitError) Error() string { return e.what }

// follow looks at what the vendor has told of the envelope that the record names, and fetches what was signed.
func (r *run) follow(ctx context.Context) error {
	s, d := r.s, r.s.Plan.Delegated
	if err := r.begin(ctx, deal.Intent{What: "follow"}); err != nil {
		return err
	}
	vendor, err := r.vendor()
	if err != nil {
		return err
	}
	rec, _, err := r.read(ctx, "record")
	if err != nil {
		return err
	}
	env := deal.Envelope{Tenant: s.Tenant, Vendor: d.Vendor, ID: strings.TrimSpace(rec.Text(d.Field))}
	if err := r.mayFollow(ctx, env); err != nil {
		return err
	}
	told, err := r.Envelopes.VendorTold(ctx, env)
	if err != nil {
		return err
	}
	if err := r.passOn(ctx, env, told); err != nil {
		return err
	}
	newest, known := deal.Newest(told)
	switch newest.News {
	case deal.EnvelopeCompleted:
		return r.fetch(ctx, vendor, newest)
	case deal.EnvelopeDeclined:
		s.Private.Declined = newest.Reason
		return r.endAs(ctx, deal.ReasonRefused+"somebody has declined to sign at "+d.Vendor, "envelope.declined")
	case deal.EnvelopeExpired:
		return r.endAs(ctx, deal.ReasonExpired+"not everybody has signed in time at "+d.Vendor, "envelope.expired")
	case deal.EnvelopeVoided:
		return r.endAs(ctx, deal.ReasonVoided+"the envelope was cancelled at "+d.Vendor, "envelope.voided")
	case deal.EnvelopeFailed:
		return deal.Hold("%s says that envelope %s has failed there: mend it at %s; once it has told of a document that is signed, release the deal, or drop it", d.Vendor, env.ID, d.Vendor)
	}
	if !known {
		return r.await(&awaitError{what: fmt.Sprintf("%s has told nothing of envelope %s yet", d.Vendor, env.ID)})
	}
	return r.await(&awaitError{what: fmt.Sprintf("%s has envelope %s, which is %s", d.Vendor, env.ID, newest.News)})
}

// passedOn are the news of a vendor that others are told as they are. What ends an envelope, and what is signed, they are told by
// what that leads to here.
var passedOn = map[deal.EnvelopeNews]string{deal.EnvelopeSent: "envelope.sent", deal.EnvelopeViewed: "recipient.viewed", deal.EnvelopeSigned: "recipient.signed"}

// passOn takes note of what the vendor has told, and commits the events of what is new in it before anything comes of it: so
// each is told once, in the order in which the vendor told it, whatever becomes of the step. The record shows the same as before.
func (r *run) passOn(ctx context.Context, env deal.Envelope, told []deal.VendorEvent) error {
	s := r.s
	if s.Facts.Envelope != env.ID {
		s.Facts.Envelope, s.Facts.Heard = env.ID, 0
	}
	var events []deal.Event
	for _, e := range told[min(s.Facts.Heard, len(told)):] {
		if kind, passes := passedOn[e.News]; passes {
			events = append(events, deal.Event{Type: kind, Data: map[string]string{"vendor": env.Vendor, "envelope": env.ID, "at": e.At.UTC().Format("2006-01-02T15:04:05.000Z")}})
		}
	}
	if s.Facts.Heard = len(told); events == nil {
		return nil
	}
	const p = "follow.advance.told"
	r.hook(p + "/before")
	if err := r.advanceAndBegin(ctx, deal.Entry{Who: "daemon", What: "passed-on", Why: "what " + env.Vendor + " has told of its envelope", Events: events}); err != nil {
		return err
	}
	r.hook(p + "/after")
	return nil
}

// vendor is that of the plan, as it is configured now.
func (r *run) vendor() (Vendor, error) {
	name := r.s.Plan.Delegated.Vendor
	if r.Vendor != nil {
		if v, ok := r.Vendor(r.s.Tenant, name); ok {
			return v, nil
		}
	}
	return nil, held(HoldUnconfigured, "tenant %q has no vendor %q any more: put it back under vendors, and reload", r.s.Tenant, name)
}

// mayFollow waits until the record names an envelope, and one that no other deal has: a record that enters its stage again
// goes on naming the one before until somebody starts another.
func (r *run) mayFollow(ctx context.Context, env deal.Envelope) error {
	field := r.s.Plan.Delegated.Field
	cause := deal.WaitsForEnvelope(env.Vendor)
	if !deal.IsEnvelopeID(env.ID) {
		return r.await(&awaitError{what: fmt.Sprintf("the record names no envelope of %s in %s yet", env.Vendor, field), cause: cause})
	}
	holder, err := r.Envelopes.EnvelopeHolder(ctx, env)
	if err != nil || holder == "" || holder == r.s.Tx {
		return err
	}
	return r.await(&awaitError{what: fmt.Sprintf("the record names in %s an envelope of %s that is that of %s, and no other yet", field, env.Vendor, holder), cause: cause})
}

// await is its error, unless the vendor's time is over: then a person has to look.
func (r *run) await(e *awaitError) error {
	d := r.s.Plan.Delegated
	if r.waited() >= d.Patience {
		return deal.Hold("%s, and that for %s: look at %s, have it tell of the envelope again, then release the deal, or drop it", e.what, strings.TrimSuffix(d.Patience.String(), "0m0s"), d.Vendor)
	}
	return e
}

// waited is how long the deal has waited for its vendor.
func (r *run) waited() time.Duration { return r.Now().Sub(r.s.Facts.Times[deal.Gathered]) }

// sleep commits that a deal waits for its vendor. It is woken by what the vendor tells, and looks by itself the more rarely the
// longer it lasts.
func (r *run) sleep(ctx context.Context, e *awaitError) deal.Outcome {
	s := r.s
	s.Condition, s.Reason, s.Attempts, s.Facts.WaitsFor = deal.Retrying, deal.ReasonAwaiting+e.what, 0, e.cause
	s.Next = r.Now().Add(min(max(r.waited()/2, r.Retry.First), longestSilence))
	if err := r.Ledger.Advance(ctx, s, deal.Entry{Who: "daemon", What: "awaiting", Why: s.Reason}); err != nil {
		if ctx.Err() == nil && !errors.Is(err, deal.ErrStale) {
			r.Log.ErrorContext(ctx, "what happened could not be written down", "err", err)
		}
		return deal.Outcome{Again: 2 * time.Second}
	}
	r.Log.InfoContext(ctx, "waits for its vendor", "why", e.what)
	return deal.Outcome{Again: max(s.Next.Sub(r.Now()), time.Millisecond)}
}

// endAs ends a deal because of what its vendor says. Should the vendor say after all that it is signed, it goes on.
func (r *run) endAs(ctx context.Context, reason, event string) error {
	s := r.s
	s.Condition, s.Reason = deal.Ended, reason
	s.Facts.Waits++
	r.Log.InfoContext(ctx, "ended", "reason", reason)
	if err := r.Ledger.Advance(ctx, s, deal.Entry{Who: "daemon", What: "ended", Why: reason, Events: []deal.Event{{Type: event, Data: map[string]string{"reason": reason}}}}); err != nil {
		return &commitError{err}
	}
	return nil
}

// fetch stages the document that was signed. What it is worth, check says.
func (r *run) fetch(ctx context.Context, v Vendor, e deal.VendorEvent) error {
	s, d := r.s, r.s.Plan.Delegated
	if err := r.begin(ctx, deal.Intent{What: "fetch", Lease: transferLease}); err != nil {
		return err
	}
	var fact deal.FileFact
	var head beginning
	err := r.ask(ctx, "document", uploadLimit, func(ctx context.Context) (err error) {
		fact, err = r.Files.Stage(ctx, s.Tx, fileContract, func(w io.Writer) error {
			return v.Fetch(ctx, e.Envelope, e.URL, io.MultiWriter(w, &head), maxAttachment)
		})
		return err
	})
	switch {
	case err != nil:
		return asHold(err)
	case string(head) != "%PDF-":
		return deal.Hold("what %s gives as the document of envelope %s is no PDF: see what vendors.documents leads to, then release the deal", d.Vendor, e.Envelope)
	}
	s.Facts.Contract, s.Private.FileName = &fact, nameOf(e)
	return r.advance(ctx, "fetched", deal.Sealed, deal.Entry{What: "fetched", Why: fmt.Sprintf("the document of envelope %s, which was signed at %s: SHA-256 %s", e.Envelope, d.Vendor, fact.SHA256),
		Detail: map[string]string{"sha256": fact.SHA256, "envelope": e.Envelope}, Events: []deal.Event{{Type: "document.signed", Data: map[string]string{"sha256": fact.SHA256}}}})
}

// longestTitle is how many characters of a title a file's name has at most.
const longestTitle = 100

// nameOf is the name of the file on the record: that of the envelope, as far as it can be one.
func nameOf(e deal.VendorEvent) string {
	title := strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || strings.ContainsRune(`/\:*?"<>|`, c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(e.Title, ""))
	title = strings.Join(strings.Fields(title), " ")
	if strings.EqualFold(path.Ext(title), ".pdf") {
		title = title[:len(title)-len(".pdf")]
	}
	if runes := []rune(title); len(runes) > longestTitle {
		title = string(runes[:longestTitle])
	}
	if title = strings.Trim(title, " ."); title == "" {
		return "signed_contract.pdf"
	}
	return title + ".pdf"
}

// checkSealed reads the contract back with both readers, for whom the roots are those of whoever has signed it.
func (r *run) checkSealed(ctx context.Context, doc pades.Document) (*verify.Report, error) {
	if r.s.Plan.Delegated == nil {
		return r.Checker.Check(ctx, doc)
	}
	v, err := r.vendor()
	if err != nil {
		return nil, err
	}
	report, err := v.Check(ctx, doc)
	return report, err
}

// everySignature makes what was found of a vendor's document as bad as the worst of its signatures: there, unlike in a document
// of ours that others have signed before, they are all of the vendor's making.
func (f *finding) everySignature(report *verify.Report) {
	for _, s := range report.Signatures {
		if bad := s.Verdict == verify.Invalid; bad || f.valid && s.Verdict != verify.Valid {
			f.conclude(s.Verdict, s.SubIndication)
			f.why = "one of its signatures is not valid, or cannot be proven"
			if bad {
				break
			}
		}
	}
	if level := report.Level(); f.level.AtLeast(level) {
		f.level = level
	}
}
