package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// TestACertificateThatIsRevokedInItsRolloverSealsNothingMore has the issuer revoke the new certificate while documents get two
// seals and the daemon runs. The seal that is just made says so by its evidence; the key is not used once more, neither with that
// certificate nor with the old one, until a person decides.
func TestACertificateThatIsRevokedInItsRolloverSealsNothingMore(t *testing.T) {
	t.Parallel()
	s := &hsmStage{}
	w := newWorld(t, worldOptions{attempts: tireless, dual: true, level: "B-LT", crms: []deal.Kind{deal.Salesforce}, key: func(w *world) string {
		s.key = newFaultyToken(w)
		return s.key.config()
	}})
	s.stage = w.begin(t)
	c := s.crms[0]
	configured, err := readCertificates(s.path("seal.pem"))
	must(t, err)
	first, next := thumbprint(configured[0]), s.renew(t, "second")
	second := thumbprint(next)
	at := time.Now().Add(soon)
	s.mustRun(t, "certs", "rollover", second, "--at", at.UTC().Format(time.RFC3339Nano), "--dual-until", at.Add(24*time.Hour).UTC().Format(time.RFC3339), "--why", "renewed")
	eventually(t, "its time has come", func() (bool, string) { return time.Now().After(at), "" })
	both := awaitDone(t, s.ops, enterMemo(c))
	mustBeSealedWith(t, both, second)
	if both.Sealing.Facts.Second == nil {
		t.Fatalf("it has one seal: %+v", both.Sealing.Facts)
	}

	eventually(t, "its issuer was asked once more", func() (bool, string) {
		all, err := s.ops.Certificates(t.Context())
		must(t, err)
		i := slices.IndexFunc(all, func(c deal.Certificate) bool { return c.SHA256 == second })
		return !all[i].Checked.Before(at.Truncate(time.Millisecond)), all[i].Checked.String()
	})

	// What was signed before anybody knew is not released, and is the last that the key has signed.
	s.authority.Revoke(next, time.Now(), 1)
	flying := enterMemo(c)
	caught := awaitHeld(t, s.ops, flying, 1, "was revoked", "nothing was released", "take the key out of use")
	mustBeSealedWith(t, caught, second)
	s.mustHaveSigned(t, caught, 1)
	s.mustList(t, second, "revoked", "yes")
	s.mustList(t, first, "retiring")
	uses := len(s.key.signatures())
	stopped := enterMemo(c)
	held := awaitHeld(t, s.ops, stopped, 1, "[revoked]", short(second), "dealseal certs activate")
	if digest := held.Sealing.Facts.Digest; digest != "" {
		t.Errorf("the digest %s was committed with a certificate that was revoked", digest)
	}
	eventually(t, "the record says so", func() (bool, string) { status := c.shown(stopped)["status"]; return status == "Held", status })
	mustContain(t, "the metrics", s.daemon.get(t, "/metrics"), `dealseal_certificate_revoked{key="house"} 1`)
	mustContain(t, "the page", s.daemon.see(t, "/"), "revoked", second)
	log := s.mustRun(t, "audit", "log", "--what", "certificate-revoked")
	mustContain(t, "the audit log", log, "daemon", short(second))
	if n := strings.Count(log, second); n != 1 {
		t.Errorf("the audit log says %d times that it was revoked:\n%s", n, log)
	}
	if more := s.key.signatures()[uses:]; len(more) > 0 {
		t.Errorf("the key has signed since: %q", more)
	}

	// The old certificate is used again because a person says so, for what has no signature yet, and alone.
	s.mustRun(t, "certs", "activate", first, "--why", "the new one was revoked")
	mended := awaitDone(t, s.ops, stopped)
	mustBeSealedWith(t, mended, first)
	if mended.Sealing.Facts.Second != nil {
		t.Errorf("it has a second seal: %+v", mended.Sealing.Facts.Second)
	}
	mustContain(t, "the metrics", s.daemon.get(t, "/metrics"), `dealseal_certificate_revoked{key="house"} 0`)
	conclude(t, s.ops, "release", caught.Sealing.Tx)
	awaitHeld(t, s.ops, flying, 1, "was revoked", "nothing was released")
	s.mustHaveSigned(t, caught, 1)
	s.daemon.stop(t)
}
