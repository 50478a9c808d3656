package hubspot

import (
	"encoding/json"
)

// leastScopes are what an app needs that does all that dealseal does; making properties needs SetUpScope, too, for as long
// as it takes.
var leastScopes = []string{
	"oauth", "crm.objects.deals.read", "crm.objects.deals.write", "crm.objects.contacts.read", "crm.objects.contacts.write",
	"crm.objects.companies.read", "crm.objects.line_items.read", "crm.objects.owners.read", "crm.schemas.deals.read", "files",
}

// SetUpScope lets an app make properties.
const SetUpScope = "crm.schemas.deals.write"

// Project is the files of a HubSpot project, by their paths: an app of one account with a static token and the least scopes.
// With an address it also tells of stage changes there.
func Project(tenant, address string) (map[string][]byte, error) {
	files := map[string]any{
		"hsproject.json": map[string]any{"name": "dealseal-" + tenant, "srcDir": "src", "platformVersion": "2025.2"},
	}
	if address != "" {
		files["src/app/webhooks/webhooks-hsmeta.json"] = webhooks(address)
	}
	files["src/app/app-hsmeta.json"] = map[string]any{"uid": "dealseal_app", "type": "app", "config": map[string]any{
		"name": "dealseal", "description": "Puts sealed contracts on deals", "distribution": "private",
		"auth": map[string]any{"type": "static", "requiredScopes": leastScopes, "optionalScopes": []string{SetUpScope}},
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

func webhooks(address string) map[string]any {
	return map[string]any{"uid": "dealseal_webhooks", "type": "webhooks", "config": map[string]any{
		"settings": map[string]any{"targetUrl": address, "maxConcurrentRequests": 10},
		"subscriptions": map[string]any{
			"crmObjects": []map[string]any{{"subscriptionType": "object.propertyChange", "objectType": "deal", "propertyName": "dealstage", "active": true}},
		},
	}}
}
