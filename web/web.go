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
	mux.HandleFunc("GET /{$}", s.page(s.start))
	mux.HandleFunc("GET /login", s.page(s.askLogin))
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
	if o.SignIn != nil {
		mux.HandleFunc("GET /sign-in", s.beginSignIn)
		mux.HandleFunc("GET "+signin.Back, s.signedIn)
		mux.HandleFunc("GET /logged-out", s.page(s.loggedOut))
	}
	mux.HandleFunc("GET /deals", s.forReaders(s.list))
	mux.HandleFunc("GET /deals/{tx}", s.forReaders(s.deal))
	mux.HandleFunc("GET /deals/{tx}/fields", s.forRole(role.Contracts, s.forReaders(s.fields)))
	mux.HandleFunc("GET /deals/{tx}/files/{name...}", s.forRole(role.Contracts, s.file))
	mux.HandleFunc("GET /deals/{tx}/proof", s.forRole(role.Audit, s.proof))
	mux.HandleFunc("GET /tenants/{tenant}", s.forReaders(s.tenant))
	mux.HandleFunc("GET /guard/{tenant}", s.forReaders(s.guarded))
	mux.HandleFunc("GET /guard/{tenant}/{rule}", s.forReaders(s.guarded))
	if o.Deeds != nil {
		mux.HandleFunc("POST /tenants/{tenant}/turn", s.turn)
		mux.HandleFunc("POST /guard/{tenant}", s.decideGuarded)
		mux.HandleFunc("POST /guard/{tenant}/{rule}", s.decideGuarded)
		mux.HandleFunc("POST /deals/{tx}/decide", s.decide)
	}
	if o.Hooks != nil {
		mux.HandleFunc("GET /webhooks", s.forReaders(s.hooks))
		mux.HandleFunc("GET /webhooks/deliveries/{id}", s.forReaders(s.attempts))
		if o.Deeds != nil {
			mux.HandleFunc("POST /webhooks/deliveries/{id}/redeliver", s.redeliver)
		}
	}
	mux.HandleFunc("GET /", s.page(s.nowhere))
	mux.HandleFunc("GET /assets/{file}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, assets, "assets/"+r.PathValue("file"))
	})
	mux.HandleFunc("GET /healthz", healthy)
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{
		// What could be collected is worth more than none: the rest is logged, and missing in the answer.
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}))
	return guard(o.Hosts, http.NewCrossOriginProtection().Handler(s.recognise(mux)))
}
