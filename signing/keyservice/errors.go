package keyservice

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dealseal/dealseal/secret"
)

// maxRetryAfter bounds what a service may ask for: no wait may look like silence.
const maxRetryAfter = time.Hour

// maxMessage bounds what is repeated of a service's own words, in bytes.
const maxMessage = 300

// ConfigError says what is wrong with the configuration of a service.
type ConfigError struct{ Field, Reason string }

func (e *ConfigError) Error() string { return e.Field + " " + e.Reason }

// Permanent is true.
func (e *ConfigError) Permanent() bool { return true }

// CheckLogin refuses a reference to a login that cannot be read anew for each call.
func CheckLogin(field string, ref secret.Ref) error {
	if ref.IsZero() {
		return &ConfigError{field, "is missing: name the file in which an agent keeps it, such as file:/run/agent/" + field}
	}
	if name, ok := ref.Env(); ok {
		return &ConfigError{field, "env:" + name + " cannot be used: it would stay in the daemon's environment and grow old there; use file: or credential:"}
	}
	return nil
}

// Error is what a service answered instead of what it was asked for.
type Error struct {
	Service string // whose answer it is
	Status  int    // of HTTP; 0 if it does not matter
	Message string // the service's own words, bounded and printable
	Cure    string // what a person can do
	Lasting bool   // it stays until a person acts
	After   time.Duration
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Service)
	if e.Status != 0 {
		fmt.Fprintf(&b, " answers %d", e.Status)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.Cure != "" {
		fmt.Fprintf(&b, ": %s", e.Cure)
	}
	return b.String()
}

// Permanent reports whether a person has to act.
func (e *Error) Permanent() bool { return e.Lasting }

// RetryAfter is what the service asked for; 0 leaves it to the caller.
func (e *Error) RetryAfter() time.Duration { return e.After }

// Passing reports whether an HTTP status tells of something that goes away by itself.
func Passing(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status == http.StatusPreconditionFailed || status/100 == 3
}

// RetryAfter reads the header of that name, in seconds or as a date.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return bound(time.Duration(min(max(seconds, 0), int(maxRetryAfter/time.Second))) * time.Second)
	}
	if at, err := http.ParseTime(text); err == nil {
		return bound(at.Sub(now))
	}
	return 0
}

func bound(d time.Duration) time.Duration { return min(max(d, 0), maxRetryAfter) }

// Printable bounds a service's words.
func Printable(text string) string {
	clean := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, ""))
	clean = strings.Join(strings.Fields(clean), " ")
	if len(clean) > maxMessage {
		return strings.ToValidUTF8(clean[:maxMessage], "") + "…"
	}
	return clean
}
