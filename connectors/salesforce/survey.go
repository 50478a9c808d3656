package salesforce

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// surveyed is how many records stand for all: the sharing of an org is one rule for most of them.
const surveyed = 5

// Survey implements connectors.Surveyor. Salesforce leaves out of every answer what the user may not see, without a word:
// the deals of other owners would never be sealed, and nothing would look wrong. Whether the user has the permission View
// All Records can be asked by administrators only, so the latest records of other owners are counted, and asked for by
// UserRecordAccess. It costs four calls and a description of ContentVersion.
func (c *Connector) Survey(ctx context.Context, p connectors.Probe) ([]connectors.Problem, error) {
	problems, err := c.survey(ctx, kindsOf(p))
	if err == nil && p.Tasks() {
		var more []connectors.Problem
		more, err = c.taskMisfit(ctx, "owners of records cannot be given tasks", "tasks.owner", "OwnerId")
		problems = append(problems, more...)
	}
	if err == nil && p.Timeline {
		var more []connectors.Problem
		more, err = c.taskMisfit(ctx, "records cannot be given notes", "write_back.timeline")
		problems = append(problems, more...)
	}
	if err != nil {
		return nil, fmt.Errorf("salesforce: see what the integration user may do: %w", err)
	}
	return problems, nil
}

func (c *Connector) survey(ctx context.Context, watched []kind) ([]connectors.Problem, error) {
	problems, err := c.uploadMisfit(ctx)
	if err != nil {
		return nil, err
	}
	me, err := c.me(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range watched {
		more, err := c.sharingMisfits(ctx, k, me)
		if err != nil {
			return nil, err
		}
		problems = append(problems, more...)
		if k.name == "Order" {
			if more, err = c.activatedMisfit(ctx); err != nil {
				return nil, err
			}
			problems = append(problems, more...)
		}
	}
	return problems, nil
}

// activatedMisfit says that receipts could not be written to orders that are activated, which takes a permission of the user.
func (c *Connector) activatedMisfit(ctx context.Context) ([]connectors.Problem, error) {
	found, err := c.lookUp(ctx, "SELECT PermissionsEditActivatedOrders FROM UserPermissionAccess LIMIT 1")
	if isMisfit(err) {
		return nil, nil // an org that does not tell
	}
	if err != nil || len(found.rows) == 0 {
		return nil, err
	}
	if may, told := found.rows[0]["PermissionsEditActivatedOrders"].(bool); may || !told {
		return nil, nil
	}
	return []connectors.Problem{{
		Aspect: connectors.AspectAccess, Warning: true,
		What: "the integration user may not edit activated orders: their contract would be attached, and the fields not be written",
		Cure: `give it the permission "Edit Activated Orders" (Salesforce asks for "Activate Orders" with it), unless no rule watches a status of that category`,
	}}, nil
}

// sharingMisfits say what of an object's records of other owners the user may not do.
func (c *Connector) sharingMisfits(ctx context.Context, k kind, me string) (problems []connectors.Problem, err error) {
	others, err := c.recent(ctx, k, surveyed, " WHERE OwnerId != "+quote(me))
	if err != nil {
		return nil, err
	}
	if len(others) == 0 {
		return []connectors.Problem{{
			Aspect: connectors.AspectAccess, Warning: true,
			What: "the integration user sees no " + strings.ToLower(k.name) + " of another owner: deals that it cannot see are never sealed",
			Cure: `give it the object permission "View All Records" on ` + k.name + `; an org in which nobody else has one yet gives this warning, too`,
		}}, nil
	}
	for _, look := range []func(context.Context, kind, string, []string) (*connectors.Problem, error){c.editMisfit, c.fileMisfit} {
		problem, err := look(ctx, k, me, others)
		if err != nil {
			return nil, err
		}
		if problem != nil {
			problems = append(problems, *problem)
		}
	}
	return problems, nil
}

// uploadMisfit says why no file could be attached.
func (c *Connector) uploadMisfit(ctx context.Context) ([]connectors.Problem, error) {
	const cure = "give the integration user the right to create files (ContentVersion), and see that Salesforce Files is on"
	o, err := c.schema.object(ctx, "ContentVersion", anything)
	switch {
	case isMisfit(err):
		return []connectors.Problem{{Aspect: connectors.AspectFiles, What: cureOf(err), Cure: cure}}, nil
	case err != nil:
		return nil, err
	}
	var missing []string
	for _, name := range []string{"Title", "PathOnClient", "Description", "VersionData", "FirstPublishLocationId"} {
		if !o.fields[name].Createable {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return nil, nil
	}
	return []connectors.Problem{{Aspect: connectors.AspectFiles, What: "ContentVersion cannot be made with the fields " + strings.Join(missing, ", "), Cure: cure}}, nil
}

// me is the ID of the user whose name the session bears.
func (c *Connector) me(ctx context.Context) (string, error) {
	r, err := c.call(ctx, http.MethodGet, strings.TrimSuffix(c.wire.path(""), "/"), nil, nil)
	if err != nil {
		return "", err
	}
	var said struct {
		Identity string `json:"identity"`
	}
	if err := json.Unmarshal(r.body, &said); err != nil {
		return "", malformed("it is no list of resources")
	}
	id, err := CanonicalID(path.Base(said.Identity))
	if err != nil || !strings.HasPrefix(id, userPrefix) {
		return "", malformed("it does not say who the user is")
	}
	return id, nil
}

// userPrefix begins the IDs of users.
const userPrefix = "005"

// recent returns the IDs of the records of an object that were changed last. where is made of quoted values only.
func (c *Connector) recent(ctx context.Context, k kind, n int, where string) ([]string, error) {
	found, err := c.lookUp(ctx, fmt.Sprintf("SELECT Id FROM %s%s ORDER BY LastModifiedDate DESC LIMIT %d", k.name, where, n))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, row := range found.rows {
		id, err := idField(row["Id"])
		if err != nil {
			return nil, malformed("a record has no ID")
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// editMisfit says why receipts could not be written to the records of other owners.
func (c *Connector) editMisfit(ctx context.Context, k kind, me string, others []string) (*connectors.Problem, error) {
	found, err := c.lookUp(ctx, "SELECT RecordId, HasEditAccess FROM UserRecordAccess WHERE UserId = "+quote(me)+" AND RecordId IN "+quoteAll(others))
	if err != nil {
		return nil, err
	}
	refused := 0
	for _, row := range found.rows {
		if may, _ := row["HasEditAccess"].(bool); !may {
			refused++
		}
	}
	if refused == 0 {
		return nil, nil
	}
	return &connectors.Problem{
		Aspect: connectors.AspectAccess, Warning: true,
		What: fmt.Sprintf("the integration user may not edit %d of the %d latest %s of other owners: their contract would be attached, and the fields not be written", refused, len(others), k.plural),
		Cure: `share the records with it for writing, or give it the object permission "Modify All Records" on ` + k.name,
	}, nil
}

// fileMisfit says that a file of another owner cannot be opened. Such a file cannot be sealed as an attachment.
func (c *Connector) fileMisfit(ctx context.Context, k kind, _ string, others []string) (*connectors.Problem, error) {
	found, err := c.lookUp(ctx, "SELECT ContentDocumentId, ContentDocument.LatestPublishedVersionId FROM ContentDocumentLink WHERE LinkedEntityId IN "+quoteAll(others))
	if err != nil {
		return nil, err
	}
	hidden := 0
	for _, row := range found.rows {
		if document, _ := row["ContentDocument"].(map[string]any); document["LatestPublishedVersionId"] == nil {
			hidden++
		}
	}
	if hidden == 0 {
		return nil, nil
	}
	return &connectors.Problem{
		Aspect: connectors.AspectFiles, Warning: true,
		What: fmt.Sprintf("the integration user cannot open %d of the %d files on the latest %s of other owners", hidden, len(found.rows), k.plural),
		Cure: `share the files with everybody who sees the record, or give it the permission "Query All Files"`,
	}, nil
}

// Recent implements connectors.Sampler.
func (c *Connector) Recent(ctx context.Context, object string, n int) ([]deal.Ref, error) {
	k, err := kindNamed(object)
	if err != nil {
		return nil, fmt.Errorf("salesforce: %w", err)
	}
	ids, err := c.recent(ctx, k, n, "")
	if err != nil {
		return nil, fmt.Errorf("salesforce: find the latest %s: %w", k.plural, err)
	}
	refs := make([]deal.Ref, 0, len(ids))
	for _, id := range ids {
		refs = append(refs, deal.Ref{Object: k.name, ID: id})
	}
	return refs, nil
}
