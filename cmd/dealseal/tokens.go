package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
	"github.com/dealseal/dealseal/web/api"
)

// tokenOptions are the flags of tokens alone.
type tokenOptions struct {
	role, certificate, newCertificate string
	test                              bool
	days                              int
}

// usualTokenDays is as long as a token should live.
const usualTokenDays = 90

// tokenRequest is what a person wants of tokens.
type tokenRequest struct {
	Verb string `json:"verb"` // create or revoke
	ID   string `json:"id,omitempty"`
	// Of one to create. Certificate is a client certificate in DER; none: a token is made, and shown.
	Name        string          `json:"name,omitempty"`
	Role        deal.TokenRole  `json:"role,omitempty"`
	Test        bool            `json:"test,omitempty"`
	Tenants     []deal.TenantID `json:"tenants,omitempty"` // none: all of the environment
	Days        int             `json:"days,omitempty"`
	Certificate []byte          `json:"certificate,omitempty"`
	Why         string          `json:"why"`
	// Who is filled in by whoever knows it for sure.
	Who string `json:"-"`
}

// tokenAnswer is what came of it.
type tokenAnswer struct {
	Token deal.Token `json:"token"`
	// Secret is the token's text: it is shown this once.
	Secret string `json:"secret,omitempty"`
}

// tokensCommand lists who may use the API, lets in, or keeps out.
func tokensCommand(ctx context.Context, c *call) error {
	verb, args := "list", []string(nil)
	if len(c.args) > 0 {
		verb, args = c.args[0], c.args[1:]
	}
	switch {
	case verb == "list" && len(args) == 0:
		return listTokens(ctx, c)
	case (verb == "create" || verb == "revoke") && len(args) == 1 && c.why == "":
		return usagef("say why with --why \"…\": it goes into the audit log")
	case verb == "create" && len(args) == 1:
		return createToken(ctx, c, args[0])
	case verb == "revoke" && len(args) == 1:
		_, err := changeToken(ctx, c, tokenRequest{Verb: "revoke", ID: args[0], Why: c.why})
		return err
	}
	return usagef("%q cannot be done with tokens: it is list, create NAME, or revoke NAME|ID", strings.Join(c.args, " "))
}

func listTokens(ctx context.Context, c *call) error {
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	all, err := ops.Tokens(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, all)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(c.stdout, "there are none: make one with \"dealseal tokens create\"")
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tKIND\tSTATE\tROLE\tTENANTS\tENDS\tLAST USED\tMADE BY")
	for _, t := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID(), t.Name, t.Kind, t.State(time.Now()), t.Role, tenantNames(t.Tenants), t.Until.Format(time.DateOnly), orNever(t.Used), t.By)
	}
	return w.Flush()
}

func tenantNames(ids []deal.TenantID) string {
	if len(ids) == 0 {
		return "all"
	}
	var names []string
	for _, id := range ids {
		names = append(names, string(id))
	}
	return strings.Join(names, ",")
}

func createToken(ctx context.Context, c *call, name string) error {
	r := tokenRequest{Verb: "create", Name: name, Role: deal.TokenRole(c.tokens.role), Test: c.tokens.test, Days: c.tokens.days, Why: c.why}
	switch {
	case !slices.Contains(deal.TokenRoles, r.Role):
		return usagef("--role is %q: it must be one of %v", r.Role, deal.TokenRoles)
	case c.tokens.certificate != "" && c.tokens.newCertificate != "":
		return usagef("--certificate names one that there is, --new-certificate has one made: say one of them")
	case c.tokens.newCertificate != "" && c.tokens.days < 1:
		return usagef("--days is %d: it must be from 1 to 366", c.tokens.days)
	case c.tenant == "" && !c.all || c.tenant != "" && c.all:
		return usagef("say what the token sees, with --tenant ID[,ID] or with --all")
	}
	if c.tenant != "" {
		for id := range strings.SplitSeq(c.tenant, ",") {
			r.Tenants = append(r.Tenants, deal.TenantID(id))
		}
	}
	if c.tokens.certificate != "" {
		chain, err := readCertificates(c.tokens.certificate)
		if err != nil {
			return err
		}
		r.Certificate = chain[0].Raw
	}
	if file := c.tokens.newCertificate; file != "" {
		der, err := makeClientCertificate(file, name, time.Duration(r.Days)*24*time.Hour)
		if err != nil {
			return err
		}
		r.Certificate = der
		_, err = changeToken(ctx, c, r)
		var lost *lostReplyError
		if errors.As(err, &lost) {
			return fmt.Errorf("%w: \"dealseal tokens list\" says whether %s was let in; if not, delete %s, which is good for nothing then", err, name, file)
		}
		if err != nil {
			os.Remove(file) // it is good for nothing
			return err
		}
		_, err = fmt.Fprintf(c.stderr, "%s has the certificate and its key: hand it to the program, and keep no copy\n", file)
		return err
	}
	a, err := changeToken(ctx, c, r)
	if err != nil || a.Secret == "" {
		return err
	}
	fmt.Fprintln(c.stderr, "it is shown this once:")
	_, err = fmt.Fprintln(c.stdout, a.Secret)
	return err
}

func changeToken(ctx context.Context, c *call, r tokenRequest) (a tokenAnswer, err error) {
	ops, err := c.openOperations(ctx)
	if err != nil {
		return a, err
	}
	defer ops.Close()
	if a, err = ops.ChangeToken(ctx, r); err != nil {
		return a, err
	}
	if r.Verb == "revoke" {
		_, err = fmt.Fprintf(c.stdout, "%s %s (%s) is revoked\n", a.Token.Kind, a.Token.Name, a.Token.ID())
		return a, err
	}
	fmt.Fprintf(c.stderr, "%s %s (%s) may use the API until %s\n", a.Token.Kind, a.Token.Name, a.Token.ID(), a.Token.Until.Format(time.DateOnly))
	return a, nil // it is let in, whether or not anybody reads that
}

// ChangeToken carries out what a person wants of tokens.
func (l *local) ChangeToken(ctx context.Context, r tokenRequest) (a tokenAnswer, err error) {
	if r.Who == "" {
		r.Who = l.who
	}
	switch r.Verb {
	case "create":
		return l.createToken(ctx, r)
	case "revoke":
		a.Token, err = l.RevokeToken(ctx, r.ID, r.Who, r.Why)
		return a, err
	}
	return a, fmt.Errorf("%q is nothing that can be done with a token", r.Verb)
}

func (l *local) createToken(ctx context.Context, r tokenRequest) (a tokenAnswer, err error) {
	if err := l.checkTokenTenants(r); err != nil {
		return a, err
	}
	if r.Days < 1 {
		return a, errors.New("a token must be good for a day at least")
	}
	t := deal.Token{Kind: deal.BearerToken, Name: r.Name, Live: !r.Test, Role: r.Role, Tenants: r.Tenants, Until: time.Now().AddDate(0, 0, r.Days).UTC().Truncate(time.Millisecond)}
	if len(r.Certificate) > 0 {
		if t, err = certificateToken(t, r.Certificate); err != nil {
			return a, err
		}
	} else {
		a.Secret = newTokenText(t.Live)
		t.Fingerprint = api.Fingerprint([]byte(a.Secret))
	}
	a.Token = t
	return a, l.AddToken(ctx, t, r.Who, r.Why)
}

// newTokenText makes a token: 256 random bits behind a word that scanners for leaked secrets find.
func newTokenText(live bool) string {
	b := make([]byte, 32)
	rand.Read(b)
	prefix := "ds_test_"
	if live {
		prefix = "ds_live_"
	}
	return prefix + base64.RawURLEncoding.EncodeToString(b)
}

// checkTokenTenants has tokens be good for tenants that there are, of one environment.
func (l *local) checkTokenTenants(r tokenRequest) error {
	tenants, err := l.configured()
	if err != nil {
		return err
	}
	live := map[deal.TenantID]bool{}
	for _, t := range tenants {
		live[deal.TenantID(t.Tenant.ID)] = isLive(t)
	}
	for _, id := range r.Tenants {
		production, known := live[id]
		switch {
		case !known:
			return fmt.Errorf("%q is no configured tenant", id)
		case production && r.Test:
			return fmt.Errorf("%s is in production: a token for tests (--test) does not see it", id)
		case !production && !r.Test:
			return fmt.Errorf("%s is a sandbox: only a token for tests (--test) sees it", id)
		}
	}
	return nil
}

func (r *remote) Tokens(ctx context.Context) (all []deal.Token, err error) {
	return all, r.ask(ctx, "GET", "/tokens", nil, &all)
}

func (r *remote) ChangeToken(ctx context.Context, t tokenRequest) (a tokenAnswer, err error) {
	body, err := json.Marshal(t)
	if err != nil {
		return a, err
	}
	return a, r.ask(ctx, "POST", "/tokens", body, &a)
}

// tokenWatch tells Prometheus of tokens that end soon. Their names are for those who may ask: the port shows figures to all.
type tokenWatch struct{ store *store.Store }

// A token ends soon when it has so long left, and counts as used when it was within so long.
const (
	tokenEndsSoon = 14 * 24 * time.Hour
	tokenInUse    = 30 * 24 * time.Hour
)

var tokensEndingDesc = prometheus.NewDesc("dealseal_api_tokens_ending", "Tokens and client certificates of the API that were used in the last 30 days and end within 14 days.", nil, nil)

// Describe implements prometheus.Collector.
func (w tokenWatch) Describe(ch chan<- *prometheus.Desc) { ch <- tokensEndingDesc }

// Collect implements prometheus.Collector.
func (w tokenWatch) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all, err := w.store.Tokens(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(tokensEndingDesc, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(tokensEndingDesc, prometheus.GaugeValue, float64(endingTokens(all, time.Now())))
}

// endingTokens counts those that somebody will miss.
func endingTokens(all []deal.Token, now time.Time) (n int) {
	for _, t := range all {
		if t.Counts(now) && t.Until.Sub(now) < tokenEndsSoon && now.Sub(t.Used) < tokenInUse {
			n++
		}
	}
	return n
}

// tokenRoutes are the part of the control socket that is about tokens.
func tokenRoutes(log *slog.Logger, ops operations) func(*http.ServeMux) {
	return func(mux *http.ServeMux) {
		mux.HandleFunc("GET /tokens", func(w http.ResponseWriter, r *http.Request) {
			all, err := ops.Tokens(r.Context())
			answer(w, all, err)
		})
		mux.HandleFunc("POST /tokens", func(w http.ResponseWriter, r *http.Request) {
			var t tokenRequest
			if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&t); err != nil {
				answer(w, nil, err)
				return
			}
			if t.Who = peerOf(r.Context()); t.Who == "" {
				answer(w, nil, errNoPeer)
				return
			}
			a, err := ops.ChangeToken(r.Context(), t)
			if err == nil {
				log.Info("decided about a token", "verb", t.Verb, "token", a.Token.Who(), "who", t.Who)
			}
			answer(w, a, err)
		})
	}
}
