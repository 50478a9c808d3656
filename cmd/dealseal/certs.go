package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// certOptions are the flags of certs alone.
type certOptions struct {
	key, pair, at, until string
	revoked              bool
}

// certs shows the registry of certificates, or decides about one.
func certs(ctx context.Context, c *call) error {
	verb, args := "list", []string(nil)
	if len(c.args) > 0 {
		verb, args = c.args[0], c.args[1:]
	}
	switch {
	case verb == "list" && len(args) == 0:
		return listCertificates(ctx, c)
	case verb == "show" && len(args) == 1:
		return showCertificate(ctx, c, args[0])
	case verb == "import" && len(args) == 1:
		return importCertificate(ctx, c, args[0])
	case verb == "csr" && len(args) == 0:
		return requestCertificate(ctx, c)
	case verb == "enrol" && len(args) == 0:
		return enrolCertificate(ctx, c)
	case (verb == "activate" || verb == "rollover" || verb == "retire") && len(args) == 1:
		return changeCertificate(ctx, c, verb, args[0])
	}
	return usagef("%q cannot be done with certificates: it is list, show THUMBPRINT, import FILE.pem --key NAME [--pair NAME], csr --key NAME [--pair NAME] -o FILE, enrol --key NAME [--pair NAME] --est URL, activate THUMBPRINT, rollover THUMBPRINT --at TIME or retire THUMBPRINT", strings.Join(c.args, " "))
}

func listCertificates(ctx context.Context, c *call) error {
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	all, err := c.certificates(ctx, ops)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.stdout, all)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(c.stdout, "the registry is empty: the daemon enters the configured certificate of each key when it first uses it")
		return err
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tTHUMBPRINT\tSTATE\tLEFT\tENDS\tREVOKED?\tSUBJECT")
	for _, e := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", keyWords(e), short(e.SHA256), stateWords(e), daysLeft(e, time.Now()), e.Until.Format(time.DateOnly), answerWords(e), printable(e.Subject))
	}
	return w.Flush()
}

// keyWords name the key that profiles name, and the one whose key pair it is if that is another.
func keyWords(c deal.Certificate) string {
	if c.Pair == "" {
		return c.Key
	}
	return c.Key + " by " + c.Pair
}

// stateWords add to the state when it ends by itself, and which seals a certificate makes that is not active.
func stateWords(c deal.Certificate) string {
	var more []string
	if !c.ActivateAt.IsZero() {
		more = append(more, "active from "+c.ActivateAt.Format(time.RFC3339))
	}
	switch until := c.BesideUntil.Format(time.RFC3339); {
	case !c.BesideUntil.After(time.Now()):
	case c.State == deal.CertNext:
		more = append(more, "then two seals until "+until)
	default:
		more = append(more, "makes second seals until "+until)
	}
	if len(more) == 0 {
		return string(c.State)
	}
	return fmt.Sprintf("%s (%s)", c.State, strings.Join(more, ", "))
}

func daysLeft(c deal.Certificate, now time.Time) string {
	if !c.Until.After(now) {
		return "over"
	}
	return plural(int(c.Until.Sub(now)/(24*time.Hour)), "day")
}

func answerWords(c deal.Certificate) string {
	switch c.Answer {
	case deal.AnswerGood:
		return "no, on " + c.Checked.Format(time.DateOnly)
	case deal.AnswerRevoked:
		return "yes"
	case deal.AnswerUnreachable:
		return "no answer on " + c.Checked.Format(time.DateOnly)
	case deal.AnswerNobody:
		return "nobody to ask"
	}
	return "not asked yet"
}

func showCertificate(ctx context.Context, c *call, thumbprint string) error {
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	e, err := c.chosen(ctx, ops, thumbprint)
	if err != nil {
		return err
	}
	if c.out != "" {
		var text []byte
		for _, der := range e.Chain {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		return writeNew(c.out, text)
	}
	if c.json {
		return printJSON(c.stdout, e)
	}
	return printCertificate(c.stdout, e)
}

func printCertificate(out io.Writer, e deal.Certificate) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s:\t%s\n", name, printable(value))
		}
	}
	line("certificate", e.SHA256)
	line("key", e.Key)
	line("key pair", e.Pair)
	line("public key", e.SPKI)
	line("subject", e.Subject)
	line("issuer", e.Issuer)
	line("serial", e.Serial)
	line("purpose", e.Purpose)
	line("valid", e.From.Format(time.RFC3339)+" to "+e.Until.Format(time.RFC3339)+", left: "+daysLeft(e, time.Now()))
	line("state", stateWords(e)+" since "+e.Since.Format(time.RFC3339))
	line("revoked", answerWords(e))
	line("", e.Detail)
	return w.Flush()
}

func importCertificate(ctx context.Context, c *call, file string) error {
	if c.certs.key == "" {
		return usagef("say with --key which key of the configuration it is for")
	}
	all, err := readCertificates(file)
	if err != nil {
		return err
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	return importChain(ctx, c, ops, all, file)
}

// importChain enters a certificate, with those above it, that came from somewhere.
func importChain(ctx context.Context, c *call, ops operations, chain []*x509.Certificate, from string) error {
	change := certChange{Verb: "import", Key: c.certs.key, Pair: c.certs.pair, Why: c.why}
	for _, one := range chain {
		change.Chain = append(change.Chain, one.Raw)
	}
	after, err := ops.ChangeCertificate(ctx, change)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	if after.Answer == deal.AnswerUnreachable {
		fmt.Fprintf(c.stderr, "warning: nobody says whether it is revoked: %s\n", printable(after.Detail))
	}
	_, err = fmt.Fprintf(c.stdout, "%s: imported for key %s, not used yet: dealseal certs activate %s [--at TIME] --why REASON\n", after.SHA256, keyWords(after), short(after.SHA256))
	return err
}

func requestCertificate(ctx context.Context, c *call) error {
	if c.certs.key == "" || c.out == "" {
		return usagef("name the key with --key and the file to write with -o")
	}
	if _, err := os.Lstat(c.out); err == nil {
		return alreadyThere(c.out) // before the key is used
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	csr, err := ops.RequestCertificate(ctx, certRequest{Key: c.certs.key, Pair: c.certs.pair, Subject: c.subject})
	if err != nil {
		return err
	}
	if err := writeNew(c.out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})); err != nil {
		return err
	}
	pair := ""
	if c.certs.pair != "" {
		pair = " --pair " + c.certs.pair
	}
	_, err = fmt.Fprintf(c.stdout, "%s: send it to the CA, and import what it sends back: dealseal certs import FILE.pem --key %s%s\n", c.out, c.certs.key, pair)
	return err
}

func changeCertificate(ctx context.Context, c *call, verb, thumbprint string) error {
	if c.why == "" {
		return usagef("say why with --why \"…\": it goes into the audit log")
	}
	change, err := c.certDecision(verb)
	if err != nil {
		return err
	}
	ops, err := c.openOperations(ctx)
	if err != nil {
		return err
	}
	defer ops.Close()
	chosen, err := c.chosen(ctx, ops, thumbprint)
	if err != nil {
		return err
	}
	change.Key, change.SHA256 = chosen.Key, chosen.SHA256
	after, err := ops.ChangeCertificate(ctx, change)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s: key %s, %s\n", after.SHA256, keyWords(after), stateWords(after))
	if verb == "retire" && chosen.State == deal.CertActive {
		fmt.Fprintf(c.stdout, "key %s has no active certificate any more: its deals wait until another one is activated\n", after.Key)
	}
	return nil
}

// certDecision reads what is to be decided. A rollover is an activation at a time that somebody has thought of; what goes
// beyond that is how long the certificate that is followed goes on making second seals.
func (c *call) certDecision(verb string) (change certChange, err error) {
	change = certChange{Verb: verb, Why: c.why}
	switch {
	case verb != "retire" && c.certs.revoked:
		return change, usagef("--revoked goes with retire")
	case verb == "retire" && c.certs.at != "":
		return change, usagef("--at goes with activate and rollover")
	case verb != "rollover" && c.certs.until != "":
		return change, usagef("--dual-until goes with rollover")
	case verb == "rollover" && c.certs.at == "":
		return change, usagef("say with --at when the certificate follows the active one; \"activate\" does it now")
	case c.certs.revoked:
		change.Verb = "revoke"
	case verb == "rollover":
		change.Verb = "activate"
	}
	if change.At, err = timeToCome("--at", c.certs.at); err != nil {
		return change, err
	}
	change.Until, err = timeToCome("--dual-until", c.certs.until)
	return change, err
}

// timeToCome reads a moment that has not passed, with its zone, or a day, which begins in UTC; empty is zero.
func timeToCome(flag, text string) (at time.Time, err error) {
	if at, err = moment(flag, text); err == nil && text != "" && !at.After(time.Now()) {
		return at, usagef("%s is %s, which has passed", flag, at.Format(time.RFC3339))
	}
	return at, err
}

// moment reads one that may have passed.
func moment(flag, text string) (at time.Time, err error) {
	if text == "" {
		return at, nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err = time.Parse(form, text); err == nil {
			break
		}
	}
	if err != nil {
		return at, usagef("%s is %q: write it as 2027-01-31T06:00:00Z or 2027-01-31", flag, text)
	}
	return at.UTC(), nil
}

// certificates are those of the registry, or of one key where --key is given.
func (c *call) certificates(ctx context.Context, ops operations) ([]deal.Certificate, error) {
	all, err := ops.Certificates(ctx)
	return slices.DeleteFunc(all, func(e deal.Certificate) bool { return c.certs.key != "" && e.Key != c.certs.key }), err
}

// chosen is the only certificate that a person can mean.
func (c *call) chosen(ctx context.Context, ops operations, thumbprint string) (deal.Certificate, error) {
	if len(thumbprint) < deal.MinThumbprint {
		return deal.Certificate{}, usagef("%q is too short: give at least %d digits of the thumbprint", thumbprint, deal.MinThumbprint)
	}
	found, err := c.certificates(ctx, ops)
	if err != nil {
		return deal.Certificate{}, err
	}
	found = slices.DeleteFunc(found, func(e deal.Certificate) bool { return !e.Matches(thumbprint) })
	switch {
	case len(found) == 0:
		return deal.Certificate{}, fmt.Errorf("the registry has no certificate %s: \"dealseal certs list\" shows those that there are", printable(thumbprint))
	case len(found) > 1 && found[0].SHA256 == found[1].SHA256:
		return deal.Certificate{}, usagef("%s is that of keys %s and %s: say which with --key", thumbprint, found[0].Key, found[1].Key)
	case len(found) > 1:
		return deal.Certificate{}, usagef("%s begins %d thumbprints: give more digits", thumbprint, len(found))
	}
	return found[0], nil
}
