package webhooks

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/dealseal/dealseal/pins"
	"github.com/dealseal/dealseal/secret"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func endpointWith(t *testing.T, dialect string, secrets ...string) *Endpoint {
	t.Helper()
	e := &Endpoint{ID: "acme/hooks", Tenant: "acme", URL: "https://receiver.example/hooks?token=hidden", Dialect: dialect}
	e.Defaults()
	for _, s := range secrets {
		e.Secrets = append(e.Secrets, Secret{Value: secret.New([]byte(s))})
	}
	return e
}

// signed returns the headers and the body of an attempt.
func signed(t *testing.T, e *Endpoint, failures int, at time.Time) (http.Header, []byte) {
	t.Helper()
	if err := e.Check(); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(Catalogue, func(kind EventType) bool { return e.Wants(kind.Name) })
	kind := Catalogue[i]
	r, err := e.request(t.Context(), Delivery{Event: Sample(kind, "acme", at), Failures: failures}, at)
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, r.ContentLength)
	if _, err := r.Body.Read(body); err != nil {
		t.Fatal(err)
	}
	return r.Header, body
}

func standardSecretOf(text string) string {
	return prefixSecret + base64.StdEncoding.EncodeToString([]byte(text))
}

// TestEachAttemptIsSignedAnewWithTheSameIDAndBody: a receiver refuses what was signed long ago, and drops what it has seen.
func TestEachAttemptIsSignedAnewWithTheSameIDAndBody(t *testing.T) {
	event := Sample(mustKnow(t, "document.signed"), "acme", noon)
	for dialect, header := range map[string]string{"standard-webhooks": HeaderSignature, "certyneo": HeaderCertyneo, "custom": "X-Signed"} {
		e := endpointWith(t, dialect, standardSecretOf("a secret that is long enough"))
		if dialect == "certyneo" {
			event = Sample(mustKnow(t, "envelope.completed"), "acme", noon)
		}
		if dialect == "custom" {
			e.Headers, e.Signed = map[string]string{header: "{timestamp} {signature}", HeaderID: "{id}"}, "{timestamp}.{body}"
		}
		var signatures, said [2]string
		for i := range 2 {
			r, err := e.request(t.Context(), Delivery{Event: event, Failures: i}, noon.Add(time.Duration(i)*6*time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			signatures[i], said[i] = r.Header.Get(header), r.Header.Get(HeaderID)+" "+string(body)
		}
		if signatures[0] == "" || signatures[0] == signatures[1] || said[0] != said[1] || !strings.Contains(said[0], event.ID) {
			t.Errorf("%s: signed %q, and said %q", dialect, signatures, said)
		}
	}
}

func TestBothSecretsCountDuringARotation(t *testing.T) {
	older, newer := standardSecretOf("the older of the two secrets"), standardSecretOf("the newer of the two secrets")
	e := endpointWith(t, "standard-webhooks", newer, older)
	e.Secrets[1].Until = time.Now().Add(time.Hour)
	header, body := signed(t, e, 0, time.Now())
	for name, s := range map[string]string{"older": older, "newer": newer} {
		judge, err := standardwebhooks.NewWebhook(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := judge.Verify(body, header); err != nil {
			t.Errorf("with the %s secret: %v", name, err)
		}
	}
	e.Secrets[1].Until = time.Now().Add(-time.Second)
	header, body = signed(t, e, 0, time.Now())
	judge, _ := standardwebhooks.NewWebhook(older)
	if judge.Verify(body, header) == nil {
		t.Error("the older secret counts after its end")
	}
}

func TestAnEd25519SignatureIsThatOfThePublicKeyThatIsShown(t *testing.T) {
	e := endpointWith(t, "standard-webhooks")
	e.Asymmetric = true
	s, err := e.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	e.Secrets = []Secret{{Value: s}}
	shown, err := e.Shown(s)
	if err != nil || !strings.HasPrefix(shown, prefixPublic) {
		t.Fatalf("%q, %v", shown, err)
	}
	header, body := signed(t, e, 0, noon)
	verifyAsymmetric(t, shown, header, body, true)
	verifyAsymmetric(t, shown, header, append(body, ' '), false)
}

func TestDialectsSignAsTheirDescriptionsSay(t *testing.T) {
	const older, newer = "the older of the two secrets", "the newer of the two secrets"
	for _, c := range []struct {
		dialect string
		valid   func(h http.Header, body []byte, secret string) bool
		both    bool
	}{
		{"sdf", func(h http.Header, body []byte, s string) bool { return h.Get(HeaderSDF) == signSDF([]byte(s), body) }, false},
		{"certyneo", func(h http.Header, body []byte, s string) bool {
			return strings.Contains(h.Get(HeaderCertyneo), "t="+seconds(noon)+",") && strings.Contains(h.Get(HeaderCertyneo)+",", ",v1="+signCertyneo([]byte(s), noon, body)+",")
		}, true},
		{"custom", func(h http.Header, body []byte, s string) bool {
			want := signCertyneo([]byte(s), noon, body) // it is over the same
			return h.Get("X-Signature-256") == "sha256="+want && h.Get("X-Timestamp") == seconds(noon)
		}, false},
	} {
		e := endpointWith(t, c.dialect, newer, older)
		if c.dialect == "custom" {
			e.Headers, e.Signed = map[string]string{"X-Signature-256": "sha256={signature}", "X-Timestamp": "{timestamp}"}, "{timestamp}.{body}"
		}
		for failures, want := range []string{older, newer, older} {
			h, body := signed(t, e, failures, noon)
			other := map[string]string{older: newer, newer: older}[want]
			if !c.valid(h, body, want) || c.valid(h, body, other) != c.both {
				t.Errorf("%s, after %d failures: %v", c.dialect, failures, h)
			}
		}
	}
}

func TestEveryEventFitsItsSchemaInTheNativeFormat(t *testing.T) {
	for _, kind := range Catalogue {
		c := jsonschema.NewCompiler()
		text, err := json.Marshal(kind.Schema())
		if err != nil {
			t.Fatal(err)
		}
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource("event.json", document); err != nil {
			t.Fatal(err)
		}
		schema, err := c.Compile("event.json")
		if err != nil {
			t.Fatalf("%s: %v", kind.Name, err)
		}
		event := Sample(kind, "acme", noon)
		erased := event
		erased.Data = nil
		strange := event
		strange.Data = map[string]string{"customer": "somebody"}
		for _, one := range []struct {
			Event
			fits bool
		}{{event, true}, {erased, true}, {strange, false}} {
			body, err := Formats[0].Body(one.Event)
			if err != nil {
				t.Fatal(err)
			}
			instance, err := jsonschema.UnmarshalJSON(strings.NewReader(string(body)))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(instance); (err == nil) != one.fits {
				t.Errorf("%s: %s: %v", kind.Name, body, err)
			}
		}
	}
}

func TestFormatsOfOthersHaveTheirNamesAndFields(t *testing.T) {
	done, _ := Known("envelope.completed")
	event := Sample(done, "acme", noon)
	event.Data = map[string]string{"url": "https://crm.example/file"}
	validated := Sample(mustKnow(t, "document.validated"), "acme", noon)
	created := Sample(mustKnow(t, "envelope.created"), "acme", noon)
	declined, expired := Sample(mustKnow(t, "envelope.declined"), "acme", noon), Sample(mustKnow(t, "envelope.expired"), "acme", noon)
	signed := Sample(mustKnow(t, "recipient.signed"), "acme", noon)
	signed.Data = map[string]string{"vendor": "certyneo", "envelope": "env_1", "at": "2026-11-30T11:59:00.000Z"}
	for _, c := range []struct {
		format, want string
		event        Event
	}{
		{"sdf", `{"event":"document.uploaded","id":"ID","timestamp":"2026-11-30T12:00:00.000Z","tenant_id":"acme","data":{"document_id":"test","document_type":"test@1","status":"uploaded"}}`, created},
		{"sdf", `{"event":"document.validated","id":"ID","timestamp":"2026-11-30T12:00:00.000Z","tenant_id":"acme","data":{"document_id":"test","document_type":"test@1","status":"success"}}`, validated},
		{"certyneo", `{"event":"envelope.completed","id":"ID","envelope_id":"test","occurred_at":"2026-11-30T12:00:00.000Z","data":{"completed_at":"2026-11-30T12:00:00.000Z","created_at":"2026-11-30T12:00:00.000Z","proof_pdf_url":"https://crm.example/file","sequence":1,"signers":[],"status":"completed"}}`, event},
		{"certyneo", `{"event":"envelope.declined","id":"ID","envelope_id":"test","occurred_at":"2026-11-30T12:00:00.000Z","data":{"created_at":"2026-11-30T12:00:00.000Z","decline_reason":"test","reason":"test","sequence":1,"status":"declined"}}`, declined},
		{"certyneo-crm", `{"event":"document.refused","id":"ID","envelope_id":"test","occurred_at":"2026-11-30T12:00:00.000Z","data":{"created_at":"2026-11-30T12:00:00.000Z","decline_reason":"test","reason":"test","sequence":1,"status":"refused"}}`, declined},
		{"certyneo", `{"event":"envelope.expired","id":"ID","envelope_id":"test","occurred_at":"2026-11-30T12:00:00.000Z","data":{"created_at":"2026-11-30T12:00:00.000Z","missing_signers":[],"reason":"test","sequence":1,"status":"expired"}}`, expired},
		{"certyneo", `{"event":"recipient.signed","id":"ID","envelope_id":"test","occurred_at":"2026-11-30T12:00:00.000Z","data":{"at":"2026-11-30T11:59:00.000Z","created_at":"2026-11-30T12:00:00.000Z","envelope":"env_1","sequence":1,"status":"signed","vendor":"certyneo"}}`, signed},
		{"certyneo-crm", `{"event":"document.completed","id":"ID","envelope_id":"test","occurred_at":"2026-11-30T12:00:00.000Z","data":{"completed_at":"2026-11-30T12:00:00.000Z","created_at":"2026-11-30T12:00:00.000Z","proof_pdf_url":"https://crm.example/file","sequence":1,"signers":[],"status":"completed"}}`, event},
	} {
		f, err := formatOf(c.format)
		if err != nil {
			t.Fatal(err)
		}
		body, err := f.Body(c.event)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(string(body), c.event.ID, "ID"); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.format, got, c.want)
		}
	}
}

func mustKnow(t *testing.T, name string) EventType {
	t.Helper()
	kind, known := Known(name)
	if !known {
		t.Fatalf("no event %s", name)
	}
	return kind
}

func TestSubscriptionsAreByTheNamesOfTheFormat(t *testing.T) {
	for _, c := range []struct {
		format string
		events []string
		want   []string
	}{
		{"native", nil, []string{"envelope.created", "envelope.sent", "recipient.viewed", "recipient.signed", "crm.drift_detected", "document.signed", "document.validated", "document.attached", "envelope.completed", "document.held", "envelope.follow_up_due", "document.failed", "document.resumed", "envelope.voided", "envelope.declined", "envelope.expired", "document.differs", "document.agrees", "document.deleted",
			"crm.writeback_failed", "crm.login_refused", "crm.login_restored", "guard.held", "tenant.paused", "tenant.resumed", "certificate.expiring", "certificate.renewed", "certificate.revoked", "key.limit_reached", "template.published", "template.retired"}},
		{"native", []string{"envelope.*", "document.signed"}, []string{"envelope.created", "envelope.sent", "document.signed", "envelope.completed", "envelope.follow_up_due", "envelope.voided", "envelope.declined", "envelope.expired"}},
		{"sdf", nil, []string{"envelope.created", "document.signed", "document.validated", "document.deleted"}},
		{"sdf", []string{"document.uploaded"}, []string{"envelope.created"}},
		{"certyneo", []string{"*"}, []string{"envelope.created", "envelope.sent", "recipient.viewed", "recipient.signed", "envelope.completed", "envelope.voided", "envelope.declined", "envelope.expired"}},
		{"certyneo-crm", []string{"document.signed", "document.viewed"}, []string{"recipient.viewed", "recipient.signed", "document.signed"}},
	} {
		e := Endpoint{Format: c.format, Events: c.events}
		var got []string
		for _, kind := range Catalogue {
			if e.Wants(kind.Name) {
				got = append(got, kind.Name)
			}
		}
		if strings.Join(got, " ") != strings.Join(c.want, " ") {
			t.Errorf("%s %v: %v, want %v", c.format, c.events, got, c.want)
		}
	}
}

func TestWhatAnEndpointMayNotBeIsSaidWithoutItsAddressOrSecret(t *testing.T) {
	for _, c := range []struct {
		field  string
		change func(*Endpoint)
	}{
		{"id", func(e *Endpoint) { e.ID = "acme/UPPER" }},
		{"url", func(e *Endpoint) { e.URL = "ftp://hidden.example" }},
		{"url", func(e *Endpoint) { e.URL = "https://user:hidden@receiver.example" }},
		{"url", func(e *Endpoint) { e.URL = "https://receiver.example/#hidden" }},
		{"url", func(e *Endpoint) { e.URL = "hidden\x7f://" }},
		{"dialect", func(e *Endpoint) { e.Dialect = "other" }},
		{"format", func(e *Endpoint) { e.Format = "other" }},
		{"events", func(e *Endpoint) { e.Events = []string{"document.signd"} }},
		{"asymmetric", func(e *Endpoint) { e.Dialect, e.Asymmetric = "sdf", true }},
		{"timeout", func(e *Endpoint) { e.Timeout = time.Minute }},
		{"concurrency", func(e *Endpoint) { e.Concurrency = 1000 }},
		{"retry", func(e *Endpoint) { e.Waits = []time.Duration{-1} }},
		{"client_cert", func(e *Endpoint) { e.ClientCert = "cert.pem" }},
		{"pins", func(e *Endpoint) { e.URL, e.Pins = "http://receiver.example/hidden", pins.Set{{7}} }},
		{"secret", func(e *Endpoint) { e.Secrets = []Secret{{Value: secret.New([]byte("whsec_hidden"))}} }},
		{"secret", func(e *Endpoint) { e.Dialect, e.Secrets = "sdf", []Secret{{Value: secret.New([]byte("hidden"))}} }},
		{"headers", func(e *Endpoint) { e.Headers = map[string]string{"X": "y"} }},
		{"headers", func(e *Endpoint) { e.Dialect, e.Signed, e.Encoding = "custom", "{body}", "hex" }},
		{"headers", func(e *Endpoint) {
			e.Dialect, e.Signed, e.Encoding, e.Headers = "custom", "{body}", "hex", map[string]string{"Host": "{signature}"}
		}},
		{"headers", func(e *Endpoint) {
			e.Dialect, e.Signed, e.Encoding, e.Headers = "custom", "{body}", "hex", map[string]string{"X": "{signature}{other}"}
		}},
		{"signed", func(e *Endpoint) {
			e.Dialect, e.Signed, e.Encoding, e.Headers = "custom", "{timestamp}", "hex", map[string]string{"X": "{signature}"}
		}},
	} {
		e := endpointWith(t, "standard-webhooks", standardSecretOf("a secret that is long enough"))
		c.change(e)
		err := e.Check()
		if err == nil || !strings.Contains(err.Error(), c.field+": ") || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", c.field, err)
		}
	}
}

func TestCallbacksStayBelowTheirEndpoint(t *testing.T) {
	t.Parallel()
	e := Endpoint{URL: "https://erp.example.com/calls/?token=hidden", Callbacks: true}
	for address, want := range map[string]bool{
		"https://erp.example.com/calls":                              true,
		"https://ERP.example.com/calls/":                             true,
		"https://erp.example.com/calls/4711?x=../":                   true,
		"https://erp.example.com/callsign":                           false,
		"https://erp.example.com/calls/../admin":                     false,
		"https://erp.example.com/calls/%2e%2e/a":                     false,
		"https://erp.example.com/calls//a":                           false,
		`https://erp.example.com/calls/..\a`:                         false,
		"https://erp.example.com/calls/..;/admin":                    false,
		"https://erp.example.com/calls/a;b":                          false,
		"https://erp.example.com/":                                   false,
		"https://erp.example.com:8443/calls":                         false,
		"https://erp.example.com.evil.net/calls":                     false,
		"https://anna@erp.example.com/calls":                         false,
		"https://erp.example.com/calls#x":                            false,
		"http://erp.example.com/calls":                               false,
		"//erp.example.com/calls":                                    false,
		"https://erp.example.com/calls/" + strings.Repeat("a", 2048): false,
	} {
		if got := e.Covers(address); got != want {
			t.Errorf("%s is covered: %t", address, got)
		}
	}
	for _, own := range []string{"https://erp.example.com", "https://erp.example.com/"} {
		e.URL = own
		if !e.Covers("https://erp.example.com") || !e.Covers("https://erp.example.com/a/b") {
			t.Errorf("%s does not cover all of its host", own)
		}
	}
	if e.Callbacks = false; e.Covers(e.URL) {
		t.Error("an endpoint that is for no callbacks covers one")
	}
}
