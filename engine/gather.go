package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
)

// Time limits of outside calls.
const (
	crmLimit    = 90 * time.Second
	uploadLimit = 10 * time.Minute
	renderLimit = 2 * time.Minute
	signLimit   = 60 * time.Second
	stampLimit  = 90 * time.Second
	checkLimit  = 90 * time.Second
	// evidenceLimit is for all certificates of a seal and of its time-stamp, and all that they name.
	evidenceLimit = 2 * time.Minute
)

// Leases outlast what they are taken for. None covers the wait for a turn, which has no limit.
const (
	usualLease    = 2 * time.Minute
	trailLease    = 2 * renderLimit
	evidenceLease = 2 * evidenceLimit
	checkLease    = 2 * (checkLimit + signLimit) // whose key sealed a contract that was found is asked too
	transferLease = 2 * (uploadLimit + crmLimit) // two files, and a CRM that has to say first who it is
)

// maxAttachment is the largest attachment that is sealed, in bytes. It is never held in memory; the time that it takes to hash it a dozen times and to send
// it twice has to fit the limits above.
const maxAttachment = 512 << 20

// Names of holds that a person can release; a released one does not hold again.
const (
	holdRestored  = "restored"
	holdReEntry   = "re-entry"
	holdLeft      = "left"
	holdOpinion   = "second-opinion"
	holdLevel     = "level"
	holdCommitted = "committed"
	holdAdopted   = "adopted"
	holdMissing   = "missing"
	holdOneSeal   = "one-seal"
	holdElsewhere = "elsewhere"
	holdUnproven  = "unproven"
	holdUnknown   = "unknown-transaction"
)

// Staged files.
const (
	fileUnsigned = "unsigned.pdf"
	fileContract = "contract.pdf"
	fileEvidence = "evidence.json"

	fileSecondEvidence = "second-evidence.json"
	fileTrail          = "audit-trail.pdf"
)

// gather reads the record and makes the document's record of it. A contract of ours that is already there is adopted.
func (r *run) gather(ctx context.Context) error {
	s := r.s
	if err := r.begin(ctx, deal.Intent{What: "gather", Lease: transferLease}); err != nil {
		return err
	}
	rec, stop, err := r.look(ctx, "record")
	if err != nil || stop {
		return err
	}
	if stop, err := r.filtered(ctx); stop || err != nil {
		return err
	}
	if err := r.mayBeSealedAgain(ctx); err != nil {
		return err
	}
	r.announce(ctx)
	s.Facts.Gathered = r.Now().UTC()
	if s.Facts.Record, err = fingerprint(rec, s.Plan); err != nil {
		return err
	}
	switch {
	case s.Plan.Delegated != nil: // the vendor has what is to be signed
	case s.Plan.Attachment != "":
		err = r.chooseAttachment(rec)
	default:
		err = r.compose(rec)
	}
	if err != nil {
		return err
	}
	return r.advance(ctx, "gathered", deal.Gathered, deal.Entry{What: "gathered", Why: "the mapped fields were read and checked", Detail: map[string]string{"record": s.Facts.Record}})
}

// announce lets the record show that the deal is in the works: right after it was read, which a connector need not do again.
// A CRM that refuses is told again by the job of the receipt, which nothing else waits for.
func (r *run) announce(ctx context.Context) {
	if err := r.tellAway(ctx); err != nil {
		r.Log.DebugContext(ctx, "the record could not be told that its deal is in the works", "err", err)
	}
}

// look reads the record, and what it says of this transaction comes before anything else: a contract that is already there
// is adopted, and without proof either way a restored state waits for a person.
// stop means that the sealing is no longer at this step.
func (r *run) look(ctx context.Context, call string) (rec deal.Record, stop bool, err error) {
	rec, shown, err := r.read(ctx, call)
	if err != nil {
		return rec, false, err
	}
	r.s.Facts.RecordURL = rec.URL
	if file, ok := rec.Sealed(r.s.Tx, deal.RoleContract); ok {
		r.s.Facts.Elsewhere = "" // this is what became of it
		return rec, true, r.adopt(ctx, rec, file)
	}
	if shown.sealed(r.s) && !r.released(holdMissing) {
		return rec, false, held(holdMissing, "%s", missing)
	}
	if r.predatesState() && !r.released(holdRestored) && !r.released(holdMissing) {
		return rec, false, held(holdRestored, "this state was copied or restored at %s, after the deal entered its stage, and nothing proves that it was not sealed elsewhere in between: "+
			"if no contract exists, release the deal", r.Ledger.Epoch().UTC().Format(time.RFC3339))
	}
	if err := r.inferred(ctx, rec, shown); err != nil {
		return rec, false, err
	}
	return rec, false, r.elsewhere(shown.by)
}

// inferred holds an entry that no history proves where it may be one that is over: the record may have entered before its rule
// counts, or it speaks of a transaction that this database does not know, whose entry may be this very one under another name.
func (r *run) inferred(ctx context.Context, rec deal.Record, shown shown) error {
	in := r.s.Change.Inferred
	if in == nil {
		return nil
	}
	if in.Unproven && !r.released(holdUnproven) {
		return held(holdUnproven, "the record was seen in its stage for the first time, and may have entered it before rule %q counted and have been edited since: if it has entered since, release the deal, else drop it", r.s.Plan.Rule)
	}
	if r.released(holdUnknown) {
		return nil
	}
	names := []string{shown.tx}
	for _, f := range rec.Files {
		names = append(names, string(f.Tx))
	}
	for _, name := range names {
		tx, err := deal.ParseTxID(name)
		if err != nil || tx == r.s.Tx {
			continue
		}
		known, err := r.Ledger.Knows(ctx, tx)
		if err != nil {
			return err
		}
		if !known {
			return held(holdUnknown, "the record speaks of transaction %s, which this database does not know, and nothing proves that its entry was not this one: look at the record; if it needs another contract, release the deal, else drop it", tx)
		}
	}
	return nil
}

const missing = "the record says that this transaction is signed, but its contract is not on the record: find it (dealseal recover, backups), or release to seal again"

// elsewhere refuses to go on beside another daemon that has spoken of this very transaction. If that one seals it, its
// contract is adopted at a later attempt; at the last one a person has to say that there is no such daemon any more. What
// entered its stage before this copy of the state was made is judged as restored, not here. That the other has spoken is
// remembered: the record may show something else later.
func (r *run) elsewhere(by string) error {
	if by == "" || by == r.Ledger.Instance() {
		by = r.s.Facts.Elsewhere
	}
	if by == "" || r.predatesState() || r.released(holdElsewhere) || r.released(holdMissing) {
		r.s.Facts.Elsewhere = ""
		return nil
	}
	r.s.Facts.Elsewhere = by
	if r.s.Attempts+1 < r.Retry.Attempts {
		return &elsewhereError{by}
	}
	return held(holdElsewhere, "a daemon with another database (%s) has begun this very transaction, and its contract is not on the record: stop one of the two daemons; if that database is gone for good, release the deal", by)
}

// elsewhereError says that another database has begun this transaction, and may well be about to finish it.
type elsewhereError struct{ by string }

func (e *elsewhereError) Error() string {
	return "another daemon works on this very transaction, with another copy of this state (" + e.by + "): stop one of the two; its contract is adopted once it is on the record"
}

// predatesState reports whether the entry is older than this copy of the state: whoever had the state before may have
// gone on with it. The entry has the CRM's time, whose clock may be ahead; that it was known before has ours. One that was
// inferred may be older than it seems.
func (r *run) predatesState() bool {
	epoch := r.Ledger.Epoch()
	return r.s.Change.Earliest().Before(epoch) || r.s.Noticed.Before(epoch)
}

// read reads the fields that the plan needs and takes note of every ID that the CRM knows the record by. shown is what
// our own fields say; they are not among the values that make the document.
func (r *run) read(ctx context.Context, name string) (rec deal.Record, shown shown, err error) {
	s := r.s
	t, err := r.tenant(ctx, r.s)
	if err != nil {
		return rec, shown, err
	}
	var own []string
	for _, field := range []string{s.Plan.WriteBack.TransactionID, s.Plan.WriteBack.Status, s.Plan.WriteBack.Audit} {
		if field != "" && !slices.Contains(s.Plan.Fields, field) {
			own = append(own, field)
		}
	}
	err = r.ask(ctx, name, crmLimit, func(ctx context.Context) error {
		rec, err = t.CRM.Record(ctx, s.Change.Ref, slices.Concat(s.Plan.Fields, own))
		return err
	})
	if err != nil {
		return rec, shown, err
	}
	shown.tx, shown.status = rec.Text(s.Plan.WriteBack.TransactionID), rec.Text(s.Plan.WriteBack.Status)
	if a, ok := deal.ReadAuditRecord(rec.Text(s.Plan.WriteBack.Audit)); ok && a.Tx == s.Tx {
		shown.by = a.By
	}
	for _, field := range own {
		delete(rec.Values, field)
	}
	return rec, shown, r.Ledger.Identify(ctx, s, append([]string{rec.Ref.ID}, rec.Aliases...))
}

// shown is what the record's own fields of ours say. by names the database of whoever spoke last of this transaction.
type shown struct{ tx, status, by string }

// sealed reports whether the record says that this transaction was signed.
func (w shown) sealed(s *deal.Sealing) bool {
	return w.tx == string(s.Tx) && w.status == s.Plan.WriteBack.Word(deal.StatusSigned)
}

// fingerprint is over what goes into the document: for an attachment its name pattern's newest match, else the fields.
func fingerprint(rec deal.Record, p deal.Plan) (string, error) {
	if p.Attachment == "" {
		return rec.Fingerprint()
	}
	f, ok := newestMatch(rec.Files, p.Attachment)
	if !ok {
		return "", nil
	}
	return deal.Record{Values: map[string]any{"file": f.ID, "md5": f.MD5, "size": fmt.Sprint(f.Size)}}.Fingerprint()
}

// mayBeSealedAgain holds a second entry of a record that the rule has already sealed. Where the rule seals a record again, it
// holds an entry that came while a contract that a program had asked for was in the works, and a request beside an entry: one
// of the two may be meant for the other.
func (r *run) mayBeSealedAgain(ctx context.Context) error {
	s := r.s
	if r.released(holdReEntry) {
		return nil
	}
	earlier, err := r.Ledger.Earlier(ctx, s)
	if err != nil {
		return err
	}
	for _, tx := range earlier {
		other, err := r.Ledger.Load(ctx, tx)
		if err != nil {
			return err
		}
		switch {
		case other.Condition == deal.Ended && !other.Facts.Signature && !other.Facts.Adopted:
		case s.Plan.ReEntry != "seal" || meet(s, other):
			return held(holdReEntry, "rule %q has already made %s of this record: release to seal it again, or drop", s.Plan.Rule, tx)
		}
	}
	return nil
}

// meet reports whether one of two sealings was asked for by a program, and the other was not over when s came about: a poll
// may notice an entry only when what was asked for after it is done.
func meet(s, other *deal.Sealing) bool {
	came := s.Noticed
	if s.Change.At.Before(came) {
		came = s.Change.At
	}
	over := other.Step == deal.Done && other.Facts.Times[deal.Done].Before(came) || other.Condition == deal.Ended && other.Updated.Before(came)
	return !over && s.Change.Requested() != other.Change.Requested()
}

// held makes a hold with a name by which it can be released.
func held(name, format string, args ...any) *deal.HoldError {
	return deal.Hold("["+name+"] "+format, args...)
}

func (r *run) released(name string) bool {
	return slices.Contains(r.s.Facts.Released, releaseName(name, r.Ledger.Epoch()))
}

// releaseName is what is remembered of a release. Who vouched for a deal after one restore has not vouched for it after the
// next.
func releaseName(hold string, epoch time.Time) string {
	if hold == holdRestored || hold == holdMissing {
		return fmt.Sprintf("%s@%d", hold, epoch.UnixMilli())
	}
	return hold
}

// HoldName returns the name of the hold that a reason states, to be put among Facts.Released when a person releases it in
// the given epoch of the state; empty for a hold that is judged anew each time.
func HoldName(reason string, epoch time.Time) string {
	name, _, ok := strings.Cut(strings.TrimPrefix(reason, "["), "] ")
	if !ok || !strings.HasPrefix(reason, "[") {
		return ""
	}
	return releaseName(name, epoch)
}

// adopt takes over a contract of this TxID that the record already bears: it is fetched, checked and archived like one
// made here, and nothing is signed. What was staged here belongs to other bytes and is no evidence of these.
func (r *run) adopt(ctx context.Context, rec deal.Record, file deal.RecordFile) error {
	s := r.s
	fact, err := r.download(ctx, file, fileContract, io.Discard)
	if err != nil {
		return err
	}
	s.Facts.Contract, s.Facts.Adopted = &fact, true
	s.Facts.Cert, s.Facts.Flagged = nil, ""
	s.Private.FileName, s.Private.Token, s.Private.CMS = file.Name, nil, nil
	s.Facts.Evidence, s.Private.ArchiveToken, s.Private.ArchiveDigest = nil, nil, nil
	s.Facts.Second, s.Private.Second = nil, nil
	if trail, ok := rec.Sealed(s.Tx, deal.RoleAuditTrail); ok {
		s.Facts.AuditTrail = &deal.Attachment{ID: trail.ID, URL: trail.URL}
	}
	r.Log.InfoContext(ctx, "the record already bears this contract: adopted", "file", file.ID)
	return r.advance(ctx, "gathered", deal.Sealed, deal.Entry{What: "adopted", Why: "the record already bears the contract of this transaction",
		Detail: map[string]string{"file": file.ID, "sha256": fact.SHA256}})
}

// download stages a file that is attached to the record, and shows it to whoever is beside. It is the whole file or an error:
// half a document may be one.
func (r *run) download(ctx context.Context, file deal.RecordFile, as string, beside io.Writer) (fact deal.FileFact, err error) {
	t, err := r.tenant(ctx, r.s)
	if err != nil {
		return fact, err
	}
	files, ok := t.CRM.(connectors.Files)
	if !ok {
		return fact, deal.Hold("this CRM's files cannot be read by dealseal")
	}
	defer r.floor.away(r.s.Tenant)()
	fact, err = r.Files.Stage(ctx, r.s.Tx, as, func(w io.Writer) error {
		ctx, cancel := context.WithTimeout(ctx, uploadLimit)
		defer cancel()
		return files.Download(ctx, r.s.Change.Ref, file.ID, io.MultiWriter(w, beside), maxAttachment)
	})
	if err == nil && (file.Size > 0 && file.Size != fact.Size || file.MD5 != "" && !strings.EqualFold(file.MD5, fact.MD5)) {
		err = fmt.Errorf("file %s arrived with other bytes than the CRM says that it has: it was cut on its way", file.ID)
	}
	return fact, err
}

// chooseAttachment picks the newest file that matches the rule's pattern.
func (r *run) chooseAttachment(rec deal.Record) error {
	f, ok := newestMatch(rec.Files, r.s.Plan.Attachment)
	if !ok {
		return deal.Hold("no file on the record matches %q: attach it and release the deal", r.s.Plan.Attachment)
	}
	if f.Size > maxAttachment {
		return deal.Hold("the file on the record that matches %q has %d bytes, and of no more than %d is a contract made: replace it by a smaller one and release the deal", r.s.Plan.Attachment, f.Size, int64(maxAttachment))
	}
	r.s.Private.Source, r.s.Private.FileName = f.ID, f.Name
	r.s.Private.SourceSize, r.s.Private.SourceMD5 = f.Size, f.MD5
	return nil
}

// newestMatch ignores files of ours, so that a sealed contract is never sealed again.
func newestMatch(files []deal.RecordFile, pattern string) (best deal.RecordFile, ok bool) {
	for _, f := range files {
		if match, _ := path.Match(strings.ToLower(pattern), strings.ToLower(f.Name)); !match || f.Tx != "" {
			continue
		}
		if !ok || f.Created.After(best.Created) || f.Created.Equal(best.Created) && f.ID > best.ID {
			best, ok = f, true
		}
	}
	return best, ok
}

// compose makes the document's record. What a person must mend in the CRM holds the deal, with the field's name.
func (r *run) compose(rec deal.Record) error {
	s := r.s
	b, err := r.Bundles.Bundle(s.Plan.Bundle)
	if err != nil {
		return err
	}
	kind, _ := s.Account.Split()
	if s.Private.Values, err = json.Marshal(rec.Values); err != nil { // also of a deal that holds now: it is found by its name
		return err
	}
	doc, err := Compose(b, s.Plan, kind, rec.Values, s.Tx, s.Change.At)
	if err != nil {
		return asHold(err)
	}
	s.Private.Document = doc
	s.Private.FileName, err = b.FileName(doc)
	return err
}

// Compose makes the document's record of a CRM record's values, as the plan wants it.
func Compose(b *documents.Bundle, p deal.Plan, kind deal.Kind, values map[string]any, tx deal.TxID, at time.Time) ([]byte, error) {
	var overrides map[string]any
	if len(p.Overrides) > 0 {
		if err := json.Unmarshal(p.Overrides, &overrides); err != nil {
			return nil, fmt.Errorf("the plan's field sources are damaged: %w", err)
		}
	}
	zone, err := time.LoadLocation(p.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("the tenant's time zone: %w", err)
	}
	return b.Compose(string(kind), values, overrides, documents.Meta{
		TxID: string(tx), Tenant: p.TenantName, Seller: p.Seller, Currency: p.Currency, Date: at, TimeZone: zone,
	})
}

// aboutRecord holds a deal for what a person can mend on its record; what is wrong with a template stays an error.
func aboutRecord(err error) error {
	var field *documents.FieldError
	var text *documents.TextError
	var amount *documents.AmountError
	if errors.As(err, &field) || errors.As(err, &text) || errors.As(err, &amount) {
		return asHold(err)
	}
	return err
}

// asHold turns a permanent complaint about the record into a hold: the deal goes on when the record is mended.
func asHold(err error) error {
	if deal.IsPermanent(err) {
		return &deal.HoldError{Reason: err.Error(), Cause: err}
	}
	return err
}

// void ends a sealing for which there is nothing left to seal.
func (r *run) void(ctx context.Context, why string) error {
	s := r.s
	s.Condition, s.Reason = deal.Ended, "voided: "+why
	r.Log.InfoContext(ctx, "ended", "reason", s.Reason)
	if err := r.Ledger.Advance(ctx, s, deal.Entry{Who: "daemon", What: "ended", Why: s.Reason, Events: []deal.Event{{Type: "envelope.voided", Data: map[string]string{"reason": s.Reason}}}}); err != nil {
		return &commitError{err}
	}
	if err := r.Files.Unstage(ctx, s.Tx); err != nil {
		r.Log.WarnContext(ctx, "what was staged could not be removed; the next start does", "err", err)
	}
	return nil
}
