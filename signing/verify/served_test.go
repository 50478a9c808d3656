package verify_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/signing/verify"
)

// largeContract is a contract with about so many bytes in a stream.
func largeContract(size int) []byte {
	filler := strings.Repeat("filler ", size/len("filler "))
	return assemble(append(contractObjects(), fmt.Sprintf("<< /Length %d >>\nstream\n%s\nendstream", len(filler), filler)))
}

// encrypted stands for a document that is no file which a child could read by itself.
type encrypted struct {
	*bytes.Reader
	reading func() error
}

func (e encrypted) ReadAt(b []byte, at int64) (int, error) {
	if err := e.reading(); err != nil {
		return 0, err
	}
	return e.Reader.ReadAt(b, at)
}

// copiesInMemory counts the files in memory that this process has open.
func copiesInMemory(t *testing.T) (n int) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "/memfd:") {
			n++
		}
	}
	return n
}

func TestALargeDocumentIsReadWithoutACopyOfIt(t *testing.T) {
	a := rsaAuthority()
	sealed := seal(t, largeContract(20<<20), sealOf(a).stamped(a))
	copies, readings := 0, 0
	doc := encrypted{bytes.NewReader(sealed), func() error {
		copies, readings = copies+copiesInMemory(t), readings+1
		return nil
	}}
	o := trust(a)
	o.Now = time.Now()
	got, err := newChecker(t, verify.CheckerOptions{}).Check(t.Context(), doc, o)
	if err != nil {
		t.Fatal(err)
	}
	if copies > 0 || readings == 0 {
		t.Errorf("of %d readings %d came while a copy was held", readings, copies)
	}
	want(t, got, verify.Valid, "")
	if got.SecondOpinion == nil || got.SecondOpinion.Verdict != verify.OpinionValid {
		t.Errorf("second opinion %+v", got.SecondOpinion)
	}
	got.SecondOpinion = nil
	if diff := cmp.Diff(asJSON(t, check(t, sealed, o)), asJSON(t, got)); diff != "" {
		t.Errorf("report (-in this process +of the child):\n%s", diff)
	}
}

func TestALargeDocumentThatCannotBeReadSaysWhy(t *testing.T) {
	a := authority()
	gone, left := errors.New("the disk is gone"), 10
	doc := encrypted{bytes.NewReader(seal(t, largeContract(20<<20), sealOf(a))), func() error {
		if left--; left < 0 {
			return gone
		}
		return nil
	}}
	c := newChecker(t, verify.CheckerOptions{})
	if _, err := c.Verify(t.Context(), doc, trust(a)); !errors.Is(err, gone) {
		t.Errorf("got %v, want the reason", err)
	}
	if _, err := c.Check(t.Context(), bytes.NewReader(contract()), trust(a)); err != nil {
		t.Errorf("the next document: %v", err)
	}
}
