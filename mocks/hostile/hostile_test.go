package hostile

import (
	"bytes"
	"testing"
)

func TestMutantsAreTheSameForTheSameSeedAndDifferFromTheirDocument(t *testing.T) {
	document := []byte("1 0 obj << /Length 12 >> endobj trailer << /Root 1 0 R >> %%EOF")
	original := bytes.Clone(document)
	list := func(seed uint64) (all [][]byte) {
		for _, b := range Mutants(seed, document, 200) {
			all = append(all, bytes.Clone(b))
		}
		return all
	}
	first, again, other := list(1), list(1), list(2)
	same, damaged := 0, 0
	for i := range first {
		if !bytes.Equal(first[i], again[i]) {
			t.Fatalf("mutant %d differs from one run to the next", i)
		}
		if bytes.Equal(first[i], other[i]) {
			same++
		}
		if !bytes.Equal(first[i], original) {
			damaged++
		}
	}
	if same > 20 || damaged < 150 {
		t.Errorf("%d of 200 mutants are the same for another seed, %d are damaged", same, damaged)
	}
	if !bytes.Equal(document, original) {
		t.Error("the document itself was damaged")
	}
}
