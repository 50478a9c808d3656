package main

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/pki"
)

// stampTroubles are all ways in which a time-stamp server fails, with words that an operator must read.
var stampTroubles = []struct {
	fault pki.Fault
	says  string
}{
	{pki.Down, "broke off"},
	{pki.Unavailable, "HTTP status 503"},
	{pki.Slow, "no answer in time"},
	{pki.Garbage, "not a TimeStampResp"},
	{pki.Endless, "larger than"},
	{pki.OtherType, "Content-Type"},
	{pki.OtherData, "other data"},
	{pki.WrongNonce, "nonce"},
	{pki.NoNonce, "nonce"},
	{pki.ClockOff, "check both clocks"},
	{pki.Rejection, "the TSA refused"},
	{pki.BadAlgorithm, "the TSA refused"},
	{pki.WrongEKU, "extended key usage"},
	{pki.WrongCertID, "another certificate"},
	{pki.BadSignature, "signature"},
	{pki.WithoutCertReq, "certificate"},
}

// TestEveryTroubleOfATSAHoldsTheDealWithItsReason stops at the first failure, so that its sentence is the one
// that the operator reads; the one signature is then stamped by a TSA that works again.
func TestEveryTroubleOfATSAHoldsTheDealWithItsReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{attempts: 1})
	address := strconv.Quote(w.authority.URL(pki.PathTSA))
	w.rewrite(t, "dealseal.yaml", "{url: "+address+"}", "{url: "+address+", timeout: 5s}")
	s := w.begin(t)
	seen := &reasons{}
	for i, x := range stampTroubles {
		c := s.crms[i%len(s.crms)]
		s.authority.SetFault(pki.ServiceTSA, x.fault, -1)
		r := c.open(sale{quote: quotation(1)})
		c.move(r, ruleMemo)
		story := awaitHeld(t, s.ops, r, 1, "[level]")
		seen.add(string(x.fault), strings.ReplaceAll(story.Sealing.Reason, w.authority.URL(""), "TSA"), []string{x.says, "mend the TSA, then release"})
		if !strings.Contains(s.daemon.see(t, "/"), string(story.Sealing.Tx)) {
			t.Errorf("%s: the page does not show the deal", x.fault)
		}
		mustBear(t, c, r, 0)
		s.authority.SetFault(pki.ServiceTSA, "", 0)
		conclude(t, s.ops, "release", story.Sealing.Tx)
		story = awaitDone(t, s.ops, r)
		mustUseTheKey(t, story, 1)
		if f := story.Sealing.Facts; f.Level != "B-T" || f.Flagged != "" || len(signedDigests(t, story)) != 1 {
			t.Errorf("%s: sealed at %s, flagged %q, signed %q", x.fault, f.Level, f.Flagged, signedDigests(t, story))
		}
		mustBear(t, c, r, 1)
		mustShow(t, c, r, deal.StatusSigned)
	}
	seen.judge(t)
	s.daemon.stop(t)
}

// TestASecondTSATakesOverOnceItIsTrusted has a first one that is down and a second one whose root is not configured, until
// an administrator does that.
func TestASecondTSATakesOverOnceItIsTrusted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{attempts: 1})
	var second *pki.Authority
	url := w.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { second.ServeHTTP(rw, r) }))
	var err error
	second, err = pki.New(pki.Options{BaseURL: url})
	must(t, err)
	must(t, os.WriteFile(w.path("second.pem"), second.RootPEM(), 0o600))
	first := strconv.Quote(w.authority.URL(pki.PathTSA))
	w.rewrite(t, "dealseal.yaml", "[{url: "+first+"}]", "[{url: "+first+"}, {url: "+strconv.Quote(second.URL(pki.PathTSA))+"}]")
	w.authority.SetFault(pki.ServiceTSA, pki.Down, -1)

	s := w.begin(t)
	held := map[crm]string{}
	for _, c := range s.crms {
		held[c] = c.open(sale{quote: quotation(1)})
		c.move(held[c], ruleMemo)
		reason := awaitHeld(t, s.ops, held[c], 1, "[level]").Sealing.Reason
		for _, part := range []string{w.authority.URL(pki.PathTSA), "broke off", second.URL(pki.PathTSA), "signing.trust"} {
			if !strings.Contains(reason, part) {
				t.Errorf("%q is not in: %s", part, reason)
			}
		}
		mustBear(t, c, held[c], 0)
	}
	s.daemon.stop(t)

	w.rewrite(t, "dealseal.yaml", strconv.Quote(w.path("root.pem")), strconv.Quote(w.path("root.pem"))+", "+strconv.Quote(w.path("second.pem")))
	s = w.begin(t)
	for _, c := range s.crms {
		conclude(t, s.ops, "release", sealings(t, s.ops, held[c])[0].Tx)
		fresh := c.open(sale{quote: quotation(1)})
		c.move(fresh, ruleMemo)
		for _, r := range []string{held[c], fresh} {
			story := awaitDone(t, s.ops, r)
			mustUseTheKey(t, story, 1)
			if f := story.Sealing.Facts; f.Level != "B-T" || f.Flagged != "" {
				t.Errorf("%s is sealed at %s, flagged %q", r, f.Level, f.Flagged)
			}
			mustBear(t, c, r, 1)
		}
	}
	if second.Requests(pki.ServiceTSA) == 0 || !strings.Contains(s.daemon.log(), "time-stamp server failed") {
		t.Error("the log does not say that the first server has failed")
	}
	s.daemon.stop(t)
}

// notAtMidnight waits until midnight UTC has passed if that is near: it gives time-stamp servers another quota.
func notAtMidnight(t *testing.T) {
	t.Helper()
	const day = 24 * time.Hour
	now := time.Now().UTC()
	if left := now.Truncate(day).Add(day).Sub(now); left < patience {
		t.Logf("midnight UTC is in %s, and waited for", left)
		<-time.After(left + time.Second)
	}
}

// TestARestartGivesNoTSAMoreThanItsQuota has one time-stamp for the first deal and none for the next, which waits for one, and
// shows it wherever somebody may look.
func TestARestartGivesNoTSAMoreThanItsQuota(t *testing.T) {
	t.Parallel()
	notAtMidnight(t)
	w := newWorld(t, worldOptions{crms: []deal.Kind{deal.HubSpot}, attempts: 1})
	w.rewrite(t, "dealseal.yaml", "  tsa: [{", "  tsa: [{quota: 1, ")
	began := time.Now().UTC().Format(time.DateOnly)
	s := w.begin(t)
	c := s.crms[0]
	awaitDone(t, s.ops, enterMemo(c))
	s.daemon.kill()

	s = w.begin(t)
	waiting := enterMemo(c)
	story := awaitHeld(t, s.ops, waiting, 1, "[level]", "its quota of 1 requests is used up until 00:00 UTC")
	mustUseTheKey(t, story, 1)
	if n := w.authority.Requests(pki.ServiceTSA); n != 1 {
		t.Errorf("the TSA was asked %d times", n)
	}
	server := w.authority.URL(pki.PathTSA)
	mustContain(t, "the page", s.daemon.see(t, "/"), server, "1 of 1", "its quota is used up")
	mustContain(t, "the metrics", s.daemon.get(t, "/metrics"), `dealseal_tsa_quota_used_ratio{server="`+server+`"} 1`)
	out, _, code := s.run(t, "doctor")
	if code != exitFailed {
		t.Errorf("doctor: exit code %d", code)
	}
	mustContain(t, "doctor", out, "all 1 requests of this day are used up", "signing.tsa[0].quota")
	if n := w.authority.Requests(pki.ServiceTSA); n != 1 {
		t.Errorf("doctor has asked the TSA: %d requests", n)
	}
	s.daemon.stop(t)
	if began != time.Now().UTC().Format(time.DateOnly) {
		t.Fatal("midnight UTC was passed, which gives another quota: run the test again")
	}

	w.rewrite(t, "dealseal.yaml", "quota: 1,", "quota: 2,")
	s = w.begin(t)
	conclude(t, s.ops, "release", story.Sealing.Tx)
	awaitDone(t, s.ops, waiting)
	mustContain(t, "the metrics", s.daemon.get(t, "/metrics"), `dealseal_tsa_up{server="`+server+`"} 1`, `dealseal_tsa_quota_used_ratio{server="`+server+`"} 1`)

	// A command is no way around it while the daemon runs, and says when it counts alone.
	must(t, os.WriteFile(w.path("in.pdf"), quotation(3), 0o600))
	sign := []string{"sign", "--profile", "strict", w.path("in.pdf"), "-o", w.path("out.pdf")}
	if _, stderr, code := s.run(t, sign...); code == exitOK || !strings.Contains(stderr, "its quota of 2 requests is used up") {
		t.Errorf("sign: exit code %d\n%s", code, stderr)
	}
	if n := w.authority.Requests(pki.ServiceTSA); n != 2 {
		t.Errorf("the TSA was asked %d times", n)
	}
	s.daemon.stop(t)
	if _, stderr, code := s.run(t, sign...); code != exitOK || !strings.Contains(stderr, "counted for this command alone") {
		t.Errorf("sign without a daemon: exit code %d\n%s", code, stderr)
	}
}
