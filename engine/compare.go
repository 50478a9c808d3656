package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// compareLimit is for all that one deal takes: two files, each looked at and put back.
const compareLimit = 4 * (uploadLimit + crmLimit)

// compare looks at the record of a finished deal and returns what it does not show as the ledger has it. With mend it mends
// what may be mended and commits what it has found; without it, it changes nothing. A deal that is not finished, or was
// erased, has no discrepancies. The error is about the CRM or the ledger, not about the record, and may pass.
func (e *Engine) compare(ctx context.Context, t *Tenant, tx deal.TxID, mend bool, who string) ([]deal.Discrepancy, error) {
	s, err := e.Ledger.Load(ctx, tx)
	if err != nil || s.Step != deal.Done || s.Facts.Contract == nil {
		return nil, err
	}
	c := &comparer{Engine: e, t: t, s: s, mend: mend}
	c.result.Who = who
	switch err := c.look(ctx); {
	case err != nil && (!deal.IsPermanent(err) || connectors.IsLogin(err) || ctx.Err() != nil):
		return nil, err
	case err != nil: // asking again gives the same, and whatever comes behind this deal is to be looked at
		c.found(deal.Unreadable, "", "not all of it can be compared: %v", err)
	}
	if !mend {
		return c.result.Found, nil
	}
	return c.result.Found, e.Books.Compared(ctx, s, c.result)
}

// comparer is one comparison under way.
type comparer struct {
	*Engine
	t      *Tenant
	s      *deal.Sealing
	mend   bool
	began  bool // the intent to put a file back is committed
	result deal.Comparison
}

func (c *comparer) found(kind deal.DiscrepancyKind, mended, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	for i := range c.result.Found {
		if d := &c.result.Found[i]; d.Kind == kind { // of the other file
			d.What += "; " + what
			if mended == "" {
				d.Mended = ""
			}
			return
		}
	}
	c.result.Found = append(c.result.Found, deal.Discrepancy{Kind: kind, Tenant: c.s.Tenant, Tx: c.s.Tx, Ref: c.s.Change.Ref, Rule: c.s.Plan.Rule, What: what, Mended: mended})
}

// mended is what is said of a thing that was mended; nothing in a dry run.
func (c *comparer) mended(what string) string {
	if !c.mend {
		return ""
	}
	return what
}

func (c *comparer) look(ctx context.Context) error {
	rec, st, err := c.read(ctx)
	switch {
	case errors.Is(err, deal.ErrGone):
		c.found(deal.RecordGone, "", "the record was deleted, or dealseal's user may not see it any more; the contract is in the archive")
		return nil
	case err != nil && deal.IsPermanent(err) && !connectors.IsLogin(err):
		c.found(deal.Unreadable, "", "the record cannot be read: %v", err)
		return nil
	case err != nil:
		return err
	}
	if rec.Ref.ID != c.s.Change.Ref.ID {
		c.found(deal.RecordMerged, "", "the record was merged and is %s now", rec.Ref)
		if c.mend {
			if err := c.Ledger.Identify(ctx, c.s, append([]string{rec.Ref.ID}, rec.Aliases...)); err != nil {
				return err
			}
		}
	}
	c.compareFields(rec, st)
	if err := c.compareValues(ctx, rec); err != nil {
		return err
	}
	if err := c.compareFile(ctx, rec, deal.RoleContract, "contract.pdf", *c.s.Facts.Contract, c.s.Facts.Attachment, &c.result.Contract); err != nil {
		return err
	}
	if c.s.Facts.Trail == nil || c.s.Facts.AuditTrail == nil {
		return nil
	}
	return c.compareFile(ctx, rec, deal.RoleAuditTrail, "evidence/"+fileTrail, *c.s.Facts.Trail, c.s.Facts.AuditTrail, &c.result.AuditTrail)
}

// read reads the record while nobody tells it anything, and what it should show.
func (c *comparer) read(ctx context.Context) (rec deal.Record, st deal.ReceiptState, err error) {
	if st, err = c.Ledger.Receipt(ctx, c.s.Tx); err != nil {
		return rec, st, err
	}
	unlock, err := c.records.lock(ctx, string(st.Owner))
	if err != nil {
		return rec, st, err
	}
	defer unlock()
	if st, err = c.Ledger.Receipt(ctx, c.s.Tx); err != nil {
		return rec, st, err
	}
	ctx, cancel := context.WithTimeout(ctx, crmLimit)
	defer cancel()
	rec, err = c.t.CRM.Record(ctx, c.s.Change.Ref, slices.Concat(c.s.Plan.Fields, c.own()))
	return rec, st, err
}

// own are the fields that receipts are written to and that are no part of the document.
func (c *comparer) own() []string {
	return slices.DeleteFunc(c.s.Plan.WriteBack.Fields(), func(f string) bool { return slices.Contains(c.s.Plan.Fields, f) })
}

// compareFields compares what the record shows with what it was told. A record that speaks of another transaction, and one
// that is still to be told something, is not this comparison's.
func (c *comparer) compareFields(rec deal.Record, st deal.ReceiptState) {
	if st.Owner != c.s.Tx || st.Due() {
		return
	}
	var altered []string
	for _, f := range receipt(c.s, st.Sequence, deal.TreeHead{}, "").Fields {
		shows := rec.Text(f.Name)
		if f.Name == c.s.Plan.WriteBack.Audit {
			if a, ok := deal.ReadAuditRecord(shows); ok && a.Tx == c.s.Tx && a.Sequence == st.Sequence && a.Status == st.Status {
				continue
			}
		} else if showsValue(shows, f.Value) {
			continue
		}
		altered = append(altered, f.Name)
	}
	if len(altered) > 0 {
		c.result.Resend = true
		c.found(deal.FieldsAltered, c.mended("the receipt is sent again"), "what dealseal had written was changed in %s", strings.Join(altered, ", "))
	}
}

// recordTimes are the forms in which CRMs give times.
var recordTimes = []string{time.RFC3339Nano, "2006-01-02T15:04:05.000-0700"}

// showsValue reports whether a field shows what was written to it. CRMs keep times to the second at least.
func showsValue(shows string, wrote any) bool {
	switch v := wrote.(type) {
	case nil:
		return shows == ""
	case string:
		return shows == v
	case time.Time:
		for _, form := range recordTimes {
			if at, err := time.Parse(form, shows); err == nil {
				return at.Unix() == v.Unix()
			}
		}
		ms, err := strconv.ParseInt(shows, 10, 64)
		return err == nil && time.UnixMilli(ms).Unix() == v.Unix()
	}
	return false
}

// compareValues compares the mapped fields with those that the contract was made of.
func (c *comparer) compareValues(ctx context.Context, rec deal.Record) error {
	s := c.s
	if s.Plan.Attachment != "" || len(s.Private.Values) == 0 {
		return nil // no values of the record went into it, or they are not known
	}
	var was map[string]any
	d := json.NewDecoder(bytes.NewReader(s.Private.Values))
	d.UseNumber()
	if err := d.Decode(&was); err != nil {
		return &permanentError{fmt.Errorf("the values that were read of the record for the contract are damaged: %w", err)}
	}
	for _, field := range c.own() {
		delete(rec.Values, field)
	}
	if err := c.passOverMoves(ctx, was, rec); err != nil {
		return err
	}
	c.result.Compared, c.result.Differences = true, deal.Differences(was, rec.Values)
	if fields := deal.Paths(c.result.Differences); len(fields) > 0 {
		c.found(deal.ValuesDiffer, "", "the record says something else than its contract in %s", strings.Join(fields, ", "))
	}
	return nil
}

// passOverMoves has a stage that we have moved the record to ourselves count as the one that the contract was made in.
func (c *comparer) passOverMoves(ctx context.Context, was map[string]any, rec deal.Record) error {
	if rec.Stage == c.s.Plan.Stage {
		return nil
	}
	home, err := c.isHome(ctx, c.s, rec.Stage)
	for path, value := range rec.Values {
		if home && value == rec.Stage && was[path] == c.s.Plan.Stage {
			rec.Values[path] = was[path]
		}
	}
	return err
}

// compareFile looks for a file of ours on the record by its marker and by its ID, and puts the archive's bytes back where
// there is none. One with other bytes is left for a person, and nothing is put beside it.
func (c *comparer) compareFile(ctx context.Context, rec deal.Record, role deal.Role, kept string, want deal.FileFact, was *deal.Attachment, now **deal.Attachment) error {
	var other *deal.RecordFile
	for _, f := range rec.Files {
		if (f.Tx != c.s.Tx || f.Role != role) && (was == nil || f.ID != was.ID) {
			continue
		}
		whole, err := c.isWhole(ctx, f, want)
		if err != nil {
			return err
		}
		if !whole {
			other = &f
			continue
		}
		if was == nil || f.ID != was.ID {
			c.found(deal.FileGone, c.mended("the same file was found on the record under another ID"), "the %s is not where it had been put", role)
			*now = &deal.Attachment{ID: f.ID, URL: f.URL}
		}
		return nil
	}
	if other != nil {
		c.found(deal.FileAltered, "", "the %s on the record (file %s) has other bytes than were sealed: remove it, and the next pass puts the sealed one back", role, other.ID)
		return nil
	}
	return c.putBack(ctx, role, kept, want, now)
}

// isWhole fetches the file and compares all of it.
func (c *comparer) isWhole(ctx context.Context, f deal.RecordFile, want deal.FileFact) (bool, error) {
	if f.Size != want.Size || f.MD5 != "" && want.MD5 != "" && !strings.EqualFold(f.MD5, want.MD5) {
		return false, nil
	}
	files, ok := c.t.CRM.(connectors.Files)
	if !ok {
		return true, nil // as far as the CRM tells
	}
	ctx, cancel := context.WithTimeout(ctx, uploadLimit)
	defer cancel()
	h := sha256.New()
	if err := files.Download(ctx, c.s.Change.Ref, f.ID, h, want.Size); err != nil {
		if errors.Is(err, deal.ErrGone) {
			return false, nil
		}
		return false, fmt.Errorf("compare file %s: %w", f.ID, err)
	}
	return hex.EncodeToString(h.Sum(nil)) == want.SHA256, nil
}

// putBack puts the archive's copy on the record. The connector looks once more before it writes.
func (c *comparer) putBack(ctx context.Context, role deal.Role, kept string, want deal.FileFact, now **deal.Attachment) error {
	f, closer, err := c.Files.OpenKept(ctx, c.s.Facts.Archive, kept)
	if err == nil {
		defer closer.Close()
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil || f.SHA256 != want.SHA256:
		c.found(deal.FileGone, "", "the %s is not on the record any more", role)
		c.found(deal.ArchiveDamaged, "", "the archive's copy of the %s is not what was sealed, so it was not put back: find it in a backup", role)
		return nil
	case !c.mend:
		c.found(deal.FileGone, "", "the %s is not on the record any more", role)
		return nil
	}
	if err := c.begin(ctx, want); err != nil {
		return err
	}
	f.Name, f.MediaType = c.s.Private.FileName, "application/pdf"
	if role == deal.RoleAuditTrail {
		f.Name = trailName(f.Name)
	}
	upload, cancel := context.WithTimeout(ctx, uploadLimit)
	defer cancel()
	at, err := c.t.CRM.Attach(upload, c.s.Change.Ref, c.s.Tx, role, f)
	var hold *deal.HoldError
	switch {
	case errors.As(err, &hold): // since the record was read
		c.found(deal.FileAltered, "", "%s", hold.Reason)
		return nil
	case err != nil && deal.IsPermanent(err) && !connectors.IsLogin(err):
		c.found(deal.FileGone, "", "the %s is not on the record any more, and could not be put back: %v", role, err)
		return nil
	case err != nil:
		return err
	}
	*now = &at
	c.found(deal.FileGone, "the archive's copy was put back", "the %s was not on the record any more", role)
	return nil
}

// begin commits the intent to put a file back.
func (c *comparer) begin(ctx context.Context, want deal.FileFact) error {
	if c.began {
		return nil
	}
	c.began = true
	return c.Ledger.Begin(ctx, c.s, deal.Intent{Step: deal.Done, What: "reattach", Digest: want.SHA256, Lease: compareLimit})
}
