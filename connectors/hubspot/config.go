package hubspot

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
)

// The ways to get an access token.
const (
	FlowToken = "token"
	FlowOAuth = "oauth"
)

const defaultBaseURL = "https://api.hubapi.com"

// Config is the `with:` part of a tenant file whose CRM is hubspot. A reload takes all of it, for deals under way
// from their next step on. The content behind the secret references needs none: it is read anew whenever HubSpot refuses a token.
type Config struct {
	// Auth says how to get an access token. Required.
	Auth Auth `yaml:"auth"`
	// BaseURL is where the API is. Default https://api.hubapi.com. http is allowed for loopback addresses only.
	BaseURL string `yaml:"base_url"`
	// APIVersion is the date in the paths of the API. Default 2026-03; HubSpot supports each for about 18 months. From
	// 2026-09 on HubSpot applies the account's conditional required properties to what dealseal writes.
	APIVersion string `yaml:"api_version"`
	// Poll is the time between two searches for changed deals. Default 60s; at least 15s, for loopback addresses 200ms.
	Poll time.Duration `yaml:"poll"`
	// LookBack is how long after its stamp a change may reach HubSpot's search index and is still found. Default 15m; 1m
	// to 24h. Each poll lists the deals that changed within it, but reads only those that it has not read yet.
	LookBack time.Duration `yaml:"look_back"`
	// Folder is the folder of HubSpot's file manager below which sealed files are stored, all of them private. Default
	// /dealseal.
	Folder string `yaml:"folder"`
	// Rate is how many calls may be made within ten seconds. Default 100, which every HubSpot tier allows; 10 to 250, for
	// loopback addresses up to 100000. Other apps have limits of their own.
	Rate int `yaml:"rate"`
	// SearchRate is how many searches may be made within a second. Default 4; 1 to 5, for loopback addresses up to 10000.
	// HubSpot allows five to all apps of an account together.
	SearchRate int `yaml:"search_rate"`
	// Timeout is how long one call may take, a login included. Default 60s; 1s to 10m, for loopback addresses at least
	// 100ms. A call that takes longer counts as failed: HubSpot may still carry it out, so dealseal looks before it tries
	// again.
	Timeout time.Duration `yaml:"timeout"`
	// TransferTimeout is the same for one upload or download. Default and most 10m.
	TransferTimeout time.Duration `yaml:"transfer_timeout"`
}

// mostTime is more than any call that works takes.
const mostTime = 10 * time.Minute

// Auth says how to get an access token.
type Auth struct {
	// Flow is token (service key, private app or static app) or oauth. Required.
	Flow string `yaml:"flow"`
	// Token refers to the static token. Required for token.
	Token secret.Ref `yaml:"token"`
	// ClientID is the OAuth app's. Required for oauth.
	ClientID string `yaml:"client_id"`
	// ClientSecret refers to the OAuth app's secret. Required for oauth.
	ClientSecret secret.Ref `yaml:"client_secret"`
	// RefreshToken refers to the refresh token that the installation of the app gave. Required for oauth. When HubSpot
	// replaces it, the new one is kept in the state directory and used from then on, until this one is changed.
	RefreshToken secret.Ref `yaml:"refresh_token"`
}

// PollInterval is the time between two calls of Changes while nothing is waiting.
func (c Config) PollInterval() time.Duration { return c.withDefaults().Poll }

// AccountHint names what the configuration knows of the account: the address and the login. Two configurations with the
// same hint speak to one account; two with different hints may still do so. It holds no secret.
func (c Config) AccountHint() string {
	c = c.withDefaults()
	if c.Auth.Flow == FlowOAuth {
		return c.BaseURL + " " + c.Auth.ClientID + " " + c.Auth.RefreshToken.String()
	}
	return c.BaseURL + " " + c.Auth.Token.String()
}

// Addresses are those that the connector calls, without paths, but for those that HubSpot gives it to fetch a file from.
func (c Config) Addresses() []string { return []string{c.withDefaults().BaseURL} }

func (c Config) withDefaults() Config {
	c.BaseURL = strings.TrimRight(cmp.Or(c.BaseURL, defaultBaseURL), "/")
	c.APIVersion = cmp.Or(c.APIVersion, "2026-03")
	c.Poll = cmp.Or(c.Poll, time.Minute)
	c.LookBack = cmp.Or(c.LookBack, 15*time.Minute)
	c.Folder = cmp.Or(c.Folder, "/dealseal")
	c.Rate = cmp.Or(c.Rate, 100)
	c.SearchRate = cmp.Or(c.SearchRate, 4)
	c.Timeout = cmp.Or(c.Timeout, time.Minute)
	c.TransferTimeout = cmp.Or(c.TransferTimeout, mostTime)
	return c
}

var (
	versionForm = regexp.MustCompile(`^20[2-9][0-9]-(03|09)$`)
	folderForm  = regexp.MustCompile(`^(/[A-Za-z0-9_-]{1,60}){1,5}$`)
	hostForm    = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?$`)
)

// Validate reports everything that is wrong, each with its key and the cure. It looks at no network and no secret.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	wrong := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	loopback := false
	if u, err := baseURL(c.BaseURL); err != nil {
		wrong("base_url", "%v", err)
	} else {
		loopback = isLoopback(u)
	}
	c.Auth.validate(wrong)
	if !versionForm.MatchString(c.APIVersion) {
		wrong("api_version", "%q is no version: write it as 2026-03 or 2026-09", c.APIVersion)
	}
	c.validateLimits(loopback, wrong)
	if !folderForm.MatchString(c.Folder) || path.Clean(c.Folder) != c.Folder {
		wrong("folder", "%q is refused: use up to five names of letters, digits, - and _, such as /dealseal", c.Folder)
	}
	return errors.Join(errs...)
}

func (c Config) validateLimits(loopback bool, wrong func(key, format string, args ...any)) {
	least, leastTime, rate, searches := 15*time.Second, time.Second, 250, 5
	if loopback {
		least, leastTime, rate, searches = 200*time.Millisecond, 100*time.Millisecond, 100_000, 10_000
	}
	for key, d := range map[string]time.Duration{"timeout": c.Timeout, "transfer_timeout": c.TransferTimeout} {
		if d < leastTime || d > mostTime {
			wrong(key, "%s is out of range: use %s to %s, or leave it out", d, leastTime, mostTime)
		}
	}
	if c.Poll < least {
		wrong("poll", "%s is too short: use %s or more, calls are counted per day", c.Poll, least)
	}
	if c.LookBack < time.Minute || c.LookBack > 24*time.Hour {
		wrong("look_back", "%s is out of range: use 1m to 24h, best 15m", c.LookBack)
	}
	if c.Rate < 10 || c.Rate > rate {
		wrong("rate", "%d calls in ten seconds are out of range: use 10 to %d, best 100", c.Rate, rate)
	}
	if c.SearchRate < 1 || c.SearchRate > searches {
		wrong("search_rate", "%d searches in a second are out of range: use 1 to %d, best 4", c.SearchRate, searches)
	}
}

func (a Auth) validate(wrong func(key, format string, args ...any)) {
	switch a.Flow {
	case FlowToken:
		if a.Token.IsZero() {
			wrong("auth.token", "is missing: name the service key or the app's access token, such as credential:hubspot-token")
		}
		if a.ClientID != "" || !a.ClientSecret.IsZero() || !a.RefreshToken.IsZero() {
			wrong("auth", "client_id, client_secret and refresh_token belong to the oauth flow: leave them out")
		}
	case FlowOAuth:
		if a.ClientID == "" {
			wrong("auth.client_id", "is missing: copy it from the OAuth app")
		}
		if a.ClientSecret.IsZero() {
			wrong("auth.client_secret", "is missing: name the OAuth app's secret, such as credential:hubspot-secret")
		}
		if a.RefreshToken.IsZero() {
			wrong("auth.refresh_token", "is missing: name the refresh token that the installation gave, such as credential:hubspot-refresh")
		}
		if !a.Token.IsZero() {
			wrong("auth.token", "is not used by the oauth flow: leave it out")
		}
	default:
		wrong("auth.flow", "%q is unknown: use %s or %s", a.Flow, FlowToken, FlowOAuth)
	}
}

// baseURL reads BaseURL.
func baseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "":
		return nil, errors.New("is no URL: leave it out, or write " + defaultBaseURL)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("has more than scheme and host: write it as " + defaultBaseURL)
	case u.Scheme == "http" && isLoopback(u), u.Scheme == "https":
		return u, nil
	default:
		return nil, fmt.Errorf("scheme %q is refused: use https (http only for loopback addresses)", u.Scheme)
	}
}

func isLoopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
