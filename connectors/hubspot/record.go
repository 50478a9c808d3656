package hubspot

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dealseal/dealseal/deal"
)

const (
	objectBatch      = 100 // of a batch without histories
	associationRows  = 500 // of one page of associations
	associationPages = 20
	// maxQuery is how long the list of properties in a URL may be; longer ones are read through a batch.
	maxQuery = 3000
)

// objects is the path of an object type.
func (c *Connector) objects(object string) string {
	return "/crm/objects/" + c.cfg.APIVersion + "/" + object
}

// object is a record of any type as the API answers it.
type object struct {
	ID         string             `json:"id"`
	Properties map[string]*string `json:"properties"`
	CreatedAt  string             `json:"createdAt"`
}

// Record implements connectors.CRM. All values are text, as HubSpot gives them. A path is a property of the deal or quote
// ("dealname") or of what belongs to it:
//
//   - "company.name": the primary company, or the one with the lowest ID
//   - "contacts.email": the contacts, those with a label first, by label, then by ID
//   - "line_items.price": the line items, by hs_position_on_quote, then by ID
//   - "deal.dealname": of a quote, the deal that it belongs to, or the one with the lowest ID
//   - "owner.email", "owner.firstName", "owner.lastName", "owner.id", "owner.userId": the owner of the record
//
// An ID that was merged away leads to the deal that took over.
func (c *Connector) Record(ctx context.Context, ref deal.Ref, fields []string) (deal.Record, error) {
	on, err := c.to(ref)
	if err != nil {
		return deal.Record{}, fmt.Errorf("hubspot: read record: %w", err)
	}
	record, err := on.readRecord(ctx, ref, fields)
	if err != nil {
		return deal.Record{}, fmt.Errorf("hubspot: read %s: %w", ref, err)
	}
	return record, nil
}

func (c *Connector) readRecord(ctx context.Context, ref deal.Ref, fields []string) (deal.Record, error) {
	wanted, err := c.kind.parseSelection(fields)
	if err != nil {
		return deal.Record{}, err
	}
	account, err := c.knownAccount(ctx)
	if err != nil {
		return deal.Record{}, err
	}
	properties, types := wanted.dealProperties(), wanted.types()
	d, err := c.takeOrRead(ctx, ref.ID, wanted, properties, types)
	if err != nil {
		return deal.Record{}, err
	}
	c.told.saw(ref.ID, d, value(d.Properties, c.kind.stage))
	record := deal.Record{
		Ref: deal.Ref{Object: c.kind.name, ID: d.ID}, Aliases: splitIDs(value(d.Properties, mergedProperty)),
		Stage: value(d.Properties, c.kind.stage), URL: account.page(c.kind, d.ID),
	}
	if record.Modified, err = parseTime(d.modified()); err != nil {
		return deal.Record{}, malformed("the %s has no hs_lastmodifieddate", c.kind.one)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		record.Values, err = c.values(ctx, d, wanted)
		return err
	})
	g.Go(func() (err error) {
		record.Files, err = c.files(ctx, ref.ID, d, account.page(c.kind, d.ID))
		return err
	})
	if err := g.Wait(); err != nil {
		return deal.Record{}, err
	}
	c.fresh.learn(properties, types, d.date)
	return record, nil
}

// takeOrRead returns the deal itself: as it was read with its history a moment ago, or as it is now. Beside that the first
// of many that wait looks ahead.
func (c *Connector) takeOrRead(ctx context.Context, id string, wanted selection, properties, types []string) (d dealData, err error) {
	d, first, ok := c.fresh.take(id, properties, types)
	if !ok {
		var g sync.WaitGroup
		if first {
			g.Go(func() { c.lookAhead(ctx, wanted) })
		}
		d, err = c.readWith(ctx, id, properties, types)
		g.Wait()
	}
	d.first = first
	return d, err
}

// readDeal reads one deal by an ID that may be an old one, and says HubSpot's time of that. Long lists of properties are
// read through a batch, which takes only the ID of today.
func (c *Connector) readDeal(ctx context.Context, id string, properties []string) (object, time.Time, error) {
	list := strings.Join(properties, ",")
	inURL := strings.Join(c.kind.always(), ",")
	if len(list) <= maxQuery {
		inURL += "," + list
	}
	var d object
	r, err := c.getJSON(ctx, c.objects(c.kind.name)+"/"+id, url.Values{"properties": {strings.Trim(inURL, ",")}}, &d)
	if err != nil {
		return object{}, time.Time{}, gone(err)
	}
	if _, ok := parseID(d.ID); !ok {
		return object{}, time.Time{}, malformed("the %s has no ID", c.kind.one)
	}
	if len(list) > maxQuery {
		more, err := c.readObjects(ctx, c.kind.name, []string{d.ID}, properties)
		if err != nil {
			return object{}, time.Time{}, err
		}
		if len(more) == 0 {
			return object{}, time.Time{}, deal.ErrGone
		}
		maps.Copy(d.Properties, more[0].Properties)
	}
	return d, r.date, nil
}

// readObjects reads records of one type. Those that do not exist any more are left out. Deals that read the same of theirs
// at the same time share the calls.
func (c *Connector) readObjects(ctx context.Context, objectType string, ids, properties []string) ([]object, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	answer, err := c.belonging.Ask(ctx, belongingGroup(objectType, properties), ids)
	return asked(ctx, answer, err)
}

// readBatch reads records of one type in one call, and says HubSpot's time of that.
func (c *Connector) readBatch(ctx context.Context, objectType string, ids, properties []string) ([]object, time.Time, error) {
	inputs := make([]map[string]string, len(ids))
	for i, id := range ids {
		inputs[i] = map[string]string{"id": id}
	}
	r, err := c.send(ctx, http.MethodPost, c.objects(objectType)+"/batch/read", withToken,
		map[string]any{"inputs": inputs, "properties": properties})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read %s: %w", objectType, err)
	}
	results, err := parseBatch(r.body, len(ids))
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read %s: %w", objectType, err)
	}
	var all []object
	for _, raw := range results {
		var o object
		if json.Unmarshal(raw, &o) != nil || o.ID == "" {
			return nil, time.Time{}, malformed("one of the %s has no ID", objectType)
		}
		all = append(all, o)
	}
	return all, r.date, nil
}

// associated is the other end of an association.
type associated struct {
	id      string
	primary bool
	label   string // that an administrator has defined, the first by name; empty for none
}

// endsOf are what of a type belongs to a deal, by the order of IDs: as they came with it, or listed.
func (c *Connector) endsOf(ctx context.Context, d dealData, objectType string) ([]associated, error) {
	if ends, known := d.ends[objectType]; known {
		return ends, nil
	}
	return c.associations(ctx, d.ID, objectType)
}

// associations lists what belongs to a deal, by the order of IDs.
func (c *Connector) associations(ctx context.Context, id, objectType string) ([]associated, error) {
	var all []associated
	query := url.Values{"limit": {strconv.Itoa(associationRows)}}
	for range associationPages {
		var page associationPage
		if _, err := c.getJSON(ctx, c.objects(c.kind.name)+"/"+id+"/associations/"+objectType, query, &page); err != nil {
			return nil, fmt.Errorf("list the %s: %w", objectType, gone(err))
		}
		for _, row := range page.Results {
			a, err := row.read()
			if err != nil {
				return nil, fmt.Errorf("list the %s: %w", objectType, err)
			}
			all = append(all, a)
		}
		if page.Paging.Next.After == "" {
			slices.SortFunc(all, func(a, b associated) int { return compareIDs(a.id, b.id) })
			return all, nil
		}
		query.Set("after", page.Paging.Next.After)
	}
	return nil, refuse("the %s has more than %d %s", c.kind.one, associationRows*associationPages, objectType)
}

type associationPage struct {
	Results []associationRow `json:"results"`
	Paging  struct {
		Next struct {
			After string `json:"after"`
		} `json:"next"`
	} `json:"paging"`
}

type associationRow struct {
	ToObjectID json.Number `json:"toObjectId"`
	Types      []struct {
		Category string  `json:"category"`
		TypeID   int     `json:"typeId"`
		Label    *string `json:"label"`
	} `json:"associationTypes"`
}

// primaryCompany is the type of a deal's association with its primary company.
const primaryCompany = 5

func (r associationRow) read() (associated, error) {
	if _, ok := parseID(r.ToObjectID.String()); !ok {
		return associated{}, malformed("an association has no ID")
	}
	a := associated{id: r.ToObjectID.String()}
	for _, t := range r.Types {
		switch {
		case t.Category == "HUBSPOT_DEFINED":
			a.primary = a.primary || t.TypeID == primaryCompany
		case t.Label != nil && *t.Label != "" && (a.label == "" || *t.Label < a.label):
			a.label = *t.Label
		}
	}
	return a, nil
}

// values makes the tree of a record: what was asked for and nothing else, so that its fingerprint changes with the mapped
// fields only.
func (c *Connector) values(ctx context.Context, d dealData, wanted selection) (map[string]any, error) {
	values := map[string]any{}
	if err := c.pick(ctx, values, c.kind.name, d.Properties, wanted.deal); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	set := func(name string, v any) {
		mu.Lock()
		defer mu.Unlock()
		values[name] = v
	}
	g, ctx := errgroup.WithContext(ctx)
	for name, properties := range wanted.lists {
		g.Go(func() error {
			list, err := c.list(ctx, d, name, properties)
			set(name, list)
			return err
		})
	}
	if len(wanted.company) > 0 {
		g.Go(func() error {
			company, err := c.company(ctx, d, wanted.company)
			if company != nil {
				set("company", company)
			}
			return err
		})
	}
	if len(wanted.parent) > 0 {
		g.Go(func() error {
			parent, err := c.parent(ctx, d, wanted.parent)
			if parent != nil {
				set("deal", parent)
			}
			return err
		})
	}
	if id := value(d.Properties, ownerProperty); len(wanted.owner) > 0 && id != "" {
		g.Go(func() error {
			owner, err := c.owner(ctx, id, wanted.owner)
			if owner != nil {
				set("owner", owner)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return values, nil
}

// pick copies properties. HubSpot leaves out of its answer what it does not know, in silence; but in some answers it also
// leaves out what is empty, so a property that is absent is looked up.
func (c *Connector) pick(ctx context.Context, to map[string]any, objectType string, from map[string]*string, names []string) error {
	for _, name := range names {
		v, answered := from[name]
		if !answered {
			if err := c.schema.check(ctx, objectType, name); err != nil {
				return err
			}
		}
		if v != nil && *v != "" {
			to[name] = *v
		}
	}
	return nil
}

// list reads the contacts or line items of a deal in their order.
func (c *Connector) list(ctx context.Context, d dealData, name string, properties []string) ([]any, error) {
	ends, err := c.endsOf(ctx, d, name)
	if err != nil {
		return nil, err
	}
	objects, err := c.belongingTo(ctx, d, name, idsOf(ends), askedOf(name, properties))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(objects, func(a, b object) int {
		if name == lineItems {
			return cmp.Or(comparePositions(a, b), compareIDs(a.ID, b.ID))
		}
		return cmp.Or(compareLabels(labelOf(ends, a.ID), labelOf(ends, b.ID)), compareIDs(a.ID, b.ID))
	})
	lines := []any{}
	for _, o := range objects {
		line := map[string]any{}
		if err := c.pick(ctx, line, name, o.Properties, properties); err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// askedOf are the properties that are read of what a list has, when some are wanted.
func askedOf(name string, properties []string) []string {
	if name == lineItems {
		return append(slices.Clone(properties), positionProperty)
	}
	return properties
}

func idsOf(ends []associated) []string {
	ids := make([]string, len(ends))
	for i, e := range ends {
		ids[i] = e.id
	}
	return ids
}

func labelOf(ends []associated, id string) string {
	i := slices.IndexFunc(ends, func(e associated) bool { return e.id == id })
	if i < 0 {
		return ""
	}
	return ends[i].label
}

// compareLabels puts what has a label before what has none.
func compareLabels(a, b string) int {
	if (a == "") != (b == "") {
		return cmp.Compare(b, a)
	}
	return cmp.Compare(a, b)
}

// comparePositions puts line items without a position last.
func comparePositions(a, b object) int {
	position := func(o object) (float64, bool) {
		f, err := strconv.ParseFloat(value(o.Properties, positionProperty), 64)
		return f, err == nil
	}
	x, hasX := position(a)
	y, hasY := position(b)
	switch {
	case hasX && hasY:
		return cmp.Compare(x, y)
	case hasX:
		return -1
	case hasY:
		return 1
	default:
		return 0
	}
}

func (c *Connector) company(ctx context.Context, d dealData, properties []string) (map[string]any, error) {
	ends, err := c.endsOf(ctx, d, "companies")
	if err != nil || len(ends) == 0 {
		return nil, err
	}
	chosen := chosenCompany(ends)
	companies, err := c.belongingTo(ctx, d, "companies", []string{chosen.id}, properties)
	if err != nil || len(companies) == 0 {
		return nil, err
	}
	company := map[string]any{}
	return company, c.pick(ctx, company, "companies", companies[0].Properties, properties)
}

// chosenCompany is the one of a deal's companies that its paths mean.
func chosenCompany(ends []associated) associated {
	return ends[max(0, slices.IndexFunc(ends, func(a associated) bool { return a.primary }))]
}

// parent reads the deal of a quote.
func (c *Connector) parent(ctx context.Context, d dealData, properties []string) (map[string]any, error) {
	ends, err := c.endsOf(ctx, d, Object)
	if err != nil || len(ends) == 0 {
		return nil, err
	}
	found, err := c.belongingTo(ctx, d, Object, []string{ends[0].id}, properties)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	parent := map[string]any{}
	return parent, c.pick(ctx, parent, Object, found[0].Properties, properties)
}

// owner reads a person by the ID of an owner, which is no user's ID. Someone who has left is archived.
func (c *Connector) owner(ctx context.Context, id string, names []string) (map[string]any, error) {
	if _, ok := parseID(id); !ok {
		return nil, malformed("the deal's owner has no ID")
	}
	var said map[string]any
	path := "/crm/owners/" + c.cfg.APIVersion + "/" + id
	_, err := c.getJSON(ctx, path, nil, &said)
	if isMissing(err) {
		_, err = c.getJSON(ctx, path, url.Values{"archived": {"true"}}, &said)
	}
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the owner: %w", err)
	}
	owner := map[string]any{}
	for _, name := range names {
		switch v := said[name].(type) {
		case string:
			owner[name] = v
		case float64:
			owner[name] = strconv.FormatFloat(v, 'f', -1, 64)
		}
	}
	return owner, nil
}

// stampOf is a time as HubSpot takes it for a datetime property.
func stampOf(t time.Time) string { return t.UTC().Format(stampForm) }
