package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web"
)

// admin begins, lists and ends sessions of the status page. They are the daemon's: without one there is nothing to see.
func admin(ctx context.Context, c *call) error {
	if len(c.args) != 1 {
		return usagef("say what to do about sessions: login, sessions or logout")
	}
	verb, known := map[string]func(context.Context, *call, *remote) error{"login": adminLogin, "sessions": adminSessions, "logout": adminLogout}[c.args[0]]
	if !known {
		return usagef("%q cannot be done about sessions: it is login, sessions or logout", c.args[0])
	}
	r, stateDir, err := findDaemon(ctx, c.config)
	if errors.Is(err, errNoDaemon) {
		return fmt.Errorf("no daemon is running on %s: the pages, and the sessions to read them, are the daemon's", stateDir)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	return verb(ctx, c, r)
}

// invitation is a link that begins a session, in its parts.
type invitation struct {
	Page string `json:"page"` // asked for, or else where the daemon itself answers
	Path string `json:"path"`
	Who  string `json:"who"`
	// Role is what the person may; empty: admin.
	Role deal.TokenRole `json:"role,omitempty"`
	// Unknown is set when the page does not answer to the name that was asked for.
	Unknown bool `json:"unknown,omitempty"`
}

func adminLogin(ctx context.Context, c *call, r *remote) error {
	page, err := pageOf(c.page)
	if err != nil {
		return err
	}
	body, err := json.Marshal(invitation{Page: page, Role: deal.TokenRole(c.role)})
	if err != nil {
		return err
	}
	var in invitation
	if err := r.ask(ctx, "POST", "/admin/login", body, &in); err != nil {
		return err
	}
	if in.Unknown {
		fmt.Fprintf(c.stderr, "dealseal admin: the page does not answer to the name in %s: add it to listen.hosts and restart, unless a proxy puts another in its place\n", in.Page)
	}
	_, err = fmt.Fprintf(c.stdout, "%s%s\nOpen it within five minutes; it is good once, and logs in %s.\n", in.Page, in.Path, in.Who)
	return err
}

// pageOf checks what a link is put behind. The page's own links begin at the root of its host.
func pageOf(address string) (string, error) {
	if address == "" {
		return "", nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || strings.TrimSuffix(u.Path, "/") != "" || strings.ContainsAny(address, "?#") {
		return "", usagef("--page %s is no address such as https://seals.example.com", address)
	}
	return u.Scheme + "://" + u.Host, nil
}

func adminSessions(ctx context.Context, c *call, r *remote) error {
	var list []web.Session
	if err := r.ask(ctx, "GET", "/admin/sessions", nil, &list); err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(c.stdout, "nobody is logged in")
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SESSION\tWHO\tROLE\tBEGAN\tLAST USED\tENDS")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\tin %s\n", s.ID, s.Who, s.Role, ago(s.Since), ago(s.Seen), time.Until(s.Until).Round(time.Minute))
	}
	return w.Flush()
}

func adminLogout(ctx context.Context, c *call, r *remote) error {
	var ended int
	if err := r.ask(ctx, "POST", "/admin/logout", nil, &ended); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.stdout, "sessions ended: %d; links that were not used are void\n", ended)
	return err
}

// sessionRoutes are the daemon's side of it.
func (d *service) sessionRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /admin/login", func(w http.ResponseWriter, r *http.Request) {
		in, err := d.invite(r)
		answer(w, in, err)
	})
	mux.HandleFunc("GET /admin/sessions", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, append([]web.Session{}, d.sessions.List()...), nil)
	})
	mux.HandleFunc("POST /admin/logout", func(w http.ResponseWriter, r *http.Request) {
		n := d.sessions.EndAll()
		d.log.Info("all sessions of the status page were ended", "who", peerOf(r.Context()), "sessions", n)
		answer(w, n, nil)
	})
}

// invite makes a link for whoever asks.
func (d *service) invite(r *http.Request) (in invitation, err error) {
	if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&in); err != nil {
		return in, err
	}
	if in.Who = peerOf(r.Context()); in.Who == "" {
		return in, errNoPeer
	}
	if in.Page == "" {
		in.Page = d.pageAddress()
	} else {
		_, host, _ := strings.Cut(in.Page, "://")
		in.Unknown = !web.Answers(d.hosts(), host)
	}
	in.Path, err = d.sessions.Invite(in.Who, cmp.Or(in.Role, deal.RoleAdmin))
	return in, err
}

// pageAddress is where a browser on this machine finds the page.
func (d *service) pageAddress() string {
	at, ok := d.listen.Addr().(*net.TCPAddr)
	if !ok {
		return "http://" + d.listen.Addr().String()
	}
	host := at.IP.String()
	if at.IP.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, fmt.Sprint(at.Port))
}
