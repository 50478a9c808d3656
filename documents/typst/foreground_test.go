package typst

import (
	"strings"
	"testing"
)

func TestAForegroundOfATemplatesOwnIsFound(t *testing.T) {
	for source, want := range map[string]int{
		"one\n#set page(foreground: [mine])\ntwo":                                                     2,
		"#set page(\n  paper: \"a4\",\n  margin: (x: 2cm, y: 1cm),\n  foreground : place(top)[x],\n)": 4,
		"#page(numbering: \"1 (of) 2\", foreground: logo)[text]":                                      1,
		"#let f = { set page(foreground: rect()) }":                                                   1,
		"#page(header: [a])[b]\n#std.page(foreground: x)[c]":                                          2,
		"#set page(header: text(\"), foreground: \"), footer: [a\n], foreground: [x])":                2,
		"see https://a.example/x //\n#set page(foreground: [x])":                                      2,

		"#set page(background: [mine])":                               0,
		"#set page(foreground: none)":                                 0,
		"// #set page(foreground: [mine])\n/* page(foreground: x) */": 0,
		"#set page(header: rect(foreground: x))":                      0,
		"#my-page(foreground: x)":                                     0,
		"#set page(header: [foreground: the colour])":                 0,
		"#set page(header: [x], numbering: \"foreground: 1\")":        0,
		"#set page(paper: \"a4\"":                                     0,
		"#set page(header: \"\\":                                      0,
		"page(":                                                       0,
		"":                                                            0,
	} {
		if line, found := ownForeground(source); line != want || found != (want > 0) {
			t.Errorf("%q: line %d (%t), want %d", source, line, found, want)
		}
	}
	if file, line, found := OwnForeground(bundle(t, "\n#set page(foreground: [mine])\none")); !found || file != "contract.typ" || line < 2 {
		t.Errorf("of a bundle it is %s, line %d (%t)", file, line, found)
	}
}

func FuzzOwnForeground(f *testing.F) {
	for _, seed := range []string{"#set page(foreground: [x])", "/* // \\", "page(\"\\", "#page((((", "a:// page(/*, foreground:*/ foreground: 1)"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, source string) {
		line, found := ownForeground(source)
		if lines := 1 + strings.Count(source, "\n"); line < 0 || line > lines || found != (line > 0) || found && !strings.Contains(source, "foreground") {
			t.Errorf("line %d of %d (%t)", line, lines, found)
		}
	})
}
