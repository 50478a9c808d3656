// Package hubspot is a HubSpot portal that lives in memory and speaks HubSpot's
// wire protocol: deals with the full history of their properties, a search index
// that lags behind, files, notes, associations, owners, pipelines, tokens and
// rate limits, in the date-based and in the numeric path dialect over one state.
//
// It is written after HubSpot's documented behaviour, not after any client, and
// it misbehaves on demand: see [Portal.SetFault] and the state faults among the
// methods of [Portal]. Where HubSpot's behaviour is not documented the less
// convenient reading is the default.
package hubspot

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Options describe a portal. The zero value of each field means its default.
type Options struct {
	PortalID    int64  // account ID, default 62515
	UIDomain    string // host of the web application, default app.hubspot.com
	AccountType string // STANDARD (default), SANDBOX, DEVELOPER_TEST or APP_DEVELOPER
	TimeZone    string // IANA name, default UTC; the daily limit ends at its midnight
	Currency    string // ISO 4217 code of the company currency, default EUR

	Tokens []Token   // static tokens: service keys, static apps
	OAuth  *OAuthApp // the one OAuth app installed in the portal, nil for none

	Limits      Limits
	IndexDelay  Delay // how long a change takes to reach search
	MaxFileSize int64 // bytes of one uploaded file, default 300 MB

	// StrictAttachments refuses a note whose hs_attachment_ids name no file.
	// HubSpot does not say; without it such a note is accepted.
	StrictAttachments bool
	// DuplicateByName makes equal names, not equal content, a duplicate for
	// duplicateValidationStrategy. HubSpot does not say which of the two it is.
	DuplicateByName bool

	// Pipelines of deals; nil gives the default sales pipeline and a second one
	// whose stage IDs are numbers.
	Pipelines []Pipeline

	Now func() time.Time // the portal's clock, default time.Now
}

// Portal is one HubSpot account. It is an [http.Handler] and safe for concurrent
// use; every call sees and leaves a consistent state.
type Portal struct {
	opt  Options
	zone *time.Location
	mux  *http.ServeMux
	key  []byte // signs the signed URLs

	mu           sync.Mutex
	objects      map[string]*objectType // by every name of the type
	types        []*objectType
	associations associations
	labels       []assocType
	pipelines    []Pipeline
	owners       []Owner
	rules        []ConditionalRule
	groups       map[string][]propertyGroup // by type
	files        fileStore
	auth         authority
	limits       limiter
	faults       []*Fault
	faultID      int // of the newest fault
	log          requestLog
	hooks        webhooks // has a lock of its own
	flows        workflows
}

// New returns a portal without records. It panics when o.TimeZone is not a known
// zone: that is a mistake in the test, not in the data.
func New(o Options) *Portal {
	o = withDefaults(o)
	zone, err := time.LoadLocation(o.TimeZone)
	if err != nil {
		panic(fmt.Sprintf("hubspot: Options.TimeZone: %v", err))
	}
	p := &Portal{
		opt:          o,
		zone:         zone,
		key:          randomBytes(32),
		associations: associations{},
		pipelines:    o.Pipelines,
		groups:       map[string][]propertyGroup{},
		files:        newFileStore(),
		auth:         newAuthority(o),
		limits:       newLimiter(o.Limits, zone),
		log:          requestLog{counts: map[Kind]int{}},
	}
	p.hooks.ready = make(chan struct{}, 1)
	p.labels = hubspotDefined()
	p.types, p.objects = newObjectTypes()
	p.mux = p.routes()
	return p
}

func withDefaults(o Options) Options {
	if o.PortalID == 0 {
		o.PortalID = 62515
	}
	o.UIDomain = orDefault(o.UIDomain, "app.hubspot.com")
	o.AccountType = orDefault(o.AccountType, "STANDARD")
	o.TimeZone = orDefault(o.TimeZone, "UTC")
	o.Currency = orDefault(o.Currency, "EUR")
	if o.MaxFileSize == 0 {
		o.MaxFileSize = 300 << 20
	}
	if o.Pipelines == nil {
		o.Pipelines = defaultPipelines()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func orDefault(s, byDefault string) string {
	if s == "" {
		return byDefault
	}
	return s
}

// now is the portal's time in HubSpot's resolution, a millisecond.
func (p *Portal) now() time.Time { return p.opt.Now().UTC().Truncate(time.Millisecond) }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return b
}

func uuid() string {
	b := randomBytes(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func formatID(id int64) string { return strconv.FormatInt(id, 10) }

func parseID(s string) (int64, bool) {
	id, err := strconv.ParseInt(s, 10, 64)
	return id, err == nil && id > 0
}
