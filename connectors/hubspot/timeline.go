package hubspot

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/deal"
)

// noteToContact is the type of the association from a note to a contact.
const noteToContact = 202

// mostContacts bounds the contacts of a deal on whose timelines a note stands, too.
const mostContacts = 10

// Note implements connectors.Noter: the note stands on the timelines of the deal and of its contacts. As Task does it looks through
// the associations of the deal, and makes the note with its associations in one call.
func (c *Connector) Note(ctx context.Context, ref deal.Ref, n deal.Note) (id string, err error) {
	on, err := c.to(ref)
	if err == nil {
		id, err = on.timelineNote(ctx, ref.ID, n)
	}
	if err != nil {
		return "", fmt.Errorf("hubspot: put a note on %s: %w", ref, err)
	}
	return id, nil
}

func (c *Connector) timelineNote(ctx context.Context, record string, n deal.Note) (string, error) {
	if err := c.late.Check(record); err != nil {
		return "", err
	}
	d, err := c.readWith(ctx, record, nil, []string{"contacts", "notes"})
	if err != nil {
		return "", err
	}
	notes, err := c.endsOf(ctx, d, "notes")
	if err != nil {
		return "", err
	}
	if id, err := c.marked(ctx, "notes", "hs_note_body", idsOf(notes), n.Mark()); err != nil || id != "" || n.OnlyLook {
		return id, err
	}
	contacts, err := c.endsOf(ctx, d, "contacts")
	if err != nil {
		return "", err
	}
	typ, err := c.noteType(ctx)
	if err != nil {
		return "", err
	}
	return c.makeNote(ctx, record, noteInput{
		Properties:   map[string]string{"hs_timestamp": stampOf(n.At), "hs_note_body": htmlText.Replace(n.Title() + "\n" + n.Body)},
		Associations: append([]map[string]any{association(d.ID, typ)}, noteContacts(contacts)...),
	}, d.ID)
}

// noteContacts are the associations of a note to the contacts of its deal.
func noteContacts(contacts []associated) (all []map[string]any) {
	ids := slices.Compact(idsOf(contacts)) // one that has labels is listed more than once
	for _, id := range ids[:min(len(ids), mostContacts)] {
		all = append(all, association(id, noteToContact))
	}
	return all
}

func (c *Connector) makeNote(ctx context.Context, record string, n noteInput, dealID string) (string, error) {
	var made object
	wrote := c.seen.writes(dealID) // a new note is a change of its deal
	r, err := c.send(ctx, http.MethodPost, c.objects("notes"), withToken, n)
	if err == nil {
		err = r.decode(&made)
	}
	wrote(made.CreatedAt, r.date)
	c.late.Note(record, err)
	if err != nil {
		return "", c.later(err)
	}
	if _, ok := parseID(made.ID); !ok {
		return "", malformed("the note that was made has no ID")
	}
	return made.ID, nil
}

// association is one of an activity that is being made.
func association(id string, kind int) map[string]any {
	return map[string]any{"to": map[string]string{"id": id}, "types": []map[string]any{{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": kind}}}
}

// mostMarked is how many tasks or notes of a deal are looked through. What was made before is looked for within hours of making it,
// and IDs grow: so many people and workflows do not give a deal meanwhile.
const mostMarked = 10 * objectBatch

// marked finds what bears a mark in a property among the newest of a deal, which are read by the hundred.
func (c *Connector) marked(ctx context.Context, objectType, property string, ids []string, mark string) (string, error) {
	slices.Reverse(ids)
	for batch := range slices.Chunk(ids[:min(len(ids), mostMarked)], objectBatch) {
		found, err := c.readObjects(ctx, objectType, batch, []string{property})
		if err != nil {
			return "", err
		}
		for _, o := range found {
			if strings.Contains(value(o.Properties, property), mark) {
				return o.ID, nil
			}
		}
	}
	return "", nil
}
