package signing

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func clock() time.Time { return now }

// ring is a key store in memory.
type ring struct {
	keys map[string]Key
	err  error
}

func (r *ring) Open(ctx context.Context, name string) (Key, error) {
	if r.err != nil {
		return nil, r.err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k, ok := r.keys[name]
	if !ok {
		return nil, fmt.Errorf("there is no key %q", name)
	}
	return k, nil
}

func (r *ring) Close() error { return nil }

// softKey signs with a key in memory, counts what it signs, and can be made to misbehave.
type softKey struct {
	crypto.Signer
	chain []*x509.Certificate

	mu     sync.Mutex
	signed [][]byte
	sign   func(digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

func (k *softKey) Chain() []*x509.Certificate { return k.chain }

func (k *softKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.mu.Lock()
	k.signed = append(k.signed, bytes.Clone(digest))
	sign := k.sign
	k.mu.Unlock()
	if sign != nil {
		return sign(digest, opts)
	}
	return k.Signer.Sign(random, digest, opts)
}

// contextKey is a softKey that can be told to stop.
type contextKey struct {
	*softKey
	stopped chan error
}

func (k contextKey) SignContext(ctx context.Context, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	<-ctx.Done()
	k.stopped <- ctx.Err()
	return nil, ctx.Err()
}

// certificate is a template that CheckKey accepts.
func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(name)) + 7),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

var throwAwayCA = sync.OnceValues(func() (*ecdsa.PrivateKey, *x509.Certificate) {
	key := newEC(elliptic.P256())
	t := certificate("Throw-away CA")
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign
	return key, create(t, t, key.Public(), key)
})

func create(t, parent *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, signer)
	if err != nil {
		panic(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return c
}

func newEC(curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// newKey gives signer a certificate, which change may alter.
func newKey(signer crypto.Signer, change func(*x509.Certificate)) *softKey {
	caKey, ca := throwAwayCA()
	t := certificate("Acme Ltd Seal")
	if change != nil {
		change(t)
	}
	return &softKey{Signer: signer, chain: []*x509.Certificate{create(t, ca, signer.Public(), caKey), ca}}
}

// document writes a PDF of one empty page.
func document() *bytes.Reader {
	var b bytes.Buffer
	offsets := make([]int, 0, 3)
	b.WriteString("%PDF-1.7\n")
	for i, body := range []string{"<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
		"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << >> >>"} {
		offsets = append(offsets, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, body)
	}
	at := b.Len()
	fmt.Fprintf(&b, "xref\n0 4\n0000000000 65535 f \n%010d 00000 n \n%010d 00000 n \n%010d 00000 n \n", offsets[0], offsets[1], offsets[2])
	fmt.Fprintf(&b, "trailer\n<< /Size 4 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", at)
	return bytes.NewReader(b.Bytes())
}

func profile() Profile {
	return Profile{Name: "contract", Key: "house", Level: pades.BB, Reason: "Contract", SignerName: "Acme Ltd"}
}

// stampers make tokens; no test asks them over a network.
var stampers = sync.OnceValues(func() (*pki.Authority, error) { return pki.New(pki.Options{Now: clock}) })

// fakeTSA answers with a token, and remembers what it was asked.
type fakeTSA struct {
	digest []byte
	hash   crypto.Hash
	err    error
}

func (f *fakeTSA) Timestamp(_ context.Context, digest []byte, h crypto.Hash) ([]byte, error) {
	f.digest, f.hash = digest, h
	if f.err != nil {
		return nil, f.err
	}
	a, err := stampers()
	if err != nil {
		return nil, err
	}
	return a.Token(digest, h)
}

func newSealer(key Key, tsa Timestamper) *Sealer {
	return NewSealer(&ring{keys: map[string]Key{"house": key}}, tsa, clock)
}

func mustPrepare(t *testing.T, s *Sealer, p Profile) *Ticket {
	t.Helper()
	ticket, err := s.Prepare(context.Background(), document(), Request{Profile: p})
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

func TestSealIsMadeInCommittedSteps(t *testing.T) {
	for name, c := range map[string]struct {
		signer crypto.Signer
		pss    bool
		hash   crypto.Hash
	}{
		"RSA":     {rsaKey(), false, 0},
		"RSA-PSS": {rsaKey(), true, crypto.SHA512},
		"P-256":   {newEC(elliptic.P256()), false, crypto.SHA256},
		"P-384":   {newEC(elliptic.P384()), false, crypto.SHA384},
		"P-521":   {newEC(elliptic.P521()), false, crypto.SHA512},
	} {
		t.Run(name, func(t *testing.T) {
			key, tsa := newKey(c.signer, nil), &fakeTSA{}
			s := newSealer(key, tsa)
			p := profile()
			p.Level, p.PSS, p.Hash = pades.BT, c.pss, c.hash
			staged := mustPrepare(t, s, p)
			if len(key.signed) != 0 {
				t.Fatal("Prepare used the key")
			}
			stored, err := json.Marshal(staged)
			if err != nil {
				t.Fatal(err)
			}
			ticket := new(Ticket)
			if err := json.Unmarshal(stored, ticket); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(staged, ticket, cmpopts.IgnoreUnexported(pades.Prepared{})); diff != "" {
				t.Error(diff)
			}
			value, err := s.Redeem(context.Background(), ticket)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([][]byte{staged.Digest()}, key.signed); diff != "" {
				t.Errorf("the key signed something else than the staged digest: %s", diff)
			}
			token, err := s.Timestamp(context.Background(), ticket, value)
			if err != nil {
				t.Fatal(err)
			}
			h := ticket.Prepared.Algorithm.Hash
			imprint := h.New()
			imprint.Write(value)
			if tsa.hash != h || !bytes.Equal(tsa.digest, imprint.Sum(nil)) {
				t.Error("the time-stamp is not for the signature value")
			}
			tail, evidence, err := s.Complete(ticket, value, token)
			if err != nil {
				t.Fatal(err)
			}
			if evidence.Level != pades.BT || !bytes.Equal(evidence.Token, token) || len(evidence.Chain) != 2 {
				t.Errorf("evidence: level %s, token %x, %d certificates", evidence.Level, evidence.Token, len(evidence.Chain))
			}
			if !bytes.Contains(tail, fmt.Appendf(nil, "%x", evidence.CMS)) {
				t.Error("the CMS is not in the bytes to append")
			}
			again, _, err := s.Complete(ticket, value, token)
			if err != nil || !bytes.Equal(tail, again) {
				t.Errorf("a second Complete gives other bytes: %v", err)
			}
			if len(key.signed) != 1 {
				t.Errorf("the key was used %d times", len(key.signed))
			}
		})
	}
}

func TestTicketNamesKeyAndCertificate(t *testing.T) {
	key := newKey(newEC(elliptic.P256()), nil)
	ticket := mustPrepare(t, newSealer(key, nil), profile())
	spki := sha256.Sum256(key.chain[0].RawSubjectPublicKeyInfo)
	cert := sha256.Sum256(key.chain[0].Raw)
	if !bytes.Equal(ticket.SPKISHA256, spki[:]) || !bytes.Equal(ticket.CertSHA256, cert[:]) {
		t.Errorf("the ticket names key %x and certificate %x", ticket.SPKISHA256, ticket.CertSHA256)
	}
	if !ticket.Time.Equal(now) {
		t.Errorf("the time of signing is %s", ticket.Time)
	}
}

func TestReasonOfTheRequestGoesBeforeTheProfiles(t *testing.T) {
	s := newSealer(newKey(newEC(elliptic.P256()), nil), nil)
	ticket, err := s.Prepare(context.Background(), document(), Request{Profile: profile(), Reason: "Contract for 006"})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(ticket.Prepared.Tail, []byte("/Reason (Contract for 006)")) {
		t.Error("the reason of the request is not in the document")
	}
}

func TestRedeemRefusesAnotherKey(t *testing.T) {
	store := &ring{keys: map[string]Key{"house": newKey(newEC(elliptic.P256()), nil)}}
	s := NewSealer(store, nil, clock)
	ticket := mustPrepare(t, s, profile())
	other := newKey(newEC(elliptic.P256()), nil)
	store.keys["house"] = other
	_, err := s.Redeem(context.Background(), ticket)
	var keyError *KeyError
	if !errors.As(err, &keyError) || !strings.Contains(err.Error(), "changed since the seal was staged") || !isPermanent(err) {
		t.Errorf("error = %v, want a permanent KeyError", err)
	}
	if len(other.signed) != 0 {
		t.Error("the other key was used")
	}
}

func TestRedeemAcceptsARenewedCertificateOfTheSameKey(t *testing.T) {
	signer := newEC(elliptic.P256())
	store := &ring{keys: map[string]Key{"house": newKey(signer, nil)}}
	s := NewSealer(store, nil, clock)
	ticket := mustPrepare(t, s, profile())
	store.keys["house"] = newKey(signer, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(99) })
	value, err := s.Redeem(context.Background(), ticket)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Complete(ticket, value, nil); err != nil {
		t.Error(err)
	}
}

func TestRedeemRefusesWhenTheStagedCertificateHasEnded(t *testing.T) {
	signer := newEC(elliptic.P256())
	store := &ring{keys: map[string]Key{"house": newKey(signer, nil)}}
	moment := now
	s := NewSealer(store, nil, func() time.Time { return moment })
	ticket := mustPrepare(t, s, profile())
	moment = now.Add(2 * time.Hour)
	store.keys["house"] = newKey(signer, func(c *x509.Certificate) { c.NotAfter = now.Add(48 * time.Hour) })
	if _, err := s.Redeem(context.Background(), ticket); err == nil || !strings.Contains(err.Error(), "staged seal ended") {
		t.Errorf("error = %v", err)
	}
}

func TestRedeemRefusesAValueThatDoesNotVerify(t *testing.T) {
	key := newKey(newEC(elliptic.P256()), nil)
	s := newSealer(key, nil)
	ticket := mustPrepare(t, s, profile())
	key.sign = func([]byte, crypto.SignerOpts) ([]byte, error) {
		return key.Signer.Sign(rand.Reader, make([]byte, 32), crypto.SHA256)
	}
	value, err := s.Redeem(context.Background(), ticket)
	if err == nil || value != nil || !strings.Contains(err.Error(), "does not verify") {
		t.Fatalf("Redeem = %x, %v", value, err)
	}
	if isPermanent(err) {
		t.Error("a disturbed key store is not permanent")
	}
}

func TestRedeemRefusesADamagedTicket(t *testing.T) {
	key := newKey(newEC(elliptic.P256()), nil)
	s := newSealer(key, nil)
	for name, damage := range map[string]func(*Ticket){
		"no ticket":           func(k *Ticket) { *k = Ticket{Profile: profile()} },
		"another digest":      func(k *Ticket) { k.Prepared.Digest = make([]byte, 32) },
		"another certificate": func(k *Ticket) { k.CertSHA256 = nil },
		"another key":         func(k *Ticket) { k.SPKISHA256 = nil },
		"no chain":            func(k *Ticket) { k.Prepared.Chain = nil },
	} {
		t.Run(name, func(t *testing.T) {
			ticket := mustPrepare(t, s, profile())
			damage(ticket)
			_, err := s.Redeem(context.Background(), ticket)
			var damaged *TicketError
			if !errors.As(err, &damaged) || !isPermanent(err) {
				t.Errorf("Redeem: %v, want a TicketError", err)
			}
			if _, err := s.Timestamp(context.Background(), ticket, nil); !errors.As(err, &damaged) {
				t.Errorf("Timestamp: %v, want a TicketError", err)
			}
			if _, _, err := s.Complete(ticket, nil, nil); !errors.As(err, &damaged) {
				t.Errorf("Complete: %v, want a TicketError", err)
			}
		})
	}
	if len(key.signed) != 0 {
		t.Error("the key was used for a damaged ticket")
	}
}

func TestRedeemReturnsAtItsDeadlineThoughTheKeyHangs(t *testing.T) {
	key := newKey(newEC(elliptic.P256()), nil)
	hanging, release := make(chan struct{}), make(chan struct{})
	key.sign = func([]byte, crypto.SignerOpts) ([]byte, error) {
		close(hanging)
		<-release
		return nil, errors.New("too late")
	}
	s := newSealer(key, nil)
	ticket := mustPrepare(t, s, profile())
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-hanging; cancel() }()
	_, err := s.Redeem(ctx, ticket)
	close(release)
	if !errors.Is(err, context.Canceled) || isPermanent(err) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
}

func TestRedeemStopsAKeyThatCanBeStopped(t *testing.T) {
	key := contextKey{newKey(newEC(elliptic.P256()), nil), make(chan error, 1)}
	s := newSealer(key, nil)
	ticket := mustPrepare(t, s, profile())
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := s.Redeem(ctx, ticket); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v, want context.DeadlineExceeded", err)
	}
	if err := <-key.stopped; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the key was stopped by %v", err)
	}
}

func TestKeyStoreThatIsDownIsNotPermanent(t *testing.T) {
	down := errors.New("token not present")
	s := NewSealer(&ring{err: down}, nil, clock)
	if _, err := s.Prepare(context.Background(), document(), Request{Profile: profile()}); !errors.Is(err, down) || isPermanent(err) {
		t.Errorf("error = %v, want the store's own", err)
	}
}

func TestMissingTimestampIsNeverSilent(t *testing.T) {
	for answer, accepted := range map[Downgrade]bool{"": false, Fail: false, Hold: false, AcceptAndFlag: true} {
		s := newSealer(newKey(newEC(elliptic.P256()), nil), nil)
		p := profile()
		p.Level, p.OnDowngrade = pades.BT, answer
		ticket := mustPrepare(t, s, p)
		value, err := s.Redeem(context.Background(), ticket)
		if err != nil {
			t.Fatal(err)
		}
		var missing *TimestampError
		if _, err := s.Timestamp(context.Background(), ticket, value); !errors.As(err, &missing) {
			t.Errorf("%q: Timestamp without an authority: %v", answer, err)
		}
		_, evidence, err := s.Complete(ticket, value, nil)
		if accepted && (err != nil || evidence.Level != pades.BB) {
			t.Errorf("%q: level %s, %v; want B-B", answer, evidence.Level, err)
		}
		if !accepted && !errors.As(err, &missing) {
			t.Errorf("%q: %v, want a TimestampError", answer, err)
		}
	}
}

func TestLevelBBNeedsNoAuthority(t *testing.T) {
	s := newSealer(newKey(newEC(elliptic.P256()), nil), nil)
	ticket := mustPrepare(t, s, profile())
	value, err := s.Redeem(context.Background(), ticket)
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Timestamp(context.Background(), ticket, value)
	if token != nil || err != nil {
		t.Errorf("Timestamp = %x, %v", token, err)
	}
	if _, evidence, err := s.Complete(ticket, value, nil); err != nil || evidence.Level != pades.BB {
		t.Errorf("level %s, %v", evidence.Level, err)
	}
}

func TestTroubleOfTheAuthorityIsPassedOn(t *testing.T) {
	down := errors.New("the authority is down")
	s := newSealer(newKey(newEC(elliptic.P256()), nil), &fakeTSA{err: down})
	p := profile()
	p.Level = pades.BT
	if _, err := s.Timestamp(context.Background(), mustPrepare(t, s, p), []byte("value")); !errors.Is(err, down) || isPermanent(err) {
		t.Errorf("error = %v", err)
	}
}

// brokenSigner has a public key of a kind that cannot be used.
type brokenSigner struct{ crypto.Signer }

func (brokenSigner) Public() crypto.PublicKey { return "none" }

func TestCheckKeyRefuses(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := newKey(newEC(elliptic.P256()), nil)
	for name, c := range map[string]struct {
		key  *softKey
		want string
	}{
		"no certificate":       {&softKey{Signer: good.Signer}, "no certificate"},
		"short RSA":            {newKey(weak, nil), "it has 1024 bits"},
		"P-224":                {newKey(newEC(elliptic.P224()), nil), "curve is P-224"},
		"Ed25519":              {newKey(edwards, nil), "cannot be used"},
		"another key's":        {&softKey{Signer: newEC(elliptic.P256()), chain: good.chain}, "for another key"},
		"an unknown key":       {&softKey{Signer: brokenSigner{good.Signer}, chain: good.chain}, "is for another key"},
		"not yet valid":        {newKey(good.Signer, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), "not valid before 2026-03-04T05:07:07Z"},
		"ended":                {newKey(good.Signer, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), "ended at 2026-03-04T05:05:07Z"},
		"for encryption only":  {newKey(good.Signer, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), "not for digital signatures"},
		"a chain out of order": {&softKey{Signer: good.Signer, chain: []*x509.Certificate{good.chain[0], good.chain[0]}}, "was not issued by the next one"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckKey("house", c.key, now)
			if err == nil || !strings.Contains(err.Error(), c.want) || !isPermanent(err) {
				t.Errorf("error = %v, want a permanent one with %q", err, c.want)
			}
			if _, err := newSealer(c.key, nil).Prepare(context.Background(), document(), Request{Profile: profile()}); err == nil {
				t.Error("Prepare accepts the key")
			}
		})
	}
	if err := CheckKey("house", good, now); err != nil {
		t.Error(err)
	}
}

func TestProfileIsCheckedBeforeUse(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Profile)
		want   string
	}{
		"no key":           {func(p *Profile) { p.Key = "" }, "key is missing"},
		"no level":         {func(p *Profile) { p.Level = "" }, "no level"},
		"another answer":   {func(p *Profile) { p.OnDowngrade = "ignore" }, "on_downgrade"},
		"SHA-1":            {func(p *Profile) { p.Hash = crypto.SHA1 }, "SHA-1"},
		"certify 7":        {func(p *Profile) { p.Certify = 7 }, "certify is 7"},
		"negative reserve": {func(p *Profile) { p.TimestampReserve = -1 }, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			p := profile()
			c.change(&p)
			err := p.Check()
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `"contract"`) || !isPermanent(err) {
				t.Errorf("error = %v, want a permanent one with %q", err, c.want)
			}
			if _, err := newSealer(newKey(newEC(elliptic.P256()), nil), nil).Prepare(context.Background(), document(), Request{Profile: p}); err == nil {
				t.Error("Prepare accepts the profile")
			}
		})
	}
}

func TestRehearsalMakesASealWithoutTheKey(t *testing.T) {
	for name, signer := range map[string]crypto.Signer{
		"RSA": rsaKey(), "P-256": newEC(elliptic.P256()), "P-384": newEC(elliptic.P384()), "P-521": newEC(elliptic.P521()),
	} {
		t.Run(name, func(t *testing.T) {
			key := newKey(signer, nil)
			s := newSealer(key, nil)
			p := profile()
			p.PSS = name == "RSA"
			ticket := mustPrepare(t, s, p)
			tail, root, err := s.Rehearse(ticket)
			if err != nil {
				t.Fatal(err)
			}
			if len(key.signed) != 0 {
				t.Error("the rehearsal used the key")
			}
			hole := func(b []byte) []byte {
				b = bytes.Clone(b)
				clear(b[ticket.Prepared.ContentsOffset:][:ticket.Prepared.ContentsLength])
				return b
			}
			if !bytes.Equal(hole(tail), hole(ticket.Prepared.Tail)) {
				t.Error("the rehearsal changed something besides the signature")
			}
			if !bytes.Contains(tail, fmt.Appendf(nil, "%x", root.Raw)) {
				t.Error("the throw-away certificate is not in the signature")
			}
			whole, err := io.ReadAll(document())
			if err != nil {
				t.Fatal(err)
			}
			report, err := verify.Verify(context.Background(), bytes.NewReader(append(whole, tail...)),
				verify.Options{Roots: []*x509.Certificate{root}, Now: now})
			if err != nil {
				t.Fatal(err)
			}
			if report.Verdict != verify.Valid {
				t.Errorf("our own reader calls the rehearsed seal %s: %+v", report.Verdict, report.Signatures)
			}
			if bytes.Contains(tail, fmt.Appendf(nil, "%x", key.chain[0].Raw)) {
				t.Error("the house's certificate is in the rehearsed signature")
			}
			_, again, err := s.Rehearse(ticket)
			if err != nil || !again.Equal(root) {
				t.Errorf("a second rehearsal has another throw-away key: %v", err)
			}
		})
	}
}

func TestRehearsalRefusesADamagedTicket(t *testing.T) {
	s := newSealer(newKey(newEC(elliptic.P256()), nil), nil)
	ticket := mustPrepare(t, s, profile())
	ticket.Prepared.SignedAttrs = nil
	var damaged *TicketError
	if _, _, err := s.Rehearse(ticket); !errors.As(err, &damaged) {
		t.Errorf("error = %v, want a TicketError", err)
	}
}
