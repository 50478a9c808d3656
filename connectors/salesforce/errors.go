package salesforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
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
	expired                // the session has ended: log in again
)

// Error is a refusal by Salesforce, or the lack of an answer. Its text has the error code and the names of fields; the
// message of the reply is left out because it quotes values and queries.
type Error struct {
	// Status is the HTTP status, 0 when there was no answer.
	Status int
	// Code is Salesforce's errorCode, empty when the body had none.
	Code string
	// Fields are the fields that the reply names.
	Fields []string

	class class
	after time.Duration
	cure  string
	// unclear says that the call may have been carried out all the same.
	unclear bool
	// revoked says that somebody has taken the login's right away.
	revoked bool
	// login says that no call can succeed until the login is mended.
	login bool
	cause error
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
	if e.Code != "" {
		b.WriteString(" " + e.Code)
	}
	if len(e.Fields) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(e.Fields, ", "))
	}
	if e.cure != "" {
		b.WriteString(": " + e.cure)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.cause }

// Cure is what mends it; empty when that is not known. It is a part of the text, too.
func (e *Error) Cure() string { return e.cure }

// Permanent reports whether trying again cannot help.
func (e *Error) Permanent() bool { return e.class == permanent }

// RetryAfter is how long Salesforce should be left alone; 0 when it does not matter.
func (e *Error) RetryAfter() time.Duration { return e.after }

// Login reports whether the trouble is with the login, or with what the org lets it do at all, and not with one record.
func (e *Error) Login() bool { return e.login }

// LoginTrouble says what is wrong with the login; see connectors.LoginTrouble.
func (e *Error) LoginTrouble() string {
	switch {
	case e.Code == "API_DISABLED_FOR_ORG", e.Code == "API_CURRENTLY_DISABLED", e.Code == "INVALID_SESSION_ID" && e.class == permanent:
		return connectors.LoginNoPermission
	case e.class == expired:
		return connectors.LoginExpired
	case e.revoked:
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

// later marks the failure of a write that Salesforce may still be carrying out: whoever looked at once could find nothing, write
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

func hasCode(err error, codes ...string) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}

// gone turns the codes for a missing record into deal.ErrGone. It is for calls that name one record and nothing else.
func gone(err error) error {
	if hasCode(err, "ENTITY_IS_DELETED", "NOT_FOUND") {
		return deal.ErrGone
	}
	return err
}

// rule is what is known of an error code.
type rule struct {
	class class
	after time.Duration
	cure  string
}

const (
	dailyPause      = 30 * time.Minute
	concurrentPause = 15 * time.Second
	lockPause       = 2 * time.Second
	edgePause       = 30 * time.Second
	// settlePause is how long at most a write without an answer is given to be carried out after all.
	settlePause = 30 * time.Second
	// latePause is how long at most a file that nobody has answered for is given to appear, and lateTimeouts how many
	// time limits of a call.
	latePause    = 10 * time.Minute
	lateTimeouts = 10
	loginPause   = time.Hour
)

const (
	cureRight = "give the integration user the missing permission (object, field or sharing) in Salesforce"
	cureRule  = "a rule of the org rejects the values: change the rule, or exempt the integration user, then retry"
	cureField = "a field in the configuration does not exist or is hidden from the integration user"
	cureBug   = "Salesforce does not understand the request: check api_version; otherwise this is an error in dealseal"
)

// codes is the table of error codes. What is not in it is judged by the HTTP status.
var codes = map[string]rule{
	"INVALID_SESSION_ID":                            {expired, 0, "the session has ended"},
	"API_DISABLED_FOR_ORG":                          {permanent, 0, "the org's edition has no API access: ask Salesforce to enable it"},
	"API_CURRENTLY_DISABLED":                        {permanent, 0, "API access is switched off for the user: enable it in the profile or permission set"},
	"INSUFFICIENT_ACCESS":                           {permanent, 0, cureRight},
	"FORBIDDEN":                                     {permanent, 0, cureRight},
	"FUNCTIONALITY_NOT_ENABLED":                     {permanent, 0, "the org lacks a feature that the call needs"},
	"INSUFFICIENT_ACCESS_OR_READONLY":               {permanent, 0, cureRight},
	"INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY": {permanent, 0, cureRight},

	"UNABLE_TO_LOCK_ROW":  {passing, lockPause, "another user or process holds the record"},
	"QUERY_TIMEOUT":       {passing, lockPause, "the query took too long"},
	"OPERATION_TOO_LARGE": {passing, lockPause, "the query touches too many rows"},

	"FIELD_CUSTOM_VALIDATION_EXCEPTION":            {permanent, 0, cureRule},
	"FIELD_FILTER_VALIDATION_EXCEPTION":            {permanent, 0, cureRule},
	"REQUIRED_FIELD_MISSING":                       {permanent, 0, cureRule},
	"DUPLICATES_DETECTED":                          {permanent, 0, "a duplicate rule of the org rejects the write: exempt the integration user"},
	"DUPLICATE_VALUE":                              {permanent, 0, "the value of a unique field is taken"},
	"STRING_TOO_LONG":                              {permanent, 0, "a field is too short for its value: make it longer in Salesforce"},
	"INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST":      {permanent, 0, "the picklist lacks the status word: add it in Salesforce, or name the org's own word in write_back.status.values"},
	"STORAGE_LIMIT_EXCEEDED":                       {passing, time.Hour, "the org's file storage is full: free some, or buy more"},
	"INVALID_FIELD":                                {permanent, 0, cureField},
	"INVALID_FIELD_FOR_INSERT_UPDATE":              {permanent, 0, "a field in the configuration cannot be written by the integration user"},
	"INVALID_TYPE":                                 {permanent, 0, "an object does not exist or is hidden from the integration user"},
	"INVALID_CROSS_REFERENCE_KEY":                  {permanent, 0, "the record does not exist or is hidden from the integration user"},
	"MALFORMED_ID":                                 {permanent, 0, "the ID is not one of Salesforce"},
	"MALFORMED_QUERY":                              {permanent, 0, cureBug},
	"JSON_PARSER_ERROR":                            {permanent, 0, cureBug},
	"METHOD_NOT_ALLOWED":                           {permanent, 0, cureBug},
	"UNSUPPORTED_MEDIA_TYPE":                       {permanent, 0, cureBug},
	"UNSUPPORTED_API_VERSION":                      {permanent, 0, "the API version is retired: raise api_version"},
	"ENTITY_IS_DELETED":                            {permanent, 0, "the record is deleted"},
	"NOT_FOUND":                                    {permanent, 0, "the record does not exist or is hidden from the integration user"},
	"UNKNOWN_EXCEPTION":                            {passing, edgePause, "Salesforce had an internal error"},
	"APEX_ERROR":                                   {passing, edgePause, "code of the org failed"},
	"SERVER_UNAVAILABLE":                           {passing, edgePause, "Salesforce is not available at the moment"},
	"LOGIN_RATE_EXCEEDED":                          {passing, loginPause, "too many logins in an hour"},
	"ENTITY_FAILED_IFLASTMODIFIED_ON_UPDATE_CHECK": {passing, lockPause, "the record was changed since it was read"},
}

// replyError is what an error body may say. OAuth errors use the other two names.
type replyError struct {
	ErrorCode string   `json:"errorCode"`
	Message   string   `json:"message"`
	Fields    []string `json:"fields"`
	OAuth     string   `json:"error"`
}

// failure judges a reply that is no success. The body may be a list, an object, a web page, cut, or nothing.
func failure(status int, header http.Header, body []byte) *Error {
	e := &Error{Status: status, unclear: status >= 500}
	said := parseError(body)
	e.Code, e.Fields = said.ErrorCode, said.Fields
	r, known := codes[e.Code]
	switch {
	case e.Code == "REQUEST_LIMIT_EXCEEDED":
		r = limitRule(said.Message)
	case e.Code == "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", e.Code == "CANNOT_EXECUTE_FLOW_TRIGGER":
		r = automationRule(said.Message)
	case e.Code == "INVALID_SESSION_ID" && notExpiry(said.Message):
		r = rule{permanent, 0, "the app or the user may not use the REST API: check the app's policies and the user's permissions"}
	case !known:
		r = statusRule(status)
	}
	e.class, e.after, e.cure = r.class, r.after, r.cure
	e.login = e.class == expired || e.Code == "INVALID_SESSION_ID" || e.Code == "API_DISABLED_FOR_ORG" || e.Code == "API_CURRENTLY_DISABLED"
	if s := retryAfter(header); s > 0 && e.class == passing {
		e.after = s
	}
	if e.Code == "INVALID_FIELD" && len(e.Fields) == 0 {
		e.Fields = missingColumn(said.Message)
	}
	return e
}

// parseError reads the first error of a body; what is no error body gives the zero value.
func parseError(body []byte) replyError {
	var list []replyError
	var one replyError
	if json.Unmarshal(body, &list) == nil && len(list) > 0 {
		one = list[0]
	} else if json.Unmarshal(body, &one) != nil {
		return replyError{}
	}
	if !codeForm.MatchString(one.ErrorCode) {
		one.ErrorCode = ""
	}
	if one.ErrorCode == "" && codeForm.MatchString(one.OAuth) {
		one.ErrorCode = one.OAuth
	}
	var names []string
	for _, f := range one.Fields {
		if fieldPath.MatchString(f) && len(names) < 20 {
			names = append(names, f)
		}
	}
	one.Fields = names
	return one
}

var (
	codeForm   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,79}$`)
	fieldPath  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.]{0,120}$`)
	columnForm = regexp.MustCompile(`No such column '([A-Za-z][A-Za-z0-9_.]{0,120})' on (?:entity|sobject)`)
)

// missingColumn finds the name of the column in the message of INVALID_FIELD, the one part of a message that is worth
// having and cannot be a value.
func missingColumn(message string) []string {
	if m := columnForm.FindStringSubmatch(message); m != nil {
		return m[1:]
	}
	return nil
}

func limitRule(message string) rule {
	if strings.Contains(message, "Concurrent") {
		return rule{passing, concurrentPause, "too many long calls at once"}
	}
	return rule{passing, dailyPause, "the org's daily allowance of API calls is used up: deals go on by themselves once it recovers, or buy more"}
}

// automationRule judges the failure of a trigger or flow of the org by what it wraps.
func automationRule(message string) rule {
	for code, r := range codes {
		if r.class == permanent && strings.Contains(message, code) {
			return rule{permanent, 0, "a trigger or flow of the org failed with " + code + ": mend it, then retry"}
		}
	}
	return rule{passing, lockPause, "a trigger or flow of the org failed"}
}

// notExpiry knows the replies with status 401 that a new session does not help.
func notExpiry(message string) bool {
	return strings.Contains(message, "Connected app is not attached to Agent") ||
		strings.Contains(message, "This session is not valid for use with the REST API")
}

func statusRule(status int) rule {
	switch {
	case status == http.StatusUnauthorized:
		return rule{expired, 0, "the session has ended"}
	case status == http.StatusPreconditionFailed:
		return rule{passing, lockPause, "the record was changed since it was read"}
	case status == http.StatusTooManyRequests:
		return rule{passing, edgePause, "too many calls at once: other apps of the org count too"}
	case status == http.StatusNotAcceptable, status == 420, status >= 500:
		return rule{passing, edgePause, "Salesforce is not available at the moment"}
	case status == http.StatusRequestTimeout:
		return rule{passing, lockPause, "Salesforce waited too long for the request"}
	case status == http.StatusRequestEntityTooLarge:
		return rule{permanent, 0, "it is larger than what Salesforce takes: put the contract on the record by hand (dealseal evidence gives it out of the archive)"}
	case status == http.StatusMethodNotAllowed, status == http.StatusGone, status == http.StatusUnsupportedMediaType,
		status == http.StatusRequestURITooLong, status == http.StatusRequestHeaderFieldsTooLarge:
		return rule{permanent, 0, cureBug}
	case status >= 400: // an answer that nobody has described: the caller's attempts have an end
		return rule{passing, edgePause, "Salesforce refuses the request"}
	default:
		return rule{passing, edgePause, "Salesforce answered with something else than was asked"}
	}
}

// retryAfter reads the header, which Salesforce does not document but an edge in front of it may send. Seconds only,
// at most a day.
func retryAfter(header http.Header) time.Duration {
	s, err := strconv.Atoi(header.Get("Retry-After"))
	if err != nil || s < 0 {
		return 0
	}
	return min(time.Duration(s)*time.Second, 24*time.Hour)
}
