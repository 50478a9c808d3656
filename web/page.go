package web

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"strconv"
)

// assets are served as they are.
//
//go:embed assets/style.css assets/refresh.js assets/icon.svg
var assets embed.FS

//go:embed templates/*.html
var templateFiles embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{"number": number}).ParseFS(templateFiles, "templates/*.html"))

// frame is what every page has around its own content.
type frame struct {
	Title   string
	Version string
	At      *moment
	// Who is whose session it is; empty without one.
	Who string
	// Here names the entry of the navigation that the page belongs to.
	Here string
	// Live pages are kept current by the script.
	Live bool
	// Hooked is set where there is a page of webhooks.
	Hooked bool
	// Deeds is set where people may decide, Role is that of the session.
	Deeds bool
	Role  string
	// One of these is the content.
	Gate     *gateView
	Login    *loginView
	SignedIn *signedInView
	// LoggedOut is for those who have signed in at the provider.
	LoggedOut *loggedOutView
	Status    *statusView
	List      *listView
	Deal      *dealView
	Fields    *fieldsView
	Hooks     *hooksView
	Attempts  *attemptsView
	Tenant    *tenantPage
	Guarded   *guardedPage
	Problem   *problem
}

// problem is an error in words for people: what happened, and what to do about it.
type problem struct {
	status   int
	Title    string
	What, Do string
	Command  string
	// SignIn is where one signs in instead; empty without a provider.
	SignIn string
	// Again is the page itself, to be opened once more.
	Again string
	// cause is for the log only.
	cause error
}

func (p *problem) Error() string { return p.Title }

// page answers with what show returns, or with an error page.
func (s *server) page(show func(context.Context, *http.Request) (*frame, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), houseLimit)
		defer cancel()
		status := http.StatusOK
		f, err := show(ctx, r)
		if err != nil {
			p := s.explain(r, err)
			f, status = &frame{Title: p.Title, Problem: p}, p.status
		}
		now := s.Now()
		who, _ := reader(ctx)
		f.Version, f.At, f.Who, f.Hooked = s.Version, at(now, now), who.Who, s.Hooks != nil
		f.Deeds, f.Role = s.Deeds != nil, string(who.Role)
		var page bytes.Buffer
		if err := templates.ExecuteTemplate(&page, "frame.html", f); err != nil {
			s.Log.Error("a page could not be made", "path", r.URL.Path, "err", err)
			http.Error(w, "This page could not be made; the daemon's log says why.", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(page.Len()))
		w.WriteHeader(status)
		_, _ = page.WriteTo(w) // the client has gone
	}
}

// explain turns an error into words. What the House said goes to the log only: it may hold more than a page should.
func (s *server) explain(r *http.Request, err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		err = p.cause
	}
	if err != nil && r.Context().Err() == nil {
		s.Log.Error("a page could not be filled", "path", r.URL.Path, "err", err)
	}
	if p != nil {
		return p
	}
	return &problem{status: http.StatusInternalServerError, Title: "The state could not be read",
		What: "The daemon runs, but its database did not answer as it should.",
		Do:   "See the daemon's log for the cause and /readyz for what else is not well, then load this page again."}
}

func (s *server) nowhere(_ context.Context, r *http.Request) (*frame, error) {
	return nil, &problem{status: http.StatusNotFound, Title: "There is no such page",
		What: "Nothing is at " + short(r.URL.Path, 200) + ".",
		Do:   "The start page shows tenants and queue, /deals lists deals; one deal is at /deals/ followed by its transaction ID."}
}
