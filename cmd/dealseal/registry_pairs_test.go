package main

import (
	"testing"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
)

// TestAKeyThatWasFollowedIsAskedForNothingNew: neither its end nor its revocation is trouble of those that seal with the other.
func TestAKeyThatWasFollowedIsAskedForNothingNew(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 2, 1, 12, 0, 0, 0, time.UTC)
	h := &house{cfg: &config.Config{}}
	h.cfg.Signing.Profiles = map[string]config.Profile{"order": {Key: "house"}}
	r := &registry{house: h, now: func() time.Time { return now }}
	old := entry{Certificate: deal.Certificate{SHA256: "old", Key: "house", State: deal.CertRetiring, Since: now, Until: now.Add(72 * time.Hour), BesideUntil: now.Add(48 * time.Hour)}}
	next := entry{Certificate: deal.Certificate{SHA256: "new", Key: "house", Pair: "house-2", State: deal.CertActive, Since: now, Until: now.Add(9000 * time.Hour)}}
	look := func(when, followedBy string) {
		t.Helper()
		r.known.Store(&[]entry{old, next})
		if by := r.followedBy("house"); by != followedBy {
			t.Errorf("%s: the key was followed by %q, want %q", when, by, followedBy)
		}
		if by := r.followedBy("house-2"); by != "" {
			t.Errorf("%s: the new key was followed by %q", when, by)
		}
		for key, want := range map[string]string{"house": "old", "house-2": "new"} {
			if e, found := r.newestOf(key); !found || e.SHA256 != want {
				t.Errorf("%s: the newest certificate of the key pair of %s is %q", when, key, e.SHA256)
			}
		}
	}
	look("while it makes second seals", "")
	now = now.Add(50 * time.Hour)
	look("after that", "house-2")
	now = now.Add(50 * time.Hour)
	look("when its certificate has ended", "house-2")
	old.State, old.BesideUntil = deal.CertRevoked, time.Time{}
	look("when that was revoked", "house-2")
	old.Since = now
	look("when that was revoked later", "house-2")
}
