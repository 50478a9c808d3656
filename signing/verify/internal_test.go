package verify

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/pdf"
)

func numbers(list ...any) pdf.Array {
	for i, v := range list {
		if s, ok := v.(string); ok {
			list[i] = pdf.Raw(s)
		}
	}
	return list
}

func TestByteRangeIsRefusedUnlessItLeavesOutOneHole(t *testing.T) {
	for name, c := range map[string]struct {
		list pdf.Array
		ok   bool
	}{
		"good":                   {numbers("0", "100", "200", "300"), true},
		"ends before the file":   {numbers("0", "100", "200", "10"), true},
		"none":                   {nil, false},
		"three numbers":          {numbers("0", "100", "200"), false},
		"six numbers":            {numbers("0", "10", "20", "10", "40", "460"), false},
		"begins later":           {numbers("1", "100", "200", "300"), false},
		"negative":               {numbers("0", "-100", "200", "300"), false},
		"fraction":               {numbers("0", "100.5", "200", "300"), false},
		"name":                   {pdf.Array{pdf.Name("0"), pdf.Raw("100"), pdf.Raw("200"), pdf.Raw("300")}, false},
		"reference":              {pdf.Array{pdf.Raw("0"), pdf.Ref{Num: 1}, pdf.Raw("200"), pdf.Raw("300")}, false},
		"overlap":                {numbers("0", "300", "200", "300"), false},
		"no hole":                {numbers("0", "200", "200", "300"), false},
		"nothing before":         {numbers("0", "0", "200", "300"), false},
		"nothing behind":         {numbers("0", "100", "500", "0"), false},
		"behind the end":         {numbers("0", "100", "200", "301"), false},
		"overflow":               {numbers("0", "100", "9223372036854775807", "9223372036854775807"), false},
		"larger than any number": {numbers("0", "100", "200", "99999999999999999999"), false},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := parseByteRange(c.list, 500)
			if (err == nil) != c.ok {
				t.Errorf("got %v, %v", b, err)
			}
		})
	}
	if _, err := parseByteRange(numbers("0", "100", "9000000", "100"), 10_000_000); err == nil {
		t.Error("a hole larger than any signature was accepted")
	}
}

func TestHoleIsAHexadecimalStringOrRefused(t *testing.T) {
	for hole, want := range map[string]string{
		"<48656C6c6f>": "Hello", "<>": "", "<486>": "error", "(Hello)": "error", "<48 65>": "error", "<48><65>": "error", "48656c6c": "error", "<48656c": "error", "<zz>": "error",
	} {
		doc := "before" + hole + "behind"
		got, err := readHole(bytes.NewReader([]byte(doc)), byteRange{6, int64(6 + len(hole)), int64(len(doc))})
		text := string(got)
		if err != nil {
			text = "error"
		}
		if text != want {
			t.Errorf("hole %q reads as %q, want %q", hole, text, want)
		}
	}
}

func TestDatesOfPDF(t *testing.T) {
	for s, want := range map[string]string{
		"D:20260304050607Z":       "2026-03-04T05:06:07Z",
		"D:20260304050607":        "2026-03-04T05:06:07Z",
		"20260304050607Z":         "2026-03-04T05:06:07Z",
		"D:20260304050607+02'00'": "2026-03-04T05:06:07+02:00",
		"D:20260304050607+02'00":  "2026-03-04T05:06:07+02:00",
		"D:20260304050607-05'30'": "2026-03-04T05:06:07-05:30",
		"D:20260304050607Z00'00'": "2026-03-04T05:06:07Z",
		"D:20260304050607+00'00'": "2026-03-04T05:06:07Z",
		"D:20260304050607+02":     "2026-03-04T05:06:07+02:00",
		"D:2026":                  "2026-01-01T00:00:00Z",
		"D:202603":                "2026-03-01T00:00:00Z",
		"D:20260":                 "",
		"D:20261304050607Z":       "",
		"D:20260304050607+25'00'": "",
		"D:20260304050607+02'99'": "",
		"D:20260304050607*02'00'": "",
		"D:20260304050607+":       "",
		"D:20260304050607'":       "2026-03-04T05:06:07Z",
		"D:":                      "",
		"yesterday":               "",
		"":                        "",
	} {
		got := ""
		if at, err := parseDate(s); err == nil {
			got = at.Format(time.RFC3339)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", s, diff)
		}
	}
}

func FuzzParseDate(f *testing.F) {
	f.Add("D:20260304050607+02'00'")
	f.Add("D:2026")
	f.Add("Z")
	f.Fuzz(func(t *testing.T, s string) {
		hostile.Budget(t)
		at, err := parseDate(s)
		if err == nil && (at.Year() < -1 || at.Year() > 10000) {
			t.Errorf("%q is in the year %d", s, at.Year())
		}
	})
}

func TestTheSecondReaderIsNotAskedAboutWhatItCannotHold(t *testing.T) {
	r := &Report{Size: maxSecondRead, Signatures: []Signature{{Kind: KindSignature}}}
	if _, why := questionOf(r); why != "" {
		t.Errorf("it is not asked: %s", why)
	}
	r.Size++
	if _, why := questionOf(r); !strings.Contains(why, "50 MB") {
		t.Errorf("%d bytes: %q", r.Size, why)
	}
}

func TestMetadataSayTheSameHoweverTheyAreSpelled(t *testing.T) {
	packet := func(description string) []property {
		return readPacket([]byte(`<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="any"><rdf:RDF ` +
			`xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/">` +
			description + `</rdf:RDF></x:xmpmeta><?xpacket end="w"?>`))
	}
	one := packet(`<rdf:Description rdf:about="" dc:format="application/pdf"><xmp:ModifyDate>2026-01-01</xmp:ModifyDate><dc:title>Contract</dc:title></rdf:Description>`)
	same := packet(`<rdf:Description xmp:ModifyDate="2027-01-01"> <dc:title>Contract</dc:title> </rdf:Description><rdf:Description><dc:format>application/pdf</dc:format></rdf:Description>`)
	other := packet(`<rdf:Description dc:format="application/pdf"><dc:title>Contract of another</dc:title></rdf:Description>`)
	if len(one) != 2 {
		t.Errorf("read: %q", one)
	}
	if diff := cmp.Diff(one, same, cmp.AllowUnexported(property{})); diff != "" {
		t.Errorf("the same, spelled in two ways (-one +other):\n%s", diff)
	}
	if cmp.Equal(one, other, cmp.AllowUnexported(property{})) {
		t.Error("another title goes unnoticed")
	}
	for _, bad := range []string{"", "<x>", "no XML", strings.Repeat("<x>", 100)} {
		if got := readPacket([]byte(bad)); len(got) > 0 && bad != "no XML" {
			t.Errorf("%q says %q", bad, got)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`<x:xmpmeta xmlns:x="adobe:ns:meta/"><a b="c">d</a></x:xmpmeta>`))
	f.Add([]byte("<x/>"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		hostile.Budget(t)
		for _, p := range readPacket(packet) {
			if p.value == "" {
				t.Errorf("%q says nothing", p.path)
			}
		}
	})
}
