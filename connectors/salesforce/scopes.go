package salesforce

import (
	"context"
	"fmt"
	"strings"

	"github.com/dealseal/dealseal/connectors"
)

// unneeded are permissions that reach far, and that dealseal has no use for.
var unneeded = []struct{ name, label string }{
	{"PermissionsModifyAllData", "Modify All Data"},
	{"PermissionsViewAllData", "View All Data"},
	{"PermissionsManageUsers", "Manage Users"},
	{"PermissionsAuthorApex", "Author Apex"},
	{"PermissionsModifyMetadata", "Modify Metadata Through Metadata API Functions"},
	{"PermissionsCustomizeApplication", "Customize Application"},
}

// Surplus implements connectors.Thrifty: every user may ask what its own profile and permission sets allow it. Which objects
// beyond ours it may use is not looked at. It costs one call.
func (c *Connector) Surplus(ctx context.Context, _ connectors.Probe) ([]connectors.Problem, bool, error) {
	var names []string
	for _, p := range unneeded {
		names = append(names, p.name)
	}
	found, err := c.lookUp(ctx, "SELECT "+strings.Join(names, ", ")+" FROM UserPermissionAccess LIMIT 1")
	if isMisfit(err) {
		return nil, false, nil // an org that does not tell
	}
	if err != nil {
		return nil, false, fmt.Errorf("salesforce: see what the integration user may do beyond what is needed: %w", err)
	}
	if len(found.rows) == 0 {
		return nil, false, nil
	}
	var more []string
	for _, p := range unneeded {
		if has, _ := found.rows[0][p.name].(bool); has {
			more = append(more, p.label)
		}
	}
	if more == nil {
		return nil, true, nil
	}
	cure := "take them from its profile and permission sets, and give it the permission set that dealseal provision makes"
	if more[len(more)-1] == unneeded[len(unneeded)-1].label {
		cure += "; Customize Application is needed while dealseal provision makes fields, and not afterwards"
	}
	return []connectors.Problem{{Aspect: connectors.AspectScopes, Warning: true, What: "the integration user may do more than dealseal needs: " + strings.Join(more, ", "), Cure: cure}}, true, nil
}

// taskMisfit says why tasks could not be made, and of what option. They need more fields than those that all have.
func (c *Connector) taskMisfit(ctx context.Context, what, option string, more ...string) ([]connectors.Problem, error) {
	cure := `give the integration user the permission "Edit Tasks" (dealseal provision does) and access to the fields, or take ` + option + ` out`
	o, err := c.schema.object(ctx, "Task", anything)
	switch {
	case isMisfit(err):
		return []connectors.Problem{{Aspect: connectors.AspectAccess, Warning: true, What: what + ": " + cureOf(err), Cure: cure}}, nil
	case err != nil:
		return nil, err
	}
	var missing []string
	for _, name := range append(more, "WhatId", "Subject", "Description", "ActivityDate", "Status", "Priority") {
		if !o.fields[name].Createable {
			missing = append(missing, name)
		}
	}
	if missing == nil {
		return nil, nil
	}
	return []connectors.Problem{{Aspect: connectors.AspectAccess, Warning: true, What: what + ": a Task cannot be made with the fields " + strings.Join(missing, ", "), Cure: cure}}, nil
}
