package signing

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/signing/pades"
)

func TestACertificateThatEndsTooSoonSealsNothing(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name       string
		life, left time.Duration
		profile    time.Duration
		refused    bool
	}{
		{"a year, 15 days left", 365 * day, 15 * day, 0, false},
		{"a year, 13 days left", 365 * day, 13 * day, 0, true},
		{"six days, two and a bit left", 6 * day, 2*day + time.Minute, 0, false},
		{"six days, less than two left", 6 * day, 2*day - time.Minute, 0, true},
		{"a year, and the profile wants 30 days of 29", 365 * day, 29 * day, 30 * day, true},
		{"a year, and the profile wants an hour of one day", 365 * day, day, time.Hour, false},
	} {
		key := newKey(newEC(elliptic.P256()), func(x *x509.Certificate) {
			x.NotAfter = now.Add(c.left)
			x.NotBefore = x.NotAfter.Add(-c.life)
		})
		s := newSealer(key, nil)
		_, err := s.Prepare(t.Context(), document(), Request{Profile: Profile{Name: "contract", Key: "house", Level: pades.BB, MinValidity: c.profile}})
		var short *ValidityError
		if errors.As(err, &short) != c.refused || !c.refused && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.refused && (!short.Permanent() || !strings.Contains(err.Error(), "min_validity") || short.Left != c.left) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestWhatIsBelowTheFloorOfTheProfileSealsNothing(t *testing.T) {
	for _, c := range []struct {
		name  string
		curve elliptic.Curve
		floor Floor
		hash  crypto.Hash
		want  string
	}{
		{"the usual", elliptic.P256(), Floor{}, 0, ""},
		{"a larger curve is wanted", elliptic.P256(), Floor{EC: 384}, 0, "one of 384 bits is needed"},
		{"a larger curve is there", elliptic.P384(), Floor{EC: 384}, 0, ""},
		{"a longer digest is wanted", elliptic.P384(), Floor{Hash: crypto.SHA384}, crypto.SHA256, "below the profile's floor of SHA-384"},
		{"a longer digest is made", elliptic.P384(), Floor{Hash: crypto.SHA384}, crypto.SHA512, ""},
		{"RSA of 1024 bits cannot be allowed", elliptic.P256(), Floor{RSA: 1024}, 0, "less than 2048 is never taken"},
		{"P-192 cannot be allowed", elliptic.P256(), Floor{EC: 192}, 0, "256, 384 or 521"},
	} {
		s := newSealer(newKey(newEC(c.curve), nil), nil)
		_, err := s.Prepare(t.Context(), document(), Request{Profile: Profile{Name: "contract", Key: "house", Level: pades.BB, Floor: c.floor, Hash: c.hash}})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestATimeStampBelowTheFloorOfTheProfileIsNotTaken(t *testing.T) {
	for floor, want := range map[int]string{256: "", 384: "one of 384 bits is needed"} {
		s := newSealer(newKey(newEC(elliptic.P384()), nil), &fakeTSA{}) // whose key is of P-256
		p := profile()
		p.Level, p.Floor.EC = pades.BT, floor
		ticket := mustPrepare(t, s, p)
		value, err := s.Redeem(t.Context(), ticket)
		if err != nil {
			t.Fatal(err)
		}
		token, err := s.Timestamp(t.Context(), ticket, value)
		if (err == nil) != (want == "") || err != nil && (token != nil || isPermanent(err) || !strings.Contains(err.Error(), want)) {
			t.Errorf("floor %d: %v", floor, err)
		}
	}
}
