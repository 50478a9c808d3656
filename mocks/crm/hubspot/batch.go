package hubspot

import (
	"maps"
	"net/http"
	"strings"
	"time"
)

// maxBatch is the number of inputs in a batch of objects.
const maxBatch = 100

// batch collects the answer to a batch.
type batch struct {
	started time.Time
	upsert  bool
	results []any
	errors  []map[string]any
}

func (c *call) newBatch() *batch { return &batch{started: c.p.now(), results: []any{}} }

// missing notes IDs that name nothing.
func (b *batch) missing(t *objectType, ids []string) {
	if len(ids) == 0 {
		return
	}
	b.fail("OBJECT_NOT_FOUND", "Could not get some "+strings.ToUpper(t.singular)+" objects, they may be deleted or not exist. Check that ids are valid.", "ids", ids)
}

func (b *batch) fail(category, message, contextKey string, context []string) {
	b.errors = append(b.errors, map[string]any{
		"status": "error", "category": category, "message": message, "context": map[string][]string{contextKey: context},
	})
}

// reply answers the batch. Up to 2026-03 a partial one has status 207; 2026-09
// says 200 and leaves the rest to the body.
func (b *batch) reply(c *call, status int) *reply {
	body := map[string]any{"status": "COMPLETE", "results": b.results, "startedAt": stamp(b.started), "completedAt": stamp(c.p.now())}
	if len(b.errors) > 0 {
		body["numErrors"], body["errors"] = len(b.errors), b.errors
		if status = http.StatusMultiStatus; c.version == "2026-09" {
			status = http.StatusOK
		}
	}
	return respond(status, body)
}

// batchInput is the body of every batch of objects.
type batchInput struct {
	Inputs             []objectInput `json:"inputs"`
	Properties         []string      `json:"properties"`
	PropertiesWithHist []string      `json:"propertiesWithHistory"`
	IDProperty         string        `json:"idProperty"`
}

// decodeBatch reads a batch and checks its size and that no input occurs twice.
func (c *call) decodeBatch(needID bool) (*objectType, *batchInput, *reply) {
	t, bad := c.objectType("type")
	if bad != nil {
		return nil, nil, bad
	}
	var in batchInput
	if bad := c.decode(&in); bad != nil {
		return nil, nil, bad
	}
	largest := maxBatch
	if len(in.PropertiesWithHist) > 0 {
		largest = maxHistoryPage
	}
	if len(in.Inputs) == 0 || len(in.Inputs) > largest {
		return nil, nil, invalid("A batch has 1 to %d inputs, this one has %d.", largest, len(in.Inputs))
	}
	seen := map[string]bool{}
	for _, input := range in.Inputs {
		if needID && input.ID == "" {
			return nil, nil, invalid("Invalid input JSON: an input has no id.")
		}
		if id := input.ID; id != "" {
			if seen[id] {
				return nil, nil, invalid("Duplicate IDs found in batch input: [%s]. IDs must be unique", id)
			}
			seen[id] = true
		}
	}
	return t, &in, nil
}

// lookUp finds an input of a batch, where IDs that were merged away lead nowhere.
func (t *objectType) lookUp(id, by string) *record {
	if by != "" && by != "hs_object_id" {
		return t.findBy(by, id)
	}
	n, ok := parseID(id)
	if !ok {
		return nil
	}
	return t.find(n, false, false)
}

// struck tells whether a fault lets this input of a batch fail.
func (c *call) struck(b *batch, i, inputs int, id string) bool {
	if !c.partial || i != inputs-1 {
		return false
	}
	b.fail("INTERNAL_ERROR", "The object could not be processed.", "ids", []string{id})
	return true
}

func (c *call) batchRead() *reply {
	t, in, bad := c.decodeBatch(true)
	if bad != nil {
		return bad
	}
	b := c.newBatch()
	var missing []string
	for i, input := range in.Inputs {
		if c.struck(b, i, len(in.Inputs), input.ID) {
			continue
		}
		r := t.lookUp(input.ID, in.IDProperty)
		if r == nil {
			missing = append(missing, input.ID)
			continue
		}
		b.results = append(b.results, c.p.view(r, in.Properties, in.PropertiesWithHist))
	}
	b.missing(t, missing)
	return b.reply(c, http.StatusOK)
}

func (c *call) batchCreate() *reply {
	t, in, bad := c.decodeBatch(false)
	if bad == nil {
		bad = c.checkBatch(t, in)
	}
	if bad != nil {
		return bad
	}
	b := c.newBatch()
	for i, input := range in.Inputs {
		if c.struck(b, i, len(in.Inputs), input.TraceID) {
			continue
		}
		if bad := c.writeOne(b, t, nil, input); bad != nil {
			return bad
		}
	}
	return b.reply(c, http.StatusCreated)
}

// checkBatch refuses a batch with a bad value before anything of it is written.
func (c *call) checkBatch(t *objectType, in *batchInput) *reply {
	for _, input := range in.Inputs {
		if _, bad := c.p.check(t, t.lookUp(input.ID, input.IDProperty), input.values(), c.version); bad != nil {
			return bad
		}
	}
	return nil
}

func (c *call) batchUpdate() *reply { return c.batchWrite(false) }
func (c *call) batchUpsert() *reply { return c.batchWrite(true) }

// batchWrite gives every record of the batch the same time stamp, as HubSpot does.
func (c *call) batchWrite(upsert bool) *reply {
	t, in, bad := c.decodeBatch(true)
	if bad == nil {
		bad = c.checkBatch(t, in)
	}
	if bad != nil {
		return bad
	}
	b := c.newBatch()
	b.upsert = upsert
	var missing []string
	for i, input := range in.Inputs {
		if upsert && input.IDProperty == "" {
			return invalid("Invalid input JSON: an input of an upsert needs an idProperty.")
		}
		if c.struck(b, i, len(in.Inputs), input.ID) {
			continue
		}
		r := t.lookUp(input.ID, input.IDProperty)
		if r == nil && !upsert {
			missing = append(missing, input.ID)
			continue
		}
		if bad := c.writeOne(b, t, r, input); bad != nil {
			return bad
		}
	}
	b.missing(t, missing)
	return b.reply(c, http.StatusOK)
}

// writeOne updates r, or creates a record when there is none.
func (c *call) writeOne(b *batch, t *objectType, r *record, input objectInput) *reply {
	if r != nil {
		out, bad := c.update(r, input, b.started)
		if bad == nil {
			b.add(out, input, false)
		}
		return bad
	}
	if b.upsert {
		properties := map[string]anyString{input.IDProperty: anyString(input.ID)}
		maps.Copy(properties, input.Properties)
		input.Properties = properties
	}
	r, values, bad := c.createOne(t, input)
	if bad == nil {
		b.add(c.p.afterWrite(r, values), input, true)
	}
	return bad
}

func (b *batch) add(out map[string]any, input objectInput, isNew bool) {
	if b.upsert {
		out["new"] = isNew
	}
	if input.TraceID != "" {
		out["objectWriteTraceId"] = input.TraceID
	}
	b.results = append(b.results, out)
}

func (c *call) batchArchive() *reply {
	t, in, bad := c.decodeBatch(true)
	if bad != nil {
		return bad
	}
	now := c.p.now()
	for _, input := range in.Inputs {
		if r := t.lookUp(input.ID, ""); r != nil {
			c.p.archive(r, now)
		}
	}
	return noContent()
}
