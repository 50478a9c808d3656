package hubspot

import (
	"net/http"
	"strings"

	"github.com/dealseal/dealseal/connectors"
)

// Observe implements connectors.Observable.
func (c *Connector) Observe(seen func(connectors.Call)) { c.observer.Observe(seen) }

// prefixes name the kinds of calls that their path alone tells.
var prefixes = map[string]string{
	"/oauth/": "login", "/account-info/": "account", "/crm/pipelines/": "pipelines", "/crm/properties/": "properties",
	"/crm/owners/": "owners", "/crm/associations/": "associations",
}

// endpoint returns what says of which kind a request is. base is the API's own address: files come from others.
func endpoint(base string) func(*http.Request) string {
	return func(req *http.Request) string {
		path := req.URL.Path
		if !strings.HasPrefix(base, req.URL.Scheme+"://"+req.URL.Host) {
			return "download"
		}
		for prefix, name := range prefixes {
			if strings.HasPrefix(path, prefix) {
				return name
			}
		}
		switch {
		case strings.HasPrefix(path, "/files/") && req.Method == http.MethodPost:
			return "upload"
		case strings.HasPrefix(path, "/files/"):
			return "files"
		case !strings.HasPrefix(path, "/crm/objects/"):
			return "other"
		case strings.HasSuffix(path, "/search"):
			return "search"
		case req.Method == http.MethodPatch:
			return "update"
		case req.Method == http.MethodGet || strings.HasSuffix(path, "/batch/read"):
			return "read"
		case req.Method == http.MethodDelete:
			return "delete"
		}
		return "create"
	}
}
