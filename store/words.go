package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dealseal/dealseal/deal"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// maxWords is how many different words of one sealing can be searched for, and maxAsked how many one search may have.
const (
	maxWords = 64
	maxAsked = 8
)

// unstroked writes letters without the strokes that Unicode does not take for accents.
var unstroked = strings.NewReplacer("ł", "l", "ø", "o", "đ", "d", "ð", "d", "ħ", "h", "ŧ", "t", "ı", "i", "æ", "ae", "œ", "oe", "þ", "th")

// words splits a text into what is compared in a search: folded to lower case, without accents, letters and digits only.
func words(text string) []string {
	text = cases.Fold().String(norm.NFKD.String(strings.ToValidUTF8(text, " ")))
	text = norm.NFKD.String(strings.ToLower(text)) // some scripts are folded to capitals
	text = unstroked.Replace(strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) {
			return -1
		}
		return r
	}, text))
	parts := strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) })
	return slices.DeleteFunc(parts, func(w string) bool { return utf8.RuneCountInString(w) < 2 && w[0] < utf8.RuneSelf })
}

// namesOf returns the words by which a sealing is found: those in the names on its record, and in the name of its file.
func namesOf(p deal.Private) []string {
	var all []string
	var values any
	if json.Unmarshal(p.Values, &values) == nil { // absent for sealed attachments
		all = collectNames(all, "", values)
	}
	for _, w := range words(strings.TrimSuffix(p.FileName, ".pdf")) {
		if strings.ContainsFunc(w, unicode.IsLetter) { // dates and numbers of versions find nothing that one looks for
			all = append(all, w)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), maxWords)]
}

// collectNames walks the values of a record. What is sold has names too, the same in half of all deals, and is left out.
func collectNames(all []string, key string, v any) []string {
	switch v := v.(type) {
	case string:
		if strings.HasSuffix(strings.ToLower(key), "name") {
			all = append(all, words(v)...)
		}
	case map[string]any:
		for k, e := range v {
			if lower := strings.ToLower(k); strings.Contains(lower, "product") || strings.Contains(strings.ReplaceAll(lower, "_", ""), "lineitem") {
				continue
			}
			all = collectNames(all, k, e)
		}
	case []any:
		for _, e := range v {
			all = collectNames(all, key, e)
		}
	}
	return all
}

// keyed is what is stored of words: 64 bits of an HMAC each, so that the database alone does not say which words are in it.
func (m master) keyed(words []string) (hashes []int64) {
	h := hmac.New(sha256.New, m.derive("search", ""))
	for _, w := range words {
		h.Reset()
		h.Write([]byte(w))
		hashes = append(hashes, int64(binary.BigEndian.Uint64(h.Sum(nil))))
	}
	return hashes
}

// index makes a new sealing findable by names.
func (t *txn) index(seq int64, p deal.Private) error {
	for _, w := range t.s.master.keyed(namesOf(p)) {
		if err := t.exec(`INSERT INTO words (word, seq) VALUES ($1, $2) ON CONFLICT DO NOTHING`, w, seq); err != nil {
			return err
		}
	}
	return nil
}

// reindex makes a sealing findable by the names that it has now, and by no others.
func (t *txn) reindex(seq int64, p deal.Private) error {
	if err := t.exec(`DELETE FROM words WHERE seq = $1`, seq); err != nil {
		return err
	}
	return t.index(seq, p)
}
