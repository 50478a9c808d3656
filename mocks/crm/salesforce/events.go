package salesforce

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"time"

	"github.com/linkedin/goavro/v2"
)

// bus keeps the change events of an org. The Org's mu guards it.
type bus struct {
	events  []busEvent
	next    uint64                // replay ID of the next event
	oldest  uint64                // replay IDs before this one are refused
	commits int64                 // number of the latest commit
	schemas map[string]*busSchema // by ID
	current struct {              // as of the newest event
		key    string
		schema *busSchema
	}
	changed chan struct{} // closed when there is an event, a cut or another setting
	off     bool          // Opportunity is not selected in Setup
	cuts    int           // how often all streams were cut
	streams int           // that are open

	lose, gap int // of the next transactions: without an event, as gap events
}

// busEvent is one event in the order of the stream.
type busEvent struct {
	replay  uint64
	id      string
	schema  string
	payload []byte
	visible time.Time // zero: at once
}

type busSchema struct {
	id, json string
	codec    *goavro.Codec
	fields   []*Field // behind the header
}

// mostEvents are kept, where the real service keeps those of three days.
const mostEvents = 100_000

// firstReplay is where the stream of a new org begins.
const firstReplay = 1_000_000

func newBus() bus {
	return bus{next: firstReplay, oldest: firstReplay, schemas: map[string]*busSchema{}, changed: make(chan struct{})}
}

func (b *bus) notify() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// change is what a transaction did to a record first and last.
type change struct {
	row           *row
	before, after map[string]any // before is nil for a new record
}

// noteChange remembers a write for the events of the commit. Only Opportunity
// is selected for Change Data Capture.
func (t *tx) noteChange(r *row, before, after map[string]any) {
	if r.object.name != "Opportunity" {
		return
	}
	was := t.changes
	t.undo = append(t.undo, func() { t.changes = was })
	t.changes = slices.Clone(was)
	for i := range t.changes {
		if t.changes[i].row == r {
			t.changes[i].after = after
			return
		}
	}
	t.changes = append(t.changes, change{r, before, after})
}

// commit publishes what the transaction has changed. The caller holds mu.
func (t *tx) commit() {
	b := &t.o.bus
	if len(t.changes) == 0 {
		return
	}
	t.notify()
	if b.off {
		return
	}
	if b.lose > 0 {
		b.lose--
		return
	}
	gap := b.gap > 0
	if gap {
		b.gap--
	}
	b.commits++
	key := transactionKey(b.commits)
	var all []pending
	for _, c := range t.changes {
		p := t.pending(c, gap)
		if p.kind == "" {
			continue
		}
		if n := len(all); n > 0 && all[n-1].like(p) { // the same change to another record
			all[n-1].records = append(all[n-1].records, p.records...)
			continue
		}
		all = append(all, p)
	}
	for i, p := range all {
		t.o.publish(p, key, i+1, t)
	}
}

func transactionKey(commit int64) string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", commit, commit)
}

// pending is an event before it is encoded.
type pending struct {
	kind    string
	records []any
	fields  map[string]any // changed ones, nil: none is told of
}

func (p pending) like(o pending) bool {
	return p.kind == o.kind && string(marshal(p.fields)) == string(marshal(o.fields))
}

func (t *tx) pending(c change, gap bool) pending {
	p := pending{kind: "UPDATE", records: []any{c.row.id}, fields: map[string]any{}}
	switch {
	case c.before == nil:
		p.kind = "CREATE"
	case c.after["IsDeleted"] == true:
		p.kind = "DELETE"
	}
	if gap {
		return pending{kind: "GAP_" + p.kind, records: p.records}
	}
	for _, f := range t.o.eventSchema().fields {
		if v := c.after[f.Name]; v != c.before[f.Name] && p.kind != "DELETE" {
			p.fields[f.Name] = v
		}
	}
	if p.kind == "UPDATE" && len(p.fields) == 0 {
		p.kind = ""
	}
	return p
}

// publish encodes an event and appends it to the stream; t is nil for one that
// no transaction has caused.
func (o *Org) publish(p pending, key string, sequence int, t *tx) {
	s := o.eventSchema()
	header := map[string]any{
		"entityName": "Opportunity", "recordIds": p.records, "changeType": p.kind, "changeOrigin": "",
		"transactionKey": key, "sequenceNumber": sequence, "commitTimestamp": o.now().UnixMilli(), "commitNumber": o.bus.commits,
		"commitUser": o.person, "nulledFields": []any{}, "diffFields": []any{},
	}
	var visible time.Time
	if t != nil {
		header["commitUser"], visible = t.user, t.visible
		if t.origin != "" {
			header["changeOrigin"] = t.origin
		}
	}
	bits := new(big.Int)
	record := map[string]any{}
	for i, f := range s.fields {
		v, changed := p.fields[f.Name]
		if changed {
			bits.SetBit(bits, i+1, 1) // the header is field 0
		}
		record[f.Name] = eventValue(f, v)
	}
	changed := []any{}
	if bits.Sign() > 0 && p.kind == "UPDATE" {
		changed = append(changed, fmt.Sprintf("0x%X", bits))
	}
	header["changedFields"] = changed
	record["ChangeEventHeader"] = header
	payload, err := s.codec.BinaryFromNative(nil, record)
	if err != nil {
		panic(fmt.Sprintf("salesforce mock: a change event does not fit its own schema: %v", err))
	}
	o.bus.append(busEvent{id: key + "-" + strconv.Itoa(sequence), schema: s.id, payload: payload, visible: visible})
}

func (b *bus) append(e busEvent) {
	e.replay = b.next
	b.next++
	b.events = append(b.events, e)
	if len(b.events) > mostEvents {
		b.events = slices.Delete(b.events, 0, mostEvents/10)
		b.oldest = b.events[0].replay
	}
	b.notify()
}

// eventValue is a value in the form that goavro takes for a union with null.
func eventValue(f *Field, v any) any {
	if v == nil {
		return nil
	}
	switch kind := eventType(f); kind {
	case "long":
		switch at := v.(type) {
		case time.Time:
			return goavro.Union(kind, at.UnixMilli())
		case string:
			if day, err := time.Parse(time.DateOnly, at); err == nil {
				return goavro.Union(kind, day.UnixMilli())
			}
		}
		return nil
	case "double", "boolean":
		return goavro.Union(kind, v)
	default:
		return goavro.Union(kind, fmt.Sprint(v))
	}
}

func eventType(f *Field) string {
	switch {
	case f.numeric() || f.Type == TypeInt:
		return "double"
	case f.Type == TypeBoolean:
		return "boolean"
	case f.Type == TypeDate || f.Type == TypeDateTime:
		return "long"
	}
	return "string"
}

// eventSchema is that of Opportunity's changes with the fields that there are
// now and that the integration user may see.
func (o *Org) eventSchema() *busSchema {
	def := o.objects["opportunity"]
	key := strconv.Itoa(len(def.fields))
	for _, f := range def.fields {
		if len(o.hidden) > 0 && o.hidden["opportunity."+lower(f.Name)] {
			key += " " + f.Name
		}
	}
	if o.bus.current.key != key {
		o.bus.current.key, o.bus.current.schema = key, o.newEventSchema(def)
	}
	return o.bus.current.schema
}

func (o *Org) newEventSchema(def *object) *busSchema {
	list := func(name string) ordered {
		return ordered{{"name", name}, {"type", ordered{{"type", "array"}, {"items", "string"}}}}
	}
	one := func(name string, kind any) ordered { return ordered{{"name", name}, {"type", kind}} }
	header := ordered{{"type", "record"}, {"name", "ChangeEventHeader"}, {"fields", []any{
		one("entityName", "string"), list("recordIds"),
		one("changeType", ordered{{"type", "enum"}, {"name", "ChangeType"}, {"symbols", []string{"CREATE", "UPDATE", "DELETE", "UNDELETE", "SNAPSHOT",
			"GAP_CREATE", "GAP_UPDATE", "GAP_DELETE", "GAP_UNDELETE", "GAP_OVERFLOW"}}}),
		one("changeOrigin", "string"), one("transactionKey", "string"), one("sequenceNumber", "int"), one("commitTimestamp", "long"),
		one("commitNumber", "long"), one("commitUser", "string"), list("nulledFields"), list("diffFields"), list("changedFields"),
	}}}
	fields := []any{one("ChangeEventHeader", header)}
	s := &busSchema{}
	for _, f := range def.fields {
		if f.Name == "Id" || f.Name == "IsDeleted" || f.Name == "SystemModstamp" || o.hidden["opportunity."+lower(f.Name)] {
			continue
		}
		s.fields = append(s.fields, f)
		fields = append(fields, ordered{{"name", f.Name}, {"type", []string{"null", eventType(f)}}, {"default", nil}})
	}
	s.json = string(marshal(ordered{{"type", "record"}, {"name", "OpportunityChangeEvent"}, {"namespace", "com.sforce.eventbus"}, {"fields", fields}}))
	sum := sha256.Sum256([]byte(s.json))
	s.id = base64.RawURLEncoding.EncodeToString(sum[:16])
	if known := o.bus.schemas[s.id]; known != nil {
		return known
	}
	codec, err := goavro.NewCodec(s.json)
	if err != nil {
		panic(fmt.Sprintf("salesforce mock: schema of change events: %v", err))
	}
	s.codec = codec
	o.bus.schemas[s.id] = s
	return s
}

func replayID(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// EventFaults change what becomes of change events.
type EventFaults struct {
	// Lose is how many of the next transactions publish nothing, Gap how many
	// publish events that name the records and not what has changed.
	Lose int `json:"lose,omitempty"`
	Gap  int `json:"gap,omitempty"`
	// Overflow publishes an event that says that too much has changed to tell.
	Overflow bool `json:"overflow,omitempty"`
	// Repeat publishes so many of the newest events once more.
	Repeat int `json:"repeat,omitempty"`
	// Expire drops all events; replay IDs from before are refused.
	Expire bool `json:"expire,omitempty"`
	// Cut ends every stream.
	Cut bool `json:"cut,omitempty"`
	// Off takes Opportunity out of Change Data Capture, On puts it back.
	Off bool `json:"off,omitempty"`
	On  bool `json:"on,omitempty"`
}

// SpoilEvents does what f says to change events.
func (o *Org) SpoilEvents(f EventFaults) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := &o.bus
	b.lose, b.gap = b.lose+f.Lose, b.gap+f.Gap
	if f.Overflow {
		b.commits++
		o.publish(pending{kind: "GAP_OVERFLOW", records: []any{"000000000000000AAA"}}, transactionKey(b.commits), 1, nil)
	}
	for _, e := range slices.Clone(b.events[max(0, len(b.events)-f.Repeat):]) {
		b.append(e)
	}
	if f.Expire {
		b.events, b.next = nil, b.next+1000
		b.oldest = b.next
	}
	if f.Cut || f.Off {
		b.cuts++
	}
	b.off = f.Off || b.off && !f.On
	b.notify()
}

// EventStreams is how many subscriptions are open.
func (o *Org) EventStreams() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bus.streams
}

// Events returns the headers of the change events that are kept, oldest first.
func (o *Org) Events() []map[string]any {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := []map[string]any{}
	for _, e := range o.bus.events {
		v, _, err := o.bus.schemas[e.schema].codec.NativeFromBinary(e.payload)
		record, ok := v.(map[string]any)
		if err != nil || !ok {
			continue
		}
		header, _ := record["ChangeEventHeader"].(map[string]any)
		var plain map[string]any
		if json.Unmarshal(marshal(header), &plain) == nil {
			plain["replayId"] = hex.EncodeToString(replayID(e.replay))
			out = append(out, plain)
		}
	}
	return out
}
