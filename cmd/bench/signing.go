package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

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
	t, err := makeToken(b.ctx, filepath.Join(dir, "token"), rsa2048, authority)
	if err != nil {
		return err
	}
	raw, err := openRaw(t)
	if err != nil {
		return err
	}
	defer raw.close()
	sealer, keys, err := t.sealer(filepath.Join(dir, "state"), maxSessions)
	if err != nil {
		return err
	}
	defer keys.Close()
	contract, err := b.printed(orderForm)
	if err != nil {
		return err
	}
	for _, n := range []int{1, runtime.NumCPU()} {
		if err := b.compareRate("B-B RSA-2048, "+counted(n, "thread"), n, atLeast(60), contract, t, raw, sealer); err != nil {
			return err
		}
	}
	return b.largeFiles(raw, sealer)
}

// printed is a document as the renderer makes it.
func (b *bench) printed(d document) ([]byte, error) {
	p, err := b.newPress()
	if err != nil {
		return nil, err
	}
	contract, err := p.make(b.ctx, d)
	return contract, errorsFirst(err, p.Close())
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
func (t *token) sealer(state string, sessions int) (*signing.Sealer, *pkcs11.Keys, error) {
	pin, err := secret.ParseRef("file:" + t.pinFile)
	if err != nil {
		return nil, nil, err
	}
	keys, err := pkcs11.New(map[string]pkcs11.Config{"house": {Module: t.module, Token: tokenLabel, Label: keyLabel, PIN: pin, Sessions: sessions, Certificates: t.certificates,
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

// compareRate seals on n threads and has the token sign on n sessions. What no sealer can be without is measured in the same
// turns: to hash the document, to have the digest signed, and to check the value.
func (b *bench) compareRate(name string, n int, l *limit, contract []byte, t *token, raw *rawToken, sealer *signing.Sealer) error {
	seal := func() error { return sealOnce(b.ctx, sealer, bytes.NewReader(contract)) }
	if err := seal(); err != nil {
		return err
	}
	least := func() error { return raw.signChecked(contract, t.chain[0].PublicKey) }
	var best [3]float64 // per second
	for range signingRounds {
		for i, do := range []func() error{seal, raw.sign, least} {
			r, err := rate(n, do)
			if err != nil {
				return err
			}
			best[i] = max(best[i], r)
		}
	}
	b.figure(name+", of raw C_Sign", 100*best[0]/best[1], "%", l, "%s seals/s of a %s kB order form, raw C_Sign %s/s, the best of %d rounds each; hashing, C_Sign and the check of the value without anything else: %s %%",
		short(best[0]), short(float64(len(contract))/1e3), short(best[1]), signingRounds, short(100*best[2]/best[1]))
	return nil
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
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
		sha256.Sum256(large)
		return nil
	}
	var sealed, hashed, signed sample
	if err := inTurns(15, turn{&sealed, seal(large)}, turn{&hashed, hash}, turn{&signed, raw.sign}); err != nil {
		return err
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

// turn is something to do and where to note how long it took.
type turn struct {
	into *sample
	do   func() error
}

// inTurns does everything so many times, one after the other, so that what else the machine does meets all of it.
func inTurns(times int, list ...turn) error {
	for range times {
		for _, m := range list {
			took, err := timed(m.do)
			if err != nil {
				return err
			}
			*m.into = append(*m.into, took)
		}
	}
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
	fill(bufio.NewWriter(&b), int64(size))
	return b.Bytes()
}

// fill writes what filler is. An error is kept by the writer.
func fill(w *bufio.Writer, size int64) {
	var at int64
	var offsets []int64
	print := func(format string, args ...any) {
		n, _ := fmt.Fprintf(w, format, args...)
		at += int64(n)
	}
	object := func(format string, args ...any) {
		offsets = append(offsets, at)
		print("%d 0 obj\n", len(offsets))
		print(format, args...)
		print("\nendobj\n")
	}
	print("%%PDF-1.7\n%%\xe2\xe3\xcf\xd3\n")
	object("<< /Type /Catalog /Pages 2 0 R >>")
	object("<< /Type /Pages /Kids [3 0 R] /Count 1 >>")
	object("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /XObject << /X 6 0 R >> /Font << /F 5 0 R >> >> >>")
	text := "BT /F 18 Tf 72 720 Td (Quotation) Tj ET"
	object("<< /Length %d >>\nstream\n%s\nendstream", len(text), text)
	object("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
	offsets = append(offsets, at)
	print("6 0 obj\n<< /Type /XObject /Subtype /Form /BBox [0 0 1 1] /Length %d >>\nstream\n", size)
	blank := bytes.Repeat([]byte{' '}, 64<<10)
	for left := size; left > 0; left -= int64(len(blank)) {
		n, _ := w.Write(blank[:min(left, int64(len(blank)))])
		at += int64(n)
	}
	print("\nendstream\nendobj\n")
	start := at
	print("xref\n0 %d\n0000000000 65535 f \n", len(offsets)+1)
	for _, o := range offsets {
		print("%010d 00000 n \n", o)
	}
	print("trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(offsets)+1, start)
	_ = w.Flush()
}
