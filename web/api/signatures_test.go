package api

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
)

func TestASignatureHasAWordForEachStatus(t *testing.T) {
	f, _ := reflect.TypeFor[Signature]().FieldByName("Status")
	words := strings.Split(f.Tag.Get("enum"), ",")
	for _, s := range deal.Statuses {
		if !slices.Contains(words, statusWord(s.Status)) {
			t.Errorf("%s is shown as %q, which the document does not have", s.Status, statusWord(s.Status))
		}
	}
}
