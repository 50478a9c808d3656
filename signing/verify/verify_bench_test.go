package verify_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/dealseal/dealseal/signing/verify"
)

// longContract is a document of about size bytes: pages of 8 kB each.
func longContract(size int) []byte {
	const page = 8 << 10
	var b bytes.Buffer
	b.WriteString("%PDF-1.7\n")
	var offsets []int
	object := func(format string, args ...any) {
		offsets = append(offsets, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n", len(offsets))
		fmt.Fprintf(&b, format, args...)
		b.WriteString("\nendobj\n")
	}
	pages := max(size/page, 1)
	object("<< /Type /Catalog /Pages 2 0 R >>")
	var kids bytes.Buffer
	for i := range pages {
		fmt.Fprintf(&kids, "%d 0 R ", 4+2*i)
	}
	object("<< /Type /Pages /Count %d /Kids [%s] >>", pages, kids.Bytes())
	object("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
	text := bytes.Repeat([]byte("BT /F1 9 Tf 72 700 Td (the parties agree) Tj ET\n"), page/48)
	for i := range pages {
		object("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>", 5+2*i)
		object("<< /Length %d >>\nstream\n%s\nendstream", len(text), text)
	}
	start := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(offsets)+1)
	for _, o := range offsets {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(offsets)+1, start)
	return b.Bytes()
}

// BenchmarkVerify is the cost of a whole report: by size at one signature, and by the number of signatures at one size. "hash" is SHA-256 of the same
// bytes, which every report costs once.
func BenchmarkVerify(b *testing.B) {
	a := served(b)
	o, data := trust(a), evidence(b, a)
	for _, size := range []int{1 << 20, 4 << 20} {
		doc := archived(b, secured(b, seal(b, longContract(size), sealOf(a).stamped(a)), data), a)
		b.Run(fmt.Sprintf("B-LTA/%dMB", size>>20), func(b *testing.B) { benchmark(b, doc, o) })
		b.Run(fmt.Sprintf("hash/%dMB", size>>20), func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			for b.Loop() {
				sha256.Sum256(doc)
			}
		})
	}
	doc := longContract(1 << 20)
	for n := 1; n <= 10; n++ {
		doc = seal(b, doc, sealOf(a).stamped(a))
		if n == 1 || n == 5 || n == 10 {
			whole := archived(b, secured(b, doc, data), a)
			b.Run(fmt.Sprintf("signatures/%d", n), func(b *testing.B) { benchmark(b, whole, o) })
		}
	}
}

func benchmark(b *testing.B, doc []byte, o verify.Options) {
	r := check(b, doc, o)
	if r.Verdict != verify.Valid {
		b.Fatal(explain(r))
	}
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		check(b, doc, o)
	}
}
