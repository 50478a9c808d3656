package salesforce

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/dealseal/dealseal/secret"
)

// The ways to log in.
const (
	FlowJWT               = "jwt"
	FlowClientCredentials = "client_credentials"
)

// Config is the `with:` part of a tenant file whose CRM is salesforce. A reload takes all of it, for deals under way
// from their next step on. The content behind the secret references needs none: it is read anew at each login.
type Config struct {
	// MyDomain is the org's own address, such as https://acme.my.salesforce.com. Required. http is allowed for loopback
	// addresses only. All calls go there; the instance that a login reply names is not followed.
	MyDomain string `yaml:"my_domain"`
	// Auth says how to log in. Required.
	Auth Auth `yaml:"auth"`
	// APIVersion is the version of the REST API, such as "66.0". Default 66.0; at least 52.0.
	APIVersion string `yaml:"api_version"`
	// Poll is the time between two readings of the history. Default 60s; at least 15s, for loopback addresses 200ms.
	Poll time.Duration `yaml:"poll"`
	// Overlap is how long after its stamp a change may become visible and is still found. Default 10m; 1m to 24h. Rows
	// within it are read again at each poll.
	Overlap time.Duration `yaml:"overlap"`
	// TxMarker is the API name of a custom field on ContentVersion: Text(255), External ID, Unique. With it Salesforce
	// itself refuses to store a file of ours twice. Optional; default none: the file's description is searched before
	// each upload.
	TxMarker string `yaml:"tx_marker"`
	// ChangeEvents is a channel of Change Data Capture, such as /data/OpportunityChangeEvent: what it tells has the history
	// read at once. Optional; default none: only the polls find what happens.
	ChangeEvents string `yaml:"change_events"`
	// PubSubURL is where the Pub/Sub API is, for ChangeEvents. Default https://api.pubsub.salesforce.com:7443, or MyDomain
	// when that is a loopback address.
	PubSubURL string `yaml:"pubsub_url"`
	// Timeout is how long one call may take, a login included. Default 60s; 1s to 10m, for loopback addresses at least
	// 100ms. A call that takes longer counts as failed: Salesforce may still carry it out, so dealseal looks before it
	// tries again.
	Timeout time.Duration `yaml:"timeout"`
	// TransferTimeout is the same for one upload or download. Default and most 10m, Salesforce's own limit.
	TransferTimeout time.Duration `yaml:"transfer_timeout"`
}

// mostTime is Salesforce's own limit for one call.
const mostTime = 10 * time.Minute

// Auth says how to log in to the org.
type Auth struct {
	// Flow is jwt (recommended) or client_credentials. Required.
	Flow string `yaml:"flow"`
	// ConsumerKey is the consumer key (client ID) of the External Client App or connected app. Required.
	ConsumerKey string `yaml:"consumer_key"`
	// Username is the integration user's. Required for jwt, unused for client_credentials (the app names its user).
	Username string `yaml:"username"`
	// Audience is the assertion's audience, for jwt only. Default https://login.salesforce.com, or
	// https://test.salesforce.com when MyDomain is a sandbox's, or MyDomain itself for a loopback address.
	Audience string `yaml:"audience"`
	// PrivateKey refers to the RSA key in PEM whose certificate was uploaded to the app. Required for jwt, unless HSMKey is
	// given.
	PrivateKey secret.Ref `yaml:"private_key"`
	// HSMKey is the name of such a key under login_keys in dealseal.yaml, which never leaves its HSM. For jwt, instead of
	// PrivateKey.
	HSMKey string `yaml:"hsm_key"`
	// ClientSecret refers to the app's consumer secret. Required for client_credentials.
	ClientSecret secret.Ref `yaml:"client_secret"`
}

// DecodeConfig reads the `with:` node and checks it. An unknown key is an error with its line.
func DecodeConfig(node *yaml.Node) (Config, error) {
	var cfg Config
	if node == nil {
		return Config{}, errors.New("with: is missing: it needs at least my_domain and auth")
	}
	if err := node.Load(&cfg, yaml.WithKnownFields()); err != nil {
		return Config{}, err
	}
	cfg = cfg.withDefaults()
	return cfg, cfg.Validate()
}

// Addresses are those that the connector calls, without paths.
func (c Config) Addresses() []string {
	c = c.withDefaults()
	if c.ChangeEvents == "" {
		return []string{c.MyDomain}
	}
	return []string{c.MyDomain, c.PubSubURL}
}

func (c Config) withDefaults() Config {
	c.MyDomain = strings.TrimRight(c.MyDomain, "/")
	c.APIVersion = cmp.Or(c.APIVersion, "66.0")
	c.Poll = cmp.Or(c.Poll, time.Minute)
	c.Overlap = cmp.Or(c.Overlap, 10*time.Minute)
	c.Timeout = cmp.Or(c.Timeout, time.Minute)
	c.TransferTimeout = cmp.Or(c.TransferTimeout, mostTime)
	if c.PubSubURL = strings.TrimRight(c.PubSubURL, "/"); c.ChangeEvents != "" && c.PubSubURL == "" {
		c.PubSubURL = c.pubSub()
	}
	if c.Auth.Flow == FlowJWT && c.Auth.Audience == "" {
		c.Auth.Audience = c.audience()
	}
	return c
}

func (c Config) pubSub() string {
	if u, err := url.Parse(c.MyDomain); err == nil && isLoopback(u) {
		return c.MyDomain
	}
	return publicPubSub
}

func (c Config) audience() string {
	u, err := url.Parse(c.MyDomain)
	switch {
	case err == nil && isLoopback(u):
		return c.MyDomain
	case err == nil && strings.HasSuffix(u.Hostname(), ".sandbox.my.salesforce.com"):
		return "https://test.salesforce.com"
	default:
		return "https://login.salesforce.com"
	}
}

var (
	versionForm = regexp.MustCompile(`^([0-9]{2,3})\.0$`)
	channelForm = regexp.MustCompile(`^/data/[A-Za-z][A-Za-z0-9_]{0,80}$`)
	customField = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,80}__c$`)
)

// Validate reports everything that is wrong, each with its key and the cure. It looks at no network and no secret.
func (c Config) Validate() error {
	var errs []error
	wrong := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	loopback := false
	if u, err := domain(c.MyDomain); err != nil {
		wrong("my_domain", "%v", err)
	} else {
		loopback = isLoopback(u)
	}
	c.Auth.validate(wrong)
	if m := versionForm.FindStringSubmatch(c.APIVersion); m == nil {
		wrong("api_version", "%q is no version: write it as \"66.0\"", c.APIVersion)
	} else if len(m[1]) == 2 && m[1] < "52" {
		wrong("api_version", "%s is too old: use 52.0 or newer, best 66.0", c.APIVersion)
	}
	least, leastTime := 15*time.Second, time.Second
	if loopback {
		least, leastTime = 200*time.Millisecond, 100*time.Millisecond
	}
	if c.Poll < least {
		wrong("poll", "%s is too short: use %s or more, the allowance of calls is counted per day", c.Poll, least)
	}
	if c.Overlap < time.Minute || c.Overlap > 24*time.Hour {
		wrong("overlap", "%s is out of range: use 1m to 24h, best 10m", c.Overlap)
	}
	for key, d := range map[string]time.Duration{"timeout": c.Timeout, "transfer_timeout": c.TransferTimeout} {
		if d < leastTime || d > mostTime {
			wrong(key, "%s is out of range: use %s to %s, or leave it out", d, leastTime, mostTime)
		}
	}
	switch _, err := domain(c.PubSubURL); {
	case c.ChangeEvents == "" && c.PubSubURL != "":
		wrong("pubsub_url", "is for change_events only: name a channel there, such as /data/OpportunityChangeEvent, or leave it out")
	case c.ChangeEvents != "" && !channelForm.MatchString(c.ChangeEvents):
		wrong("change_events", "%q is no channel: it looks like /data/OpportunityChangeEvent", c.ChangeEvents)
	case isOtherObjects(c.ChangeEvents):
		wrong("change_events", "%q tells of no opportunities: those of other objects are not listened to, and polls find them (docs/objects.md)", c.ChangeEvents)
	case c.ChangeEvents != "" && err != nil:
		wrong("pubsub_url", "%q is no address: leave it out, or write it as %s", c.PubSubURL, publicPubSub)
	}
	if c.TxMarker != "" && !customField.MatchString(c.TxMarker) {
		wrong("tx_marker", "%q is no API name of a custom field: it looks like DealSeal_Key__c", c.TxMarker)
	}
	return errors.Join(errs...)
}

// isOtherObjects reports whether a channel tells of one object that rules may watch, and whose changes are not listened to.
func isOtherObjects(channel string) bool {
	return slices.ContainsFunc(kinds[1:], func(k kind) bool { return channel == "/data/"+k.name+"ChangeEvent" })
}

func (a Auth) validate(wrong func(key, format string, args ...any)) {
	if a.ConsumerKey == "" {
		wrong("auth.consumer_key", "is missing: copy it from the External Client App")
	}
	switch a.Flow {
	case FlowJWT:
		if a.Username == "" {
			wrong("auth.username", "is missing: the jwt flow logs in as this user")
		}
		switch {
		case a.PrivateKey.IsZero() && a.HSMKey == "":
			wrong("auth.private_key", "is missing: name the key whose certificate was uploaded, such as credential:sf-key, or hsm_key for one in an HSM")
		case !a.PrivateKey.IsZero() && a.HSMKey != "":
			wrong("auth.hsm_key", "stands beside private_key: name one of the two")
		}
		if u, err := url.Parse(a.Audience); err != nil || u.Scheme == "" || u.Host == "" {
			wrong("auth.audience", "%q is no URL: leave it out, or write https://login.salesforce.com or https://test.salesforce.com", a.Audience)
		}
		if !a.ClientSecret.IsZero() {
			wrong("auth.client_secret", "is not used by the jwt flow: leave it out")
		}
	case FlowClientCredentials:
		if a.ClientSecret.IsZero() {
			wrong("auth.client_secret", "is missing: name the app's consumer secret, such as credential:sf-secret")
		}
		if a.Username != "" || a.Audience != "" || !a.PrivateKey.IsZero() || a.HSMKey != "" {
			wrong("auth", "username, audience, private_key and hsm_key belong to the jwt flow: leave them out, the app's run-as user is used")
		}
	default:
		wrong("auth.flow", "%q is unknown: use %s or %s", a.Flow, FlowJWT, FlowClientCredentials)
	}
}

// domain reads MyDomain.
func domain(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case s == "":
		return nil, errors.New("is missing: write the org's own address, such as https://acme.my.salesforce.com")
	case err != nil || u.Host == "":
		return nil, errors.New("is no URL: write the org's own address, such as https://acme.my.salesforce.com")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("has more than scheme and host: write it as https://acme.my.salesforce.com")
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
