package web

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/dealseal/dealseal/web/signin"
)

// ticketCookie is what a browser takes along to the provider. It comes back from another site, so it is Lax.
const ticketCookie = "dealseal_sign_in"

// signedInView is the page at which people arrive from the provider. A browser sends the session's cookie to what is opened
// from it, and not to where another site would lead.
type signedInView struct{ Who, Role, To string }

// beginSignIn sends a browser to the provider.
func (s *server) beginSignIn(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), houseLimit)
	defer cancel()
	address, ticket, err := s.SignIn.Begin(ctx, r.URL.Query().Get("to"))
	if err != nil {
		s.refuseSignIn(w, r, err)
		return
	}
	http.SetCookie(w, s.ticket(ticket, int(signin.TicketLasts.Seconds())))
	http.Redirect(w, r, address, http.StatusSeeOther)
}

// signedIn begins the session of a person who comes back from the provider.
func (s *server) signedIn(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Referrer-Policy", "no-referrer") // the address holds a code
	ctx, cancel := context.WithTimeout(r.Context(), houseLimit)
	defer cancel()
	ticket := ""
	if c, err := r.Cookie(s.ticket("", 0).Name); err == nil {
		ticket = c.Value
	}
	person, err := s.SignIn.Finish(ctx, ticket, r.URL.Query())
	http.SetCookie(w, s.ticket("", -1)) // it is good once
	if err != nil {
		s.refuseSignIn(w, r, err)
		return
	}
	s.endThose(r)
	secret, begun := s.Sessions.begin(person.Who, person.Role, s.SignInLasts)
	s.Log.Info("a session of the status page began", "who", begun.Who, "role", begun.Role, "session", begun.ID)
	http.SetCookie(w, sessionCookie(encrypted(r) || s.SignIn.Encrypted(), secret, int(begun.ends.Sub(begun.Since).Seconds())))
	w.Header().Set("Refresh", "0; url="+person.To)
	s.page(func(context.Context, *http.Request) (*frame, error) {
		return &frame{Title: "Signed in", SignedIn: &signedInView{Who: begun.Who, Role: string(begun.Role), To: person.To}}, nil
	})(w, r)
}

func (s *server) ticket(value string, maxAge int) *http.Cookie {
	c := &http.Cookie{Name: ticketCookie, Value: value, Path: "/sign-in", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if s.SignIn.Encrypted() {
		c.Name, c.Path, c.Secure = hostOnly+ticketCookie, "/", true
	}
	return c
}

// refuseSignIn says that nobody was let in, and only to the log why.
func (s *server) refuseSignIn(w http.ResponseWriter, r *http.Request, err error) {
	if untold, ok := s.refusals.note(s.Now()); ok {
		s.Log.Warn("nobody was let in to the status page", "why", err, "untold", untold)
	}
	p := &problem{status: http.StatusForbidden, Title: "You are not signed in", What: "What your browser has brought from the provider lets nobody in here. The daemon’s log says why.",
		Do: "Sign in once more. If that does not help, ask whoever runs this daemon, or give this command on its machine and open the link that it prints:", Command: loginCommand, SignIn: s.signInAt("/")}
	var down *signin.DownError
	if errors.As(err, &down) {
		w.Header().Set("Retry-After", "30")
		p.status, p.Title, p.What = http.StatusServiceUnavailable, "Nobody can be signed in at the moment", "The provider at which people sign in does not answer as it should. The daemon’s log says more."
		p.Do = "Try it again in a while. A link to log in works meanwhile; this command prints one on the daemon’s machine:"
	}
	s.page(func(context.Context, *http.Request) (*frame, error) { return nil, p })(w, r)
}

// mostToldAMinute is how many refusals of a minute are logged: whoever reaches the page can cause them.
const mostToldAMinute = 20

// sparing counts refusals of a minute.
type sparing struct {
	mu    sync.Mutex
	since time.Time
	n     int
}

// note reports whether one more is told, and how many of the minute before were not.
func (r *sparing) note(now time.Time) (untold int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.since) >= time.Minute {
		untold, r.n, r.since = max(r.n-mostToldAMinute, 0), 0, now
	}
	r.n++
	return untold, r.n <= mostToldAMinute
}

// signInAt is where somebody who wants a page signs in; empty where there is no provider.
func (s *server) signInAt(to string) string {
	if s.SignIn == nil {
		return ""
	}
	return s.SignIn.Start(to)
}
