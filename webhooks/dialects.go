package webhooks

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
)

// Request is what was posted, or is to be.
type Request struct {
	Method string
	// URL is the address that the sender was told, with path and query as they came. Only some dialects sign it.
	URL    string
	Header http.Header
	// Body is the very bytes: what was decoded and encoded again has another signature.
	Body []byte
}

// claim is what the headers say of the signature.
type claim struct {
	id    string // of the message
	stamp string // as it is written
	at    time.Time
	// macs and signatures are those of which one has to be right.
	macs, signatures [][]byte
	// digests are SHA-256 of a secret and what is signed, which is no HMAC: whoever has seen one can make that of a longer body.
	digests [][]byte
}

// Dialect is one way to sign.
type Dialect struct {
	Name string
	// Says is the dialect in one line, for people.
	Says string

	headers headers
	// unit is that of the time; 0 when there is none.
	unit time.Duration
	// over is what is signed.
	over func(Request, claim) [][]byte
	// unsignedTime: there is a time that the signature does not cover.
	unsignedTime bool
	// id is the header with the message's ID, if that is signed.
	id string
}

// Timed reports whether the signature proves when it was made. Where it does not, what was captured can be sent again at any
// time, and only the memory of what was taken protects.
func (d *Dialect) Timed() bool { return d.unit > 0 && !d.unsignedTime }

// dialects is the table. A sender's dialect is configured, never guessed: the same bytes may mean two things.
var dialects = []*Dialect{
	{Name: "sdf", Says: "X-SDF-Signature: sha256=HEX over the body", headers: labelled{"X-SDF-Signature", "sha256="}, over: body},
	{Name: "certyneo", Says: "Certyneo-Signature: t=SECONDS,v1=HEX over time.body", headers: pairs{"Certyneo-Signature"}, unit: time.Second, over: dotted},
	{Name: "x-certyneo", Says: "X-Certyneo-Signature: t=SECONDS,v1=HEX over time.body", headers: pairs{"X-Certyneo-Signature"}, unit: time.Second, over: dotted},
	{Name: "x-signature", Says: "X-Signature: hmac=HEX or a BASE64 signature over the body, X-Timestamp: SECONDS (not signed)",
		headers: either{"X-Signature", "X-Timestamp"}, unit: time.Second, over: body, unsignedTime: true},
	{Name: "x-signature-dotted", Says: "X-Signature: hmac=HEX or a BASE64 signature over time.body, X-Timestamp: SECONDS",
		headers: either{"X-Signature", "X-Timestamp"}, unit: time.Second, over: dotted},
	{Name: "x-signature-binary", Says: "X-Signature: hmac=HEX or a BASE64 signature over the time in 8 bytes and the body, X-Timestamp: SECONDS",
		headers: either{"X-Signature", "X-Timestamp"}, unit: time.Second, over: binaryStamp},
	{Name: "x-signature-256", Says: "X-Signature-256: sha256=HEX over time.body, X-Timestamp: MILLISECONDS",
		headers: withStamp{labelled{"X-Signature-256", "sha256="}, "X-Timestamp"}, unit: time.Millisecond, over: dotted},
	{Name: "standard-webhooks", Says: "webhook-id, webhook-timestamp: SECONDS, webhook-signature: v1,BASE64 or v1a,BASE64 over id.time.body",
		headers: standard{}, unit: time.Second, over: identified, id: "webhook-id"},
	{Name: "github", Says: "X-Hub-Signature-256: sha256=HEX over the body", headers: labelled{"X-Hub-Signature-256", "sha256="}, over: body},
	{Name: "hubspot", Says: "X-HubSpot-Signature-v3: BASE64 over method, URL, body and X-HubSpot-Request-Timestamp: MILLISECONDS",
		headers: hubspotV3{}, unit: time.Millisecond, over: hubspotMessage},
	{Name: "hubspot-v2", Says: "X-HubSpot-Signature: HEX of SHA-256 over secret, method, URL and body, X-HubSpot-Signature-Version: v2",
		headers: hubspotV2{}, over: hubspotOldMessage},
}

// Find returns a dialect by its name, nil if there is none.
func Find(name string) *Dialect {
	for _, d := range dialects {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// Names lists the dialects.
func Names() (names []string) {
	for _, d := range dialects {
		names = append(names, d.Name)
	}
	return names
}

// ErrCannotSign means that a dialect is for verifying only.
var ErrCannotSign = errors.New("this dialect is only for verifying what others sign")

// Sign adds the headers that a receiver of this dialect verifies, one HMAC for each secret if the dialect has room for
// several, otherwise that of the first. id is the message's ID in a dialect that has one.
func (d *Dialect) Sign(r Request, id string, at time.Time, secrets ...secret.Secret) error {
	if d.headers == (hubspotV2{}) {
		return ErrCannotSign
	}
	if len(secrets) == 0 {
		return fmt.Errorf("dialect %s: there is no secret to sign with", d.Name)
	}
	c := claim{id: id, at: at}
	if d.unit > 0 {
		c.stamp = formatStamp(at, d.unit)
	}
	parts := d.over(r, c)
	for _, s := range secrets {
		key, err := d.key(s)
		if err != nil {
			return err
		}
		c.macs = append(c.macs, mac(key.Reveal(), parts...))
	}
	d.headers.write(r.Header, c)
	return nil
}

// standardPrefix marks a secret that is written in base64.
const standardPrefix = "whsec_"

// key is what the HMAC is keyed with.
func (d *Dialect) key(s secret.Secret) (secret.Secret, error) {
	if d.Name != "standard-webhooks" {
		return s, nil
	}
	text, ok := strings.CutPrefix(string(s.Reveal()), standardPrefix)
	if !ok {
		return s, nil
	}
	raw, err := base64Strict(text)
	if err != nil || len(raw) == 0 {
		return s, fmt.Errorf("a secret that begins with %s must go on in base64", standardPrefix)
	}
	return secret.New(raw), nil
}

// What is signed.

func body(r Request, _ claim) [][]byte { return [][]byte{r.Body} }

func dotted(r Request, c claim) [][]byte { return [][]byte{[]byte(c.stamp + "."), r.Body} }

func binaryStamp(r Request, c claim) [][]byte { return [][]byte{stampBytes(c.at.Unix()), r.Body} }

func identified(r Request, c claim) [][]byte {
	return [][]byte{[]byte(c.id + "." + c.stamp + "."), r.Body}
}

func hubspotMessage(r Request, c claim) [][]byte {
	return [][]byte{[]byte(r.Method + hubspotURL.Replace(r.URL)), r.Body, []byte(c.stamp)}
}

func hubspotOldMessage(r Request, _ claim) [][]byte {
	return [][]byte{[]byte(r.Method + hubspotURL.Replace(r.URL)), r.Body}
}

// hubspotURL undoes those escapes, and only those, that HubSpot does not sign.
var hubspotURL = strings.NewReplacer("%3A", ":", "%2F", "/", "%3F", "?", "%40", "@", "%21", "!", "%24", "$", "%27", "'", "%28", "(", "%29", ")", "%2A", "*",
	"%2C", ",", "%3B", ";")

// headers is where a dialect puts what it says of the signature.
type headers interface {
	read(http.Header) (claim, error)
	write(http.Header, claim)
}

// mostSignatures bounds how many a header may offer: each is compared with each live secret.
const mostSignatures = 8

// one returns the only value of a header: of two, a proxy may have judged the other.
func one(h http.Header, name string) (string, error) {
	values := h.Values(name)
	switch {
	case len(values) == 0 || values[0] == "":
		return "", refuse(Unsigned, "header %s is missing", name)
	case len(values) > 1:
		return "", refuse(Malformed, "header %s is given twice", name)
	}
	return values[0], nil
}

// labelled is NAME: LABEL<hex>.
type labelled struct{ name, label string }

func (f labelled) read(h http.Header) (c claim, err error) {
	text, err := one(h, f.name)
	if err != nil {
		return c, err
	}
	digits, ok := strings.CutPrefix(text, f.label)
	mac, err := hex64(digits)
	if !ok || err != nil {
		return c, refuse(Malformed, "header %s is not %s and 64 hexadecimal digits", f.name, f.label)
	}
	c.macs = [][]byte{mac}
	return c, nil
}

func (f labelled) write(h http.Header, c claim) { h.Set(f.name, f.label+hex.EncodeToString(c.macs[0])) }

// withStamp is headers with the time in a header of its own.
type withStamp struct {
	headers
	name string
}

func (f withStamp) read(h http.Header) (claim, error) {
	c, err := f.headers.read(h)
	if err != nil {
		return c, err
	}
	c.stamp, err = one(h, f.name)
	return c, err
}

func (f withStamp) write(h http.Header, c claim) {
	f.headers.write(h, c)
	h.Set(f.name, c.stamp)
}

// either is NAME: hmac=<hex>, or the signature of a key pair in base64; the time is in a header of its own.
type either struct{ name, stamp string }

const hmacLabel = "hmac="

func (f either) read(h http.Header) (c claim, err error) {
	text, err := one(h, f.name)
	if err != nil {
		return c, err
	}
	if strings.HasPrefix(text, hmacLabel) {
		return withStamp{labelled{f.name, hmacLabel}, f.stamp}.read(h)
	}
	sig, err := base64Strict(text)
	if err != nil || len(sig) == 0 {
		return c, refuse(Malformed, "header %s is neither %s and hexadecimal digits nor base64", f.name, hmacLabel)
	}
	c.signatures = [][]byte{sig}
	c.stamp, err = one(h, f.stamp)
	return c, err
}

func (f either) write(h http.Header, c claim) {
	withStamp{labelled{f.name, hmacLabel}, f.stamp}.write(h, c)
}

// pairs is NAME: t=<time>,v1=<hex>[,v1=<hex>]. Keys that it does not know are passed over: they are for later versions.
type pairs struct{ name string }

func (f pairs) read(h http.Header) (c claim, err error) {
	text, err := one(h, f.name)
	if err != nil {
		return c, err
	}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		mac, err := hex64(value)
		switch {
		case !ok || key == "t" && c.stamp != "" || key == "v1" && (err != nil || len(c.macs) == mostSignatures):
			return c, refuse(Malformed, "header %s is not t=TIME,v1=HEX", f.name)
		case key == "t":
			c.stamp = value
		case key == "v1":
			c.macs = append(c.macs, mac)
		}
	}
	if c.stamp == "" || c.macs == nil {
		return c, refuse(Malformed, "header %s lacks t or v1", f.name)
	}
	return c, nil
}

func (f pairs) write(h http.Header, c claim) {
	var b strings.Builder
	b.WriteString("t=" + c.stamp)
	for _, mac := range c.macs {
		b.WriteString(",v1=" + hex.EncodeToString(mac))
	}
	h.Set(f.name, b.String())
}

// standard are the headers of the Standard Webhooks specification.
type standard struct{}

func (standard) read(h http.Header) (c claim, err error) {
	if c.id, err = one(h, "webhook-id"); err != nil {
		return c, err
	}
	if c.stamp, err = one(h, "webhook-timestamp"); err != nil {
		return c, err
	}
	text, err := one(h, "webhook-signature")
	if err != nil {
		return c, err
	}
	if len(c.id) > 256 || strings.Contains(c.id, ".") { // a dot would let bytes move between id, time and body
		return c, refuse(Malformed, "header webhook-id is too long or holds a dot")
	}
	for part := range strings.SplitSeq(text, " ") {
		version, value, _ := strings.Cut(part, ",")
		if version != "v1" && version != "v1a" {
			continue
		}
		raw, err := base64Strict(value)
		if err != nil || len(c.macs)+len(c.signatures) == mostSignatures {
			return c, refuse(Malformed, "header webhook-signature is not %s,BASE64", version)
		}
		if version == "v1" {
			c.macs = append(c.macs, raw)
		} else {
			c.signatures = append(c.signatures, raw)
		}
	}
	if c.macs == nil && c.signatures == nil {
		return c, refuse(Malformed, "header webhook-signature has neither v1 nor v1a")
	}
	return c, nil
}

func (standard) write(h http.Header, c claim) {
	h.Set("webhook-id", c.id)
	h.Set("webhook-timestamp", c.stamp)
	var all []string
	for _, mac := range c.macs {
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(mac))
	}
	h.Set("webhook-signature", strings.Join(all, " "))
}

// hubspotV3 are the headers of HubSpot's third form.
type hubspotV3 struct{}

const (
	hubspotSignature = "X-HubSpot-Signature-v3"
	hubspotStamp     = "X-HubSpot-Request-Timestamp"
)

func (hubspotV3) read(h http.Header) (c claim, err error) {
	text, err := one(h, hubspotSignature)
	if err != nil {
		return c, err
	}
	mac, err := base64Strict(text)
	if err != nil || len(mac) != sha256.Size {
		return c, refuse(Malformed, "header %s is not an HMAC in base64", hubspotSignature)
	}
	c.macs = [][]byte{mac}
	c.stamp, err = one(h, hubspotStamp)
	return c, err
}

func (hubspotV3) write(h http.Header, c claim) {
	h.Set(hubspotSignature, base64.StdEncoding.EncodeToString(c.macs[0]))
	h.Set(hubspotStamp, c.stamp)
}

// hubspotV2 are the headers of HubSpot's second form, which some calls of workflows bear alone. What is appended to a captured
// body is never JSON, for the padding of SHA-256 stands between: take this dialect only for a body that is read whole.
type hubspotV2 struct{}

func (hubspotV2) read(h http.Header) (c claim, err error) {
	version, err := one(h, "X-HubSpot-Signature-Version")
	if err != nil {
		return c, err
	}
	if version != "v2" {
		return c, refuse(Malformed, "header X-HubSpot-Signature-Version is not v2")
	}
	c, err = labelled{"X-HubSpot-Signature", ""}.read(h)
	c.digests, c.macs = c.macs, nil
	return c, err
}

func (hubspotV2) write(http.Header, claim) {}

// IsName reports whether name is that of a dialect.
func IsName(name string) bool { return slices.Contains(Names(), name) }
