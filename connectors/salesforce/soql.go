package salesforce

import (
	"errors"
	"strings"
	"time"
)

const (
	// queryTime is a date-time inside SOQL, always in UTC.
	queryTime = "2006-01-02T15:04:05.000Z"
	// recordTime is a date-time in records, with a zone that has no colon.
	recordTime = "2006-01-02T15:04:05.000-0700"
)

// quote makes a SOQL string literal. SOQL knows no other escapes than these and \b \f \" \u; a control character that
// is none of them cannot be part of anything that is compared here.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s) + "'"
}

// quoteAll makes the list of an IN.
func quoteAll(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quote(v)
	}
	return "(" + strings.Join(quoted, ", ") + ")"
}

// parseTime reads a date-time of a record, as UTC milliseconds.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(recordTime, s)
	if err != nil {
		if t, err = time.Parse(time.RFC3339, s); err != nil {
			return time.Time{}, errors.New("is no date-time") // time's own error quotes the value
		}
	}
	return t.UTC().Truncate(time.Millisecond), nil
}

// CanonicalID returns the 18-character form of a record ID. The last three characters say which of the first fifteen
// are upper-case, five bits each, so that the ID survives a comparison that ignores case.
func CanonicalID(id string) (string, error) {
	if len(id) != 15 && len(id) != 18 {
		return "", errors.New("a Salesforce ID has 15 or 18 characters")
	}
	for _, c := range []byte(id) {
		if !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z') {
			return "", errors.New("a Salesforce ID has letters and digits only")
		}
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
	full := []byte(id[:15])
	for block := range 3 {
		flags := 0
		for i := range 5 {
			if c := id[5*block+i]; c >= 'A' && c <= 'Z' {
				flags |= 1 << i
			}
		}
		full = append(full, alphabet[flags])
	}
	if len(id) == 18 && id != string(full) {
		return "", errors.New("the last three characters of the Salesforce ID do not fit the others")
	}
	return string(full), nil
}
