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

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// nowhere is an ID that no record has.
const nowhere = "0"

// Survey implements connectors.Surveyor. An app sees the records of every owner; what it may do is a matter of its scopes,
// which HubSpot does not list for a static token. So everything is tried: reading with one record of each type, writing
// with the record 0, which cannot exist. A missing scope is refused before the record is looked for.
func (c *Connector) Survey(ctx context.Context, p connectors.Probe) ([]connectors.Problem, error) {
	problems, err := c.survey(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("hubspot: see what the app may do: %w", err)
	}
	return problems, nil
}

// attempt is a call that shows whether the app has a scope.
type attempt struct {
	method, path string
	query        url.Values
	body         any // of a write
	aspect       connectors.Aspect
	of           string // what cannot be done without it
}

func (c *Connector) attempts(p connectors.Probe) []attempt {
	one := url.Values{"limit": {"1"}}
	read := func(objectType string, aspect connectors.Aspect, of string) attempt {
		return attempt{http.MethodGet, c.objects(objectType), one, nil, aspect, of}
	}
	write := func(path string, aspect connectors.Aspect, of string) attempt {
		return attempt{http.MethodPatch, path + "/" + nowhere, nil, map[string]any{"properties": map[string]string{}}, aspect, of}
	}
	files := "/files/" + c.cfg.APIVersion + "/files"
	var list []attempt
	for _, k := range kindsOf(p) {
		list = append(list, read(k.name, connectors.AspectAccess, k.name+" cannot be read"),
			write(c.objects(k.name), connectors.AspectAccess, "fields cannot be written to "+k.name))
	}
	list = append(list,
		read("notes", connectors.AspectFiles, "the notes that carry files cannot be read"),
		write(c.objects("notes"), connectors.AspectFiles, "the notes that carry files cannot be made"),
		attempt{http.MethodGet, files + "/search", one, nil, connectors.AspectFiles, "files cannot be read"},
		attempt{http.MethodPatch, files + "/" + nowhere, nil, struct{}{}, connectors.AspectFiles, "files cannot be uploaded"},
	)
	if p.Tasks() {
		list = append(list, read("tasks", connectors.AspectAccess, "tasks of owners cannot be read"), write(c.objects("tasks"), connectors.AspectAccess, "owners cannot be given tasks"))
	}
	if p.Timeline {
		list = append(list, read("contacts", connectors.AspectAccess, "notes cannot be put on the timelines of contacts"))
	}
	if s, err := quotes.parseSelection(p.Read); err == nil { // which have all paths of deals, and more; a path that is none is a problem that Probe reports
		types := slices.Sorted(maps.Keys(s.lists))
		if len(s.company) > 0 {
			types = append(types, "companies")
		}
		if len(s.parent) > 0 {
			types = append(types, Object)
		}
		for _, t := range types {
			list = append(list, read(t, connectors.AspectRead, t+" cannot be read"))
		}
	}
	return list
}

func (c *Connector) survey(ctx context.Context, p connectors.Probe) ([]connectors.Problem, error) {
	var problems []connectors.Problem
	for _, a := range c.attempts(p) {
		err := c.try(ctx, a)
		var e *Error
		if errors.As(err, &e) && e.Status == http.StatusForbidden {
			problems = append(problems, connectors.Problem{Aspect: a.aspect, What: fmt.Sprintf("%s: HubSpot refuses (%s)", a.of, strings.Join(e.details(), ", ")), Cure: e.cure})
			continue
		}
		if err != nil && (!deal.IsPermanent(err) || connectors.IsLogin(err)) {
			return nil, err
		}
	}
	return problems, nil
}

func (c *Connector) try(ctx context.Context, a attempt) error {
	if a.method == http.MethodGet {
		var anything struct{}
		_, err := c.getJSON(ctx, a.path, a.query, &anything)
		return err
	}
	_, err := c.send(ctx, a.method, a.path, withToken, a.body)
	return err
}

// Recent implements connectors.Sampler.
func (c *Connector) Recent(ctx context.Context, object string, n int) ([]deal.Ref, error) {
	on, err := c.on(object)
	if err != nil {
		return nil, fmt.Errorf("hubspot: find the latest records: %w", err)
	}
	refs, err := on.recent(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("hubspot: find the latest %s: %w", object, err)
	}
	return refs, nil
}

func (c *Connector) recent(ctx context.Context, n int) ([]deal.Ref, error) {
	r, err := c.send(ctx, http.MethodPost, c.objects(c.kind.name)+"/search", search, map[string]any{
		"sorts": []map[string]string{{"propertyName": "hs_lastmodifieddate", "direction": "DESCENDING"}}, "limit": n, "properties": []string{"hs_object_id"},
	})
	if err != nil {
		return nil, err
	}
	var said struct {
		Results []struct {
			ID string `json:"id"`
		} `json:"results"`
	}
	if err := json.Unmarshal(r.body, &said); err != nil {
		return nil, malformed("it is no result of a search")
	}
	var refs []deal.Ref
	for _, row := range said.Results[:min(n, len(said.Results))] {
		refs = append(refs, deal.Ref{Object: c.kind.name, ID: row.ID})
	}
	return refs, nil
}
