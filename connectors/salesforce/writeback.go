package salesforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// maxConflicts is how often a write starts again because the record was changed between look and write.
const maxConflicts = 4

// WriteBack implements connectors.CRM. It reads the fields before it writes, or goes by what Record has just read: a receipt
// that is not newer than what the record shows, or that the record shows already, costs no write. A sequence that cannot
// be one of ours is overwritten (see connectors.HoldsBack). The write itself is conditional on the record being unchanged
// since then.
func (c *Connector) WriteBack(ctx context.Context, ref deal.Ref, r deal.Receipt) error {
	ref, _, err := checkRef(ref)
	if err != nil {
		return fmt.Errorf("salesforce: write receipt: %w", err)
	}
	if err := c.writeBack(ctx, ref, r); err != nil {
		return fmt.Errorf("salesforce: write receipt to %s: %w", ref, err)
	}
	return nil
}

func (c *Connector) writeBack(ctx context.Context, ref deal.Ref, r deal.Receipt) error {
	if len(r.Fields) == 0 {
		return nil
	}
	release, err := c.told.hold(ctx, ref.ID)
	if err != nil {
		return err
	}
	defer release()
	if err := c.slow.Check(ref.ID); err != nil {
		return err
	}
	values, err := c.fieldValues(ctx, ref.Object, r)
	if err != nil {
		return err
	}
	c.told.learn(r.SequenceField, values)
	if done, err := c.writeOnMemory(ctx, ref, r, values); done {
		return err
	}
	for range maxConflicts {
		if err = c.lookAndWrite(ctx, ref, r, values); !isConflict(err) {
			break
		}
	}
	return err
}

// isConflict reports whether a write was refused because the record was changed since it was looked at.
func isConflict(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusPreconditionFailed
}

// writeOnMemory writes without a look when the record was read a short time ago. The write is made only if the record has
// not been changed since; what else there is to decide than to write takes a look. done is false when that is needed.
func (c *Connector) writeOnMemory(ctx context.Context, ref deal.Ref, r deal.Receipt, values map[string]any) (done bool, err error) {
	l, ok := c.told.shown(ref.ID, r.SequenceField)
	if !ok || showsAll(l.fields, values) {
		return false, nil
	}
	if overtaken, err := c.overtaken(ref.ID, r, l.fields, l.date); err != nil || overtaken {
		return false, nil
	}
	err = c.write(ctx, ref, r, values, l.stamp)
	return !isConflict(err), err
}

// lookAndWrite makes one attempt.
func (c *Connector) lookAndWrite(ctx context.Context, ref deal.Ref, r deal.Receipt, values map[string]any) error {
	shown, date, err := c.look(ctx, ref, r, values)
	if err != nil {
		return err
	}
	if overtaken, err := c.overtaken(ref.ID, r, shown, date); err != nil || overtaken {
		return err
	}
	if showsAll(shown, values) {
		c.told.note(ref.ID, r.Sequence)
		return nil
	}
	return c.write(ctx, ref, r, values, date)
}

// write makes the write on the condition that the record is as it was at the CRM's date.
func (c *Connector) write(ctx context.Context, ref deal.Ref, r deal.Receipt, values map[string]any, date time.Time) error {
	c.told.forgetShown(ref.ID) // whatever comes of it, the record is another
	answer, err := c.patches.Ask(ctx, "", patch{ref.Object, ref.ID, values, date})
	if _, err = asked(ctx, answer, err); err != nil {
		c.slow.Note(ref.ID, err)
		return gone(err)
	}
	c.told.note(ref.ID, r.Sequence)
	return nil
}

// overtaken reports whether a receipt that is not older was written already, by what the record shows and by what this
// connector remembers.
func (c *Connector) overtaken(id string, r deal.Receipt, shown map[string]any, now time.Time) (bool, error) {
	if told := c.told.last(id); told > r.Sequence {
		if held, err := connectors.HoldsBack(told, now); err != nil || held {
			return held, err
		}
	}
	text, _ := shown[r.SequenceField].(string)
	return connectors.ShownHoldsBack(text, r, now)
}

// look reads the fields as they are, and the CRM's time of that.
func (c *Connector) look(ctx context.Context, ref deal.Ref, r deal.Receipt, values map[string]any) (map[string]any, time.Time, error) {
	names := make([]string, 0, len(values)+1)
	for name := range values {
		names = append(names, name)
	}
	if r.SequenceField != "" {
		names = append(names, r.SequenceField)
	}
	path := c.wire.path("sobjects/" + ref.Object + "/" + ref.ID + "?fields=" + strings.Join(sortedSet(names), ","))
	reply, err := c.call(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, time.Time{}, gone(err)
	}
	var shown map[string]any
	if err := decodeExact(reply.body, &shown); err != nil || shown == nil {
		return nil, time.Time{}, malformed("it is no record")
	}
	return shown, reply.date, nil
}

// showsAll reports whether the record holds the values already.
func showsAll(shown, values map[string]any) bool {
	for name, want := range values {
		got := shown[name]
		if got == want {
			continue
		}
		a, _ := got.(string)
		b, _ := want.(string)
		at, errA := parseTime(a)
		wanted, errB := parseTime(b)
		if errA != nil || errB != nil || !at.Equal(wanted) {
			return false
		}
	}
	return true
}

// fieldValues puts a receipt into the form of the org's fields. A name that the org does not have, a field that may not
// be written and a value that does not fit are refused here, by name, before anything is written.
func (c *Connector) fieldValues(ctx context.Context, object string, r deal.Receipt) (map[string]any, error) {
	values := map[string]any{}
	if r.SequenceField != "" {
		if _, err := c.schema.field(ctx, object, r.SequenceField); err != nil {
			return nil, err
		}
	}
	for _, f := range r.Fields {
		isAudit := f.Name == r.SequenceField
		described, err := c.schema.fieldThat(ctx, object, f.Name, func(d field) bool {
			_, err := fieldValue(d, f.Value, isAudit)
			return err == nil
		})
		if err != nil {
			return nil, err
		}
		if values[f.Name], err = fieldValue(described, f.Value, isAudit); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func fieldValue(f field, value any, isAudit bool) (any, error) {
	if !f.Updateable {
		return nil, refuse("field %s cannot be written: give the integration user edit access to it", f.Name)
	}
	switch v := value.(type) {
	case nil:
		return nil, nil
	case time.Time:
		if f.Type != "datetime" && f.Type != "string" && f.Type != "textarea" {
			return nil, refuse("field %s is of type %s: use a date/time field", f.Name, f.Type)
		}
		return v.UTC().Format(recordTime), nil
	case string:
		if f.Length == 0 || utf8.RuneCountInString(v) <= f.Length {
			return v, nil
		}
		if isAudit {
			return fitAudit(f, v)
		}
		return nil, refuse("field %s holds %d characters, the value has %d: make the field longer in Salesforce",
			f.Name, f.Length, utf8.RuneCountInString(v))
	default:
		return nil, refuse("field %s: a value of type %T cannot be written", f.Name, value)
	}
}

// dispensable are the parts of an audit record that may be left out, the first ones first. What stays says which
// transaction it is, in which order, how it ended and when.
var dispensable = []func(*deal.AuditRecord){
	func(a *deal.AuditRecord) { a.Reason = "" },
	func(a *deal.AuditRecord) { a.Issuer = "" },
	func(a *deal.AuditRecord) { a.TreeSize, a.TreeRoot = 0, "" },
	func(a *deal.AuditRecord) { a.Serial = "" },
	func(a *deal.AuditRecord) { a.Archive = "" },
	func(a *deal.AuditRecord) { a.Digest = "" },
	func(a *deal.AuditRecord) { a.Fingerprint = "" },
	func(a *deal.AuditRecord) { a.Level = "" },
}

// fitAudit makes an audit record short enough by leaving out whole parts: cut JSON could not be read back.
func fitAudit(f field, text string) (any, error) {
	a, ok := deal.ReadAuditRecord(text)
	if !ok {
		return nil, refuse("field %s holds %d characters, too few for the audit record: use a long text area", f.Name, f.Length)
	}
	for _, drop := range dispensable {
		drop(&a)
		b, err := json.Marshal(a)
		if err != nil {
			return nil, err
		}
		if utf8.RuneCount(b) <= f.Length {
			return string(b), nil
		}
	}
	return nil, refuse("field %s holds %d characters, too few for the shortest audit record: use a long text area", f.Name, f.Length)
}

// receipts keeps the sequence of the last receipt for each record, and lets one write per record run at a time. It is only
// the first guard: the sequence on the record itself survives a restart.
type receipts struct {
	mu      sync.Mutex
	records map[string]*receiptState
	fields  map[string]bool // that receipts are written to: nothing else of a record is remembered
}

type receiptState struct {
	turn     chan struct{} // holds a value while a write runs
	waiting  int
	sequence int64
	// look is what the record showed when it was read; nil when that is not known, or not any more.
	look *look
}

// look is what a record showed, the CRM's date of that, and when it had last been changed.
type look struct {
	fields      map[string]any
	date, stamp time.Time
	at          time.Time // on our clock, for differences only
}

// lookLife is how long a look is good for. A write on the strength of it is made only if the record has not been changed
// since the change that was the last when it was looked at: one that comes in the same second as that would go unseen.
const lookLife = time.Minute

const maxReceipts = 20_000

func newReceipts() *receipts {
	return &receipts{records: map[string]*receiptState{}, fields: map[string]bool{}}
}

// state returns what is kept of a record. r.mu is held.
func (r *receipts) state(id string) *receiptState {
	s := r.records[id]
	if s == nil {
		r.forget()
		s = &receiptState{turn: make(chan struct{}, 1)}
		r.records[id] = s
	}
	return s
}

// learn takes note of the fields that receipts are written to.
func (r *receipts) learn(sequence string, values map[string]any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fields[sequence] = true
	for name := range values {
		r.fields[name] = true
	}
}

// saw takes in what a record showed at the CRM's date, and when it had last been changed.
func (r *receipts) saw(id string, row map[string]any, date, stamp time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &look{fields: map[string]any{}, date: date, stamp: stamp, at: time.Now()}
	for name := range r.fields {
		if v, ok := row[name]; ok {
			l.fields[name] = v
		}
	}
	if s := r.state(id); !date.IsZero() && (s.look == nil || !date.Before(s.look.date)) {
		s.look = l
	}
}

// shown is what a record showed a short time ago. Without the field that bears the sequence it says nothing.
func (r *receipts) shown(id, sequence string) (l look, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.state(id).look
	if last == nil || time.Since(last.at) > lookLife {
		return look{}, false
	}
	_, ok = last.fields[sequence]
	return *last, ok
}

// forgetShown is for a record that is about to be written to.
func (r *receipts) forgetShown(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state(id).look = nil
}

// hold waits for the record's turn. release must be called.
func (r *receipts) hold(ctx context.Context, id string) (release func(), err error) {
	r.mu.Lock()
	s := r.state(id)
	s.waiting++
	r.mu.Unlock()
	leave := func() {
		r.mu.Lock()
		s.waiting--
		r.mu.Unlock()
	}
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// forget makes room when there is none, sparing records that are in use. r.mu is held.
func (r *receipts) forget() {
	if len(r.records) < maxReceipts {
		return
	}
	for id, s := range r.records {
		if s.waiting == 0 {
			delete(r.records, id)
		}
	}
}

func (r *receipts) last(id string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.records[id].sequence
}

func (r *receipts) note(id string, sequence int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records[id].sequence = sequence
}
