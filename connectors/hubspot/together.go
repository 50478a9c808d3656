package hubspot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// dealData is a deal with the other ends of its associations.
type dealData struct {
	object
	date time.Time // HubSpot's, of the reading
	at   time.Time // ours
	// first says that nobody has asked for it since it was found to have entered its stage.
	first bool
	// ends are by object type; a type that is missing was not answered for and is listed by itself.
	ends map[string][]associated
}

const (
	modifiedProperty = "hs_lastmodifieddate"
	mergedProperty   = "hs_merged_object_ids"
)

// modified is the stamp of the state that was read.
func (d dealData) modified() string { return value(d.Properties, modifiedProperty) }

// readWith reads a deal by an ID that may be an old one, and what of each type belongs to it. Deals that are read in the
// same way at the same time share the calls.
func (c *Connector) readWith(ctx context.Context, id string, properties, types []string) (dealData, error) {
	if len(strings.Join(properties, ",")) > maxQuery {
		at := time.Now()
		d, date, err := c.readDeal(ctx, id, properties)
		return dealData{object: d, date: date, at: at}, err
	}
	answer, err := c.deals.Ask(ctx, strings.Join(properties, ",")+" "+strings.Join(types, ","), id)
	return asked(ctx, answer, err)
}

// askDeals answers readWith. One deal is one call; many are one for the deals and one for each type, if that is fewer.
func (c *Connector) askDeals(ctx context.Context, group string, ids []string) []connectors.Answer[dealData] {
	list, of, _ := strings.Cut(group, " ")
	properties := slices.Concat(c.kind.always(), splitList(list))
	types := splitList(of)
	return allOrEach(ctx, ids, mayBeOnes, func(ctx context.Context, ids []string) ([]connectors.Answer[dealData], error) {
		if len(ids) <= 1+len(types) {
			return c.askDealByDeal(ctx, ids, properties, types), nil
		}
		found, err := c.askAllDeals(ctx, sortedSet(slices.Clone(ids)), properties, types)
		if err != nil {
			return nil, err
		}
		answers := make([]connectors.Answer[dealData], len(ids))
		for i, id := range ids {
			var ok bool
			if answers[i].Value, ok = found[id]; !ok { // merged away, which only a call for one deal follows, or gone
				answers[i].Value, answers[i].Err = c.askDeal(ctx, id, properties, types)
			}
		}
		return answers, nil
	})
}

func splitList(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// askDealByDeal reads deals with their associations, at the same time.
func (c *Connector) askDealByDeal(ctx context.Context, ids, properties, types []string) []connectors.Answer[dealData] {
	answers := make([]connectors.Answer[dealData], len(ids))
	var g sync.WaitGroup
	for i, id := range ids {
		g.Go(func() { answers[i].Value, answers[i].Err = c.askDeal(ctx, id, properties, types) })
	}
	g.Wait()
	return answers
}

// askDeal reads one deal with its associations.
func (c *Connector) askDeal(ctx context.Context, id string, properties, types []string) (dealData, error) {
	d, _, err := c.askDealAnd(ctx, id, properties, types, nil)
	return d, err
}

// askDealAnd reads one deal with its associations and the histories of some properties. said is the reply.
func (c *Connector) askDealAnd(ctx context.Context, id string, properties, types, histories []string) (d dealData, body json.RawMessage, err error) {
	query := url.Values{"properties": {strings.Join(properties, ",")}}
	if len(types) > 0 {
		query.Set("associations", strings.Join(types, ","))
	}
	if len(histories) > 0 {
		query.Set("propertiesWithHistory", strings.Join(histories, ","))
	}
	at := time.Now() // before it was read
	r, err := c.getJSON(ctx, c.objects(c.kind.name)+"/"+id, query, &body)
	if err != nil {
		return dealData{}, nil, gone(err)
	}
	var said struct {
		object
		Associations map[string]inlineAssociations `json:"associations"`
	}
	if json.Unmarshal(body, &said) != nil {
		return dealData{}, nil, malformed("it is no %s", c.kind.one)
	}
	if _, ok := parseID(said.ID); !ok {
		return dealData{}, nil, malformed("the %s has no ID", c.kind.one)
	}
	d = dealData{object: said.object, date: r.date, at: at}
	d.ends, err = inlineEnds(said.Associations, types)
	return d, body, err
}

// inlineAssociations are those that come with a deal. They do not say which labels there are in the words of the account.
type inlineAssociations struct {
	Results []struct {
		ID json.Number `json:"id"`
	} `json:"results"`
	Paging struct {
		Next struct {
			After string `json:"after"`
		} `json:"next"`
	} `json:"paging"`
}

// inlineEnds reads the associations that came with a deal. What they leave open is left out: a list that is cut, one of
// several contacts or companies, whose labels make their order, and everything if there is a list that was not asked for,
// which may be one of those that were, under a name that is not known here.
func inlineEnds(said map[string]inlineAssociations, types []string) (map[string][]associated, error) {
	ends := map[string][]associated{}
	for _, t := range types {
		ends[t] = nil
	}
	for name, list := range said {
		t := strings.ReplaceAll(name, " ", "_") // line_items come as "line items"
		if !slices.Contains(types, t) {
			return nil, nil
		}
		var ids []string
		for _, r := range list.Results {
			if _, ok := parseID(r.ID.String()); !ok {
				return nil, malformed("an association has no ID")
			}
			ids = append(ids, r.ID.String())
		}
		slices.SortFunc(ids, compareIDs)
		ids = slices.Compact(ids) // one for each type of the association
		if list.Paging.Next.After != "" || len(ids) > 1 && (t == "contacts" || t == "companies") {
			delete(ends, t)
			continue
		}
		for _, id := range ids {
			ends[t] = append(ends[t], associated{id: id})
		}
	}
	return ends, nil
}

// askAllDeals reads several deals, by their IDs of today, and what belongs to them.
func (c *Connector) askAllDeals(ctx context.Context, ids, properties, types []string) (map[string]dealData, error) {
	at := time.Now()
	objects, date, err := c.readBatch(ctx, c.kind.name, ids, properties)
	if err != nil {
		return nil, err
	}
	found := map[string]dealData{}
	var there []string
	for _, o := range objects {
		found[o.ID] = dealData{object: o, date: date, at: at, ends: map[string][]associated{}}
		there = append(there, o.ID)
	}
	if len(there) == 0 {
		return found, nil
	}
	ends := make([]map[string][]associated, len(types))
	g, ctx := errgroup.WithContext(ctx)
	for i, t := range types {
		g.Go(func() (err error) {
			ends[i], err = c.allAssociations(ctx, there, t)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, t := range types {
		for id, list := range ends[i] {
			found[id].ends[t] = list
		}
	}
	return found, nil
}

// allAssociations lists what of a type belongs to several deals. A deal whose list is cut is missing.
func (c *Connector) allAssociations(ctx context.Context, ids []string, objectType string) (map[string][]associated, error) {
	inputs := make([]map[string]string, len(ids))
	for i, id := range ids {
		inputs[i] = map[string]string{"id": id}
	}
	r, err := c.send(ctx, http.MethodPost, "/crm/associations/"+c.cfg.APIVersion+"/"+c.kind.name+"/"+objectType+"/batch/read", withToken, map[string]any{"inputs": inputs})
	if err != nil {
		return nil, fmt.Errorf("list the %s: %w", objectType, err)
	}
	results, err := parseBatch(r.body, len(ids))
	if err == nil && len(results)+errorsIn(r.body) < len(ids) {
		err = malformed("it is silent about some of the deals") // which is not the same as that they have none
	}
	if err != nil {
		return nil, fmt.Errorf("list the %s: %w", objectType, err)
	}
	ends := map[string][]associated{}
	for _, id := range ids {
		ends[id] = nil
	}
	for _, raw := range results {
		id, list, whole, err := parseEnds(raw)
		if _, ok := ends[id]; err != nil || !ok {
			return nil, fmt.Errorf("list the %s: %w", objectType, errors.Join(err, malformed("it is about another deal")))
		}
		if ends[id] = list; !whole {
			delete(ends, id)
		}
	}
	return ends, nil
}

// errorsIn is how many errors a batch tells of.
func errorsIn(body []byte) int {
	var said struct {
		Errors []json.RawMessage `json:"errors"`
	}
	if json.Unmarshal(body, &said) != nil {
		return 0
	}
	return len(said.Errors)
}

// parseEnds reads the associations of one deal out of a batch.
func parseEnds(raw json.RawMessage) (id string, list []associated, whole bool, err error) {
	var said struct {
		From struct {
			ID json.Number `json:"id"`
		} `json:"from"`
		To     []associationRow `json:"to"`
		Paging struct {
			Next struct {
				After string `json:"after"`
			} `json:"next"`
		} `json:"paging"`
	}
	if json.Unmarshal(raw, &said) != nil {
		return "", nil, false, malformed("a list of associations is none")
	}
	for _, row := range said.To {
		a, err := row.read()
		if err != nil {
			return "", nil, false, err
		}
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b associated) int { return compareIDs(a.id, b.id) })
	return said.From.ID.String(), list, said.Paging.Next.After == "", nil
}

// askObjects reads records of one type for several deals, all in one call if there are not too many.
func (c *Connector) askObjects(ctx context.Context, group string, sets [][]string) []connectors.Answer[[]object] {
	asked := sortedSet(slices.Concat(sets...))
	along := c.fresh.alongside(group, (objectBatch-len(asked)%objectBatch)%objectBatch)
	return allOrEach(ctx, sets, mayBeOnes, func(ctx context.Context, sets [][]string) ([]connectors.Answer[[]object], error) {
		found, err := c.readAlong(ctx, group, slices.Concat(sets...), along)
		along = nil // once
		if err != nil {
			return nil, err
		}
		answers := make([]connectors.Answer[[]object], len(sets))
		for i, ids := range sets {
			for _, id := range ids {
				if o, ok := found[id]; ok {
					answers[i].Value = append(answers[i].Value, o)
				}
			}
			if len(sets) > 1 && len(answers[i].Value) < len(ids) { // what is missing of one deal's is asked for by itself
				answers[i] = c.askObjects(ctx, group, sets[i:i+1])[0]
			}
		}
		return answers, nil
	})
}

// readAlong reads records of one type, and along with them those of deals that have not asked for theirs yet.
func (c *Connector) readAlong(ctx context.Context, group string, asked []string, along map[belongingKey][]string) (map[string]object, error) {
	objectType, list, _ := strings.Cut(group, " ")
	found := map[string]object{}
	ids := sortedSet(slices.Concat(append(slices.Collect(maps.Values(along)), asked)...))
	at, date := time.Now(), time.Time{}
	for batch := range slices.Chunk(ids, objectBatch) {
		objects, said, err := c.readBatch(ctx, objectType, batch, splitList(list))
		if err != nil && len(along) > 0 && mayBeOnes(err) { // perhaps for what nobody has asked for
			return c.readAlong(ctx, group, asked, nil)
		}
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			found[o.ID] = o
		}
		date = said
	}
	c.fresh.renew(along, found, at, date)
	return found, nil
}

// update is the write of one deal.
type update struct {
	ID         string            `json:"id"`
	Properties map[string]string `json:"properties"`
}

// written is a deal as the reply to a write shows it.
type written struct {
	object
	date time.Time
}

// writeAll writes several deals. What a batch refuses for one of them, each is told by a call of its own.
func (c *Connector) writeAll(ctx context.Context, _ string, updates []update) []connectors.Answer[written] {
	return allOrEach(ctx, updates, notWritten, func(ctx context.Context, updates []update) ([]connectors.Answer[written], error) {
		answers := make([]connectors.Answer[written], len(updates))
		if len(updates) == 1 {
			answers[0].Value, answers[0].Err = c.writeOne(ctx, updates[0])
			return answers, nil
		}
		r, err := c.send(ctx, http.MethodPost, c.objects(c.kind.name)+"/batch/update", withToken, map[string]any{"inputs": updates})
		if err != nil {
			return nil, err
		}
		results, err := resultsOf(r.body)
		if err != nil {
			return nil, err
		}
		for i, u := range updates {
			if o, ok := results[u.ID]; ok {
				answers[i].Value = written{o, r.date}
			} else { // an ID that was merged away, or a reason that only a call for this deal tells
				answers[i].Value, answers[i].Err = c.writeOne(ctx, u)
			}
		}
		return answers, nil
	})
}

func (c *Connector) writeOne(ctx context.Context, u update) (written, error) {
	answer, err := c.send(ctx, http.MethodPatch, c.objects(c.kind.name)+"/"+u.ID, withToken, map[string]any{"properties": u.Properties})
	if err != nil {
		return written{}, err
	}
	w := written{date: answer.date}
	return w, answer.decode(&w.object)
}

// resultsOf are the records that a batch has written.
func resultsOf(body []byte) (map[string]object, error) {
	var said struct {
		Results []object `json:"results"`
	}
	if json.Unmarshal(body, &said) != nil || said.Results == nil {
		return nil, malformed("it is no result of a batch")
	}
	results := map[string]object{}
	for _, o := range said.Results {
		results[o.ID] = o
	}
	return results, nil
}

// noteInput is a note to be made.
type noteInput struct {
	Properties   map[string]string `json:"properties"`
	Associations []map[string]any  `json:"associations"`
	Trace        string            `json:"objectWriteTraceId,omitempty"`
}

// makeNotes makes the notes of several deals. A note that a batch does not say it has made may have been made all the same.
func (c *Connector) makeNotes(ctx context.Context, _ string, sets [][]noteInput) []connectors.Answer[noteStamp] {
	answers := make([]connectors.Answer[noteStamp], len(sets))
	all := slices.Concat(sets...)
	if len(all) == 1 {
		var said object
		r, err := c.send(ctx, http.MethodPost, c.objects("notes"), withToken, all[0])
		if err == nil {
			err = r.decode(&said)
		}
		answers[0].Value, answers[0].Err = noteStamp{said.CreatedAt, r.date}, err
		return answers
	}
	for i := range all {
		all[i].Trace = fmt.Sprint("note-", i)
	}
	r, err := c.send(ctx, http.MethodPost, c.objects("notes")+"/batch/create", withToken, map[string]any{"inputs": all})
	made, err := madeNotes(r.body, err)
	for i, notes := range sets {
		if err != nil {
			answers[i].Err = ownCopy(err)
			continue
		}
		for range notes {
			if stamp, ok := made[all[0].Trace]; ok {
				answers[i].Value = noteStamp{stamp, r.date}
			} else {
				answers[i].Err = &Error{class: passing, unclear: true, cure: "HubSpot could not make a note"}
			}
			all = all[1:]
		}
	}
	if err != nil && len(sets) > 1 && notWritten(err) {
		for i := range sets {
			answers[i] = c.makeNotes(ctx, "", sets[i:i+1])[0]
		}
	}
	return answers
}

// noteStamp is when a note was made.
type noteStamp struct {
	stamp string
	date  time.Time
}

// madeNotes are the stamps of those that a batch has made, by their traces.
func madeNotes(body []byte, err error) (map[string]string, error) {
	if err != nil {
		return nil, err
	}
	var said struct {
		Results []struct {
			Trace     string `json:"objectWriteTraceId"`
			CreatedAt string `json:"createdAt"`
		} `json:"results"`
	}
	if json.Unmarshal(body, &said) != nil || said.Results == nil {
		return nil, malformed("it is no result of a batch")
	}
	made := map[string]string{}
	for _, r := range said.Results {
		made[r.Trace] = r.CreatedAt
	}
	return made, nil
}

// allOrEach asks all questions at once. What a call for several is refused for may be the fault of one of them: then each
// is asked by itself, so that it is no other's trouble. apart says after which errors that may be done.
func allOrEach[Q, A any](ctx context.Context, questions []Q, apart func(error) bool, ask func(context.Context, []Q) ([]connectors.Answer[A], error)) []connectors.Answer[A] {
	answers, err := ask(ctx, questions)
	if err == nil {
		return answers
	}
	answers = make([]connectors.Answer[A], len(questions))
	if len(questions) == 1 || !apart(err) {
		for i := range answers {
			answers[i].Err = ownCopy(err)
		}
		return answers
	}
	for i, q := range questions {
		one, err := ask(ctx, []Q{q})
		if err != nil {
			answers[i].Err = err
			continue
		}
		answers[i] = one[0]
	}
	return answers
}

// mayBeOnes reports whether a call for several records can have failed for one of them.
func mayBeOnes(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Login() || e.class == expired {
		return errors.Is(err, deal.ErrGone)
	}
	switch e.Status {
	case http.StatusOK, http.StatusMultiStatus:
		return true
	case http.StatusTooManyRequests, statusMigrating:
		return false
	}
	return e.Status >= 400 && e.Status <= 499
}

// notWritten is mayBeOnes for writes: what may have been carried out is not simply made again.
func notWritten(err error) bool { return mayBeOnes(err) && !isUnclear(err) }

// ownCopy keeps deals that share a call from sharing its error, to which each adds what it knows.
func ownCopy(err error) error {
	if e, ok := err.(*Error); ok {
		own := *e
		return &own
	}
	return err
}

// asked is the outcome of a question that deals ask together: what has got no answer in time may have been carried out,
// unless it was never asked.
func asked[A any](ctx context.Context, answer A, err error) (A, error) {
	var own *Error
	var never *connectors.NotAskedError
	switch {
	case err == nil || errors.As(err, &own):
	case errors.As(err, &never):
		err = &Error{cause: connectors.Network(err)}
	case ctx.Err() != nil:
		err = callError(ctx, err)
	}
	return answer, err
}

// look is what a deal showed of the properties that receipts are written to, when it was read last.
type look struct {
	id         string // of today
	properties map[string]*string
	stage      string
	date       time.Time
	at         time.Time
	notes      *[]note // nil if they were not read
}

// lookLife is how long a look is good for. HubSpot knows no condition for a write: what is written in between by others is
// overwritten.
const lookLife = 2 * time.Second

// saw takes in what a deal showed.
func (t *told) saw(asked string, d dealData, stage string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := look{id: d.ID, properties: map[string]*string{}, stage: stage, date: d.date, at: d.at}
	for name := range t.properties {
		if v, ok := d.Properties[name]; ok {
			l.properties[name] = v
		}
	}
	if len(t.looks) >= maxTold {
		clear(t.looks)
	}
	t.looks[asked] = l
}

// sawNotes takes in which notes a deal had at a time.
func (t *told) sawNotes(asked string, at time.Time, notes []note) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l, ok := t.looks[asked]; ok && l.at.Equal(at) {
		l.notes = &notes
		t.looks[asked] = l
	}
}

// takeNotes returns the notes that a deal had a moment ago, and its ID of today. It is for whoever is about to add to them.
func (t *told) takeNotes(asked string) (id string, notes []note, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.looks[asked]
	if !ok || l.notes == nil || time.Since(l.at) > lookLife {
		return "", nil, false
	}
	notes, l.notes = *l.notes, nil
	t.looks[asked] = l
	return l.id, notes, true
}

// stage is that which a deal was seen in last.
func (t *told) stage(asked string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.looks[asked].stage
}

// shown is what a deal showed a moment ago, if the property that bears the sequence was read.
func (t *told) shown(id, sequence string) (l look, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok = t.looks[id]
	if !ok || time.Since(l.at) > lookLife {
		return look{}, false
	}
	_, ok = l.properties[sequence]
	return l, ok
}

// forgetShown is for a deal that is about to be written to.
func (t *told) forgetShown(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.looks, id)
}

// learn takes note of the properties that receipts are written to.
func (t *told) learn(sequence string, values map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.properties[sequence] = true
	for name := range values {
		t.properties[name] = true
	}
	delete(t.properties, "")
}

// learned are the properties that receipts are written to.
func (t *told) learned() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.properties))
}

// Price implements connectors.Priced: two updates, each file, and their note.
func (c *Connector) Price(files int) int { return 3 + files }
