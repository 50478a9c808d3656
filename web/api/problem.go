package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/dealseal/dealseal/web"
)

// Problem is an error as it is answered (RFC 9457). Its type is about:blank, which is left out: the status and Code say
// what it is.
type Problem struct {
	Title  string `json:"title" doc:"the phrase of the status"`
	Status int    `json:"status"`
	Code   string `json:"code" doc:"what happened, for programs" enum:"malformed,unauthorized,forbidden,not_found,method_not_allowed,conflict,erased,too_large,media_type,invalid,too_many,damaged,unavailable,internal"`
	Detail string `json:"detail,omitempty" doc:"what happened, for people"`

	retry time.Duration
	cause error // for the log only
}

func (p *Problem) Error() string { return p.Detail }

var codes = map[int]string{
	http.StatusBadRequest: "malformed", http.StatusUnauthorized: "unauthorized", http.StatusForbidden: "forbidden", http.StatusNotFound: "not_found",
	http.StatusMethodNotAllowed: "method_not_allowed", http.StatusConflict: "conflict", http.StatusGone: "erased", http.StatusRequestEntityTooLarge: "too_large",
	http.StatusUnsupportedMediaType: "media_type", http.StatusUnprocessableEntity: "invalid", http.StatusTooManyRequests: "too_many",
	http.StatusInternalServerError: "internal", http.StatusServiceUnavailable: "unavailable",
}

func problem(status int, detail string) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Code: codes[status], Detail: detail}
}

// nothing is the answer for what is not there and for what the token does not see alike.
func nothing() *Problem {
	return problem(http.StatusNotFound, "there is nothing of that name that this token sees")
}

// Refusal is an error of the House that is the caller's own doing. Its text is shown.
type Refusal struct {
	// Status is StatusConflict, or StatusUnprocessableEntity for what is wrong in a request.
	Status int
	Reason string
}

func (e *Refusal) Error() string { return e.Reason }

// ErrBusy is what the House returns when it cannot answer now; trying again helps.
var ErrBusy = errors.New("it cannot be done now")

// explain turns an error of the House into a problem. Texts that may hold more than a caller should know go to the log.
func explain(err error) *Problem {
	var p *Problem
	var refused *Refusal
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &refused):
		return problem(refused.Status, refused.Reason)
	case errors.Is(err, web.ErrNotFound):
		return nothing()
	case errors.Is(err, web.ErrErased):
		return problem(http.StatusGone, "the data key of this deal is destroyed: its values and documents can be read by nobody any more")
	case errors.Is(err, web.ErrDamaged):
		p = problem(http.StatusServiceUnavailable, "the archive's copy is missing or is not what was sealed, and is not handed out: the daemon's log names the file")
		p.Code, p.cause = "damaged", err
		return p
	case errors.Is(err, ErrBusy), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		p = problem(http.StatusServiceUnavailable, "this cannot be done now; try again")
		p.retry, p.cause = 5*time.Second, err
		return p
	}
	p = problem(http.StatusInternalServerError, "the daemon's log says what happened")
	p.cause = err
	return p
}

func (p *Problem) write(w http.ResponseWriter) {
	if p.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((p.retry+time.Second-1)/time.Second)))
	}
	writeJSON(w, p.Status, "application/problem+json", p)
}

func writeJSON(w http.ResponseWriter, status int, mediaType string, v any) {
	text, err := json.Marshal(v)
	if err != nil { // of our own types: a test answers each
		status, text = http.StatusInternalServerError, []byte(`{}`)
	}
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the caller may be gone
}
