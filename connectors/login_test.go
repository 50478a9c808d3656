package connectors_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/connectors/hubspot"
)

// wrongAccount is about the login, and says no more.
type wrongAccount struct{ permanent bool }

func (wrongAccount) Error() string     { return "a sandbox" }
func (wrongAccount) Login() bool       { return true }
func (w wrongAccount) Permanent() bool { return w.permanent }

func TestWhatIsWrongWithALoginIsSaidInAWord(t *testing.T) {
	for want, err := range map[string]error{
		"":                            errors.New("a record that cannot be read"),
		connectors.LoginMisconfigured: fmt.Errorf("poll: %w", wrongAccount{true}),
	} {
		if got := connectors.LoginTrouble(err); got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
	}
	if got := connectors.LoginTrouble(wrongAccount{}); got != "" {
		t.Errorf("a trouble that may pass is %q", got)
	}
	for want, e := range map[string]*hubspot.Error{
		connectors.LoginNoPermission: {Status: 403, Category: "MISSING_SCOPES"},
		connectors.LoginExpired:      {Status: 401, Category: "EXPIRED_AUTHENTICATION"},
		connectors.LoginRevoked:      {Status: 400, Category: "BAD_REFRESH_TOKEN"},
		"":                           {Status: 503},
	} {
		if got := e.LoginTrouble(); got != want {
			t.Errorf("%v is %q, want %q", e, got, want)
		}
	}
}
