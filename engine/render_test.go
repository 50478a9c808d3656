package engine

import (
	"bytes"
	"fmt"
	"testing"

	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

// TestAnAttachmentThatWasCutOnItsWayIsFetchedAgain cuts a download where what has come is a PDF too: an older state of a
// document that was edited later.
func TestAnAttachmentThatWasCutOnItsWayIsFetchedAgain(t *testing.T) {
	w := newWorld(t)
	d := w.daemon()
	record := w.deal()
	first := document("", 1)
	at := bytes.Index(first, []byte("startxref\n"))
	var start int
	if _, err := fmt.Sscanf(string(first[at:]), "startxref\n%d", &start); err != nil {
		t.Fatal(err)
	}
	end := fmt.Sprintf("\nstartxref\n%d\n%%%%EOF\n", start)
	whole := append(append(bytes.Clone(first), bytes.Repeat([]byte("%"), len(first)-len(end))...), end...)
	w.tick()
	w.id(w.org.AddFile(record, "Quote newest.pdf", whole))
	w.fault(mock.Fault{Kind: mock.KindDownload, Effect: mock.TruncatedJSON, Times: 1})
	w.move(record, stageWon)
	s := d.run()
	d.wantDone(s)
	if sealed := w.contracts(record); len(sealed) != 1 || !bytes.HasPrefix(sealed[0], whole) {
		t.Errorf("what was sealed is not the whole file (%d contracts)", len(sealed))
	}
}
