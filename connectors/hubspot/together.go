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

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// dealData is a deal with the other ends of its associations.
type dealData struct {
	object
	date time.Time
	// ends are by object type; a type that is missing was not answered for and is listed by itself.
	ends map[string][]associated
}

// always are the properties of a deal that are read with it.
var always = []string{"dealstage", "hs_lastmodifieddate", "hs_merged_object_ids"}

// readWith reads a deal by an ID that may be an old one, and what of each type belongs to it. Deals that are read in the
// same way at the same time share the calls.
func (c *Connector) readWith(ctx context.Context, id string, properties, types []string) (dealData, error) {
	if len(strings.Join(properties, ",")) > maxQuery {
		d, date, err := c.readDeal(ctx, id, properties)
		return dealData{object: d, date: date}, err
	}
	answer, err := c.deals.Ask(ctx, strings.Join(properties, ",")+" "+strings.Join(types, ","), id)
	return asked(ctx, answer, err)
}

// askDeals answers readWith. One deal is one call; many are one for the deals and one for each type, if that is fewer.
func (c *Connector) askDeals(ctx context.Context, group string, ids []string) []connectors.Answer[dealData] {
	list, of, _ := strings.Cut(group, " ")
	properties := slices.Concat(always, splitList(list))
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
func (c *Connector) askDeal(ctx context.Context, id string, properties, types []string) (d dealData, err error) {
	query := url.Values{"properties": {strings.Join(properties, ",")}}
	if len(types) > 0 {
		query.Set("associations", strings.Join(types, ","))
	}
	var said struct {
		object
		Associations map[string]inlineAssociations `json:"associations"`
	}
	r, err := c.getJSON(ctx, c.objects(Object)+"/"+id, query, &said)
	if err != nil {
		return dealData{}, gone(err)
	}
	if _, ok := parseID(said.ID); !ok {
		return dealData{}, malformed("the deal has no ID")
	}
	d = dealData{object: said.object, date: r.date}
	d.ends, err = inlineEnds(said.Associations, types)
	return d, err
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
	objects, date, err := c.readBatch(ctx, Object, ids, properties)
	if err != nil {
		return nil, err
	}
	found := map[string]dealData{}
	var there []string
	for _, o := range objects {
		found[o.ID] = dealData{object: o, date: date, ends: map[string][]associated{}}
		there = append(there, o.ID)
	}
	for _, t := range types {
		if len(there) == 0 {
			break
		}
		ends, err := c.allAssociations(ctx, there, t)
		if err != nil {
			return nil, err
		}
		for _, id := range there {
			if list, whole := ends[id]; whole {
				found[id].ends[t] = list
			}
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
	r, err := c.send(ctx, http.MethodPost, "/crm/associations/"+c.cfg.APIVersion+"/"+Object+"/"+objectType+"/batch/read", withToken, map[string]any{"inputs": inputs})
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
	objectType, list, _ := strings.Cut(group, " ")
	return allOrEach(ctx, sets, mayBeOnes, func(ctx context.Context, sets [][]string) ([]connectors.Answer[[]object], error) {
		found := map[string]object{}
		for batch := range slices.Chunk(sortedSet(slices.Concat(sets...)), objectBatch) {
			objects, _, err := c.readBatch(ctx, objectType, batch, splitList(list))
			if err != nil {
				return nil, err
			}
			for _, o := range objects {
				found[o.ID] = o
			}
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

// update is the write of one deal.
type update struct {
	ID         string            `json:"id"`
	Properties map[string]string `json:"properties"`
}

// writeAll writes several deals. What a batch refuses for one of them, each is told by a call of its own.
func (c *Connector) writeAll(ctx context.Context, _ string, updates []update) []connectors.Answer[struct{}] {
	return allOrEach(ctx, updates, notWritten, func(ctx context.Context, updates []update) ([]connectors.Answer[struct{}], error) {
		answers := make([]connectors.Answer[struct{}], len(updates))
		if len(updates) == 1 {
			answers[0].Err = c.writeOne(ctx, updates[0])
			return answers, nil
		}
		r, err := c.send(ctx, http.MethodPost, c.objects(Object)+"/batch/update", withToken, map[string]any{"inputs": updates})
		if err != nil {
			return nil, err
		}
		written, err := resultIDs(r.body)
		if err != nil {
			return nil, err
		}
		for i, u := range updates {
			if !written[u.ID] { // an ID that was merged away, or a reason that only a call for this deal tells
				answers[i].Err = c.writeOne(ctx, u)
			}
		}
		return answers, nil
	})
}

func (c *Connector) writeOne(ctx context.Context, u update) error {
	var said object
	answer, err := c.send(ctx, http.MethodPatch, c.objects(Object)+"/"+u.ID, withToken, map[string]any{"properties": u.Properties})
	if err != nil {
		return err
	}
	return answer.decode(&said)
}

// resultIDs are the records that a batch has written.
func resultIDs(body []byte) (map[string]bool, error) {
	var said struct {
		Results []struct {
			ID string `json:"id"`
		} `json:"results"`
	}
	if json.Unmarshal(body, &said) != nil || said.Results == nil {
		return nil, malformed("it is no result of a batch")
	}
	ids := map[string]bool{}
	for _, r := range said.Results {
		ids[r.ID] = true
	}
	return ids, nil
}

// noteInput is a note to be made.
type noteInput struct {
	Properties   map[string]string `json:"properties"`
	Associations []map[string]any  `json:"associations"`
	Trace        string            `json:"objectWriteTraceId,omitempty"`
}

// makeNotes makes the notes of several deals. A note that a batch does not say it has made may have been made all the same.
func (c *Connector) makeNotes(ctx context.Context, _ string, sets [][]noteInput) []connectors.Answer[struct{}] {
	answers := make([]connectors.Answer[struct{}], len(sets))
	all := slices.Concat(sets...)
	if len(all) == 1 {
		var said object
		r, err := c.send(ctx, http.MethodPost, c.objects("notes"), withToken, all[0])
		if err == nil {
			err = r.decode(&said)
		}
		answers[0].Err = err
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
			if !made[all[0].Trace] {
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

// madeNotes are the traces of those that a batch has made.
func madeNotes(body []byte, err error) (map[string]bool, error) {
	if err != nil {
		return nil, err
	}
	var said struct {
		Results []struct {
			Trace string `json:"objectWriteTraceId"`
		} `json:"results"`
	}
	if json.Unmarshal(body, &said) != nil || said.Results == nil {
		return nil, malformed("it is no result of a batch")
	}
	made := map[string]bool{}
	for _, r := range said.Results {
		made[r.Trace] = true
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
	date       time.Time
	at         time.Time
}

// lookLife is how long a look is good for. HubSpot knows no condition for a write: what is written in between by others is
// overwritten.
const lookLife = 2 * time.Second

// saw takes in what a deal showed.
func (t *told) saw(asked string, d dealData) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := look{id: d.ID, properties: map[string]*string{}, date: d.date, at: time.Now()}
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

// Price implements connectors.Priced: two updates, each file, their note, and a look at the deal before it is told that it is
// signed.
func (c *Connector) Price(files int) int { return 4 + files }
