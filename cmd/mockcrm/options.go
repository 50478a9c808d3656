package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/crm/salesforce"
)

// options are the command line.
type options struct {
	salesforce, pubsub, hubspot, admin string

	sfUsername, sfConsumerKey, sfClientSecret string
	sfPublicKey                               string
	sfSandbox                                 bool

	hsToken                               string
	hsPortalID                            int64
	hsClientID, hsClientSecret, hsRefresh string
	hsRotate, hsLimits, hsProperties      bool
	hsIndexDelay                          time.Duration
}

func parse(args []string, stderr io.Writer) (*options, error) {
	var o options
	fs := flag.NewFlagSet("mockcrm", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		io.WriteString(stderr, manual)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.salesforce, "salesforce", "127.0.0.1:8201", "loopback `address` of the Salesforce org; port 0 takes a free one")
	fs.StringVar(&o.pubsub, "pubsub", "127.0.0.1:8204", "loopback `address` of the org's Pub/Sub API with TLS; without TLS it is at the org's own")
	fs.StringVar(&o.hubspot, "hubspot", "127.0.0.1:8202", "loopback `address` of the HubSpot portal")
	fs.StringVar(&o.admin, "admin", "127.0.0.1:8203", "loopback `address` of the admin endpoint")
	fs.StringVar(&o.sfUsername, "sf-username", "integration@acme.example", "`name` of the integration user, the subject of JWT assertions")
	fs.StringVar(&o.sfConsumerKey, "sf-consumer-key", "", "consumer `key` of the connected app, the issuer of JWT assertions (default: made at the start)")
	fs.StringVar(&o.sfClientSecret, "sf-client-secret", "", "`secret` for the client-credentials flow (default: made at the start)")
	fs.StringVar(&o.sfPublicKey, "sf-public-key", "", "PEM `file` with the RSA public key or certificate that checks JWT assertions\n(default: a key pair is made and the private key is printed)")
	fs.BoolVar(&o.sfSandbox, "sf-sandbox", true, "the org is a sandbox")
	fs.StringVar(&o.hsToken, "hs-token", "", "static bearer `token` (default: made at the start)")
	fs.Int64Var(&o.hsPortalID, "hs-portal-id", 62515, "`ID` of the portal")
	fs.StringVar(&o.hsClientID, "hs-client-id", "mockcrm", "client `ID` of the OAuth app")
	fs.StringVar(&o.hsClientSecret, "hs-client-secret", "", "client `secret` of the OAuth app (default: made at the start)")
	fs.StringVar(&o.hsRefresh, "hs-refresh-token", "", "refresh `token` of the OAuth app (default: made at the start)")
	fs.BoolVar(&o.hsRotate, "hs-rotate", false, "each refresh answers with a new refresh token and ends the old one")
	fs.BoolVar(&o.hsLimits, "hs-limits", true, "enforce HubSpot's rate limits")
	fs.DurationVar(&o.hsIndexDelay, "hs-index-delay", 0, "`time` that a change takes to reach search")
	fs.BoolVar(&o.hsProperties, "hs-properties", true, "deals have the five dealseal_* properties, as if an admin had added them")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; mockcrm -h prints the manual", fs.Arg(0))
	}
	for _, a := range []struct {
		flag string
		addr *string
	}{{"-salesforce", &o.salesforce}, {"-pubsub", &o.pubsub}, {"-hubspot", &o.hubspot}, {"-admin", &o.admin}} {
		if err := loopback(a.addr); err != nil {
			return nil, fmt.Errorf("%s: %w", a.flag, err)
		}
	}
	return &o, nil
}

// loopback refuses an address that other machines could reach: whoever reaches
// the admin endpoint may do everything.
func loopback(addr *string) error {
	host, port, err := net.SplitHostPort(*addr)
	if err != nil {
		return fmt.Errorf("%w; write it as 127.0.0.1:8201", err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() {
		return fmt.Errorf("%q is not a loopback address; mockcrm listens on 127.0.0.0/8, ::1 and localhost only", *addr)
	}
	*addr = net.JoinHostPort(host, port)
	return nil
}

// credentials are what a client needs, printed at the start.
type credentials struct {
	Salesforce salesforceCredentials `json:"salesforce"`
	HubSpot    hubspotCredentials    `json:"hubspot"`
	Admin      string                `json:"admin"`
}

type salesforceCredentials struct {
	URL          string `json:"url"`
	PubSub       string `json:"pubsub"`
	OrgID        string `json:"org_id"`
	Username     string `json:"username"`
	ConsumerKey  string `json:"consumer_key"`
	ClientSecret string `json:"client_secret"`
	PrivateKey   string `json:"private_key,omitempty"` // PEM, PKCS #8; absent with -sf-public-key
	// PubSubCertificate is that of PubSub, in PEM.
	PubSubCertificate string `json:"pubsub_certificate"`
}

type hubspotCredentials struct {
	URL          string `json:"url"`
	PortalID     int64  `json:"portal_id"`
	Token        string `json:"token"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	RefreshToken string `json:"refresh_token"`
}

func (o *options) org() (*salesforce.Org, salesforceCredentials, error) {
	c := salesforceCredentials{
		Username: o.sfUsername, ConsumerKey: orMade(o.sfConsumerKey, "3MVG"), ClientSecret: orMade(o.sfClientSecret, ""),
	}
	public, private, err := o.sfKey()
	if err != nil {
		return nil, c, err
	}
	org := salesforce.New(salesforce.Options{
		Sandbox: o.sfSandbox, Username: c.Username, ConsumerKey: c.ConsumerKey, ClientSecret: c.ClientSecret, PublicKey: public,
	})
	c.OrgID, c.PrivateKey = org.ID(), private
	return org, c, nil
}

// sfKey reads the public key, or makes a pair and returns the private one as PEM.
func (o *options) sfKey() (*rsa.PublicKey, string, error) {
	if o.sfPublicKey != "" {
		key, err := readPublicKey(o.sfPublicKey)
		if err != nil {
			return nil, "", fmt.Errorf("-sf-public-key: %w", err)
		}
		return key, "", nil
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, "", fmt.Errorf("making the Salesforce key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, "", fmt.Errorf("encoding the Salesforce key: %w", err)
	}
	return &key.PublicKey, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

func readPublicKey(file string) (*rsa.PublicKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s has no PEM block", file)
	}
	var key any
	switch block.Type {
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		key = cert.PublicKey
	case "PUBLIC KEY":
		if key, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	default:
		return nil, fmt.Errorf("%s holds a %q; give a PUBLIC KEY or a CERTIFICATE", file, block.Type)
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New(file + " holds no RSA key; Salesforce signs assertions with RS256")
	}
	return public, nil
}

func (o *options) portal() (*hubspot.Portal, hubspotCredentials, error) {
	c := hubspotCredentials{
		PortalID: o.hsPortalID, Token: orMade(o.hsToken, "pat-na1-"), ClientID: o.hsClientID,
		ClientSecret: orMade(o.hsClientSecret, ""), RefreshToken: orMade(o.hsRefresh, "na1-"),
	}
	var limits hubspot.Limits
	if !o.hsLimits {
		limits = hubspot.Limits{TenSecondly: -1, Daily: -1, SearchSecondly: -1, Associations: -1}
	}
	p := hubspot.New(hubspot.Options{
		PortalID: o.hsPortalID, AccountType: "DEVELOPER_TEST", Limits: limits,
		IndexDelay: hubspot.Delay{Min: o.hsIndexDelay, Max: o.hsIndexDelay},
		Tokens:     []hubspot.Token{{Value: c.Token, Name: "mockcrm"}},
		OAuth: &hubspot.OAuthApp{
			ClientID: c.ClientID, ClientSecret: c.ClientSecret, RefreshToken: c.RefreshToken, RotateRefreshTokens: o.hsRotate,
		},
	})
	if o.hsProperties {
		for _, f := range hubspot.WriteBackProperties() {
			if err := p.AddProperty("deals", f); err != nil {
				return nil, c, err
			}
		}
	}
	return p, c, nil
}

// orMade returns the given secret or makes one.
func orMade(given, prefix string) string {
	if given != "" {
		return given
	}
	b := make([]byte, 16)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	h := hex.EncodeToString(b)
	return prefix + strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}
