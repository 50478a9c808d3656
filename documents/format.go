package documents

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/currency"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/number"
)

// formatter writes figures and days for one locale.
type formatter struct {
	lang    string
	printer *message.Printer
	point   string // decimal separator
}

// nbsp keeps a figure and its currency, a day and its month on one line.
const nbsp = "\u00a0"

// newFormatter always uses European digits: a contract's figures must be comparable with the CRM's.
func newFormatter(locale string) (*formatter, error) {
	tag, err := language.Parse(locale)
	if err != nil {
		return nil, fmt.Errorf("locale %q: %w", locale, err)
	}
	if tag, err = tag.SetTypeForKey("nu", "latn"); err != nil {
		return nil, fmt.Errorf("locale %q: %w", locale, err)
	}
	base, _ := tag.Base()
	p := message.NewPrinter(tag)
	point := strings.Trim(p.Sprint(number.Decimal(0.5, number.Scale(1))), "05")
	return &formatter{lang: base.String(), printer: p, point: point}, nil
}

// decimal groups the whole part as the locale does. Only an integer passes through x/text, which knows numbers as
// float64 beyond that.
func (f *formatter) decimal(plain string) (string, error) {
	digits, negative := strings.CutPrefix(plain, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return "", errDecimal
	}
	text := f.printer.Sprint(number.Decimal(n))
	// Narrow spaces group French figures; few fonts have them.
	text = strings.ReplaceAll(text, "\u202f", nbsp)
	if fraction != "" {
		text += f.point + fraction
	}
	if negative {
		text = "\u2212" + text
	}
	return text, nil
}

// currencyBehind lists the languages that write the currency after the figure.
var currencyBehind = []string{"bg", "cs", "da", "de", "el", "es", "et", "fi", "fr", "hr", "hu", "it", "lt", "lv", "nb", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sr", "sv", "uk"}

// money writes an amount with its ISO 4217 code: a symbol such as $ does not say whose dollar it is.
func (f *formatter) money(plain, code string) (string, error) {
	figure, err := f.decimal(plain)
	if err != nil {
		return "", err
	}
	if slices.Contains(currencyBehind, f.lang) {
		return figure + nbsp + code, nil
	}
	return code + nbsp + figure, nil
}

// months are the names in a date, in the grammatical case that dates need.
var months = map[string][12]string{
	"en": {"January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"},
	"de": {"Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember"},
	"fr": {"janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre", "novembre", "décembre"},
	"es": {"enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre", "octubre", "noviembre", "diciembre"},
	"it": {"gennaio", "febbraio", "marzo", "aprile", "maggio", "giugno", "luglio", "agosto", "settembre", "ottobre", "novembre", "dicembre"},
	"nl": {"januari", "februari", "maart", "april", "mei", "juni", "juli", "augustus", "september", "oktober", "november", "december"},
	"pl": {"stycznia", "lutego", "marca", "kwietnia", "maja", "czerwca", "lipca", "sierpnia", "września", "października", "listopada", "grudnia"},
	"pt": {"janeiro", "fevereiro", "março", "abril", "maio", "junho", "julho", "agosto", "setembro", "outubro", "novembro", "dezembro"},
	"sv": {"januari", "februari", "mars", "april", "maj", "juni", "juli", "augusti", "september", "oktober", "november", "december"},
}

// date writes a day with the month's name, which cannot be misread; other languages get ISO 8601, which cannot either.
func (f *formatter) date(day time.Time) string {
	names, ok := months[f.lang]
	if !ok {
		return day.Format(time.DateOnly)
	}
	pattern := "%d" + nbsp + "%s %d"
	switch f.lang {
	case "de":
		pattern = "%d." + nbsp + "%s %d"
	case "es", "pt":
		pattern = "%d" + nbsp + "de %s de %d"
	}
	return fmt.Sprintf(pattern, day.Day(), names[day.Month()-1], day.Year())
}

var errCurrency = errors.New("is not an ISO 4217 currency code")

// exponent is the number of digits after the point that amounts of the currency have.
func exponent(code string) (int, error) {
	if len(code) != 3 || strings.ToUpper(code) != code {
		return 0, errCurrency
	}
	unit, err := currency.ParseISO(code)
	if err != nil {
		return 0, errCurrency
	}
	scale, _ := currency.Standard.Rounding(unit)
	return scale, nil
}
