package hubspot

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAddingAnOptionLeavesTheOthersAsTheyAre: HubSpot replaces the whole list.
func TestAddingAnOptionLeavesTheOthersAsTheyAre(t *testing.T) {
	there := []option{{Label: "In der Schlange", Value: "queued", Description: "noch nichts", Order: 3}, {Label: "Alt", Value: "old", Order: 7, Hidden: true}}
	want := []newOption{{Label: "In der Schlange", Value: "queued", Description: "noch nichts", Order: 3}, {Label: "Alt", Value: "old", Order: 7, Hidden: true}, {Label: "Signed", Value: "signed", Order: 8}, {Label: "Held", Value: "held", Order: 9}}
	if diff := cmp.Diff(want, options(there, []string{"signed", "queued", "held"})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]newOption{{Label: "Queued", Value: "queued"}, {Label: "Held", Value: "held", Order: 1}}, options(nil, []string{"queued", "held"})); diff != "" {
		t.Error(diff)
	}
}
