package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	foreign "github.com/digitorus/pdfsign/sign"

	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/verify"
)

// core is a folder with an authority whose services answer and a token with a certificate of it.
type core struct {
	dir       string
	authority *pki.Authority
	services  *httptest.Server
	token     *token
	raw       *rawToken
}

func (b *bench) newCore(keyType string) (c *core, err error) {
	c = &core{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.dir, err = os.MkdirTemp(b.work, "core-"); err != nil {
		return c, err
	}
	c.services = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.authority.ServeHTTP(w, r) }))
	if c.authority, err = pki.New(pki.Options{BaseURL: c.services.URL}); err != nil {
		return c, err
	}
	if c.token, err = makeToken(b.ctx, c.path("token"), keyType, c.authority); err != nil {
		return c, err
	}
	c.raw, err = openRaw(c.token)
	return c, err
}

func (c *core) path(name string) string { return filepath.Join(c.dir, name) }

func (c *core) close() {
	if c.raw != nil {
		c.raw.close()
	}
	if c.services != nil {
		c.services.Close()
	}
	_ = os.RemoveAll(c.dir) // a folder that is left over is below build/
}

// shortForm is a document of about 53 kB.
var shortForm = document{bundle: "order-form@1", sample: "samples/short.json", pages: 1}

// rates compares seals of level B-B with what the token alone does, by key and by number of sessions. The collector of garbage
// runs as seldom as in a daemon with as much to do (cmd/dealseal/collector.go).
func (b *bench) rates() error {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	contract, err := b.printed(shortForm)
	if err != nil {
		return err
	}
	for _, k := range []struct {
		keyType, name string
		limits        map[int]*limit // by sessions
	}{
		{rsa2048, "RSA-2048", map[int]*limit{1: atLeast(75), 4: atLeast(75)}},
		{p256, "P-256", map[int]*limit{1: atLeast(20), 4: atLeast(35)}},
	} {
		if err := b.ratesOf(k.keyType, k.name, k.limits, contract); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) ratesOf(keyType, name string, limits map[int]*limit, contract []byte) error {
	c, err := b.newCore(keyType)
	if err != nil {
		return err
	}
	defer c.close()
	for n := 1; n <= maxSessions; n *= 2 {
		sealer, keys, err := c.token.sealer(c.path(fmt.Sprint("state", n)), n)
		if err != nil {
			return err
		}
		err = b.compareRate("B-B "+name+", "+counted(n, "session"), n, limits[n], contract, c.token, c.raw, sealer)
		if err := errorsFirst(err, keys.Close()); err != nil {
			return err
		}
	}
	return nil
}

// largeSize is that of the large files, in bytes.
const largeSize = 20 << 20

// large seals a large file, with the package that writes seals alone, with what others wrote, and with the product.
func (b *bench) large() error {
	file := filler(largeSize)
	if err := b.withinProcess(file); err != nil {
		return err
	}
	return b.wholeCommand(file)
}

// withinProcess seals a large file without the product's processes.
func (b *bench) withinProcess(file []byte) error {
	c, err := b.newCore(rsa2048)
	if err != nil {
		return err
	}
	defer c.close()
	stub, err := c.stub()
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("large.pdf"), file, 0o600); err != nil {
		return err
	}
	var hashed, signed, ours, lasting, others sample
	err = inTurns(15,
		turn{&hashed, func() error { sha256.Sum256(file); return nil }},
		turn{&signed, c.raw.sign},
		turn{&ours, func() error { return c.sealFile(b.ctx, "large.pdf") }},
		turn{&lasting, func() error { return c.sealForLong(b.ctx, bytes.NewReader(file), stub) }},
		turn{&others, func() error { return c.sealWithOthers("large.pdf") }},
	)
	if err != nil {
		return err
	}
	floor := hashed.quantile(0) + signed.quantile(0)
	b.figure("20 MB, B-LTA, signing/pades", ratio(lasting.quantile(0), floor), "x", atMost(1.4), "%s ms, of SHA-256 (%s ms) + C_Sign (%s ms); time-stamps of a stub; the fastest of 15 each",
		short(ms(lasting.quantile(0))), short(ms(hashed.quantile(0))), short(ms(signed.quantile(0))))
	b.figure("20 MB, digitorus/pdfsign, of our B-B", ratio(others.quantile(0), ours.quantile(0)), "x", atLeast(4), "%s ms, ours %s ms, from file to file with the same key, without the agent", short(ms(others.quantile(0))), short(ms(ours.quantile(0))))
	return b.compareOnAForm(c)
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// compareOnAForm is the comparison with others on a document of the usual size.
func (b *bench) compareOnAForm(c *core) error {
	contract, err := b.printed(shortForm)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("form.pdf"), contract, 0o600); err != nil {
		return err
	}
	var ours, others sample
	err = inTurns(50,
		turn{&ours, func() error { return c.sealFile(b.ctx, "form.pdf") }},
		turn{&others, func() error { return c.sealWithOthers("form.pdf") }},
	)
	if err != nil {
		return err
	}
	b.figure(short(float64(len(contract))/1e3)+" kB, digitorus/pdfsign, of our B-B", ratio(others.quantile(0), ours.quantile(0)), "x", nil, "%s ms, ours %s ms", short(ms(others.quantile(0))), short(ms(ours.quantile(0))))
	return nil
}

// stub is what a time-stamp authority and those who are asked about certificates would have sent.
type stub struct {
	token []byte
	proof pades.Validation
}

func (c *core) stub() (s stub, err error) {
	if s.token, err = c.authority.Token(make([]byte, crypto.SHA256.Size()), crypto.SHA256); err != nil {
		return s, err
	}
	s.proof, err = c.evidence()
	return s, err
}

// evidence is what the signer's and the time-stamp authority's certificates are checked with later.
func (c *core) evidence() (pades.Validation, error) {
	tsa, now := c.authority.TSA, time.Now()
	m, err := revocation.NewClient(revocation.Options{HTTP: c.services.Client()}).Collect(context.Background(), revocation.Anchors{Roots: []*x509.Certificate{c.authority.Root.Certificate}},
		[]revocation.Subject{{Cert: c.token.chain[0], With: c.token.chain, At: now}, {Cert: tsa.Certificate, With: tsa.Chain(), At: now}})
	return pades.Validation(m), err
}

// seal makes the bytes of a seal with the raw token and, from B-T on, a token that stamp makes of the value.
func (c *core) seal(ctx context.Context, doc pades.Document, level pades.Level, stamp func(value []byte) ([]byte, error)) ([]byte, error) {
	p, err := pades.Prepare(ctx, doc, pades.Options{Level: level, Time: time.Now(), Chain: c.token.chain})
	if err != nil {
		return nil, err
	}
	value, err := c.raw.signDigest(p.Digest)
	if err != nil {
		return nil, err
	}
	var token []byte
	if stamp != nil {
		if token, err = stamp(value); err != nil {
			return nil, err
		}
	}
	tail, _, err := p.Embed(value, token)
	return tail, err
}

// sealForLong makes all revisions of a B-LTA seal.
func (c *core) sealForLong(ctx context.Context, file pades.Document, s stub) error {
	doc := pades.Once(file)
	tail, err := c.seal(ctx, doc, pades.BT, func([]byte) ([]byte, error) { return s.token, nil })
	if err != nil {
		return err
	}
	more, err := pades.AddValidation(ctx, pades.Appended{Document: doc, Tail: tail}, s.proof)
	if err != nil {
		return err
	}
	p, err := pades.PrepareTimestamp(ctx, pades.Appended{Document: doc, Tail: append(tail, more...)}, pades.TimestampOptions{})
	if err != nil {
		return err
	}
	_, err = p.Embed(s.token)
	return err
}

// sealFile makes a sealed copy of a file of the folder, which is copied while it is hashed, as the product does.
func (c *core) sealFile(ctx context.Context, name string) error {
	in, err := os.Open(c.path(name))
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(c.path("ours.pdf"))
	if err != nil {
		return err
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(out, in)
		copied <- err
	}()
	tail, err := c.seal(ctx, io.NewSectionReader(in, 0, info.Size()), pades.BB, nil)
	err = errorsFirst(err, <-copied)
	_, tailErr := out.Write(tail)
	return errorsFirst(err, tailErr, out.Close())
}

// sealWithOthers does the same with digitorus/pdfsign.
func (c *core) sealWithOthers(name string) error {
	return foreign.SignFile(c.path(name), c.path("others.pdf"), foreign.SignData{
		Signature: foreign.SignDataSignature{CertType: foreign.ApprovalSignature, Info: foreign.SignDataSignatureInfo{Date: time.Now()}},
		Signer:    rawRSA{c.raw, c.token.chain[0].PublicKey}, DigestAlgorithm: crypto.SHA256, Certificate: c.token.chain[0], CertificateChains: [][]*x509.Certificate{c.token.chain},
	})
}

// wholeCommand compares the cost of a large file in "dealseal sign" with hashing it. What a small file costs, which is the
// start of processes mostly, is not counted. The key is of P-256: to make one of RSA for the rehearsal takes longer than all
// that is measured, and each time another while.
func (b *bench) wholeCommand(file []byte) error {
	c, err := b.newCore(p256)
	if err != nil {
		return err
	}
	defer c.close()
	if err := b.configure(c); err != nil {
		return err
	}
	if err := errorsFirst(os.WriteFile(c.path("large.pdf"), file, 0o600), os.WriteFile(c.path("small.pdf"), filler(1<<10), 0o600)); err != nil {
		return err
	}
	var forLarge, forSmall, hashed, signed sample
	err = inTurns(7,
		turn{&forLarge, func() error { return b.sign(c, "large.pdf") }},
		turn{&forSmall, func() error { return b.sign(c, "small.pdf") }},
		turn{&hashed, func() error { sha256.Sum256(file); return nil }},
		turn{&signed, c.raw.sign},
	)
	if err != nil {
		return err
	}
	more, floor := forLarge.quantile(0)-forSmall.quantile(0), hashed.quantile(0)+signed.quantile(0)
	b.figure("20 MB, "+string(commandLevel)+", dealseal sign", ratio(more, floor), "x", atMost(3.2), "%s ms more than for a small file, of SHA-256 + C_Sign P-256 (%s ms): with the check of the result by both readers; small file %s ms", short(ms(more)), short(ms(floor)), short(ms(forSmall.quantile(0))))
	return nil
}

// commandLevel is what "dealseal sign" is asked for.
const commandLevel = pades.BLTA

// configure writes a configuration for commands.
func (b *bench) configure(c *core) error {
	if err := os.WriteFile(c.path("root.pem"), c.authority.RootPEM(), 0o600); err != nil {
		return err
	}
	return os.WriteFile(c.path("dealseal.yaml"), fmt.Appendf(nil, `state_dir: %q
master_key: %q
templates: %q
signing:
  keys: {house: %s}
  tsa: [{url: %q}]
  trust: [%q]
  profiles:
    contract: {key: house, level: %s, name: Bench, on_downgrade: fail}
`, c.path("state"), "file:"+c.path("master-key"), b.templates, c.token.yaml(), c.authority.URL(pki.PathTSA), c.path("root.pem"), commandLevel), 0o600)
}

// signCommand seals a file of the folder.
func (b *bench) signCommand(c *core, name string) *exec.Cmd {
	return exec.CommandContext(b.ctx, b.dealseal, "sign", "--config", c.path("dealseal.yaml"), "--profile", "contract", "-o", c.path("sealed-"+name), c.path(name))
}

func (b *bench) sign(c *core, name string) error {
	if out, err := b.signCommand(c, name).CombinedOutput(); err != nil {
		return fmt.Errorf("dealseal sign: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// memoryLimit is how many bytes the processes may grow by for a file of 500 MB.
const memoryLimit = 64 << 20

// constantMemory seals and verifies a file that is larger than what may be used for it. It is compared with one that the
// second reader is not asked about either, so that the same processes run.
func (b *bench) constantMemory() error {
	c, err := b.newCore(p256)
	if err != nil {
		return err
	}
	defer c.close()
	if err := b.configure(c); err != nil {
		return err
	}
	peaks := map[string]int64{}
	for _, f := range []struct {
		name string
		size int64
	}{{"small.pdf", 51e6}, {"large.pdf", 500e6}} {
		if err := fillFile(c.path(f.name), f.size); err != nil {
			return err
		}
		if peaks["sign "+f.name], err = peak(b.signCommand(c, f.name)); err != nil {
			return err
		}
		if peaks["verify "+f.name], err = peak(exec.CommandContext(b.ctx, b.dealseal, "verify", "--trust", c.path("root.pem"), c.path("sealed-"+f.name))); err != nil {
			return err
		}
	}
	for _, verb := range []string{"sign", "verify"} {
		grown := peaks[verb+" large.pdf"] - peaks[verb+" small.pdf"]
		b.figure("500 MB, dealseal "+verb+", growth", megabytes(grown), "MB", atMost(megabytes(memoryLimit)), "RSS of all its processes at their peaks, %s MB, less that for 51 MB, %s MB", short(megabytes(peaks[verb+" large.pdf"])), short(megabytes(peaks[verb+" small.pdf"])))
	}
	return nil
}

func fillFile(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	fill(w, size)
	return errorsFirst(w.Flush(), f.Close())
}

// peak runs a command and returns the memory of all its processes, each at its peak.
func peak(cmd *exec.Cmd) (bytes int64, err error) {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	peaks := map[int]int64{}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil {
				return 0, fmt.Errorf("%s: %w: %s", cmd, err, out.String())
			}
			for _, p := range peaks {
				bytes += p
			}
			return bytes, nil
		case <-tick.C:
			for _, p := range tree(cmd.Process.Pid) {
				peaks[p.pid] = max(peaks[p.pid], highWater(p.pid))
			}
		}
	}
}

// verification measures what a report costs beyond hashing, by size and by number of signatures.
func (b *bench) verification() error {
	c, err := b.newCore(rsa2048)
	if err != nil {
		return err
	}
	defer c.close()
	proof, err := c.evidence()
	if err != nil {
		return err
	}
	files := []*lastingFile{
		{name: "1 MB, 1 signature", size: 1 << 20, signatures: 1, limit: atMost(5)},
		{name: "4 MB, 1 signature", size: 4 << 20, signatures: 1},
		{name: "1 MB, 5 signatures", size: 1 << 20, signatures: 5},
		{name: "1 MB, 10 signatures", size: 1 << 20, signatures: 10},
	}
	var turns []turn // all of them together: what is compared has to meet the same disturbances
	for _, f := range files {
		doc, err := c.lasting(b.ctx, filler(f.size), f.signatures, proof)
		if err != nil {
			return err
		}
		turns = append(turns, turn{&f.reports, func() error { return c.verify(b.ctx, doc) }}, turn{&f.hashes, func() error { sha256.Sum256(doc); return nil }})
	}
	if err := inTurns(30, turns...); err != nil {
		return err
	}
	beyond := map[string]float64{}
	for _, f := range files {
		took, hashed := f.reports.quantile(0), f.hashes.quantile(0)
		beyond[f.name] = ms(took - hashed)
		b.figure("B-LTA of "+f.name+", beyond hashing", beyond[f.name], "ms", f.limit, "%s ms, less one SHA-256 of the file, %s ms; the fastest of 30 each", short(ms(took)), short(ms(hashed)))
	}
	one, five, ten := beyond["1 MB, 1 signature"], beyond["1 MB, 5 signatures"], beyond["1 MB, 10 signatures"]
	b.figure("the sixth to the tenth signature, of the second to the fifth", (ten-five)/5/((five-one)/4), "x", atMost(1.5), "cost of one more signature: linear is 1")
	return nil
}

// lasting makes a file with so many signatures, each time-stamped, and at its end evidence and a time-stamp over all.
func (c *core) lasting(ctx context.Context, file []byte, signatures int, proof pades.Validation) ([]byte, error) {
	for range signatures {
		tail, err := c.seal(ctx, bytes.NewReader(file), pades.BT, func(value []byte) ([]byte, error) {
			imprint := sha256.Sum256(value)
			return c.authority.Token(imprint[:], crypto.SHA256)
		})
		if err != nil {
			return nil, err
		}
		file = append(file, tail...)
	}
	tail, err := pades.AddValidation(ctx, bytes.NewReader(file), proof)
	if err != nil {
		return nil, err
	}
	file = append(file, tail...)
	p, err := pades.PrepareTimestamp(ctx, bytes.NewReader(file), pades.TimestampOptions{})
	if err != nil {
		return nil, err
	}
	token, err := c.authority.Token(p.Digest, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	if tail, err = p.Embed(token); err != nil {
		return nil, err
	}
	return append(file, tail...), nil
}

// lastingFile is a file that is verified, and how long that and hashing it took.
type lastingFile struct {
	name             string
	size, signatures int
	limit            *limit
	reports, hashes  sample
}

// verify makes a report, which must be a good one.
func (c *core) verify(ctx context.Context, doc []byte) error {
	r, err := verify.Verify(ctx, bytes.NewReader(doc), verify.Options{Roots: []*x509.Certificate{c.authority.Root.Certificate}})
	if err == nil && (r.Verdict != verify.Valid || r.Level() != pades.BLTA) {
		err = fmt.Errorf("a report says %s and %s", r.Verdict, r.Level())
	}
	return err
}
