// Package web is what the daemon shows of itself: a page with its tenants, its queue and its figures, a list of deals that
// can be searched, one page per deal with its documents and proofs; /healthz and /readyz for supervisors and /metrics for
// Prometheus.
//
// The pages change nothing but what a person with a session decides, whose role allows it and who says why. Whoever reaches the port sees whether the daemon is well and no more: the rest is for people
// with a session, which "dealseal admin login" begins on the daemon's machine, or an OpenID provider. Even they see IDs, hashes, states and
// certificates in every list; the values of a record and the files of the archive are shown on request only, and the audit
// log says to whom. Pages are rendered on the server from embedded templates and work without JavaScript; one small script
// keeps an open page current.
//
// HTTP status and wording for people live here. Where the data comes from is the business of the House that is handed
// in.
package web

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dealseal/dealseal/web/role"
	"github.com/dealseal/dealseal/web/signin"
)

// Options is what the pages are made of.
type Options struct {
	// House answers what is going on.
	House House
	// Hooks answers how webhooks are doing; there is no page of them when nil.
	Hooks Hooks
	// Deeds does what people decide on the pages, which change nothing when nil.
	Deeds Deeds
	// Sessions are the people who may read; nobody can when nil.
	Sessions *Sessions
	// SignIn is where people may sign in beside the links of Sessions, for SignInLasts; nowhere when nil.
	SignIn      *signin.Provider
	SignInLasts time.Duration
	// Hosts are further names under which the page is opened, such as that of a reverse proxy. Case and port do not
	// matter. "localhost", loopback addresses and the address that a request arrived at are always answered.
	Hosts []string
	// Checks decide /readyz.
	Checks []Check
	// Metrics is what /metrics shows.
	Metrics prometheus.Gatherer
	// Version of the daemon, for the foot of each page.
	Version string
	// Now is the clock that ages are counted with; time.Now when nil.
	Now func() time.Time
	// Log gets the causes that pages do not show; slog.Default when nil.
	Log *slog.Logger
}

// houseLimit is how long the House may take to answer for one page.
const houseLimit = 10 * time.Second

// server answers with the options it was made with. It has no state of its own but what it counts.
type server struct {
	Options
	refusals sparing // of people who come back from the provider
}

// New returns the handler of everything that the admin port answers. It is safe for concurrent use.
func New(o Options) http.Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Sessions == nil {
		o.Sessions = NewSessions(o.Now)
	}
	s := &server{Options: o}
	mux := http.NewServeMux()
	for _, d := range s.doors() {
		mux.HandleFunc(d.pattern, s.keep(d))
	}
	return guard(o.Hosts, http.NewCrossOriginProtection().Handler(s.recognise(mux)))
}

// door is one that the admin port answers at.
type door struct {
	pattern string
	// needs is what the role of whoever asks has to have; role.Anyone: not even a session is needed.
	needs  role.Permission
	behind http.HandlerFunc
}

// doors are all of them. A test goes through each as everybody: a new one has to say there whom it is for.
func (s *server) doors() []door {
	all := []door{
		{"GET /{$}", role.Anyone, s.page(s.start)},
		{"GET /login", role.Anyone, s.page(s.askLogin)},
		{"POST /login", role.Anyone, s.login},
		{"POST /logout", role.Anyone, s.logout},
		{"GET /deals", role.See, s.page(s.list)},
		{"GET /deals/{tx}", role.See, s.page(s.deal)},
		{"GET /deals/{tx}/fields", role.Contracts, s.page(s.fields)},
		{"GET /deals/{tx}/files/{name...}", role.Contracts, s.file},
		{"GET /deals/{tx}/proof", role.Audit, s.proof},
		{"GET /tenants/{tenant}", role.See, s.page(s.tenant)},
		{"GET /guard/{tenant}", role.See, s.page(s.guarded)},
		{"GET /guard/{tenant}/{rule}", role.See, s.page(s.guarded)},
		{"GET /", role.Anyone, s.page(s.nowhere)},
		{"GET /assets/{file}", role.Anyone, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, assets, "assets/"+r.PathValue("file"))
		}},
		{"GET /healthz", role.Anyone, healthy},
		{"GET /readyz", role.Anyone, s.ready},
		{"GET /metrics", role.Anyone, promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{
			// What could be collected is worth more than none: the rest is logged, and missing in the answer.
			ErrorHandling: promhttp.ContinueOnError,
			ErrorLog:      slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
		}).ServeHTTP},
	}
	if s.SignIn != nil {
		all = append(all, door{"GET /sign-in", role.Anyone, s.beginSignIn}, door{"GET " + signin.Back, role.Anyone, s.signedIn},
			door{"GET /logged-out", role.Anyone, s.page(s.loggedOut)})
	}
	if s.Hooks != nil {
		all = append(all, door{"GET /webhooks", role.See, s.page(s.hooks)}, door{"GET /webhooks/deliveries/{id}", role.See, s.page(s.attempts)})
	}
	if s.Deeds == nil {
		return all
	}
	all = append(all, door{"POST /tenants/{tenant}/turn", role.Pause, s.turn},
		door{"POST /guard/{tenant}", role.Decide, s.decideGuarded}, door{"POST /guard/{tenant}/{rule}", role.Decide, s.decideGuarded},
		door{"POST /deals/{tx}/decide", role.Decide, s.decide}) // which looks what is decided
	if s.Hooks != nil {
		all = append(all, door{"POST /webhooks/deliveries/{id}/redeliver", role.TryHooks, s.redeliver})
	}
	return all
}

// keep lets through a door only those whom it is for.
func (s *server) keep(d door) http.HandlerFunc {
	if d.needs == role.Anyone {
		return d.behind
	}
	return func(w http.ResponseWriter, r *http.Request) {
		p := s.mustLogIn(r)
		if p == nil {
			who, _ := reader(r.Context())
			p = mustMay(who, d.needs)
		}
		if p != nil {
			s.page(func(context.Context, *http.Request) (*frame, error) { return nil, p })(w, r)
			return
		}
		d.behind(w, r)
	}
}
