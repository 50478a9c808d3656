package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/verify"
)

// signCommand seals one file with a profile of the configuration. The result is verified before it gets its name.
func signCommand(ctx context.Context, c *call) error {
	if len(c.args) != 1 || c.out == "" || c.profile == "" {
		return usagef("name profile, input and output")
	}
	cfg, err := config.LoadWithoutTenants(c.config)
	if err != nil {
		return err
	}
	h := &house{cfg: cfg}
	if h.roots, err = loadRoots(cfg); err != nil {
		return err
	}
	profile, err := h.profile(c.profile)
	if err != nil {
		return usagef("%v%s", err, config.Nearest(c.profile, profileNames(cfg)))
	}
	in, err := openFile(c.args[0])
	if err != nil {
		return err
	}
	defer in.Close()
	d, err := newDraft(in, c.out)
	if err != nil {
		return err
	}
	defer d.close()
	d.hash(ctx, profile.Hash) // the key takes its time to be there
	log := newLogQuiet(c.stderr)
	checker := newChecker(h.roots, log)
	defer checker.Close()
	checker.Wake()
	keys, err := h.newKeys(log)
	if err != nil {
		return err
	}
	defer keys.Close()
	registry, err := h.readRegistry(ctx, keys, log)
	if err != nil {
		return err
	}
	stamper, release, err := h.newCommandStamper(ctx, c.stderr)
	if err != nil {
		return err
	}
	defer release()
	p := &press{sealer: signing.NewSealer(registry, stamper, time.Now), extender: h.newExtender(stamper, log), checker: checker, profile: profile, stderr: c.stderr}
	p.extender.VRI = profile.VRI
	made, err := p.seal(ctx, d)
	if err != nil {
		return fmt.Errorf("%s: %w: nothing was written", c.args[0], err)
	}
	for _, seal := range made {
		stamped := "no time-stamp"
		if t := seal.Timestamp; t != nil {
			stamped = "time-stamp " + t.Time.UTC().Format(time.RFC3339) + " by " + printable(t.TSA)
		}
		fmt.Fprintf(c.stdout, "%s: sealed by %s, PAdES %s, %s\n", c.out, printable(seal.Signer.Subject), seal.Level, stamped)
	}
	return nil
}

func profileNames(cfg *config.Config) (names []string) {
	for name := range cfg.Signing.Profiles {
		names = append(names, name)
	}
	return names
}

// press seals files with one profile.
type press struct {
	sealer   *signing.Sealer
	extender *signing.Extender
	checker  *checker
	profile  signing.Profile
	stderr   io.Writer
}

// seal makes a sealed copy of a draft, has it verified, and only then gives it its name. It returns its seals: one, or during a
// rollover two.
func (p *press) seal(ctx context.Context, d *draft) (made []*verify.Signature, err error) {
	tail, tickets, err := p.tail(ctx, d)
	if err != nil {
		return nil, err
	}
	err = d.finish(tail, func(sealed *file) (err error) {
		if d.asked == nil {
			d.asked = p.checker.Ask(ctx, sealed, d.rehearsed)
		}
		made, err = p.check(ctx, sealed, tickets, d.asked)
		return err
	})
	return made, err
}

// tail is what sealing adds to the file. tickets are those of its seals.
func (p *press) tail(ctx context.Context, d *draft) (tail []byte, tickets []*signing.Ticket, err error) {
	doc := d.original // the signature and the time-stamp behind it are both over all of it
	first, err := p.sealer.Prepare(ctx, doc, signing.Request{Profile: p.profile})
	if err != nil {
		return nil, nil, err
	}
	tail, subjects, err := p.add(ctx, first, nil, d)
	if err != nil {
		return nil, nil, err
	}
	tickets, provable := []*signing.Ticket{first}, subjects != nil
	if len(first.Second) > 0 {
		second, err := p.sealer.PrepareSecond(ctx, pades.Appended{Document: doc, Tail: tail}, first)
		if err != nil {
			return nil, nil, fmt.Errorf("the second seal that a rollover asks for: %w", err)
		}
		both, more, err := p.add(ctx, second, tail, d)
		if err != nil {
			return nil, nil, fmt.Errorf("the second seal that a rollover asks for: %w", err)
		}
		tail, tickets, subjects, provable = both, append(tickets, second), append(subjects, more...), provable && more != nil
	}
	if !provable {
		return tail, tickets, nil
	}
	if err := p.ask(ctx, d, tail); err != nil {
		return nil, nil, err
	}
	more, err := p.last(ctx, pades.Appended{Document: doc, Tail: tail}, subjects)
	return append(tail, more...), tickets, err
}

// ask has the second reader begin as soon as all that it is asked about is there: it takes as long as all that comes behind a
// last seal, which is not for it if there is a document time-stamp.
func (p *press) ask(ctx context.Context, d *draft, tail []byte) error {
	if !p.profile.Level.AtLeast(pades.BLTA) {
		return nil
	}
	sealed, err := d.with(tail)
	if err != nil {
		return err
	}
	d.asked = p.checker.Ask(ctx, sealed, d.rehearsed)
	return nil
}

// add makes one seal behind what was added before. It returns all that is added then, and the certificates that the seal rests
// on, if it is time-stamped.
func (p *press) add(ctx context.Context, t *signing.Ticket, before []byte, d *draft) (tail []byte, subjects []revocation.Subject, err error) {
	before = before[:len(before):len(before)]
	if err := p.rehearse(ctx, t, before, d); err != nil {
		return nil, nil, err
	}
	value, err := p.sealer.Redeem(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	token, err := p.sealer.Timestamp(ctx, t, value)
	if err != nil {
		if p.profile.OnDowngrade != signing.AcceptAndFlag || signing.IsRevoked(err) {
			return nil, nil, err
		}
		fmt.Fprintf(p.stderr, "warning: %v\n", err)
	}
	own, _, err := p.sealer.Complete(t, value, token)
	if err != nil {
		return nil, nil, err
	}
	if token != nil {
		subjects, err = signing.Subjects(t, token)
	}
	return append(before, own...), subjects, err
}

// rehearse seals with a throw-away key and has the result read before the real key is used, which cannot be undone.
func (p *press) rehearse(ctx context.Context, t *signing.Ticket, before []byte, d *draft) error {
	tail, root, err := p.sealer.Rehearse(t)
	if err != nil {
		return err
	}
	rehearsed, err := d.with(append(before, tail...))
	if err != nil {
		return err
	}
	state, err := pades.Behind(ctx, d.original)
	if err != nil {
		return err
	}
	report, err := p.checker.checkRehearsal(ctx, rehearsed, root, &verify.Known{Size: d.original.Size(), SHA256: state})
	if err != nil {
		return fmt.Errorf("a rehearsal of the seal: %w: the key was not used", err)
	}
	d.rehearsed = report
	made := report.Newest()
	if made == nil {
		return errors.New("a rehearsal of the seal gives a file in which our own verification does not find it: the key was not used")
	}
	if made.Verdict != verify.Valid {
		return fmt.Errorf("a rehearsal of the seal gives a file in which our own verification calls it %s (%s): the key was not used", made.Verdict, firstReason(made.Reasons))
	}
	return nil
}

// last makes a seal last as long as the profile asks for. Where less is accepted, it is the most that can be had; what is
// revoked is never accepted.
func (p *press) last(ctx context.Context, sealed pades.Document, subjects []revocation.Subject) ([]byte, error) {
	for _, level := range []pades.Level{pades.BLTA, pades.BLT} {
		if !p.profile.Level.AtLeast(level) {
			continue
		}
		tail, err := p.extender.Extend(ctx, sealed, level, subjects)
		var revoked *revocation.RevokedError
		if err == nil || errors.As(err, &revoked) || p.profile.OnDowngrade != signing.AcceptAndFlag {
			return tail, err
		}
		fmt.Fprintf(p.stderr, "warning: %v\n", err)
	}
	return nil, nil
}

// check has the sealed file read by our verifier. Without a person or a queue that could wait, holding is refusing.
func (p *press) check(ctx context.Context, sealed *file, tickets []*signing.Ticket, asked *verify.Asked) (made []*verify.Signature, err error) {
	report, err := p.checker.checkAsked(ctx, sealed, asked)
	if err != nil {
		return nil, err
	}
	for _, t := range tickets {
		seal := report.By(hex.EncodeToString(t.CertSHA256))
		if err := p.judge(seal); err != nil {
			return nil, err
		}
		made = append(made, seal)
	}
	if o := report.SecondOpinion; o != nil && o.Verdict == verify.OpinionInvalid {
		return nil, fmt.Errorf("the second reader %s calls the file invalid: %s", o.Reader, o.Detail)
	}
	return made, nil
}

// judge compares a seal with what the profile asks for.
func (p *press) judge(made *verify.Signature) error {
	if made == nil {
		return errors.New("our own verification does not find the seal")
	}
	if made.Verdict != verify.Valid {
		return fmt.Errorf("our own verification calls the seal %s: %s", made.Verdict, firstReason(made.Reasons))
	}
	if !made.Level.AtLeast(p.profile.Level) {
		if p.profile.OnDowngrade != signing.AcceptAndFlag {
			return fmt.Errorf("profile %s asks for level %s, and %s was reached", p.profile.Name, p.profile.Level, made.Level)
		}
		fmt.Fprintf(p.stderr, "warning: profile %s asks for level %s, %s was reached\n", p.profile.Name, p.profile.Level, made.Level)
	}
	return nil
}

// firstReason is the text of the first finding that is held against a signature.
func firstReason(list []verify.Reason) string {
	for _, r := range list {
		if r.Verdict == verify.Valid {
			continue
		}
		if r.Code == verify.CodeUntrusted {
			return r.Text + " (the roots are the files of signing.trust)"
		}
		return r.Text
	}
	return "it gives no reason"
}
