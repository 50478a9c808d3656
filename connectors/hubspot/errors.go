package hubspot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// class is what an error asks of the caller.
type class int

const (
	passing   class = iota // try again
	permanent              // trying again cannot help
	expired                // HubSpot does not take the token: get another one
)

// Error is a refusal by HubSpot, or the lack of an answer. Its text has HubSpot's category, its codes, the names of
// properties and scopes, and the correlation ID that HubSpot's support asks for. The message of the reply is left out
// because it quotes values.
type Error struct {
	// Status is the HTTP status, 0 when there was no answer.
	Status int
	// Category is HubSpot's, or the policy of a rate limit, or the code of the token endpoint; empty when the body had none.
	Category string
	// Problems are the properties that the reply names, each with its code.
	Problems []Problem
	// Scopes are those that the reply misses.
	Scopes []string
	// Correlation is HubSpot's name of the call.
	Correlation string

	class class
	after time.Duration
	cure  string
	// unclear says that the call may have been carried out all the same.
	unclear bool
	// login says that no call of this kind can succeed until the login is mended.
	login bool
	cause error
}

// Problem is what HubSpot does not like about one property.
type Problem struct {
	Property string
	Code     string
}

func (e *Error) Error() string {
	var b strings.Builder
	switch {
	case e.Status == 0 && e.cause != nil:
		fmt.Fprintf(&b, "no answer: %v", e.cause)
	case e.Status == 0:
		b.WriteString("refused")
	default:
		fmt.Fprintf(&b, "HTTP %d", e.Status)
		if e.cause != nil {
			fmt.Fprintf(&b, ", %v", e.cause)
		}
	}
	if e.Category != "" {
		b.WriteString(" " + e.Category)
	}
	if details := e.details(); len(details) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(details, ", "))
	}
	if e.cure != "" {
		b.WriteString(": " + e.cure)
	}
	if e.Correlation != "" {
		b.WriteString(" [correlation ID " + e.Correlation + "]")
	}
	return b.String()
}

func (e *Error) details() []string {
	details := slices.Clone(e.Scopes)
	for _, p := range e.Problems {
		details = append(details, strings.TrimSpace(p.Property+" "+p.Code))
	}
	return details
}

func (e *Error) Unwrap() error { return e.cause }

// Cure is what mends it; empty when that is not known. It is a part of the text, too.
func (e *Error) Cure() string { return e.cure }

// Permanent reports whether trying again cannot help.
func (e *Error) Permanent() bool { return e.class == permanent }

// RetryAfter is how long HubSpot should be left alone; 0 when it does not matter.
func (e *Error) RetryAfter() time.Duration { return e.after }

// Login reports whether the trouble is with the token, or with what the app was granted, and not with one record.
func (e *Error) Login() bool { return e.login }

// LoginTrouble says what is wrong with the login; see connectors.LoginTrouble. A static token that HubSpot does not know was
// deleted or replaced, or is another text than HubSpot has given: both look alike.
func (e *Error) LoginTrouble() string {
	switch {
	case e.Status == http.StatusForbidden:
		return connectors.LoginNoPermission
	case e.Category == "EXPIRED_AUTHENTICATION":
		return connectors.LoginExpired
	case e.Category == "BAD_REFRESH_TOKEN", e.Category == "invalid_grant", e.Status == http.StatusUnauthorized:
		return connectors.LoginRevoked
	case e.class == permanent:
		return connectors.LoginMisconfigured
	}
	return ""
}

// inLogin marks an error as trouble with the login.
func inLogin(err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.login = true
	}
	return err
}

// malformed is an answer that says success and cannot be understood: it may have been cut on its way.
func malformed(format string, args ...any) *Error {
	return &Error{Status: http.StatusOK, unclear: true, cause: fmt.Errorf("the reply cannot be used: "+format, args...)}
}

// refuse is an error of ours that no retry can help.
func refuse(format string, args ...any) *Error {
	return &Error{class: permanent, cure: fmt.Sprintf(format, args...)}
}

// isUnclear reports whether a call may have been carried out in spite of err.
func isUnclear(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.unclear
}

// settle is how long a write without an answer is given: as long again as it had, within reason.
func (c *Connector) settle() time.Duration { return min(c.cfg.Timeout, settlePause) }

// later marks the failure of a write that HubSpot may still be carrying out: whoever looked at once could find nothing, write
// again, and have both. What got an answer, or has lost its connection, is not carried out for long; what is still being
// waited for may be, and is given as long as a receipt that may arrive late.
func (c *Connector) later(err error) error {
	if !isUnclear(err) {
		return err
	}
	late := c.settle()
	if errors.Is(err, context.DeadlineExceeded) {
		late = c.settleLate()
	}
	return connectors.Late(err, late)
}

// settleLate is how long a write is given that is still being waited for, where another one would come beside it.
func (c *Connector) settleLate() time.Duration {
	return max(c.settle(), min(lateTimeouts*c.cfg.Timeout, latePause))
}

// isMissing reports whether err says that what the path names does not exist. A path that HubSpot does not serve, such as
// one of a retired version, has status 404 too, but not this category.
func isMissing(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound && e.Category == "OBJECT_NOT_FOUND"
}

// gone turns a missing record into deal.ErrGone. It is for calls whose path names one deal and nothing else.
func gone(err error) error {
	if isMissing(err) {
		return deal.ErrGone
	}
	return err
}

// Statuses that net/http has no name for.
const (
	statusMigrating = 477 // the account moves to another data centre
)

const (
	lockPause = 2 * time.Second
	edgePause = 5 * time.Second
	// settlePause is how long a write without an answer is given to be carried out after all.
	settlePause = 30 * time.Second
	// latePause is how long at most a file that nobody has answered for is given to appear, and lateTimeouts how many
	// time limits of a call.
	latePause    = 10 * time.Minute
	lateTimeouts = 10
	maxDayPause  = time.Hour
	maxMigration = 24 * time.Hour
)

// envelope is what an error body may say. HubSpot promises none of it.
type envelope struct {
	category, policy, correlation, message string
	problems                               []Problem
	scopes                                 []string
}

var (
	codeForm        = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.]{0,79}$`)
	nameForm        = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.:-]{0,199}$`)
	correlationForm = regexp.MustCompile(`^[A-Za-z0-9-]{8,64}$`)
)

// maxDetails bounds what is kept of a list in an error body.
const maxDetails = 20

// parseEnvelope reads an error body: JSON in HubSpot's form, in part or as a whole, a web page, or nothing. What has not
// the form of a code or a name is dropped, because it may be a value.
func parseEnvelope(body []byte) envelope {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return envelope{}
	}
	var e envelope
	e.category = matching(codeForm, text(fields["category"]))
	if e.category == "" {
		e.category = matching(codeForm, text(fields["error"])) // the token endpoint
	}
	if status := text(fields["status"]); e.category == "" && strings.HasPrefix(status, "BAD_") {
		e.category = matching(codeForm, status) // the token endpoint before 2026
	}
	e.policy = matching(codeForm, text(fields["policyName"]))
	e.correlation = matching(correlationForm, text(fields["correlationId"]))
	e.message = text(fields["message"])
	var list []json.RawMessage
	_ = json.Unmarshal(fields["errors"], &list) // what is no list names nothing
	for _, raw := range list[:min(len(list), maxDetails)] {
		e.addDetail(raw)
	}
	if len(e.problems) == 0 {
		e.problems = problemsInMessage(e.message)
	}
	return e
}

func text(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s) // what is no text counts as absent
	return s
}

func matching(form *regexp.Regexp, s string) string {
	if form.MatchString(s) {
		return s
	}
	return ""
}

func (e *envelope) addDetail(raw json.RawMessage) {
	var detail struct {
		Code    json.RawMessage
		Context map[string]json.RawMessage
	}
	if json.Unmarshal(raw, &detail) != nil {
		return
	}
	var names, scopes []string
	_ = json.Unmarshal(detail.Context["propertyName"], &names)
	_ = json.Unmarshal(detail.Context["requiredGranularScopes"], &scopes)
	code := matching(codeForm, text(detail.Code))
	if len(names) == 0 && code != "" {
		e.problems = append(e.problems, Problem{Code: code})
	}
	for _, name := range names[:min(len(names), maxDetails)] {
		if nameForm.MatchString(name) {
			e.problems = append(e.problems, Problem{Property: name, Code: code})
		}
	}
	for _, scope := range scopes[:min(len(scopes), maxDetails)] {
		if nameForm.MatchString(scope) {
			e.scopes = append(e.scopes, scope)
		}
	}
}

// problemsInMessage reads the JSON list that HubSpot puts into the message of a refused write. Only names and codes are
// taken from it.
func problemsInMessage(message string) []Problem {
	_, list, found := strings.Cut(message, ": [")
	if !found {
		return nil
	}
	var parsed []struct{ Name, Error string }
	if json.Unmarshal([]byte("["+list), &parsed) != nil {
		return nil
	}
	var problems []Problem
	for _, p := range parsed[:min(len(parsed), maxDetails)] {
		if nameForm.MatchString(p.Name) {
			problems = append(problems, Problem{Property: p.Name, Code: matching(codeForm, p.Error)})
		}
	}
	return problems
}

// failure judges a reply that is no success. zone is where the day of the account's allowance ends.
func failure(status int, header http.Header, body []byte, zone *time.Location) *Error {
	said := parseEnvelope(body)
	e := &Error{
		Status: status, Category: said.category, Problems: said.problems, Scopes: said.scopes, unclear: status >= 500,
		Correlation: said.correlation,
	}
	if e.Correlation == "" {
		e.Correlation = matching(correlationForm, header.Get("X-HubSpot-Correlation-Id"))
	}
	switch {
	case status < 500 && e.loginRefused():
	case status == http.StatusUnauthorized:
		e.class, e.login, e.cure = expired, true, "HubSpot does not accept the access token: it has expired, or it was revoked or replaced"
	case status == http.StatusTooManyRequests:
		e.limited(said, header, zone)
	case status == http.StatusLocked:
		e.after, e.cure = max(lockPause, retryAfter(header)), "another request holds the record"
	case status == statusMigrating:
		e.after, e.cure = retryAfter(header), "HubSpot moves the account to another data centre: all calls wait until it is done"
		if e.after == 0 {
			e.after = maxDayPause
		}
	case status >= 500:
		e.after, e.cure = max(edgePause, retryAfter(header)), "HubSpot is not available at the moment"
	case brokeOff(header, body):
		e.after, e.cure = edgePause, "the reply broke off, so that it is not known what HubSpot refuses"
	case status == http.StatusForbidden:
		e.class, e.login = permanent, e.Category == "MISSING_SCOPES"
		e.cure = "give the app or service key the missing scope, or its user the permission"
	default:
		e.rejected(said)
	}
	return e
}

// brokeOff reports whether a body that says to be JSON is none, so that what it would say is not known. Without that, a
// status such as 404 may mean that a file is not there yet as well as that a path is wrong.
func brokeOff(header http.Header, body []byte) bool {
	t, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	return err == nil && t == "application/json" && !json.Valid(body)
}

// loginRefused judges the answers of the token endpoint that a person has to do something about.
func (e *Error) loginRefused() bool {
	switch e.Category {
	case "invalid_grant", "BAD_REFRESH_TOKEN":
		e.Category = "invalid_grant"
		e.cure = "the refresh token is revoked or used up: install the app in HubSpot again and put its new refresh token where auth.refresh_token says"
	case "invalid_client", "unauthorized_client", "BAD_CLIENT_ID", "BAD_CLIENT_SECRET":
		e.cure = "HubSpot does not know the OAuth app: check auth.client_id and auth.client_secret"
	default:
		return false
	}
	e.class = permanent
	return true
}

// limited judges 429. The policy is TEN_SECONDLY_ROLLING, SECONDLY or DAILY; some replies have it in the message only.
func (e *Error) limited(said envelope, header http.Header, zone *time.Location) {
	e.Category = said.policy
	policy := strings.ToUpper(said.policy + " " + said.message)
	switch {
	case strings.Contains(policy, "DAILY"):
		e.after, e.cure = untilMidnight(header, zone), "the account's API calls of the day are used up: deals go on by themselves at the account's midnight, or buy more"
	case strings.Contains(policy, "TEN_SECONDLY"):
		e.after, e.cure = 10*time.Second, "too many calls within ten seconds: other apps with the same token count too; lower crm.with.rate"
	default:
		e.after, e.cure = time.Second, "too many searches, or calls, of all apps of the account within a second"
	}
	if wait := retryAfter(header); wait > 0 {
		e.after = min(wait, maxMigration)
	}
}

// untilMidnight is the time until the allowance is renewed, by HubSpot's clock, at most an hour: the zone may be wrong,
// and the administrator may buy more.
func untilMidnight(header http.Header, zone *time.Location) time.Duration {
	now, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return maxDayPause
	}
	y, m, d := now.In(zone).Date()
	midnight := time.Date(y, m, d+1, 0, 0, 0, 0, zone)
	return max(time.Second, min(midnight.Sub(now), maxDayPause))
}

// rejected judges the statuses that say that the request is at fault.
func (e *Error) rejected(said envelope) {
	switch {
	case e.Status == http.StatusNotFound && e.Category == "OBJECT_NOT_FOUND":
		e.class, e.cure = permanent, "it does not exist or is archived"
	case e.Status == http.StatusNotFound, e.Status == http.StatusMethodNotAllowed, e.Status == http.StatusGone,
		e.Status == http.StatusUnsupportedMediaType:
		e.class, e.cure = permanent, "HubSpot does not serve this path: check crm.with.api_version and base_url"
	case e.Status == http.StatusRequestEntityTooLarge:
		e.class, e.cure = permanent, "it is larger than what HubSpot takes: have HubSpot allow more and retry the deal, or put the contract on the record by hand (dealseal evidence gives it out of the archive)"
	case len(e.Problems) > 0:
		e.class, e.cure = permanent, "the account rejects the values: correct the property or the rule in HubSpot, or write_back in the tenant file, then retry"
	case e.Status == http.StatusConflict, e.Status == http.StatusRequestTimeout:
		e.after, e.cure = lockPause, "HubSpot refuses the request at the moment"
	case e.Status >= 400 && said.category != "", e.Status == http.StatusRequestURITooLong:
		e.class, e.cure = permanent, "HubSpot does not accept the request: check crm.with.api_version; otherwise this is an error in dealseal"
	default: // an answer that nobody has described: the caller's attempts have an end
		e.after, e.cure = edgePause, "HubSpot answered with something else than was asked"
	}
}

// retryAfter reads the header, in seconds, at most a day.
func retryAfter(header http.Header) time.Duration {
	s, err := strconv.Atoi(header.Get("Retry-After"))
	if err != nil || s < 0 {
		return 0
	}
	return time.Duration(min(s, int(maxMigration/time.Second))) * time.Second
}
