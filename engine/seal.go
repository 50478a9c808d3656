package engine

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

// seal stages the exact bytes and attributes, looks at the record once more, commits the digest, and only then uses the
// key. From the moment that a signature value is committed every retry uses it again; the key is not asked twice.
func (r *run) seal(ctx context.Context) error {
	unsigned, closer, err := r.Files.OpenStaged(ctx, r.s.Tx, fileUnsigned, *r.s.Facts.Unsigned)
	if err != nil {
		return err
	}
	defer closer.Close()
	doc := pades.Once(unsigned) // the signature and the time-stamp behind it are both over all of it
	t, err := r.prepare(ctx, doc)
	if err != nil {
		return err
	}
	if err := r.rehearse(ctx, t, unsigned); err != nil {
		return err
	}
	if stop, err := r.commitDigest(ctx, t); err != nil || stop {
		return err
	}
	if err := r.fulfil(ctx, t, r.firstSeal()); err != nil {
		return err
	}
	tail, err := r.assemble(ctx, t, unsigned, doc)
	if err != nil {
		return err
	}
	return r.complete(ctx, unsigned, tail)
}

// part is one seal of a document: nearly always the only one, during a rollover the first or the second of two.
type part struct {
	point string // before the names of its intents, calls and commits
	which string // behind what people read of it
	file  string // its staged evidence

	digest       *string
	signature    *bool
	cert         **deal.CertFact
	evidence     **deal.FileFact
	value, token *[]byte
}

func (r *run) firstSeal() part {
	f, p := &r.s.Facts, &r.s.Private
	return part{file: fileEvidence, digest: &f.Digest, signature: &f.Signature, cert: &f.Cert, evidence: &f.Evidence, value: &p.Value, token: &p.Token}
}

// fulfil uses the key for a seal whose digest is committed, and gets what proves its time and its certificates.
func (r *run) fulfil(ctx context.Context, t *signing.Ticket, p part) error {
	if err := r.redeem(ctx, t, p); err != nil {
		return err
	}
	if err := r.timestamp(ctx, t, p); err != nil {
		return err
	}
	return r.collect(ctx, t, p)
}

// ticketLife is how long a staged signature waits for its digest to be committed: it states the time and the key.
const ticketLife = 10 * time.Minute

// prepare makes the ticket once; a retry gets the stored one. Only before its digest is committed it may grow old.
func (r *run) prepare(ctx context.Context, unsigned pades.Document) (*signing.Ticket, error) {
	s := r.s
	if len(s.Private.Ticket) > 0 {
		var t signing.Ticket
		if err := json.Unmarshal(s.Private.Ticket, &t); err != nil {
			return nil, &permanentError{fmt.Errorf("the staged signature is damaged: %w", err)}
		}
		if s.Facts.Digest != "" || r.Now().Sub(t.Time) < ticketLife {
			return &t, nil
		}
	}
	if err := r.begin(ctx, deal.Intent{What: "prepare"}); err != nil {
		return nil, err
	}
	profile, err := profileOf(s.Plan)
	if err != nil {
		return nil, err
	}
	req, err := r.request(profile)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, signLimit)
	defer cancel()
	t, err := r.Sealer.Prepare(ctx, unsigned, req)
	var short *signing.ValidityError
	if errors.As(err, &short) {
		return nil, deal.Hold("%v: then release the deal", short)
	}
	if err != nil {
		return nil, asHoldForSource(s, err)
	}
	if s.Private.Ticket, err = json.Marshal(t); err != nil {
		return nil, err
	}
	s.Facts.Generation++
	return t, r.advance(ctx, "prepared", "", deal.Entry{What: "prepared", Why: "level " + string(t.Profile.Level) + ", key " + t.Profile.Key, Detail: map[string]string{"digest": hex.EncodeToString(t.Digest())}})
}

// rehearse seals with a throw-away key and has the result read before the real key is used, which cannot be undone. What
// it makes never leaves the house.
func (r *run) rehearse(ctx context.Context, t *signing.Ticket, unsigned deal.File) error {
	if r.s.Facts.Digest != "" {
		return nil
	}
	tail, root, err := r.Sealer.Rehearse(t)
	if err != nil {
		return err
	}
	report, err := r.readRehearsal(ctx, "rehearsal", joined{unsigned, tail}, root)
	if err != nil {
		return err
	}
	f, err := findingOf(report, "")
	if err == nil && !f.valid {
		err = deal.Hold("a rehearsal of the seal gives a file that our own verification calls %s (%s): the key was not used; replace the file on the record and release the deal; if the template is at fault, drop it, mend the template and let the record enter its stage again", f.verdict, f.why)
	}
	return err
}

func (r *run) readRehearsal(ctx context.Context, call string, doc pades.Document, root *x509.Certificate) (report *verify.Report, err error) {
	err = r.inTurn(ctx, r.checking, func() error {
		return r.call(ctx, call, checkLimit, func(ctx context.Context) (err error) {
			report, err = r.Checker.CheckRehearsal(ctx, doc, root)
			return err
		})
	})
	return report, err
}

// joined is a file with more behind it.
type joined struct {
	deal.File
	tail []byte
}

func (j joined) Size() int64 { return j.Length + int64(len(j.tail)) }

func (j joined) ReadAt(p []byte, off int64) (n int, err error) {
	if off < j.Length {
		n, err = j.File.ReadAt(p[:min(int64(len(p)), j.Length-off)], off)
		if n == len(p) || err != nil && err != io.EOF || int64(n) < j.Length-off {
			return n, err
		}
	}
	m, err := bytes.NewReader(j.tail).ReadAt(p[n:], off+int64(n)-j.Length)
	return n + m, err
}

// request says what to seal and what the seal shows. A document of ours has a box for it; into a file of others nothing
// visible is put.
func (r *run) request(profile signing.Profile) (signing.Request, error) {
	s := r.s
	zone, err := time.LoadLocation(s.Plan.TimeZone)
	if err != nil {
		return signing.Request{}, fmt.Errorf("the tenant's time zone: %w", err)
	}
	now := r.Now().In(zone)
	req := signing.Request{Profile: profile, Reason: reason(profile, s.Tx), Time: now}
	if s.Plan.Bundle == "" {
		return req, nil
	}
	b, err := r.Bundles.Bundle(s.Plan.Bundle)
	if err != nil {
		return req, err
	}
	box := sealBox(b)
	if box == nil {
		return req, nil
	}
	req.Field, req.Link = box.Name, box.Link(string(s.Tx))
	if box.Logo != "" {
		req.Picture, _ = b.File(box.Logo)
	}
	by := profile.SignerName
	if by == "" {
		by = s.Plan.TenantName
	}
	req.Text = []string{"Sealed by " + by, now.Format("2 January 2006, 15:04:05 MST"), req.Reason}
	return req, nil
}

// reason always names the transaction: it is what a contract found on a record is recognised by.
func reason(p signing.Profile, tx deal.TxID) string {
	text := strings.ReplaceAll(p.Reason, "{tx}", string(tx))
	switch {
	case strings.Contains(text, string(tx)):
		return text
	case text == "":
		return "Transaction " + string(tx)
	}
	return text + " (transaction " + string(tx) + ")"
}

// asHoldForSource: what is wrong with a file that people attached, people can mend.
func asHoldForSource(s *deal.Sealing, err error) error {
	if s.Plan.Attachment != "" && !mendedForAll(err) {
		return asHold(err)
	}
	return err
}

// lastLook reads stage and mapped fields once more, just before the key is used. stop means that the sealing is no longer
// at this step: it ended, was adopted, or went back to be gathered anew.
func (r *run) lastLook(ctx context.Context) (stop bool, err error) {
	s := r.s
	rec, stop, err := r.look(ctx, "reread")
	if err != nil || stop {
		return stop, err
	}
	if err := r.mayBeSealedAgain(ctx); err != nil {
		return false, err
	}
	left, err := r.hasLeft(ctx, rec)
	if err != nil {
		return false, err
	}
	if left {
		if s.Plan.IfLeft == "void" {
			return true, r.void(ctx, "the deal left its stage before it was sealed")
		}
		return false, held(holdLeft, "the deal left its stage before it was sealed: release to seal it all the same, or drop")
	}
	now, err := fingerprint(rec, s.Plan)
	if err != nil {
		return false, err
	}
	if now == s.Facts.Record {
		return false, nil
	}
	return true, r.gatherAgain(ctx)
}

// hasLeft reports whether the record is not where it was sealed for any more, and that matters.
func (r *run) hasLeft(ctx context.Context, rec deal.Record) (bool, error) {
	if r.s.Plan.IfLeft == "seal" || r.released(holdLeft) {
		return false, nil
	}
	home, err := r.isHome(ctx, r.s, rec.Stage)
	return !home, err
}

// maxEdits is how often a record that does not hold still is gathered again before a person is asked.
const maxEdits = 10

// gatherAgain goes back to the beginning. A formula that changes by itself must not turn this into a circle.
func (r *run) gatherAgain(ctx context.Context) error {
	s := r.s
	r.Log.InfoContext(ctx, "the record was edited before it was sealed: gathering again")
	s.Private.Ticket, s.Facts.Unsigned = nil, nil
	s.Facts.Edits++
	err := r.advance(ctx, "prepared", deal.Noticed, deal.Entry{What: "gather-again", Why: "the record was edited before it was sealed", Events: []deal.Event{{Type: "crm.drift_detected"}}})
	if err == nil && s.Facts.Edits%maxEdits == 0 {
		return deal.Hold("the record was edited %d times just before it was sealed: find the mapped field that changes by itself, then release the deal", s.Facts.Edits)
	}
	return err
}

// commitDigest is the point of no return: from here on this digest, and no other, is signed for this TxID.
func (r *run) commitDigest(ctx context.Context, t *signing.Ticket) (stop bool, err error) {
	s := r.s
	if s.Facts.Digest != "" {
		return r.lookAgain(ctx)
	}
	r.claim(ctx)
	if stop, err := r.lastLook(ctx); err != nil || stop {
		return stop, err
	}
	s.Facts.Digest = hex.EncodeToString(t.Digest())
	// Whoever released an earlier document as it was has not seen this one.
	s.Facts.Released = slices.DeleteFunc(slices.Clone(s.Facts.Released), func(hold string) bool { return hold == holdCommitted })
	return false, r.advance(ctx, "digest", "", deal.Entry{What: "digest-committed", Why: "this digest and no other is signed: " + s.Facts.Digest, Cert: hex.EncodeToString(t.CertSHA256), Detail: map[string]string{"digest": s.Facts.Digest, "key": hex.EncodeToString(t.SPKISHA256)}})
}

// claim sees to it that the record says who works on it before the key is used, so that a daemon with another copy of this
// state finds that when it looks. A CRM that refuses the fields refuses this too, and the deal is sealed all the same.
func (r *run) claim(ctx context.Context) {
	if r.s.Plan.WriteBack.Audit == "" {
		return
	}
	if err := r.tellAway(ctx); err != nil {
		r.Log.DebugContext(ctx, "the record could not be claimed before the seal", "err", err)
	}
}

// lookAgain is for an attempt that finds its digest committed. The key may have been used, so there is no other document
// to be made; but as long as no value is known, a record that has changed since is for a person to judge.
func (r *run) lookAgain(ctx context.Context) (stop bool, err error) {
	s := r.s
	if s.Facts.Signature && !r.predatesState() {
		return false, nil
	}
	rec, stop, err := r.look(ctx, "reread")
	if err != nil || stop || s.Facts.Signature || r.released(holdCommitted) {
		return stop, err
	}
	now, err := fingerprint(rec, s.Plan)
	if err != nil {
		return false, err
	}
	left, err := r.hasLeft(ctx, rec)
	if err != nil {
		return false, err
	}
	if left || now != s.Facts.Record {
		return false, held(holdCommitted, "the record has changed since this document was made, and the key may have been used for it: release to seal it as it was, prepare it again to seal what is on the record now, or drop")
	}
	return false, nil
}

// redeem uses the key, unless it has been used.
func (r *run) redeem(ctx context.Context, t *signing.Ticket, p part) error {
	if *p.signature {
		return nil
	}
	value, err := r.useKey(ctx, t, p)
	if err != nil {
		return err
	}
	*p.value, *p.signature = value, true
	if *p.cert, err = certFact(t); err != nil {
		return err
	}
	err = r.advance(ctx, p.point+"signature", "", deal.Entry{What: p.point + "signed", Why: "by " + (*p.cert).Subject + ", with key " + t.By, Cert: hex.EncodeToString(t.CertSHA256), Detail: map[string]string{"digest": *p.digest}, Then: r.afterValue(t, p)})
	if err == nil {
		works := deal.WaitsForKey(t.Profile.Key)
		if p.point != "" {
			works = deal.WaitsForSecondKey(t.Profile.Key)
		}
		r.Mended(ctx, "", works) // only now this deal itself does not wait for it any more
	}
	return err
}

// useKey takes the lease when it is this deal's turn at the key, and not before: others may keep the key for any time, and
// a person who gives the digest up in the meantime must find it unused for good.
func (r *run) useKey(ctx context.Context, t *signing.Ticket, p part) (value []byte, err error) {
	err = r.inTurn(ctx, r.signing, func() error {
		spki := hex.EncodeToString(t.SPKISHA256)
		key, limits := r.limitsOf(t.Profile.Key, spki)
		err := r.begin(ctx, deal.Intent{What: p.point + "sign", Digest: *p.digest, Key: spki, Limits: limits})
		if err != nil {
			return asSpent(key, err)
		}
		err = r.ask(ctx, p.point+"redeem", signLimit, func(ctx context.Context) (err error) {
			value, err = r.Sealer.Redeem(ctx, t)
			return err
		})
		if deal.IsPermanent(err) && !mendedForAll(err) && p.point == "" {
			return fmt.Errorf("%w: put the key back that the seal was staged for and retry the deal, or prepare the deal again (dealseal jobs prepare)", err)
		}
		return err
	})
	return value, err
}

func (e *Engine) limitsOf(name, spki string) (of string, limits deal.KeyLimits) {
	if e.Limits == nil {
		return name, limits
	}
	return e.Limits(name, spki)
}

// asSpent makes a hold of a limit that the key has reached.
func asSpent(key string, err error) error {
	var spent *deal.SpentError
	switch {
	case !errors.As(err, &spent):
		return err
	case spent.Daily:
		return held(HoldSpent, "key %q has sealed %d documents today, its max_uses_per_day: the deal goes on after midnight UTC, or raise the limit and restart", key, spent.Limit)
	}
	return held(HoldSpent, "key %q has sealed %d documents, its max_uses: raise the limit and restart, and the deal goes on; or drop it", key, spent.Limit)
}

func certFact(t *signing.Ticket) (*deal.CertFact, error) {
	chain, err := t.Prepared.Certificates()
	if err != nil {
		return nil, err
	}
	c := chain[0]
	return &deal.CertFact{
		SHA256: hex.EncodeToString(t.CertSHA256), SPKI: hex.EncodeToString(t.SPKISHA256), Serial: c.SerialNumber.Text(16),
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), NotAfter: c.NotAfter.UTC(), Digest: t.Prepared.Algorithm.Hash.String(), Key: keyKind(c.PublicKey),
	}, nil
}

func keyKind(public any) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return fmt.Sprintf("ECDSA-P%d", k.Curve.Params().BitSize)
	}
	return ""
}

// timestamp asks for the time-stamp that the level needs.
func (r *run) timestamp(ctx context.Context, t *signing.Ticket, p part) error {
	if !r.lacksToken(t, p) {
		return nil
	}
	if err := r.begin(ctx, deal.Intent{What: p.point + "timestamp"}); err != nil {
		return err
	}
	var token []byte
	err := r.ask(ctx, p.point+"tsa", stampLimit, func(ctx context.Context) (err error) {
		token, err = r.Sealer.Timestamp(ctx, t, *p.value)
		return err
	})
	if err != nil {
		return r.lacks(ctx, err, lack{"time-stamp" + p.which, "mend the TSA, then release: it is asked", pades.BB, p.point + "token"})
	}
	*p.token = token
	return r.advance(ctx, p.point+"token", "", deal.Entry{What: p.point + "time-stamped", Why: fmt.Sprintf("token of %d bytes", len(token)), Then: r.afterToken(t, p)})
}

type permanentError struct{ error }

func (e *permanentError) Permanent() bool { return true }
func (e *permanentError) Unwrap() error   { return e.error }

// lacksToken reports whether a time-stamp is to be asked for.
func (r *run) lacksToken(t *signing.Ticket, p part) bool {
	unstamped := r.s.Facts.Flagged != "" && len(r.s.Private.Token) == 0 // then a second seal need not be better than the first
	return t.Profile.Level.AtLeast(pades.BT) && len(*p.token) == 0 && !unstamped
}

// assemble makes all that is appended to the staged bytes: the signature, during a rollover a second one, and what makes
// them last. doc is unsigned.
func (r *run) assemble(ctx context.Context, t *signing.Ticket, unsigned deal.File, doc pades.Document) (tail []byte, err error) {
	s := r.s
	if tail, s.Private.CMS, err = r.embed(t, r.firstSeal()); err != nil {
		return nil, err
	}
	if asksForTwo(s, t) {
		if tail, err = r.addSecond(ctx, t, unsigned, doc, tail); err != nil {
			return nil, err
		}
	}
	more, err := r.prove(ctx, t, pades.Appended{Document: doc, Tail: tail})
	return append(tail, more...), err
}

// embed completes a seal.
func (r *run) embed(t *signing.Ticket, p part) (tail, cms []byte, err error) {
	if r.s.Facts.Flagged != "" {
		t.Profile.OnDowngrade = signing.AcceptAndFlag // by the profile, or by the person who released the deal
	}
	tail, evidence, err := r.Sealer.Complete(t, *p.value, *p.token)
	return tail, evidence.CMS, err
}

// complete writes the sealed file.
func (r *run) complete(ctx context.Context, unsigned deal.File, tail []byte) error {
	s := r.s
	if err := r.begin(ctx, deal.Intent{What: "complete"}); err != nil {
		return err
	}
	fact, err := r.Files.Stage(ctx, s.Tx, fileContract, func(w io.Writer) error {
		if _, err := io.Copy(w, unsigned.Open()); err != nil {
			return err
		}
		_, err := w.Write(tail)
		return err
	})
	if err != nil {
		return err
	}
	s.Facts.Contract = &fact
	r.made[fileContract] = true
	s.Private.Ticket = nil // it is in the file, which no retry makes again; every commit would carry it along
	if s.Private.Second != nil {
		s.Private.Second.Ticket = nil
	}
	return r.advance(ctx, "sealed", deal.Sealed, deal.Entry{What: "sealed", Why: "SHA-256 " + fact.SHA256, Cert: s.Facts.Cert.SHA256, Detail: map[string]string{"sha256": fact.SHA256},
		Events: []deal.Event{{Type: "document.signed", Data: map[string]string{"sha256": fact.SHA256, "algorithm": s.Facts.Cert.Key}}}})
}
