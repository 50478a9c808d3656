package pdf

import (
	"fmt"
	"maps"
	"slices"
)

// entry says where an object is (ISO 32000-1, 7.5.4 and 7.5.8.3).
type entry struct {
	kind   entryKind
	offset int64 // inFile: byte of the file; inObjStm: number of the object stream
	gen    int
	index  int // inObjStm: which object of the stream
}

type entryKind uint8

const (
	free entryKind = iota
	inFile
	inObjStm
)

// section is one cross-reference section: a table or a stream.
type section struct {
	offset  int64 // byte of the file where it begins
	end     int64 // behind the %%EOF that belongs to it, line end included
	prev    int64 // offset of the section before it, -1 when there is none
	stream  bool
	trailer *Dict
	entries map[int]entry // nil once they are those of the File
	next    int           // above the highest number of an entry
}

// Revision is the state of the file after one update.
type Revision struct {
	XRef int64 // byte of the file where its cross-reference section begins
	// End is behind its %%EOF and the line end there, if any: the length of the file at that time, except that the
	// line end may have come with the next update. It is 0 when no startxref and %%EOF follow the section.
	End int64
}

// Revisions lists the original and its updates, oldest first. A linearized original counts as one, though it has two
// cross-reference sections.
func (f *File) Revisions() []Revision {
	var list []Revision
	for i := 0; i < len(f.sections); i++ {
		s := f.sections[i]
		r := Revision{XRef: s.offset, End: s.end}
		if s.prev > s.offset && i+1 < len(f.sections) {
			i++
			r.End = max(r.End, f.sections[i].end)
		}
		list = append(list, r)
	}
	slices.Reverse(list)
	return list
}

// readSections follows the chain of cross-reference sections from the newest to the oldest.
func (f *File) readSections(start int64) error {
	if f.base > 0 && !f.looksLikeSection(start+f.base) && f.looksLikeSection(start) {
		f.base = 0 // this producer counts from the first byte of the file
	}
	seen := make(map[int64]bool)
	for at := start + f.base; at >= 0; {
		if seen[at] {
			return &SyntaxError{Offset: at, Reason: "the chain of cross-reference sections runs in a circle"}
		}
		if len(f.sections) >= maxSections {
			return &LimitError{Offset: at, What: "the file has too many cross-reference sections", Limit: maxSections}
		}
		seen[at] = true
		s, err := f.readSection(at)
		if err != nil {
			return err
		}
		if err := f.adopt(s); err != nil {
			return err
		}
		f.sections = append(f.sections, *s)
		// Only a linearized original leads forward, from its first page's section to the last of the chain.
		if n := len(f.sections); n > 1 && f.sections[n-2].prev > f.sections[n-2].offset && s.prev >= 0 {
			return &SyntaxError{Offset: at, Reason: "a cross-reference section is older than one behind it"}
		}
		at = s.prev
	}
	f.trailer = f.sections[0].trailer
	return f.findNext()
}

func (f *File) looksLikeSection(at int64) bool {
	if at >= f.size {
		return false
	}
	l := newLexer(f.r, f.size, at)
	if l.keyword("xref") {
		return true
	}
	_, err1 := l.integer("", maxObjects)
	_, err2 := l.integer("", 65535)
	return err1 == nil && err2 == nil && l.keyword("obj")
}

// adopt takes the entries of s that no newer section has. The fewer are put among the more: an update has few.
func (f *File) adopt(s *section) error {
	into := s.entries
	if len(into) < len(f.entries) {
		into = f.entries
		for num, e := range s.entries {
			if _, newer := into[num]; !newer {
				into[num] = e
			}
		}
	} else {
		maps.Copy(into, f.entries)
	}
	f.entries, s.entries = into, nil
	if len(f.entries) > maxObjects {
		return &LimitError{Offset: s.offset, What: "the file has too many objects", Limit: maxObjects}
	}
	return nil
}

// findNext sets the first free object number. It looks at all sections: an update may carry a smaller /Size by mistake.
func (f *File) findNext() error {
	for _, s := range f.sections {
		size, ok := Int(s.trailer.Get("Size"))
		if !ok || size < 1 || size > maxObjects {
			return &SyntaxError{Offset: s.offset, Reason: fmt.Sprintf("the trailer's /Size is not a number from 1 to %d", maxObjects)}
		}
		f.next = max(f.next, int(size), s.next)
	}
	return nil
}

// readSection reads the section at a byte of the file, and the hidden stream of a hybrid one.
func (f *File) readSection(at int64) (*section, error) {
	if at >= f.size {
		return nil, &SyntaxError{Offset: at, Reason: "a cross-reference section is said to be here, behind the end of the file"}
	}
	l := newLexer(f.r, f.size, at)
	s := &section{offset: at, prev: -1}
	var err error
	if l.keyword("xref") {
		err = f.readTable(l, s)
	} else {
		err = f.readXRefStream(l, s)
	}
	if err != nil {
		return nil, err
	}
	if s.trailer.Has("Prev") {
		prev, ok := Int(s.trailer.Get("Prev"))
		if !ok || prev < 0 || prev+f.base >= f.size {
			return nil, &SyntaxError{Offset: at, Reason: "the trailer's /Prev is not an offset in the file"}
		}
		s.prev = prev + f.base
	}
	return s, f.spend(l)
}

// tableEntryBytes is the length of an entry of a table (7.5.4).
const tableEntryBytes = 20

// readTable reads a table and its trailer; l is behind the word xref.
func (f *File) readTable(l *lexer, s *section) error {
	for !l.keyword("trailer") {
		first, err := l.integer("the word trailer or an object number", maxObjects)
		if err != nil {
			return err
		}
		count, err := l.integer("a count of objects", maxObjects-first)
		if err != nil {
			return err
		}
		s.expect(count, (f.size-l.offset())/tableEntryBytes)
		l.ahead(count*tableEntryBytes + 512) // with a trailer
		for i := range int(count) {
			if err := f.tableEntry(l, s, int(first)+i); err != nil {
				return err
			}
		}
	}
	v, err := l.value()
	if err != nil {
		return err
	}
	d, ok := v.(*Dict)
	if !ok {
		return l.fail("the trailer is not a dictionary")
	}
	s.trailer = d
	s.end = l.endOfRevision()
	return f.readHidden(s)
}

// expect makes room for so many entries, if there are that many bytes left for them.
func (s *section) expect(entries, bytes int64) {
	if s.entries == nil {
		s.entries = make(map[int]entry, min(entries, bytes))
	}
}

func (s *section) put(num int, e entry) {
	s.entries[num] = e
	s.next = max(s.next, num+1)
}

func (f *File) tableEntry(l *lexer, s *section, num int) error {
	l.forget()
	offset, gen, used, ok := l.fixedEntry()
	if !ok {
		var err error
		if offset, gen, used, err = l.looseEntry(); err != nil {
			return err
		}
	}
	e := entry{gen: int(gen)}
	if used && offset > 0 { // offset 0 is the header: producers write it for objects that do not exist
		e.kind, e.offset = inFile, offset+f.base
	}
	s.put(num, e)
	return f.spendBytes(tableEntryBytes, l.offset())
}

// fixedEntry takes an entry that is written as the standard wants it: 10 digits, 5 digits, n or f, and a line end of two
// bytes (7.5.4).
func (l *lexer) fixedEntry() (offset, gen int64, used, ok bool) {
	l.skip()
	if !l.has(tableEntryBytes - 1) {
		return 0, 0, false, false
	}
	e := l.b[l.p : l.p+tableEntryBytes]
	offset, ok1 := digits(e[:10])
	gen, ok2 := digits(e[11:16])
	if !ok1 || !ok2 || gen > 65535 || e[10] != ' ' || e[16] != ' ' || e[17] != 'n' && e[17] != 'f' || !isSpace(e[18]) {
		return 0, 0, false, false
	}
	l.p += tableEntryBytes - 2
	return offset, gen, e[17] == 'n', true
}

// digits reads a number of at most 18 digits.
func digits(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// looseEntry takes an entry whatever the white space between its parts.
func (l *lexer) looseEntry() (offset, gen int64, used bool, err error) {
	if offset, err = l.integer("the offset of an object", 1<<40); err != nil {
		return 0, 0, false, err
	}
	if gen, err = l.integer("a generation number", 65535); err != nil {
		return 0, 0, false, err
	}
	used = l.keyword("n")
	if !used && !l.keyword("f") {
		return 0, 0, false, l.fail("n or f expected in the cross-reference table")
	}
	return offset, gen, used, nil
}

// readHidden reads the cross-reference stream of a hybrid section (7.5.8.4): it holds objects that the table declares
// free for the sake of old readers.
func (f *File) readHidden(s *section) error {
	if !s.trailer.Has("XRefStm") {
		return nil
	}
	at, ok := Int(s.trailer.Get("XRefStm"))
	if !ok || at < 0 || at+f.base >= f.size {
		return &SyntaxError{Offset: s.offset, Reason: "the trailer's /XRefStm is not an offset in the file"}
	}
	hidden := &section{offset: at + f.base}
	l := newLexer(f.r, f.size, hidden.offset)
	if err := f.readXRefStream(l, hidden); err != nil {
		return err
	}
	s.expect(int64(len(hidden.entries)), f.size)
	for num, e := range hidden.entries {
		if s.entries[num].kind == free {
			s.put(num, e)
		}
	}
	return f.spend(l)
}

// readXRefStream reads a cross-reference stream (7.5.8).
func (f *File) readXRefStream(l *lexer, s *section) error {
	_, err := l.integer("the word xref or an object number", maxObjects)
	if err != nil {
		return err
	}
	if _, err = l.integer("a generation number", 65535); err != nil {
		return err
	}
	v, err := f.body(l)
	if err != nil {
		return err
	}
	stream, ok := v.(*Stream)
	if !ok || stream.Dict.Get("Type") != Name("XRef") {
		return l.fail("no cross-reference section here, where the file says that there is one")
	}
	// Its length must be direct: nothing can be looked up yet.
	length, ok := Int(stream.Dict.Get("Length"))
	if !ok || length < 0 || length > f.size-stream.Offset {
		return l.fail("the /Length of a cross-reference stream is wrong")
	}
	data, err := f.decode(stream, length, maxStreamBytes)
	if err != nil {
		return err
	}
	s.stream, s.trailer = true, stream.Dict
	if err := f.streamEntries(s, data); err != nil {
		return err
	}
	after := newLexer(f.r, f.size, stream.Offset+length)
	if !after.keyword("endstream") || !after.keyword("endobj") {
		return after.fail("endstream expected: the /Length of a stream is wrong")
	}
	s.end = after.endOfRevision()
	return nil
}

// streamEntries decodes the records of a cross-reference stream (7.5.8.2).
func (f *File) streamEntries(s *section, data []byte) error {
	bad := func(what string) error {
		return &SyntaxError{Offset: s.offset, Reason: "cross-reference stream: " + what}
	}
	var widths [3]int
	w, _ := s.trailer.Get("W").(Array)
	if len(w) < 3 {
		return bad("/W is not an array of three numbers")
	}
	for i := range widths {
		n, ok := Int(w[i])
		if !ok || n < 0 || n > 8 {
			return bad("/W has a width that is not from 0 to 8")
		}
		widths[i] = int(n)
	}
	record := widths[0] + widths[1] + widths[2]
	if record == 0 {
		return bad("/W is all zeros")
	}
	index, ok := s.trailer.Get("Index").(Array)
	if !ok {
		index = Array{0, s.trailer.Get("Size")}
	}
	for ; len(index) >= 2; index = index[2:] {
		first, ok1 := Int(index[0])
		count, ok2 := Int(index[1])
		if !ok1 || !ok2 || first < 0 || count < 0 || first > maxObjects || count > maxObjects-first {
			return bad(fmt.Sprintf("/Index or /Size names objects that are not from 0 to %d", maxObjects))
		}
		if count*int64(record) > int64(len(data)) {
			return bad("the data is shorter than /Index says")
		}
		s.expect(count, count)
		for i := range int(count) {
			e, err := f.streamEntry(data[:record], widths)
			if err != nil {
				return bad(err.Error())
			}
			s.put(int(first)+i, e)
			data = data[record:]
		}
		// An entry costs much more than its bytes.
		if err := f.spendBytes(64*count, s.offset); err != nil {
			return err
		}
	}
	return nil
}

func (f *File) streamEntry(record []byte, widths [3]int) (entry, error) {
	var field [3]uint64
	for i, w := range widths {
		for _, b := range record[:w] {
			field[i] = field[i]<<8 | uint64(b)
		}
		record = record[w:]
	}
	if widths[0] == 0 {
		field[0] = 1
	}
	switch field[0] {
	case 1:
		if field[1] >= uint64(f.size) || field[2] > 65535 {
			return entry{}, fmt.Errorf("an object is said to be at byte %d, behind the end of the file", field[1])
		}
		if field[1] == 0 {
			return entry{}, nil
		}
		return entry{kind: inFile, offset: int64(field[1]) + f.base, gen: int(field[2])}, nil
	case 2:
		if field[1] > maxObjects || field[2] >= maxObjStmObjects {
			return entry{}, fmt.Errorf("an object stream's number or index is too large")
		}
		return entry{kind: inObjStm, offset: int64(field[1]), index: int(field[2])}, nil
	}
	// Type 0 is free; a reader shall treat types that it does not know as null (table 18).
	return entry{}, nil
}

// endOfRevision takes "startxref n %%EOF" and one line end, and says what byte comes behind; 0 when that is not what
// comes next.
func (l *lexer) endOfRevision() int64 {
	if !l.keyword("startxref") {
		return 0
	}
	if _, err := l.integer("", 1<<40); err != nil {
		return 0
	}
	l.skipSpace()
	if !l.prefix("%%EOF") {
		return 0
	}
	l.p += len("%%EOF")
	if l.prefix("\r") {
		l.p++
	}
	if l.prefix("\n") {
		l.p++
	}
	return l.offset()
}

// skipSpace passes over white space, but not over comments, as %%EOF is one.
func (l *lexer) skipSpace() {
	for l.has(0) && isSpace(l.b[l.p]) {
		l.p++
	}
}
