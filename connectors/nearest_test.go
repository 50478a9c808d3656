package connectors

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNearestNamesComeFirst(t *testing.T) {
	stages := []string{"Prospecting", "Closed Won", "Closed Lost", "Closed Won", "Negotiation/Review"}
	for name, want := range map[string][]string{
		"Closed Wonn":  {"Closed Won"},
		"closed won":   {"Closed Won"},
		"Closed Wost":  {"Closed Lost", "Closed Won"},
		"Prospektingg": {"Prospecting"},
		"Signed":       nil,
		"":             nil,
	} {
		if diff := cmp.Diff(want, Nearest(name, stages)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", name, diff)
		}
	}
	if got := Nearest("ab", []string{"aa", "bb", "ab"}); len(got) != 1 || got[0] != "ab" {
		t.Errorf("two letters are near to %q", got)
	}
}

func TestSuggestionListsFewNamesAndNotMany(t *testing.T) {
	few := []string{"a", "b"}
	for _, tc := range []struct {
		name  string
		known []string
		want  string
	}{
		{"Closed Wost", []string{"Closed Won", "Closed Lost"}, `did you mean "Closed Lost" or "Closed Won"?`},
		{"Signed", few, `use one of "a", "b"`},
		{"Signed", make([]string, maxListed+1), ""},
		{"Signed", nil, ""},
	} {
		if got := Suggest(tc.name, tc.known); got != tc.want {
			t.Errorf("%q of %q: %q, want %q", tc.name, tc.known, got, tc.want)
		}
	}
}
