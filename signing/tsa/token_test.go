package tsa

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/mocks/pki"
)

func newToken(t testing.TB, a *pki.Authority) (token, digest []byte) {
	t.Helper()
	sum := sha256.Sum256([]byte("content"))
	token, err := a.Token(sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return token, sum[:]
}

func TestTokenReadsAsAnIndependentParserReadsIt(t *testing.T) {
	a, err := pki.New(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	token, _ := newToken(t, a)
	ours, err := ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := timestamp.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	type view struct {
		Policy, Serial string
		Imprint        []byte
		Hash           crypto.Hash
		Time           time.Time
		Accuracy       time.Duration
	}
	want := view{theirs.Policy.String(), theirs.SerialNumber.String(), theirs.HashedMessage, theirs.HashAlgorithm, theirs.Time, theirs.Accuracy}
	got := view{ours.Policy.String(), ours.Serial.String(), ours.Imprint, ours.Hash, ours.Time, ours.Accuracy}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("token (-digitorus +ours):\n%s", diff)
	}
}

func TestEveryFlippedByteOfATokenIsNoticed(t *testing.T) {
	a, err := pki.New(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	token, digest := newToken(t, a)
	o := VerifyOptions{Roots: a.Roots()}
	if _, err := Verify(token, digest, crypto.SHA256, o); err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	// Outside the signature's reach are the version numbers and the digestAlgorithms that a reader may use as a hint. All but SignerInfo's version stand
	// before the content.
	content := bytes.Index(token, parsed.signed.Content)
	behind := 0
	for i := range token {
		changed := bytes.Clone(token)
		changed[i] ^= 0x01
		got, err := Verify(changed, digest, crypto.SHA256, o)
		if err != nil || i < content {
			continue
		}
		if behind++; behind > 1 || !bytes.Equal(got.signed.Content, parsed.signed.Content) {
			t.Errorf("byte %d was changed unnoticed", i)
		}
	}
}

func TestTokenIsRefusedOutsideTheCertificatesValidity(t *testing.T) {
	a, err := pki.New(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a.SetNow(func() time.Time { return a.TSA.Certificate.NotAfter.Add(time.Hour) })
	token, digest := newToken(t, a)
	_, err = Verify(token, digest, crypto.SHA256, VerifyOptions{Roots: a.Roots()})
	var bad *TokenError
	if !errors.As(err, &bad) || bad.Code != CodeChain {
		t.Errorf("got %v", err)
	}
}

func TestRootsAreNeverTakenFromTheSystemUnasked(t *testing.T) {
	a, err := pki.New(pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	token, digest := newToken(t, a)
	if _, err := Verify(token, digest, crypto.SHA256, VerifyOptions{}); err == nil {
		t.Error("verified without roots")
	}
}

func TestUnknownCriticalExtensionsAreNotOverlooked(t *testing.T) {
	oid := []byte{0x06, 0x02, 0x2a, 0x03}
	qc := []byte{0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x03}
	critical := []byte{0x01, 0x01, 0xff}
	extension := func(parts ...[]byte) []byte {
		body := bytes.Join(append(parts, []byte{0x04, 0x00}), nil)
		return append([]byte{0x30, byte(len(body))}, body...)
	}
	for name, c := range map[string]struct {
		der  []byte
		code Code
	}{
		"none":                           {nil, ""},
		"unknown, not critical":          {extension(oid), ""},
		"unknown, critical":              {extension(oid, critical), CodeUnsupported},
		"qualified statements, critical": {extension(qc, critical), ""},
		"unknown behind a known one":     {append(extension(qc, critical), extension(oid, critical)...), CodeUnsupported},
		"not DER":                        {[]byte{0x30, 0x05, 0x00}, CodeFormat},
	} {
		var code Code
		var bad *TokenError
		if errors.As(checkExtensions(c.der), &bad) {
			code = bad.Code
		}
		if code != c.code {
			t.Errorf("%s: code %q, want %q", name, code, c.code)
		}
	}
}

func TestAccuracyIsReadWithinReason(t *testing.T) {
	for name, c := range map[string]struct {
		der  []byte
		want time.Duration
		ok   bool
	}{
		"empty":           {nil, 0, true},
		"seconds":         {[]byte{0x02, 0x01, 0x02}, 2 * time.Second, true},
		"all three":       {[]byte{0x02, 0x01, 0x01, 0x80, 0x01, 0x02, 0x81, 0x01, 0x03}, time.Second + 2*time.Millisecond + 3*time.Microsecond, true},
		"milliseconds":    {[]byte{0x80, 0x02, 0x01, 0xf4}, 500 * time.Millisecond, true},
		"too many":        {[]byte{0x80, 0x02, 0x03, 0xe8}, 0, false},
		"negative":        {[]byte{0x02, 0x01, 0xff}, 0, false},
		"a lifetime":      {[]byte{0x02, 0x08, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 0, false},
		"something after": {[]byte{0x02, 0x01, 0x01, 0x05, 0x00}, 0, false},
	} {
		var token Token
		if ok := token.readAccuracy(c.der); ok != c.ok || token.Accuracy != c.want {
			t.Errorf("%s: %v, %v; want %v, %v", name, token.Accuracy, ok, c.want, c.ok)
		}
	}
}

func TestGenTimeFormats(t *testing.T) {
	for s, want := range map[string]string{
		"20260102030405Z":       "2026-01-02T03:04:05Z",
		"20260102030405.5Z":     "2026-01-02T03:04:05.5Z",
		"20260102030405.123Z":   "2026-01-02T03:04:05.123Z",
		"20260102030405":        "",
		"20260102030405+0100":   "",
		"202601020304Z":         "",
		"20260102030405.Z":      "",
		"20260102030405,5Z":     "",
		"20261302030405Z":       "",
		"20260102030405Zjunk":   "",
		"":                      "",
		"99999999999999999999Z": "",
	} {
		got, err := parseGenTime(s)
		text := ""
		if err == nil {
			text = got.Format(time.RFC3339Nano)
		}
		if text != want {
			t.Errorf("%q reads as %q, want %q (%v)", s, text, want, err)
		}
	}
}

func TestRetryAfterIsReadAndBounded(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "30": 30 * time.Second, "-5": 0, "99999999": time.Hour, "soon": 0, "99999999999999999999999": 0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2020 03:05:05 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", value, got, want)
		}
	}
}

func TestRejectionTextIsCutAndCleaned(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 127)
	body := []byte{0x02, 0x01, 0x02, 0x30, 0x81, 0x84, 0x0c, 0x7f}
	body = append(append(body, long...), 0x0c, 0x01, '\n')
	der := append([]byte{0x30, 0x81, byte(3 + len(body)), 0x30, 0x81, byte(len(body))}, body...)
	_, err := parseResponse(der)
	var r *Rejection
	if !errors.As(err, &r) {
		t.Fatalf("got %v", err)
	}
	if want := (Rejection{Status: 2, Failure: -1, Text: string(long) + "; "}); *r != want {
		t.Errorf("got %+v, want %+v", *r, want)
	}
}

func FuzzParseResponse(f *testing.F) {
	a, err := pki.New(pki.Options{})
	if err != nil {
		f.Fatal(err)
	}
	token, digest := newToken(f, a)
	f.Add(append([]byte{0x30, 0x82, byte((len(token) + 5) >> 8), byte(len(token) + 5), 0x30, 0x03, 0x02, 0x01, 0x00}, token...))
	f.Add([]byte{0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x02})
	f.Add([]byte{})
	f.Add(token)
	o := VerifyOptions{Roots: a.Roots()}
	f.Fuzz(func(t *testing.T, der []byte) {
		hostile.Budget(t)
		got, err := parseResponse(der)
		if err != nil {
			return
		}
		parsed, err := Verify(got, digest, crypto.SHA256, o)
		if err == nil && (parsed.Serial.Cmp(new(big.Int)) <= 0 || !bytes.Equal(parsed.Imprint, digest)) {
			t.Errorf("a token was accepted that the TSA did not make")
		}
	})
}
