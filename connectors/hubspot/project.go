package hubspot

import (
	"encoding/json"
	"slices"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// leastScopes are what an app needs that does all that dealseal does; making properties needs SetUpScope, too, for as long
// as it takes.
var leastScopes = []string{
	"oauth", "crm.objects.deals.read", "crm.objects.deals.write", "crm.objects.contacts.read", "crm.objects.contacts.write",
	"crm.objects.companies.read", "crm.objects.line_items.read", "crm.objects.owners.read", "crm.schemas.deals.read", "files",
}

// quoteScopes are what it needs beside those where rules watch quotes.
var quoteScopes = []string{"crm.objects.quotes.read", "crm.objects.quotes.write", "crm.schemas.quotes.read"}

// SetUpScope lets an app make properties of deals, quoteSetUpScope those of quotes.
const (
	SetUpScope      = "crm.schemas.deals.write"
	quoteSetUpScope = "crm.schemas.quotes.write"
)

// scopesFor are the least scopes for the objects that rules watch.
func scopesFor(watched []kind) []string {
	if slices.Contains(watched, quotes) {
		return slices.Concat(leastScopes, quoteScopes)
	}
	return leastScopes
}

// Addresses are where a HubSpot app posts to; what has none is not part of the app.
type Addresses struct{ Webhooks, Action string }

// Project is the files of a HubSpot project, by their paths: an app of one account with a static token and the least scopes,
// that tells of stage changes and has a workflow action where it is given an address for them. The API takes definitions of
// actions only with a key of the developer account, which dealseal has no other use for.
func Project(tenant string, to Addresses, watches []deal.Watch) (map[string][]byte, error) {
	files := map[string]any{
		"hsproject.json": map[string]any{"name": "dealseal-" + tenant, "srcDir": "src", "platformVersion": "2025.2"},
	}
	watched := kindsOf(connectors.Probe{Watches: watches})
	scopes, setUp := scopesFor(watched), []string{SetUpScope}
	if slices.Contains(watched, quotes) {
		setUp = append(setUp, quoteSetUpScope)
	}
	if to.Webhooks != "" {
		files["src/app/webhooks/webhooks-hsmeta.json"] = webhooks(to.Webhooks, watched)
	}
	if to.Action != "" {
		files["src/app/workflow-actions/dealseal-wait-hsmeta.json"] = action(to.Action)
		scopes = append(slices.Clone(scopes), AutomationScope)
	}
	files["src/app/app-hsmeta.json"] = map[string]any{"uid": "dealseal_app", "type": "app", "config": map[string]any{
		"name": "dealseal", "description": "Puts sealed contracts on deals", "distribution": "private",
		"auth": map[string]any{"type": "static", "requiredScopes": scopes, "optionalScopes": setUp},
	}}
	out := map[string][]byte{}
	for name, v := range files {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return nil, err
		}
		out[name] = append(b, '\n')
	}
	return out, nil
}

// webhooks subscribes an app to the stages of what rules watch.
func webhooks(address string, watched []kind) map[string]any {
	var changes []map[string]any
	for _, k := range watched {
		changes = append(changes, map[string]any{"subscriptionType": "object.propertyChange", "objectType": k.one, "propertyName": k.stage, "active": true})
	}
	return map[string]any{"uid": "dealseal_webhooks", "type": "webhooks", "config": map[string]any{
		"settings":      map[string]any{"targetUrl": address, "maxConcurrentRequests": 10},
		"subscriptions": map[string]any{"crmObjects": changes},
	}}
}
