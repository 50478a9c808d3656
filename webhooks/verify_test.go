package webhooks

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/secret"
)

func key(text string) secret.Secret { return secret.New([]byte(text)) }

func refusalOf(err error) Refusal {
	var r *RefusedError
	if errors.As(err, &r) {
		return r.Refusal
	}
	return ""
}

// vector is one of HubSpot's signatures: made with its own client, or published in its tests.
type vector struct {
	ID, Secret, Method, URI, RawURI, Body, TS, V1, V2, V3 string
}

func hubspotVectors(t testing.TB) (list []vector) {
	t.Helper()
	b, err := os.ReadFile("testdata/hubspot.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &list); err != nil || len(list) != 6 {
		t.Fatalf("%d vectors: %v", len(list), err)
	}
	return list
}

func (v vector) request() Request {
	url := v.RawURI
	if url == "" {
		url = v.URI
	}
	h := http.Header{}
	h.Set("X-HubSpot-Signature-v3", v.V3)
	h.Set("X-HubSpot-Request-Timestamp", v.TS)
	return Request{Method: v.Method, URL: url, Header: h, Body: []byte(v.Body)}
}

func (v vector) at() time.Time {
	ms, _ := strconv.ParseInt(v.TS, 10, 64)
	return time.UnixMilli(ms)
}

func TestHubSpotsOwnSignaturesAreTaken(t *testing.T) {
	for _, v := range hubspotVectors(t) {
		keys := Keys{Secrets: []secret.Secret{key("an older one"), key(v.Secret)}}
		for _, off := range []time.Duration{0, Window, -Window} {
			got, err := Find("hubspot").Verify(v.request(), keys, v.at().Add(off))
			if err != nil || !got.Timed || got.Until != v.at().Add(Window+slack) {
				t.Errorf("%s, %s later: %+v, %v", v.ID, off, got, err)
			}
		}
		old := v.request()
		old.Header = http.Header{}
		old.Header.Set("X-HubSpot-Signature", v.V2)
		old.Header.Set("X-HubSpot-Signature-Version", "v2")
		if got, err := Find("hubspot-v2").Verify(old, keys, v.at()); err != nil || got.Timed {
			t.Errorf("%s, v2: %+v, %v", v.ID, got, err)
		}
		old.Header.Set("X-HubSpot-Signature", v.V1)
		old.Header.Set("X-HubSpot-Signature-Version", "v1")
		if _, err := Find("hubspot-v2").Verify(old, keys, v.at()); refusalOf(err) != Malformed {
			t.Errorf("%s, v1: %v", v.ID, err)
		}
	}
}

// HubSpot's own client takes some of these.
func TestWhatIsNotSignedByHubSpotIsRefused(t *testing.T) {
	vectors := hubspotVectors(t)
	a, c := vectors[0], vectors[2]
	for name, tc := range map[string]struct {
		v      vector
		spoil  func(*Request)
		later  time.Duration
		secret string
		want   Refusal
	}{
		"too old":                {v: a, later: Window + time.Millisecond, want: Stale},
		"from the future":        {v: a, later: -Window - time.Millisecond, want: Stale},
		"another secret":         {v: a, secret: "guessed", want: Forged},
		"no signature":           {v: a, spoil: func(r *Request) { r.Header.Del(hubspotSignature) }, want: Unsigned},
		"no time":                {v: a, spoil: func(r *Request) { r.Header.Del(hubspotStamp) }, want: Unsigned},
		"a time that is none":    {v: a, spoil: func(r *Request) { r.Header.Set(hubspotStamp, "now") }, want: Malformed},
		"a time in seconds":      {v: a, spoil: func(r *Request) { r.Header.Set(hubspotStamp, a.TS[:10]) }, want: Malformed},
		"a time with a sign":     {v: a, spoil: func(r *Request) { r.Header.Set(hubspotStamp, "+"+a.TS[1:]) }, want: Malformed},
		"another time":           {v: a, spoil: func(r *Request) { r.Header.Set(hubspotStamp, "1790000001001") }, want: Forged},
		"another method":         {v: a, spoil: func(r *Request) { r.Method = "PUT" }, want: Forged},
		"another address":        {v: a, spoil: func(r *Request) { r.URL += "/" }, want: Forged},
		"a byte less":            {v: a, spoil: func(r *Request) { r.Body = r.Body[:len(r.Body)-1] }, want: Forged},
		"a space more":           {v: a, spoil: func(r *Request) { r.Body = append([]byte(" "), r.Body...) }, want: Forged},
		"two signatures":         {v: a, spoil: func(r *Request) { r.Header.Add(hubspotSignature, a.V3) }, want: Malformed},
		"a signature in hex":     {v: a, spoil: func(r *Request) { r.Header.Set(hubspotSignature, a.V1) }, want: Malformed},
		"a line break in base64": {v: a, spoil: func(r *Request) { r.Header.Set(hubspotSignature, a.V3[:4]+"\n"+a.V3[4:]) }, want: Malformed},
		"an empty signature":     {v: a, spoil: func(r *Request) { r.Header.Set(hubspotSignature, "") }, want: Unsigned},
		"the address undecoded":  {v: c, spoil: func(r *Request) { r.Header.Set(hubspotSignature, "6A6qFKkhjG2MaGjRNmbQygpOR2uk3nn1JjxPrd+deQ0=") }, want: Forged},
	} {
		r := tc.v.request()
		if tc.spoil != nil {
			tc.spoil(&r)
		}
		if tc.secret == "" {
			tc.secret = tc.v.Secret
		}
		_, err := Find("hubspot").Verify(r, Keys{Secrets: []secret.Secret{key(tc.secret)}}, tc.v.at().Add(tc.later))
		if refusalOf(err) != tc.want {
			t.Errorf("%s: %v, want it refused as %s", name, err, tc.want)
		}
	}
}

// The values that GitHub and the Standard Webhooks specification publish for testing an implementation.
func TestPublishedSignaturesAreTaken(t *testing.T) {
	h := http.Header{}
	h.Set("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")
	if _, err := Find("github").Verify(Request{Header: h, Body: []byte("Hello, World!")}, Keys{Secrets: []secret.Secret{key("It's a Secret to Everybody")}}, time.Now()); err != nil {
		t.Errorf("GitHub's: %v", err)
	}
	h = http.Header{}
	h.Set("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
	h.Set("webhook-timestamp", "1614265330")
	h.Set("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	keys := Keys{Secrets: []secret.Secret{key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")}}
	v, err := Find("standard-webhooks").Verify(Request{Header: h, Body: []byte(`{"test": 2432232314}`)}, keys, time.Unix(1614265330, 0))
	if err != nil || v.ID != "msg_p5jXN8AQM9LWM0D4loKWxJek" {
		t.Errorf("Standard Webhooks': %+v, %v", v, err)
	}
}

func TestEveryDialectTakesWhatItSignsAndNothingElse(t *testing.T) {
	at := time.UnixMilli(1790000001000)
	old, live := key("old secret of the sender"), key("live secret of the sender")
	for _, name := range Names() {
		d := Find(name)
		r := Request{Method: "POST", URL: "https://seal.example.com/x?a=%3A", Header: http.Header{}, Body: []byte(`{"opportunityId":"006"}`)}
		if err := d.Sign(r, "msg_1", at, live, old); errors.Is(err, ErrCannotSign) {
			continue // HubSpot's own vectors are what it is tested with
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		verify := func(r Request, now time.Time, secrets ...secret.Secret) error {
			_, err := d.Verify(r, Keys{Secrets: secrets}, now)
			return err
		}
		for _, secrets := range [][]secret.Secret{{live}, {key("next"), live}} {
			if err := verify(r, at.Add(Window), secrets...); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := verify(r, at, key("another")); refusalOf(err) != Forged {
			t.Errorf("%s: another's secret: %v", name, err)
		}
		if err := verify(r, at); err == nil || refusalOf(err) != "" {
			t.Errorf("%s: without a live secret the trouble is ours: %v", name, err)
		}
		longer := r
		longer.Body = append(bytes.Clone(r.Body), ' ')
		if err := verify(longer, at, live); refusalOf(err) != Forged {
			t.Errorf("%s: another body: %v", name, err)
		}
		for header := range r.Header {
			spoiled := r
			spoiled.Header = r.Header.Clone()
			spoiled.Header.Del(header)
			if err := verify(spoiled, at, live); refusalOf(err) != Unsigned {
				t.Errorf("%s without %s: %v", name, header, err)
			}
			spoiled.Header = r.Header.Clone()
			spoiled.Header.Add(header, r.Header.Get(header))
			if err := verify(spoiled, at, live); refusalOf(err) != Malformed {
				t.Errorf("%s with two of %s: %v", name, header, err)
			}
		}
		if d.unit == 0 {
			continue
		}
		for _, off := range []time.Duration{301 * time.Second, -301 * time.Second} {
			if err := verify(r, at.Add(off), live); refusalOf(err) != Stale {
				t.Errorf("%s, %s later: %v", name, off, err)
			}
		}
	}
}

// A signature can be spelled in several ways; the nonce is of what was signed.
func TestAReplayHasTheSameNonceHoweverItIsSpelled(t *testing.T) {
	at := time.Unix(1790000001, 0)
	secrets := []secret.Secret{key("one"), key("two")}
	nonce := func(name string, change func(*Request)) [32]byte {
		t.Helper()
		r := Request{Method: "POST", URL: "https://seal.example.com/x", Header: http.Header{}, Body: []byte(`{}`)}
		if err := Find(name).Sign(r, "msg_1", at, secrets...); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(&r)
		}
		v, err := Find(name).Verify(r, Keys{Secrets: secrets}, at)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return v.Nonce
	}
	upper := func(r *Request) {
		r.Header.Set("X-Signature-256", "sha256="+strings.ToUpper(strings.TrimPrefix(r.Header.Get("X-Signature-256"), "sha256=")))
	}
	if nonce("x-signature-256", nil) != nonce("x-signature-256", upper) {
		t.Error("upper-case digits make another nonce")
	}
	swap := func(r *Request) {
		a, b, _ := strings.Cut(r.Header.Get("webhook-signature"), " ")
		r.Header.Set("webhook-signature", b+" "+a)
	}
	if nonce("standard-webhooks", nil) != nonce("standard-webhooks", swap) {
		t.Error("another order of signatures makes another nonce")
	}
	later := func(r *Request) { r.Header.Set("X-Timestamp", "1790000002") }
	if nonce("x-signature", nil) != nonce("x-signature", later) {
		t.Error("a time that nobody signed makes another nonce")
	}
	if nonce("certyneo", nil) == nonce("x-certyneo", nil) {
		t.Error("two dialects share a nonce")
	}
}

func TestPublicKeysVerify(t *testing.T) {
	at := time.Unix(1790000001, 0)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"opportunityId":"006"}`)
	for name, message := range map[string][]byte{
		"x-signature":        body,
		"x-signature-dotted": append([]byte("1790000001."), body...),
		"x-signature-binary": append([]byte{0, 0, 0, 0, 0x6a, 0xb1, 0x3b, 0x81}, body...),
		"standard-webhooks":  append([]byte("msg_1.1790000001."), body...),
	} {
		for kind, signer := range map[string]crypto.Signer{"RSA": rsaKey, "ECDSA": ecKey, "Ed25519": edKey} {
			sum, hash := sha256.Sum256(message), crypto.Hash(crypto.SHA256)
			digest := sum[:]
			if kind == "Ed25519" {
				digest, hash = message, 0
			}
			sig, err := signer.Sign(rand.Reader, digest, hash)
			if err != nil {
				t.Fatal(err)
			}
			h := http.Header{}
			if name == "standard-webhooks" {
				h.Set("webhook-id", "msg_1")
				h.Set("webhook-timestamp", "1790000001")
				h.Set("webhook-signature", "v1a,"+base64.StdEncoding.EncodeToString(sig))
			} else {
				h.Set("X-Signature", base64.StdEncoding.EncodeToString(sig))
				h.Set("X-Timestamp", "1790000001")
			}
			r := Request{Header: h, Body: body}
			if _, err := Find(name).Verify(r, Keys{Public: []crypto.PublicKey{ecKey.Public(), rsaKey.Public(), edKey.Public()}}, at); err != nil {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
			if _, err := Find(name).Verify(r, Keys{Secrets: []secret.Secret{key("a secret")}}, at); refusalOf(err) != Forged {
				t.Errorf("%s, %s: taken without its key: %v", name, kind, err)
			}
			r.Body = append(bytes.Clone(body), ' ')
			if _, err := Find(name).Verify(r, Keys{Public: []crypto.PublicKey{signer.Public()}}, at); refusalOf(err) != Forged {
				t.Errorf("%s, %s: another body: %v", name, kind, err)
			}
		}
	}
}

// RFC 4231, test case 2.
func TestMACIsHMAC(t *testing.T) {
	const want = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
	if got := hex.EncodeToString(mac([]byte("Jefe"), []byte("what do ya want "), []byte("for nothing?"))); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// FuzzVerify: whatever the headers hold, nothing is taken that was not signed, and nothing panics.
func FuzzVerify(f *testing.F) {
	for i, name := range Names() {
		r := Request{Method: "POST", URL: "https://seal.example.com/x", Header: http.Header{}, Body: []byte(`{}`)}
		if Find(name).Sign(r, "msg_1", time.Unix(1790000001, 0), key("secret")) != nil {
			r.Header.Set("X-HubSpot-Signature", strings.Repeat("a", 64))
			r.Header.Set("X-HubSpot-Signature-Version", "v2")
		}
		var lines []string
		for k, v := range r.Header {
			lines = append(lines, k+": "+v[0])
		}
		f.Add(i, strings.Join(lines, "\n"), r.Body)
	}
	f.Fuzz(func(t *testing.T, i int, lines string, body []byte) {
		if i < 0 || i >= len(dialects) {
			return
		}
		r := Request{Method: "POST", URL: "https://seal.example.com/x", Header: http.Header{}, Body: body}
		for line := range strings.SplitSeq(lines, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			r.Header.Add(name, value)
		}
		_, err := dialects[i].Verify(r, Keys{Secrets: []secret.Secret{key("a secret that nobody was told")}}, time.Unix(1790000001, 0))
		if refusalOf(err) == "" {
			t.Errorf("%s: taken: %v", dialects[i].Name, err)
		}
	})
}
