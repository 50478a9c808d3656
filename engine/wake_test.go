package engine

import (
	"strconv"
	"testing"

	"github.com/dealseal/dealseal/deal"
)

func TestAStormOfPushesIsRememberedInPartsAndSaysSo(t *testing.T) {
	b := newBell()
	rung := func() bool { return len(b.rung) == 1 }
	refs := make([]deal.Ref, mostWoken+500)
	for i := range refs {
		refs[i] = deal.Ref{Object: "deals", ID: strconv.Itoa(i)}
	}
	b.ring(refs[:1])
	b.ring(refs[:1])
	if got, full := b.take(); len(got) != 1 || full || rung() {
		t.Fatalf("%d records after one was named twice, full %t, still rung %t", len(got), full, rung())
	}
	b.ring(refs)
	seen := map[deal.Ref]bool{}
	for n := 0; rung(); n++ {
		got, full := b.take()
		if len(got) > wokenAtOnce || full != (n == 0) {
			t.Fatalf("reading %d: %d records, full %t", n, len(got), full)
		}
		for _, r := range got {
			seen[r] = true
		}
	}
	if len(seen) != mostWoken {
		t.Errorf("%d records are looked at, want %d and a poll for the rest", len(seen), mostWoken)
	}
	b.ring(refs)
	b.silence()
	if got, full := b.take(); len(got) > 0 || full || rung() {
		t.Errorf("after a poll %d records are left, full %t", len(got), full)
	}
}
