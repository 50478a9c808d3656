package hubspot

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/dealseal/dealseal/deal"
)

// maxText is how many characters a text property holds.
const maxText = 65_536

// WriteBack implements connectors.CRM. HubSpot has no conditional write: the last one wins. So the properties are read
// first, and a receipt that is not newer than what the deal shows, or that it shows already, costs no write. An empty
// value clears a property. One PATCH is applied as a whole or not at all.
func (c *Connector) WriteBack(ctx context.Context, ref deal.Ref, r deal.Receipt) error {
	if err := checkRef(ref); err != nil {
		return fmt.Errorf("hubspot: write receipt: %w", err)
	}
	if err := c.writeBack(ctx, ref.ID, r); err != nil {
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
	if r.Sequence < c.told.highest(id) {
		return nil
	}
	values, err := propertyValues(r)
	if err != nil {
		return err
	}
	shown, err := c.shows(ctx, id, r, values)
	if err != nil {
		return err
	}
	if !shown {
		if err := c.patchDeal(ctx, id, r, values); err != nil {
			return err
		}
	}
	c.told.note(id, r.Sequence)
	return nil
}

// patchDeal writes once. When the reply is lost the deal is read again instead.
func (c *Connector) patchDeal(ctx context.Context, id string, r deal.Receipt, values map[string]string) error {
	var said object
	answer, err := c.send(ctx, http.MethodPatch, c.objects(Object)+"/"+id, withToken, map[string]any{"properties": values})
	if err == nil {
		err = answer.decode(&said)
	}
	if isUnclear(err) && ctx.Err() == nil {
		if shown, lookErr := c.shows(ctx, id, r, values); lookErr == nil && shown {
			return nil
		}
	}
	return gone(err)
}

// shows reports whether the deal shows the receipt or a newer one.
func (c *Connector) shows(ctx context.Context, id string, r deal.Receipt, values map[string]string) (bool, error) {
	names := make([]string, 0, len(values)+1)
	for name := range values {
		names = append(names, name)
	}
	if r.SequenceField != "" {
		names = append(names, r.SequenceField)
	}
	d, err := c.readDeal(ctx, id, sortedSet(names))
	if err != nil {
		return false, err
	}
	if r.SequenceField != "" {
		if a, ok := deal.ReadAuditRecord(value(d.Properties, r.SequenceField)); ok {
			return a.Sequence >= r.Sequence, nil
		}
	}
	for name, want := range values {
		if got := value(d.Properties, name); got != want && !sameTime(got, want) {
			return false, nil
		}
	}
	return true, nil
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

// told keeps the highest sequence that was written to each deal. It is only the first guard: the sequence on the deal
// itself survives a restart.
type told struct {
	mu        sync.Mutex
	sequences map[string]int64
}

const maxTold = 20_000

func newTold() *told { return &told{sequences: map[string]int64{}} }

func (t *told) highest(id string) int64 {
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
	t.sequences[id] = max(t.sequences[id], sequence)
}
