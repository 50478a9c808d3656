package documents

import (
	"errors"
	"math/big"
	"regexp"
	"strings"
)

// decimal is an exact number. The zero value is 0. Binary floating point never touches money.
type decimal struct{ r *big.Rat }

var decimalPattern = regexp.MustCompile(`^[+-]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?$`)

// maxInteger bounds what is accepted as a figure, so that formatting stays within an int64 and exponents cannot be used
// to eat memory.
var maxInteger = big.NewRat(1_000_000_000_000_000, 1)

var errDecimal = errors.New("is not a plain decimal number")

func parseDecimal(s string) (decimal, error) {
	s = strings.TrimSpace(s)
	if !decimalPattern.MatchString(s) {
		return decimal{}, errDecimal
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return decimal{}, errDecimal
	}
	if new(big.Rat).Abs(r).Cmp(maxInteger) >= 0 {
		return decimal{}, errors.New("has more than 15 digits before the decimal point")
	}
	return decimal{r}, nil
}

func (d decimal) rat() *big.Rat {
	if d.r == nil {
		return new(big.Rat)
	}
	return d.r
}

func (d decimal) sign() int             { return d.rat().Sign() }
func (d decimal) cmp(o decimal) int     { return d.rat().Cmp(o.rat()) }
func (d decimal) add(o decimal) decimal { return decimal{new(big.Rat).Add(d.rat(), o.rat())} }
func (d decimal) sub(o decimal) decimal { return decimal{new(big.Rat).Sub(d.rat(), o.rat())} }
func (d decimal) mul(o decimal) decimal { return decimal{new(big.Rat).Mul(d.rat(), o.rat())} }
func (d decimal) abs() decimal          { return decimal{new(big.Rat).Abs(d.rat())} }

// fixed writes d with scale digits after the point, halves rounded away from zero, as on an invoice.
func (d decimal) fixed(scale int) string {
	s := d.rat().FloatString(scale)
	if strings.Trim(s, "-0.") == "" {
		return strings.TrimPrefix(s, "-")
	}
	return s
}

// plain writes d in full without trailing zeros. Every decimal that was read has a finite expansion.
func (d decimal) plain() string {
	digits, _ := d.rat().FloatPrec()
	return d.fixed(digits)
}
