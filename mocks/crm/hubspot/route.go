package hubspot

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Kind is a kind of call, by which faults are set and requests are counted.
type Kind string

// The kinds of calls. Get, Create, Patch and so on are those of CRM objects of
// any type, except that making a note or a task has a kind of its own;
// Fault.Path narrows them further.
const (
	KindToken            Kind = "token"
	KindIntrospect       Kind = "introspect"
	KindRevoke           Kind = "revoke"
	KindAccount          Kind = "account"
	KindSearch           Kind = "search"
	KindList             Kind = "list"
	KindGet              Kind = "get"
	KindCreate           Kind = "create"
	KindPatch            Kind = "patch"
	KindDelete           Kind = "delete"
	KindMerge            Kind = "merge"
	KindNote             Kind = "note"
	KindTask             Kind = "task"
	KindBatchRead        Kind = "batch_read"
	KindBatchCreate      Kind = "batch_create"
	KindBatchUpdate      Kind = "batch_update"
	KindBatchUpsert      Kind = "batch_upsert"
	KindBatchArchive     Kind = "batch_archive"
	KindAssociations     Kind = "associations"
	KindAssociationWrite Kind = "association_write"
	KindProperties       Kind = "properties"
	KindPropertyWrite    Kind = "property_write"
	KindPipelines        Kind = "pipelines"
	KindOwners           Kind = "owners"
	KindUpload           Kind = "upload"
	KindFileGet          Kind = "file_get"
	KindFileSearch       Kind = "file_search"
	KindFileStat         Kind = "file_stat"
	KindFileWrite        Kind = "file_write"
	KindFileDelete       Kind = "file_delete"
	KindSignedURL        Kind = "signed_url"
	KindDownload         Kind = "download" // what a signed or public URL serves
	KindComplete         Kind = "complete" // of a workflow action
	KindTokenInfo        Kind = "token_info"
	KindUnknown          Kind = "unknown"
)

// Kinds lists every kind of call.
func Kinds() []Kind {
	return []Kind{
		KindToken, KindIntrospect, KindRevoke, KindAccount, KindSearch, KindList, KindGet, KindCreate, KindPatch, KindDelete, KindMerge,
		KindNote, KindTask, KindBatchRead, KindBatchCreate, KindBatchUpdate, KindBatchUpsert, KindBatchArchive, KindAssociations,
		KindAssociationWrite, KindProperties, KindPropertyWrite, KindPipelines, KindOwners, KindUpload, KindFileGet, KindFileSearch,
		KindFileStat, KindFileWrite, KindFileDelete, KindSignedURL, KindDownload, KindComplete, KindTokenInfo, KindUnknown,
	}
}

// access is what a route asks of the token.
type access int

const (
	public      access = iota // no token: token endpoints and file content
	anyToken                  // any valid token
	objectRead                // crm.objects.<type>.read of every type in the path
	objectWrite               // crm.objects.<type>.write
	schemaRead                // crm.schemas.deals.read or that of quotes, or reading the objects
	schemaWrite               // crm.schemas.deals.write or that of quotes
	ownersRead
	filesRead
	filesWrite
	automation
)

// bucket is the rate limit that a route counts against.
type bucket int

const (
	general bucket = iota
	searches
	associationCalls
	unlimited
)

type route struct {
	pattern string // of the canonical path, see canonical
	kind    Kind
	access  access
	bucket  bucket
	handle  func(*call) *reply
	form    bool // the body is multipart/form-data and not JSON
}

func (p *Portal) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for _, rt := range routeTable() {
		mux.Handle(rt.pattern, p.serve(rt))
	}
	return mux
}

func routeTable() []route {
	return slices.Concat(objectRoutes(), associationRoutes(), schemaRoutes(), fileRoutes(), accountRoutes(), []route{
		{"/", KindUnknown, public, unlimited, func(*call) *reply { return noRoute() }, false},
	})
}

func objectRoutes() []route {
	const base = "/{version}/objects/{type}"
	return []route{
		{"GET " + base, KindList, objectRead, general, (*call).list, false},
		{"POST " + base, KindCreate, objectWrite, general, (*call).create, false},
		{"GET " + base + "/{id}", KindGet, objectRead, general, (*call).get, false},
		{"PATCH " + base + "/{id}", KindPatch, objectWrite, general, (*call).patch, false},
		{"DELETE " + base + "/{id}", KindDelete, objectWrite, general, (*call).delete, false},
		{"POST " + base + "/search", KindSearch, objectRead, searches, (*call).search, false},
		{"POST " + base + "/merge", KindMerge, objectWrite, general, (*call).merge, false},
		{"POST " + base + "/batch/read", KindBatchRead, objectRead, general, (*call).batchRead, false},
		{"POST " + base + "/batch/create", KindBatchCreate, objectWrite, general, (*call).batchCreate, false},
		{"POST " + base + "/batch/update", KindBatchUpdate, objectWrite, general, (*call).batchUpdate, false},
		{"POST " + base + "/batch/upsert", KindBatchUpsert, objectWrite, general, (*call).batchUpsert, false},
		{"POST " + base + "/batch/archive", KindBatchArchive, objectWrite, general, (*call).batchArchive, false},
	}
}

func associationRoutes() []route {
	const one, pair = "/{version}/objects/{type}/{id}/associations", "/{version}/associations/{type}/{to}"
	return []route{
		{"GET " + one + "/{to}", KindAssociations, objectRead, associationCalls, (*call).listAssociations, false},
		{"PUT " + one + "/default/{to}/{toID}", KindAssociationWrite, objectWrite, associationCalls, (*call).associateByDefault, false},
		{"PUT " + one + "/{to}/{toID}", KindAssociationWrite, objectWrite, associationCalls, (*call).associateLabelled, false},
		{"DELETE " + one + "/{to}/{toID}", KindAssociationWrite, objectWrite, associationCalls, (*call).dissociate, false},
		{"POST " + pair + "/batch/read", KindAssociations, objectRead, associationCalls, (*call).batchReadAssociations, false},
		{"POST " + pair + "/batch/create", KindAssociationWrite, objectWrite, associationCalls, (*call).batchAssociate, false},
		{"POST " + pair + "/batch/associate/default", KindAssociationWrite, objectWrite, associationCalls, (*call).batchAssociate, false},
		{"POST " + pair + "/batch/archive", KindAssociationWrite, objectWrite, associationCalls, (*call).batchDissociate, false},
		{"GET " + pair + "/labels", KindAssociations, objectRead, associationCalls, (*call).listLabels, false},
	}
}

func schemaRoutes() []route {
	const properties, pipelines = "/{version}/properties/{type}", "/{version}/pipelines/{type}"
	return []route{
		{"GET " + properties, KindProperties, schemaRead, general, (*call).listProperties, false},
		{"POST " + properties, KindPropertyWrite, schemaWrite, general, (*call).createProperty, false},
		{"GET " + properties + "/{name}", KindProperties, schemaRead, general, (*call).getProperty, false},
		{"PATCH " + properties + "/{name}", KindPropertyWrite, schemaWrite, general, (*call).patchProperty, false},
		{"DELETE " + properties + "/{name}", KindPropertyWrite, schemaWrite, general, (*call).deleteProperty, false},
		{"GET " + properties + "/groups", KindProperties, schemaRead, general, (*call).listGroups, false},
		{"POST " + properties + "/groups", KindPropertyWrite, schemaWrite, general, (*call).createGroup, false},
		{"GET " + properties + "/groups/{group}", KindProperties, schemaRead, general, (*call).getGroup, false},
		{"POST " + properties + "/batch/read", KindProperties, schemaRead, general, (*call).batchReadProperties, false},
		{"GET " + pipelines, KindPipelines, schemaRead, general, (*call).listPipelines, false},
		{"GET " + pipelines + "/{pipeline}", KindPipelines, schemaRead, general, (*call).getPipeline, false},
		{"GET " + pipelines + "/{pipeline}/stages", KindPipelines, schemaRead, general, (*call).listStages, false},
		{"GET " + pipelines + "/{pipeline}/stages/{stage}", KindPipelines, schemaRead, general, (*call).getStage, false},
		{"GET /{version}/owners", KindOwners, ownersRead, general, (*call).listOwners, false},
		{"GET /{version}/owners/{id}", KindOwners, ownersRead, general, (*call).getOwner, false},
	}
}

func fileRoutes() []route {
	const base = "/{version}/files"
	return []route{
		{"POST " + base, KindUpload, filesWrite, general, (*call).upload, true},
		{"GET " + base + "/search", KindFileSearch, filesRead, general, (*call).searchFiles, false},
		{"GET /{version}/stat/{path...}", KindFileStat, filesRead, general, (*call).statFile, false},
		{"GET " + base + "/{id}", KindFileGet, filesRead, general, (*call).getFile, false},
		{"PUT " + base + "/{id}", KindFileWrite, filesWrite, general, (*call).replaceFile, true},
		{"PATCH " + base + "/{id}", KindFileWrite, filesWrite, general, (*call).patchFile, false},
		{"DELETE " + base + "/{id}", KindFileDelete, filesWrite, general, (*call).deleteFile, false},
		{"DELETE " + base + "/{id}/gdpr-delete", KindFileDelete, filesWrite, general, (*call).deleteFile, false},
		{"GET " + base + "/{id}/signed-url", KindSignedURL, filesRead, general, (*call).signURL, false},
		{"GET /content/signed/{id}", KindDownload, public, unlimited, (*call).serveSigned, false},
		{"GET /content/public/{path...}", KindDownload, public, unlimited, (*call).servePublic, false},
	}
}

func accountRoutes() []route {
	return []route{
		{"POST /{version}/token", KindToken, public, unlimited, (*call).issueToken, false},
		{"POST /{version}/token/introspect", KindIntrospect, public, unlimited, (*call).introspect, false},
		{"POST /{version}/token/revoke", KindRevoke, public, unlimited, (*call).revoke, false},
		{"GET /{version}/access-tokens/{token}", KindIntrospect, public, unlimited, (*call).describeToken, false},
		{"POST /{version}/private-apps/get/access-token-info", KindTokenInfo, anyToken, general, (*call).tokenInfo, false},
		{"GET /{version}/account/details", KindAccount, anyToken, general, (*call).accountDetails, false},
		{"GET /{version}/account/api-usage/daily/private-apps", KindAccount, anyToken, general, (*call).apiUsage, false},
		{"POST /{version}/callbacks/{callback}/complete", KindComplete, automation, general, (*call).complete, false},
	}
}

var datePath = regexp.MustCompile(`^20[0-9]{2}-(03|09)$`)

func isDate(version string) bool { return datePath.MatchString(version) }

// ServeHTTP answers one call in either path dialect.
func (p *Portal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to := *r
	to.URL = new(url.URL)
	*to.URL = *r.URL
	path := canonical(r.URL.EscapedPath())
	to.URL.RawPath = path
	if unescaped, err := url.PathUnescape(path); err == nil {
		to.URL.Path = unescaped
	}
	to.RequestURI = r.URL.Path // the log names the path as it was asked for
	p.mux.ServeHTTP(w, &to)
}

// canonical brings both dialects to one: /{version}/{family}/... . What is no
// path of a supported version becomes one that no route has.
func canonical(escaped string) string {
	s := strings.FieldsFunc(escaped, func(r rune) bool { return r == '/' })
	if len(s) >= 3 && s[0] == "crm" {
		version, family, rest := s[2], s[1], s[3:]
		if !isDate(version) {
			version, family = s[1], s[2]
		}
		return join(version, family, rest, slices.Contains([]string{"objects", "associations", "properties", "pipelines", "owners"}, family))
	}
	if len(s) < 3 {
		return "/unknown"
	}
	switch s[0] {
	case "oauth":
		return join(s[1], s[2], s[3:], s[2] == "token" || s[1] == "v1" && s[2] == "access-tokens" || s[1] == "v2" && s[2] == "private-apps")
	case "files":
		if len(s) > 3 && s[2] == "files" && s[3] == "stat" { // a path there may look like any other route
			return join(s[1], "stat", s[4:], true)
		}
		return join(s[1], s[2], s[3:], s[2] == "files")
	case "account-info":
		return join(s[1], "account", s[2:], true)
	case "automation": // the numeric form has the version before "actions"
		if len(s) != 6 || s[5] != "complete" {
			return "/unknown"
		}
		version, kind := s[3], s[1]+" "+s[2]
		if !isDate(version) {
			version, kind = s[1], s[2]+" "+s[3]
		}
		return join(version, "callbacks", s[4:], kind == "actions callbacks")
	case "hubfs":
		return "/content/public/" + strings.Join(s[2:], "/")
	case "signed-content":
		return "/content/signed/" + s[2]
	}
	return "/unknown"
}

func join(version, family string, rest []string, known bool) string {
	if !known || !supported(version, family, rest) {
		return "/unknown"
	}
	return "/" + strings.Join(append([]string{version, family}, rest...), "/")
}

func supported(version, family string, rest []string) bool {
	switch version {
	case "2026-03", "2026-09":
		return true
	case "v2":
		return family == "private-apps"
	case "v1":
		return family == "token" && len(rest) == 0 || family == "access-tokens"
	case "v3":
		return !isAssociation(family, rest) && family != "callbacks"
	case "v4":
		return isAssociation(family, rest) || family == "callbacks"
	}
	return false
}

func isAssociation(family string, rest []string) bool {
	return family == "associations" || family == "objects" && len(rest) > 2 && rest[2] == "associations"
}
