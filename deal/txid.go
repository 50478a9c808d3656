package deal

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
)

// TxID names one sealing for ever: the same stage entry gives the same TxID on every daemon, after every restore.
// It is 26 characters of lower-case base32 (RFC 4648, no padding): 130 bits of a SHA-256.
type TxID string

// txDomain separates these hashes from all others and versions the recipe.
const txDomain = "dealseal/tx/1"

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewTxID computes the transaction ID of one occurrence: a record entering the stage of a rule.
func NewTxID(account AccountID, ref Ref, rule, occurrence string) TxID {
	kind, id := account.Split()
	return TxID(digestName(txDomain, string(kind), id, ref.Object, ref.ID, rule, occurrence))
}

// EventID names an event of a sealing. A restored daemon that repeats an event repeats its ID.
func EventID(tx TxID, sequence int64, kind string) string {
	return digestName("dealseal/event/1", string(tx), fmt.Sprint(sequence), kind)
}

// digestName hashes a list of parts, each behind its length so that no two lists give the same bytes.
func digestName(parts ...string) string {
	h := sha256.New()
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return base32Lower.EncodeToString(h.Sum(nil))[:26]
}

// ParseTxID checks the form of a transaction ID that a person typed.
func ParseTxID(s string) (TxID, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	if len(s) != 26 {
		return "", fmt.Errorf("%q is not a transaction ID: it has %d characters, a transaction ID has 26", s, len(s))
	}
	for i, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= '2' && r <= '7') {
			return "", fmt.Errorf("%q is not a transaction ID: character %d (%q) is not one of a-z, 2-7", s, i+1, r)
		}
	}
	return TxID(s), nil
}
