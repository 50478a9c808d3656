package config

import (
	"fmt"
	"regexp"
	"strconv"
)

// Size is a number of bytes, written as a whole number with KiB, MiB, GiB or TiB.
type Size int64

var sizeForm = regexp.MustCompile(`^([0-9]{1,9}) ?(KiB|MiB|GiB|TiB)$`)

var sizeUnits = map[string]uint{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Size) UnmarshalText(text []byte) error {
	m := sizeForm.FindStringSubmatch(string(text))
	if m == nil {
		return fmt.Errorf("%q is not a size such as 256MiB or 2GiB", text)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > 1<<62>>sizeUnits[m[2]] {
		return fmt.Errorf("%q is more bytes than a disk has", text)
	}
	*s = Size(n << sizeUnits[m[2]])
	return nil
}
