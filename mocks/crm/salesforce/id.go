package salesforce

import "strings"

const (
	base62  = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	suffix5 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
)

// newID returns the next 18-character ID with the object's key prefix. IDs of
// one object sort in the order in which they were given.
func (o *Org) newID(prefix string) string {
	o.serial++
	digits := make([]byte, 10)
	for i, n := len(digits)-1, o.serial; i >= 0; i-- {
		digits[i] = base62[n%62]
		n /= 62
	}
	return ID18(prefix + "Ws" + string(digits))
}

// ID18 appends to a 15-character ID the three characters that make it safe to
// compare without regard to case: each encodes which of five characters are
// upper case. Any other length is returned unchanged.
func ID18(id15 string) string {
	if len(id15) != 15 {
		return id15
	}
	out := []byte(id15)
	for block := 0; block < 15; block += 5 {
		flags := 0
		for i := range 5 {
			if c := id15[block+i]; c >= 'A' && c <= 'Z' {
				flags |= 1 << i
			}
		}
		out = append(out, suffix5[flags])
	}
	return string(out)
}

// canonicalID accepts both lengths of an ID and returns the longer one.
func canonicalID(id string) (string, bool) {
	if len(id) != 15 && len(id) != 18 {
		return "", false
	}
	for _, c := range []byte(id) {
		if strings.IndexByte(base62, c) < 0 {
			return "", false
		}
	}
	full := ID18(id[:15])
	if len(id) == 18 && !strings.EqualFold(full, id) {
		return "", false
	}
	return full, true
}
