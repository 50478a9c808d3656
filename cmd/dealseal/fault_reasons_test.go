package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/store"
)

// reasons are the sentences that an operator reads while something does not work.
type reasons struct{ list []reason }

type reason struct {
	where, text string
	words       []string // that it must have; "a|b" is one of two
}

func (r *reasons) add(where, text string, words []string) {
	r.list = append(r.list, reason{where, text, words})
}

// ofDeal takes in why a deal has waited, as its audit log says it.
func (r *reasons) ofDeal(where string, story *store.Story, words []string) {
	for _, l := range story.Trail {
		switch l.What {
		case "retrying", "held", "dead":
			r.add(where, l.Why, words)
		}
	}
}

// raw is what belongs into no sentence for people: markup, JSON, addresses of this machine's ports, the names of Go's types.
var raw = regexp.MustCompile(`[<{]|https?://|&\w|%!|0x[0-9a-f]{6}`)

// judge prints all sentences once and fails for those that say too little or too much.
func (r *reasons) judge(t *testing.T) {
	t.Helper()
	seen := map[string]bool{}
	for _, x := range r.list {
		if !seen[x.where+x.text] {
			t.Logf("%s: %s", x.where, x.text)
		}
		seen[x.where+x.text] = true
		if raw.MatchString(x.text) || len(x.text) > 400 {
			t.Errorf("%s: no sentence for people: %s", x.where, x.text)
		}
		for _, word := range x.words {
			if !slices.ContainsFunc(strings.Split(word, "|"), func(word string) bool { return strings.Contains(x.text, word) }) {
				t.Errorf("%s: %q is not in: %s", x.where, word, x.text)
			}
		}
	}
}
