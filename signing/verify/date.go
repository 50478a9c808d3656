package verify

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

var errDate = errors.New("not a PDF date")

// parseDate reads a date of ISO 32000-1, such as D:20260102030405+01'00'. All behind the year may be missing; a missing zone is taken as UTC.
func parseDate(s string) (time.Time, error) {
	s = strings.TrimPrefix(s, "D:")
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	const layout = "20060102150405"
	if digits < 4 || digits > len(layout) || digits%2 != 0 {
		return time.Time{}, errDate
	}
	at, err := time.Parse(layout[:digits], s[:digits])
	if err != nil {
		return time.Time{}, errDate
	}
	offset, err := parseZone(s[digits:])
	if err != nil {
		return time.Time{}, err
	}
	if offset == 0 {
		return at.UTC(), nil
	}
	return at.Add(-offset).In(time.FixedZone("", int(offset/time.Second))), nil
}

// parseZone reads Z, +hh, +hh'mm and +hh'mm', which are all in use.
func parseZone(s string) (time.Duration, error) {
	s = strings.TrimSuffix(strings.TrimSuffix(s, "'"), "'")
	if s == "" || strings.Trim(s, "Z0'") == "" && s[0] == 'Z' {
		return 0, nil
	}
	hours, minutes, _ := strings.Cut(s[1:], "'")
	if minutes == "" {
		minutes = "0"
	}
	h, err1 := strconv.ParseUint(hours, 10, 8)
	m, err2 := strconv.ParseUint(minutes, 10, 8)
	if err1 != nil || err2 != nil || h > 23 || m > 59 {
		return 0, errDate
	}
	offset := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
	switch s[0] {
	case '+':
		return offset, nil
	case '-':
		return -offset, nil
	}
	return 0, errDate
}
