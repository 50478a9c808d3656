package web

import (
	"context"
	"net/http"
	"strings"
)

// loginCommand gives whoever is on the daemon's machine a link that begins a session.
const loginCommand = "dealseal admin login"

// maxForm is the most that is read of what is sent here, in bytes: a reason takes up to twelve for a character.
const maxForm = 8 << 10

// loginView is the page behind a link of loginCommand.
type loginView struct{ Token, Who, Role string }

// gateView is the start page for those without a session: whether the daemon is well, and how to log in.
type gateView struct {
	State   state
	Trouble []finding
	Command string
	// SignIn is where one signs in instead; empty without a provider.
	SignIn string
}

// gate answers the start page to those without a session.
func (s *server) gate(ctx context.Context) *frame {
	well := s.check(ctx)
	v := &gateView{State: state{Mark: "done", Word: "healthy"}, Trouble: well.trouble(), Command: loginCommand, SignIn: s.signInAt("/")}
	switch {
	case !well.Ready:
		v.State = state{Mark: "dead", Word: "not ready"}
	case len(v.Trouble) > 0:
		v.State = state{Mark: "retrying", Word: "healthy, with a warning"}
	}
	return &frame{Title: "dealseal is " + v.State.Word, Live: true, Gate: v}
}

// start is the status page or the gate.
func (s *server) start(ctx context.Context, r *http.Request) (*frame, error) {
	if _, ok := reader(ctx); !ok {
		return s.gate(ctx), nil
	}
	return s.status(ctx, r)
}

// mustLogIn is what those without a session get. A link on another site, such as the CRM, leads here without the cookie,
// which browsers send only for what was clicked on our own pages.
func (s *server) mustLogIn(r *http.Request) *problem {
	if _, ok := reader(r.Context()); ok {
		return nil
	}
	to := r.URL.Path
	if r.Method != http.MethodGet {
		to = "/" // what was to be done has to be said anew
	}
	p := &problem{status: http.StatusForbidden, Title: "Log in to see this",
		What: "Deals and documents are shown to people with a session only.",
		Do:   "Give this command on the daemon's machine and open the link that it prints:", Command: loginCommand, SignIn: s.signInAt(to)}
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		p.Again = r.URL.RequestURI()
	}
	return p
}

// askLogin shows a button: whoever only looks at the link, such as a preview, does not use it up.
func (s *server) askLogin(_ context.Context, r *http.Request) (*frame, error) {
	token := r.URL.Query().Get("token")
	who, ok := s.Sessions.invited(token)
	if !ok {
		return nil, linkOver()
	}
	return &frame{Title: "Log in", Login: &loginView{Token: token, Who: who.Who, Role: string(who.Role)}}, nil
}

func linkOver() *problem {
	return &problem{status: http.StatusForbidden, Title: "This link is of no use any more",
		What: "A link to log in is good once, for five minutes, and until the daemon is restarted.",
		Do:   "Get a new one on the daemon's machine:", Command: loginCommand}
}

// login begins the session that a link is for.
func (s *server) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	secret, begun, ok := s.Sessions.redeem(r.PostFormValue("token"))
	if !ok {
		s.page(func(context.Context, *http.Request) (*frame, error) { return nil, linkOver() })(w, r)
		return
	}
	s.endThose(r)
	s.Log.Info("a session of the status page began", "who", begun.Who, "session", begun.ID)
	http.SetCookie(w, sessionCookie(encrypted(r), secret, int(sessionLasts.Seconds())))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// logout ends the session of the browser that asks.
func (s *server) logout(w http.ResponseWriter, r *http.Request) {
	s.endThose(r)
	who, ok := reader(r.Context())
	if ok {
		s.Log.Info("a session of the status page ended", "who", who.Who, "session", who.ID)
	}
	for _, secure := range []bool{true, false} {
		http.SetCookie(w, sessionCookie(secure, "", -1))
	}
	to := "/"
	if who.provider && s.SignIn != nil {
		to = "/logged-out"
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// loggedOut says that the session at the provider goes on, with which the next one here begins without a question.
func (s *server) loggedOut(context.Context, *http.Request) (*frame, error) {
	return &frame{Title: "Logged out", LoggedOut: &loggedOutView{Provider: s.SignIn.LogOut()}}, nil
}

// loggedOutView is the page after the session of somebody who has signed in at the provider.
type loggedOutView struct {
	// Provider is where one logs out there; empty if it does not say.
	Provider string
}

// ours refuses what another site has a browser send here.
func ours(r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	site := r.Header.Get("Sec-Fetch-Site")
	if site != "" {
		return site == "same-origin"
	}
	origin := r.Header.Get("Origin")
	_, host, _ := strings.Cut(origin, "://")
	return origin == "" || host == r.Host
}
