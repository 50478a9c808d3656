package salesforce

import (
	"net/http"
	"strings"

	"github.com/dealseal/dealseal/connectors"
)

// Observe implements connectors.Observable.
func (c *Connector) Observe(seen func(connectors.Call)) { c.observer.Observe(seen) }

// endpoint says what kind of call a request is.
func endpoint(req *http.Request) string {
	path := req.URL.Path
	if strings.HasPrefix(path, "/services/oauth2/") {
		return "login"
	}
	parts := strings.Split(strings.TrimPrefix(path, "/services/data/"), "/") // v66.0/sobjects/Opportunity/006...
	switch {
	case len(parts) > 1 && strings.HasPrefix(parts[1], "query"):
		return "query"
	case len(parts) == 2 && parts[1] == "composite":
		return "composite"
	case len(parts) > 1 && parts[1] == "tooling":
		return "setup"
	case len(parts) < 3 || parts[1] != "sobjects":
		return "other"
	case parts[len(parts)-1] == "describe":
		return "describe"
	case parts[len(parts)-1] == "VersionData":
		return "download"
	case parts[2] == "ContentVersion":
		return "upload"
	case parts[2] == "PermissionSet", parts[2] == "FieldPermissions", parts[2] == "PermissionSetAssignment":
		return "setup"
	case parts[2] == "ContentDocumentLink":
		return "link"
	case parts[2] == "Task":
		return "task"
	case req.Method == http.MethodPatch:
		return "update"
	}
	return "read"
}
