package hubspot

import (
	"context"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// maxText is how many characters a text property holds.
const maxText = 65_536

// WriteBack implements connectors.CRM. HubSpot has no conditional write: the last one wins. So the properties are read
// first, unless Record or AttachAll has just read them, and a receipt that is not newer than what the deal shows, or that it shows already, costs no write. A sequence
// that cannot be one of ours is overwritten (see connectors.HoldsBack). An empty value clears a property. One PATCH is
// applied as a whole or not at all.
func (c *Connector) WriteBack(ctx context.Context, ref deal.Ref, r deal.Receipt) error {
	on, err := c.to(ref)
	if err != nil {
		return fmt.Errorf("hubspot: write receipt: %w", err)
	}
	if err := on.writeBack(ctx, ref.ID, r); err != nil {
		return fmt.Errorf("hubspot: write receipt to %s: %w", ref, err)
	}
	return nil
}

func (c *Connector) writeBack(ctx context.Context, id string, r deal.Receipt) error {
	if len(r.Fields) == 0 {
		return nil
	}
	release, err := c.turns.take(ctx, "write "+id)
	if err != nil {
		return err
	}
	defer release()
	if err := c.slow.Check(id); err != nil {
		return err
	}
	values, err := propertyValues(r)
	if err != nil {
		return err
	}
	c.told.learn(r.SequenceField, values)
	today, outdatedNow := c.outdatedByMemory(id, r, values)
	if !outdatedNow {
		found, now, err := c.look(ctx, id, r, values)
		if err != nil || found == overtaken {
			return err
		}
		today, outdatedNow = now, found != current
	}
	if outdatedNow && today != id { // it was merged: a receipt for it by another of its names waits for this turn, or has had it
		release, err := c.turns.take(ctx, "write "+today)
		if err != nil {
			return err
		}
		defer release()
		found, _, err := c.look(ctx, id, r, values)
		if err != nil || found == overtaken {
			return err
		}
		outdatedNow = found != current
	}
	if outdatedNow {
		if err := c.patchDeal(ctx, today, id, r, values); err != nil {
			return err
		}
	}
	c.told.note(id, r.Sequence)
	return nil
}

// outdatedByMemory reports whether the deal, read a moment ago, has to be written to. What else there is to decide takes a
// look. today is the deal's ID as far as it is known.
func (c *Connector) outdatedByMemory(id string, r deal.Receipt, values map[string]string) (today string, is bool) {
	l, ok := c.told.shown(id, r.SequenceField)
	if !ok {
		return id, false
	}
	held, err := c.heldBack(id, r, value(l.properties, r.SequenceField), l.date)
	return l.id, err == nil && !held && !showsAll(l.properties, values)
}

// patchDeal writes once, to the ID of today. When the reply is lost the deal is read again instead.
func (c *Connector) patchDeal(ctx context.Context, today, id string, r deal.Receipt, values map[string]string) error {
	stage := c.told.stage(id)
	c.told.forgetShown(id) // whatever comes of it, the deal is another
	c.fresh.forget(today)
	wrote := c.seen.writes(today)
	answer, err := c.updates.Ask(ctx, "", update{today, values})
	w, err := asked(ctx, answer, err)
	stamp := value(w.Properties, modifiedProperty)
	if stage == "" || value(w.Properties, c.kind.stage) != stage {
		stamp = "" // somebody else was there
	}
	wrote(stamp, w.date)
	if isUnclear(err) && ctx.Err() == nil {
		if found, _, lookErr := c.look(ctx, id, r, values); lookErr == nil && found != outdated {
			return nil
		}
	}
	c.slow.Note(id, err)
	return gone(err)
}

// standing is how a deal stands to a receipt.
type standing int

const (
	outdated  standing = iota // it shows something else
	current                   // it shows the receipt
	overtaken                 // a receipt that is not older was written already
)

// look compares the deal with the receipt, and the receipt with what this connector remembers. today is the deal's ID of today.
func (c *Connector) look(ctx context.Context, id string, r deal.Receipt, values map[string]string) (is standing, today string, err error) {
	names := make([]string, 0, len(values)+1)
	for name := range values {
		names = append(names, name)
	}
	if r.SequenceField != "" {
		names = append(names, r.SequenceField)
	}
	d, now, err := c.readDeal(ctx, id, sortedSet(names))
	if err != nil {
		return outdated, "", err
	}
	held, err := c.heldBack(id, r, value(d.Properties, r.SequenceField), now)
	if err != nil {
		return outdated, "", err
	}
	if held {
		return overtaken, d.ID, nil
	}
	if !showsAll(d.Properties, values) {
		return outdated, d.ID, nil
	}
	return current, d.ID, nil
}

// showsAll reports whether a deal holds the values already.
func showsAll(shown map[string]*string, values map[string]string) bool {
	for name, want := range values {
		if got := value(shown, name); got != want && !sameTime(got, want) {
			return false
		}
	}
	return true
}

// heldBack reports whether a receipt that is not older was written already, by the audit record that the deal shows and by
// what this connector remembers.
func (c *Connector) heldBack(id string, r deal.Receipt, shown string, now time.Time) (bool, error) {
	if told := c.told.last(id); told > r.Sequence {
		if held, err := connectors.HoldsBack(told, now); err != nil || held {
			return held, err
		}
	}
	return connectors.ShownHoldsBack(shown, r, now)
}

func sameTime(a, b string) bool {
	x, errX := parseTime(a)
	y, errY := parseTime(b)
	return errX == nil && errY == nil && x.Equal(y)
}

// propertyValues puts a receipt into HubSpot's form, which is text throughout.
func propertyValues(r deal.Receipt) (map[string]string, error) {
	values := map[string]string{}
	for _, f := range r.Fields {
		if !propertyForm.MatchString(f.Name) {
			return nil, refuse("%q is no internal name of a property: correct write_back in the tenant file", f.Name)
		}
		switch v := f.Value.(type) {
		case nil:
			values[f.Name] = ""
		case time.Time:
			values[f.Name] = stampOf(v)
		case string:
			if n := utf8.RuneCountInString(v); n > maxText {
				return nil, refuse("property %s holds %d characters, the value has %d", f.Name, maxText, n)
			}
			values[f.Name] = v
		default:
			return nil, refuse("property %s: a value of type %T cannot be written", f.Name, f.Value)
		}
	}
	return values, nil
}

// told keeps the sequence of the last receipt for each deal. It is only the first guard: the sequence on the deal
// itself survives a restart.
type told struct {
	mu         sync.Mutex
	sequences  map[string]int64
	properties map[string]bool // that receipts are written to: nothing else of a deal is remembered
	looks      map[string]look
}

const maxTold = 20_000

func newTold() *told {
	return &told{sequences: map[string]int64{}, properties: map[string]bool{}, looks: map[string]look{}}
}

func (t *told) last(id string) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sequences[id]
}

func (t *told) note(id string, sequence int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.sequences) >= maxTold {
		clear(t.sequences)
	}
	t.sequences[id] = sequence
}
