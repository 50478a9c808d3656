package hubspot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/dealseal/dealseal/deal"
)

const (
	maxFields        = 500
	ownerProperty    = "hubspot_owner_id"
	lineItems        = "line_items"
	positionProperty = "hs_position_on_quote"
)

// propertyForm is wider than what HubSpot allows for new properties: old ones have upper-case letters.
var propertyForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,254}$`)

// ownerFields are what the API tells of an owner.
var ownerFields = []string{"email", "firstName", "id", "lastName", "userId"}

// selection is what a reading asks for, each list sorted and without repetition.
type selection struct {
	deal, company, owner []string
	parent               []string            // of the deal that a quote belongs to
	lists                map[string][]string // contacts, line_items
}

// parseSelection reads dotted paths.
func (k kind) parseSelection(paths []string) (selection, error) {
	if len(paths) > maxFields {
		return selection{}, refuse("%d fields are mapped, at most %d can be", len(paths), maxFields)
	}
	s := selection{lists: map[string][]string{}}
	for _, path := range paths {
		if err := s.add(k, path); err != nil {
			return selection{}, err
		}
	}
	s.deal, s.company, s.owner, s.parent = sortedSet(s.deal), sortedSet(s.company), sortedSet(s.owner), sortedSet(s.parent)
	for name, list := range s.lists {
		s.lists[name] = sortedSet(list)
	}
	return s, nil
}

func (s *selection) add(k kind, path string) error {
	of, name, dotted := strings.Cut(path, ".")
	if !dotted {
		of, name = "", path
	}
	if !propertyForm.MatchString(name) {
		return refuse("%q is no path of a field: write it like dealname, company.name, contacts.email, line_items.quantity or owner.email", path)
	}
	switch of {
	case "":
		s.deal = append(s.deal, name)
	case "company":
		s.company = append(s.company, name)
	case "contacts", lineItems:
		s.lists[of] = append(s.lists[of], name)
	case "owner":
		if !slices.Contains(ownerFields, name) {
			return refuse("%q: an owner has only %s", path, strings.Join(ownerFields, ", "))
		}
		s.owner = append(s.owner, name)
	case "deal":
		if !k.parents {
			return refuse("%q: the record is the deal itself: write %s", path, name)
		}
		s.parent = append(s.parent, name)
	default:
		if k.parents {
			return refuse("%q: a %s has deal, company, contacts, line_items and owner, but no %q", path, k.one, of)
		}
		return refuse("%q: a deal has company, contacts, line_items and owner, but no %q", path, of)
	}
	return nil
}

func sortedSet(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// dealProperties are the properties of the deal itself that have to be read.
func (s selection) dealProperties() []string {
	if len(s.owner) == 0 {
		return s.deal
	}
	return append(slices.Clone(s.deal), ownerProperty)
}

// types are the object types of what belongs to the deal and has to be read, its notes with the files among them.
func (s selection) types() []string {
	types := slices.Sorted(maps.Keys(s.lists))
	if len(s.company) > 0 {
		types = append(types, "companies")
	}
	if len(s.parent) > 0 {
		types = append(types, Object)
	}
	return append(types, "notes")
}

// schema knows which properties exist. It asks only for those that HubSpot left out of an answer.
type schema struct {
	ask func(ctx context.Context, objectType, property string) error

	mu    sync.Mutex
	known map[string]bool
}

func newSchema(ask func(ctx context.Context, objectType, property string) error) *schema {
	return &schema{ask: ask, known: map[string]bool{}}
}

// check returns an error that names the property if the account does not have it.
func (s *schema) check(ctx context.Context, objectType, property string) error {
	key := objectType + "." + property
	s.mu.Lock()
	known := s.known[key]
	s.mu.Unlock()
	if known {
		return nil
	}
	if err := s.ask(ctx, objectType, property); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[key] = true
	return nil
}

// describe asks HubSpot whether a property exists.
func (c *Connector) describe(ctx context.Context, objectType, name string) error {
	_, err := c.definition(ctx, objectType, name)
	var e *Error
	if errors.As(err, &e) && e.Status != 0 && deal.IsPermanent(err) {
		return fmt.Errorf("HubSpot leaves out property %q of %s and does not say why: %w", name, objectType, err)
	}
	return err
}
