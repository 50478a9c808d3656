// Package salesforce is a Salesforce org for tests: an http.Handler that keeps
// records, files and sessions in memory, answers the REST API in the shapes of
// the real one, and misbehaves when it is told to.
//
// It knows nothing of the clients that talk to it. Where the real service is
// stricter than a client would like (field types in SOQL, read-only fields, one
// second of time resolution, doubles in Java's notation) the mock is as strict.
//
// An [Org] is safe for concurrent use.
package salesforce

import (
	"crypto/rsa"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// The API versions of an org that names none.
const (
	oldestVersion = 31 // those before are retired
	newestVersion = 67
)

// Options describe the org. The zero value is a usable org without any
// credential: every token request is refused until the matching fields are set.
type Options struct {
	// Now is the org's clock; nil means time.Now. It must be safe for concurrent use.
	Now func() time.Time

	OrgID    string // 15 or 18 characters; empty: a fixed test ID
	OrgName  string // empty: "Acme Ltd"
	Sandbox  bool   // Organization.IsSandbox
	TimeZone string // Organization.TimeZoneSidKey; empty: "Europe/Paris"

	// InstanceURL is the org's My Domain, for example https://acme.my.salesforce.com.
	// Empty: each token response names the scheme and host that the request came to.
	InstanceURL string

	Username     string         // the integration user; empty: "integration@acme.example"
	ConsumerKey  string         // client_id of the connected app
	PublicKey    *rsa.PublicKey // of the certificate uploaded for the JWT bearer flow; nil: flow refused
	ClientSecret string         // empty: client-credentials flow refused
	RefreshToken string         // a refresh token granted beforehand; empty: none
	// RotateRefreshTokens makes each refresh return a new refresh token. Using a
	// spent one then revokes its successors and every access token.
	RotateRefreshTokens bool

	SessionTimeout time.Duration // inactivity after which an access token dies; 0: two hours
	PageSize       int           // rows per query page; 0: 2000
	Versions       []string      // API versions, oldest first; nil: 31.0 to 67.0
	RequestLimit   int           // API calls per 24 hours; 0: 15000
	MaxUpload      int64         // bytes of one request body; 0: 2 GB, Salesforce's own

	EventKeepAlive time.Duration // after which a stream of events says that it is there; 0: 270 s

	// CustomFields are the custom fields by object name; nil: DealSealFields().
	CustomFields map[string][]Field
}

// Org is one Salesforce org.
type Org struct {
	opt   Options
	orgID string // 18 characters

	exclusive sync.RWMutex // held by a composite request that is one transaction; taken before mu

	mu        sync.Mutex // guards all below
	serial    uint64
	objects   map[string]*object // by lower-case name
	order     []*object
	tables    map[string]*table // by object name
	hidden    map[string]bool   // "object" or "object.field", lower case: no permission to see it
	readOnly  map[string]bool   // "object.field", lower case: no permission to edit it
	locked    map[string]bool   // record IDs under an approval lock
	tracked   map[string]bool   // "object.field", lower case: its history is kept
	sharing   Sharing
	permitted []string          // permissions of the integration user
	admin     bool              // the integration user may change the set-up
	content   map[string][]byte // file bytes by ContentVersion ID

	integration string // user ID of Options.Username
	person      string // user ID of the salesperson in whose name control methods act

	commitDelay time.Duration
	frozen      time.Time
	changed     time.Time // of the latest change of permissions

	sessions map[string]*session // by access token
	grants   map[string]*grant   // by refresh token
	codes    map[string]code     // by authorization code
	cursors  map[string]*cursor
	faults   []*Fault
	faultID  int
	usage    int
	log      []Request
	counts   map[Kind]int
	bus      bus

	pubSub http.Handler
	outbox outbox // with a lock of its own, taken after mu
}

// New makes an org with its standard objects, stages and two users.
func New(opt Options) *Org {
	o := &Org{
		opt:      withDefaults(opt),
		objects:  map[string]*object{},
		tables:   map[string]*table{},
		hidden:   map[string]bool{},
		readOnly: map[string]bool{},
		locked:   map[string]bool{},
		tracked:  map[string]bool{},
		content:  map[string][]byte{},
		sessions: map[string]*session{},
		grants:   map[string]*grant{},
		codes:    map[string]code{},
		cursors:  map[string]*cursor{},
		counts:   map[Kind]int{},
		bus:      newBus(),
	}
	o.pubSub, o.outbox.ready = o.pubSubHandler(), make(chan struct{}, 1)
	o.orgID, _ = canonicalID(o.opt.OrgID)
	if o.orgID == "" {
		o.orgID = ID18("00DWs000000TeSt")
	}
	for _, def := range standardObjects() {
		o.define(def, o.opt.CustomFields[def.name])
	}
	o.seed()
	if o.opt.RefreshToken != "" {
		o.grants[o.opt.RefreshToken] = &grant{family: o.opt.RefreshToken}
	}
	return o
}

func withDefaults(opt Options) Options {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	setDefault(&opt.OrgName, "Acme Ltd")
	setDefault(&opt.TimeZone, "Europe/Paris")
	setDefault(&opt.Username, "integration@acme.example")
	setDefault(&opt.SessionTimeout, 2*time.Hour)
	setDefault(&opt.PageSize, maxPage)
	setDefault(&opt.RequestLimit, 15000)
	setDefault(&opt.MaxUpload, 2<<30)
	setDefault(&opt.EventKeepAlive, defaultKeep)
	if opt.Versions == nil {
		for v := oldestVersion; v <= newestVersion; v++ {
			opt.Versions = append(opt.Versions, strconv.Itoa(v)+".0")
		}
	}
	if opt.CustomFields == nil {
		opt.CustomFields = DealSealFields()
	}
	return opt
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// seed makes the rows that every org has.
func (o *Org) seed() {
	for _, def := range o.order {
		o.put("EntityDefinition", def.name, map[string]any{"QualifiedApiName": def.name})
	}
	o.put("Organization", o.orgID, map[string]any{
		"Name": o.opt.OrgName, "IsSandbox": o.opt.Sandbox, "InstanceName": "EU99",
		"OrganizationType": "Enterprise Edition", "TimeZoneSidKey": o.opt.TimeZone,
		"DefaultLocaleSidKey": "en_GB", "LanguageLocaleKey": "en_US",
	})
	o.integration = o.put("User", "", map[string]any{
		"Username": o.opt.Username, "FirstName": "Integration", "LastName": "User", "Name": "Integration User",
		"Email": o.opt.Username, "IsActive": true, "TimeZoneSidKey": o.opt.TimeZone, "UserType": "Standard",
	})
	o.person = o.put("User", "", map[string]any{
		"Username": "sales@acme.example", "FirstName": "Sam", "LastName": "Seller", "Name": "Sam Seller",
		"Email": "sales@acme.example", "IsActive": true, "TimeZoneSidKey": o.opt.TimeZone, "UserType": "Standard",
	})
	for i, s := range standardStages() {
		o.put("OpportunityStage", "", map[string]any{
			"ApiName": s.name, "MasterLabel": s.name, "IsActive": true, "SortOrder": float64(i + 1),
			"IsClosed": s.closed, "IsWon": s.won, "DefaultProbability": s.probability,
			"ForecastCategoryName": s.forecast, "ForecastCategory": s.forecast,
		})
	}
}

// put inserts a row that no rule looks at; it is used for what exists before
// the first request only.
func (o *Org) put(object, id string, values map[string]any) string {
	def := o.objects[lower(object)]
	if id == "" {
		id = o.newID(def.prefix)
	}
	stamp := o.stamp()
	values["CreatedDate"], values["LastModifiedDate"], values["SystemModstamp"] = stamp, stamp, stamp
	o.tables[def.name].insert(&row{id: id, object: def, versions: []version{{values: values}}})
	return id
}

// now is the org's clock.
func (o *Org) now() time.Time { return o.opt.Now().UTC() }

// stamp is the time that a change made now carries: the real service shows
// whole seconds, so ties between changes are normal.
func (o *Org) stamp() time.Time {
	if !o.frozen.IsZero() {
		return o.frozen
	}
	return o.now().Truncate(time.Second)
}

var _ http.Handler = (*Org)(nil)
