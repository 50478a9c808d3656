package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/pkcs11"
)

// signing compares the signing core with what the token alone does.
func (b *bench) signing() error {
	dir, err := os.MkdirTemp("", "dealseal-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	authority, err := pki.New(pki.Options{NoLocations: true})
	if err != nil {
		return err
	}
	t, err := makeToken(b.ctx, filepath.Join(dir, "token"), "rsa:2048", authority)
	if err != nil {
		return err
	}
	raw, err := openRaw(t)
	if err != nil {
		return err
	}
	defer raw.close()
	sealer, keys, err := t.sealer(filepath.Join(dir, "state"))
	if err != nil {
		return err
	}
	defer keys.Close()
	p, err := b.newPress()
	if err != nil {
		return err
	}
	contract, err := p.make(b.ctx, orderForm)
	if err := errorsFirst(err, p.Close()); err != nil {
		return err
	}
	for _, n := range []int{1, runtime.NumCPU()} {
		if err := b.compareRate(n, contract, raw, sealer); err != nil {
			return err
		}
	}
	return b.largeFiles(raw, sealer)
}

// errorsFirst returns the first error that is not nil.
func errorsFirst(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// sealer is the product's, with the token's key in its own process.
func (t *token) sealer(state string) (*signing.Sealer, *pkcs11.Keys, error) {
	pin, err := secret.ParseRef("file:" + t.pinFile)
	if err != nil {
		return nil, nil, err
	}
	keys, err := pkcs11.New(map[string]pkcs11.Config{"house": {Module: t.module, Token: tokenLabel, Label: keyLabel, PIN: pin, Certificates: t.certificates,
		StateDir: state, Env: map[string]string{"SOFTHSM2_CONF": t.conf}, Write: []string{t.dir}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	return signing.NewSealer(keys, nil, time.Now), keys, nil
}

// signingSlice is how long each rate is measured. Both sides take turns, so that what else the machine does meets both.
const (
	signingSlice  = 300 * time.Millisecond
	signingRounds = 8
)

// compareRate seals on n threads and has the token sign on n sessions.
func (b *bench) compareRate(n int, contract []byte, raw *rawToken, sealer *signing.Sealer) error {
	if err := sealOnce(b.ctx, sealer, bytes.NewReader(contract)); err != nil {
		return err
	}
	var ours, theirs float64
	for range signingRounds {
		r, err := rate(n, func() error { return sealOnce(b.ctx, sealer, bytes.NewReader(contract)) })
		if err != nil {
			return err
		}
		ours = max(ours, r)
		if r, err = rate(n, raw.sign); err != nil {
			return err
		}
		theirs = max(theirs, r)
	}
	b.figure(fmt.Sprintf("B-B RSA-2048, %s, of raw C_Sign", threads(n)), 100*ours/theirs, "%", atLeast(60), "%s seals/s of a %s kB order form, raw C_Sign %s/s, the best of %d rounds each", short(ours), short(float64(len(contract))/1e3), short(theirs), signingRounds)
	return nil
}

func threads(n int) string {
	if n == 1 {
		return "1 thread"
	}
	return fmt.Sprintf("%d threads", n)
}

// rate is how often do can be done in a second on n threads.
func rate(n int, do func() error) (float64, error) {
	var done atomic.Int64
	begun := time.Now()
	err := parallel(n, func() error {
		for time.Since(begun) < signingSlice {
			if err := do(); err != nil {
				return err
			}
			done.Add(1)
		}
		return nil
	})
	return float64(done.Load()) / time.Since(begun).Seconds(), err
}

// sealOnce takes a document the whole way of a B-B seal.
func sealOnce(ctx context.Context, s *signing.Sealer, doc pades.Document) error {
	t, err := s.Prepare(ctx, doc, signing.Request{Profile: signing.Profile{Name: "bench", Key: "house", Level: pades.BB}})
	if err != nil {
		return err
	}
	value, err := s.Redeem(ctx, t)
	if err != nil {
		return err
	}
	_, _, err = s.Complete(t, value, nil)
	return err
}

// largeFiles compares sealing a file of 20 MB with hashing it, and with what sealing a small one allocates.
func (b *bench) largeFiles(raw *rawToken, sealer *signing.Sealer) error {
	large, small := filler(20<<20), filler(1<<20)
	seal := func(file []byte) func() error {
		return func() error { return sealOnce(b.ctx, sealer, bytes.NewReader(file)) }
	}
	hash := func() error {
		h := sha256.New()
		_, err := io.Copy(h, bytes.NewReader(large))
		return err
	}
	var sealed, hashed, signed sample
	for range 15 { // in turns, as above
		for _, m := range []struct {
			into *sample
			do   func() error
		}{{&sealed, seal(large)}, {&hashed, hash}, {&signed, raw.sign}} {
			took, err := timed(m.do)
			if err != nil {
				return err
			}
			*m.into = append(*m.into, took)
		}
	}
	sum, sign := hashed.quantile(0), signed.quantile(0) // the least disturbed of each
	b.figure("20 MB file, B-B RSA-2048", ms(sealed.quantile(0)), "ms", atMost(ms(2*sum+sign)), "2 × SHA-256 (%s ms) + C_Sign (%s ms), the fastest of each", short(ms(sum)), short(ms(sign)))
	forLarge, err := allocated(seal(large))
	if err != nil {
		return err
	}
	forSmall, err := allocated(seal(small))
	if err != nil {
		return err
	}
	b.figure("memory for 20 MB, of that for 1 MB", 100*float64(forLarge)/float64(forSmall), "%", atMost(110), "%d kB allocated for 20 MB, %d kB for 1 MB", forLarge/1000, forSmall/1000)
	return nil
}

func timed(do func() error) (time.Duration, error) {
	start := time.Now()
	err := do()
	return time.Since(start), err
}

// allocated is how many bytes do allocates, however soon they are freed.
func allocated(do func() error) (uint64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}

// filler is a PDF of one page with an attachment-like stream that gives it about a size.
func filler(size int) []byte {
	var b bytes.Buffer
	var offsets []int
	object := func(head string, stream []byte) {
		offsets = append(offsets, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\n", len(offsets), head)
		if stream != nil {
			b.WriteString("stream\n")
			b.Write(stream)
			b.WriteString("\nendstream\n")
		}
		b.WriteString("endobj\n")
	}
	b.WriteString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	object("<< /Type /Catalog /Pages 2 0 R >>", nil)
	object("<< /Type /Pages /Kids [3 0 R] /Count 1 >>", nil)
	object("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /XObject << /X 5 0 R >> /Font << /F 6 0 R >> >> >>", nil)
	text := []byte("BT /F 18 Tf 72 720 Td (Quotation) Tj ET")
	object(fmt.Sprintf("<< /Length %d >>", len(text)), text)
	object(fmt.Sprintf("<< /Type /XObject /Subtype /Form /BBox [0 0 1 1] /Length %d >>", size), bytes.Repeat([]byte{' '}, size))
	object("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>", nil)
	start := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(offsets)+1)
	for _, o := range offsets {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(offsets)+1, start)
	return b.Bytes()
}

// rawToken is the token without anything of ours: one session per processor.
type rawToken struct {
	ctx      *p11.Ctx
	sessions chan p11.SessionHandle
	key      p11.ObjectHandle
	input    []byte
}

func openRaw(t *token) (*rawToken, error) {
	if err := os.Setenv("SOFTHSM2_CONF", t.conf); err != nil {
		return nil, err
	}
	r := &rawToken{ctx: p11.New(t.module), sessions: make(chan p11.SessionHandle, runtime.NumCPU())}
	if r.ctx == nil {
		return nil, fmt.Errorf("%s cannot be loaded", t.module)
	}
	if err := r.ctx.Initialize(); err != nil {
		return nil, err
	}
	slots, err := r.ctx.GetSlotList(true)
	if err != nil || len(slots) == 0 {
		return nil, fmt.Errorf("no slot (%v)", err)
	}
	for i := range cap(r.sessions) {
		s, err := r.ctx.OpenSession(slots[0], p11.CKF_SERIAL_SESSION)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			if err := r.find(s, t.pin); err != nil {
				return nil, err
			}
		}
		r.sessions <- s
	}
	// A DigestInfo of SHA-256 (RFC 8017, section 9.2, note 1), as the product has it signed.
	prefix, err := hex.DecodeString("3031300d060960864801650304020105000420")
	r.input = append(prefix, make([]byte, crypto.SHA256.Size())...)
	return r, err
}

func (r *rawToken) find(s p11.SessionHandle, pin string) error {
	if err := r.ctx.Login(s, p11.CKU_USER, pin); err != nil {
		return err
	}
	if err := r.ctx.FindObjectsInit(s, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY)}); err != nil {
		return err
	}
	found, _, err := r.ctx.FindObjects(s, 1)
	if err != nil || len(found) == 0 {
		return fmt.Errorf("no private key (%v)", err)
	}
	r.key = found[0]
	return r.ctx.FindObjectsFinal(s)
}

func (r *rawToken) sign() error {
	s := <-r.sessions
	defer func() { r.sessions <- s }()
	if err := r.ctx.SignInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS, nil)}, r.key); err != nil {
		return err
	}
	_, err := r.ctx.Sign(s, r.input)
	return err
}

func (r *rawToken) close() {
	r.ctx.Finalize()
	r.ctx.Destroy()
}
