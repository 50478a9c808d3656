package documents

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The three shapes that carry a text for people beside a value for machines:
//
//	{"value": "1200.50", "currency": "EUR", "text": "EUR 1,200.50"}
//	{"value": "2026-11-20", "text": "20 November 2026"}
//	{"value": "2.5", "text": "2.5"}

func moneyValue(f *formatter, amount decimal, code string) (map[string]any, error) {
	scale, err := exponent(code)
	if err != nil {
		return nil, err
	}
	plain := amount.fixed(scale)
	if _, err := parseDecimal(plain); err != nil {
		return nil, err
	}
	text, err := f.money(plain, code)
	if err != nil {
		return nil, err
	}
	return map[string]any{"value": plain, "currency": code, "text": text}, nil
}

func numberValue(f *formatter, d decimal) (map[string]any, error) {
	text, err := f.decimal(d.plain())
	if err != nil {
		return nil, err
	}
	return map[string]any{"value": d.plain(), "text": text}, nil
}

func dateValue(f *formatter, day time.Time) map[string]any {
	return map[string]any{"value": day.Format(time.DateOnly), "text": f.date(day)}
}

var (
	dayPattern    = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`)
	millisPattern = regexp.MustCompile(`^-?[0-9]{10,14}$`)
	errDay        = errors.New("is not a date")
)

// parseDay reads a day as CRMs write it: a date stays the date, a time is looked at in the tenant's time zone.
func parseDay(s string, zone *time.Location) (time.Time, error) {
	s = strings.TrimSpace(s)
	if dayPattern.MatchString(s) {
		t, err := time.Parse(time.DateOnly, s)
		if err != nil {
			return time.Time{}, errDay
		}
		return t, nil
	}
	if millisPattern.MatchString(s) {
		ms, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return time.Time{}, errDay
		}
		return time.UnixMilli(ms).In(zone), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05.999Z0700"} {
		if t, err := time.Parse(layout, s); err == nil && t.Year() >= 0 && t.Year() < 10000 {
			return t.In(zone), nil
		}
	}
	return time.Time{}, errDay
}

// fill writes the text of figures and days that have none.
func fill(f *formatter, at string, v any, depth int) error {
	if depth > maxDepth {
		return nil // checkTexts refuses it
	}
	switch v := v.(type) {
	case map[string]any:
		if err := fillText(f, at, v); err != nil {
			return err
		}
		for _, k := range sortedKeys(v) {
			if err := fill(f, join(at, k), v[k], depth+1); err != nil {
				return err
			}
		}
	case []any:
		for i, e := range v {
			if err := fill(f, join(at, strconv.Itoa(i)), e, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func fillText(f *formatter, at string, m map[string]any) error {
	value, ok := m["value"].(string)
	if _, has := m["text"]; !ok || has {
		return nil
	}
	made, err := shape(f, m, value)
	if err != nil {
		return &FieldError{Field: join(at, "value"), Problem: err.Error()}
	}
	for k, v := range made {
		m[k] = v
	}
	return nil
}

func shape(f *formatter, m map[string]any, value string) (map[string]any, error) {
	if dayPattern.MatchString(value) {
		day, err := parseDay(value, time.UTC)
		if err != nil {
			return nil, err
		}
		return dateValue(f, day), nil
	}
	d, err := parseDecimal(value)
	if err != nil {
		return nil, err
	}
	code, ok := m["currency"].(string)
	if !ok {
		return numberValue(f, d)
	}
	return moneyValue(f, d, code)
}
