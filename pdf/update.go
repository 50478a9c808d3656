package pdf

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Update collects new and changed objects, and writes them as one incremental update (ISO 32000-1, 7.5.6). It is not
// safe for concurrent use.
type Update struct {
	f       *File
	next    int
	objects map[int]*newObject
	order   []int
	deflate *zlib.Writer // made when it is first needed: it is large, so the streams share it
}

type newObject struct {
	ref   Ref
	value any    // the object, or the dictionary of the stream
	data  []byte // of the stream
	isStm bool
}

// Placeholder is a value whose bytes are known only later, such as the /Contents of a signature. It can be put anywhere
// in an object; [Update.Bytes] writes Text for it and sets Offset.
type Placeholder struct {
	Text   []byte // what stands there for the time being; a whole token
	Offset int64  // where it stands in the updated file, from its very beginning
}

// Update begins an update of f.
func (f *File) Update() *Update {
	return &Update{f: f, next: f.next, objects: make(map[int]*newObject)}
}

// Alloc takes an object number that was never used.
func (u *Update) Alloc() Ref {
	u.next++
	return Ref{Num: u.next - 1}
}

// Put sets the object ref, new or old, to v. v must not be changed afterwards, except for its placeholders.
func (u *Update) Put(ref Ref, v any) { u.put(&newObject{ref: ref, value: v}) }

// PutStream sets ref to a stream with that data. The data is written as it is: a /Filter in dict must describe it.
// /Length is added.
func (u *Update) PutStream(ref Ref, dict *Dict, data []byte) {
	d := dict.Clone()
	d.Set("Length", len(data))
	u.put(&newObject{ref: ref, value: d, data: data, isStm: true})
}

// PutCompressed is PutStream with the data compressed by FlateDecode.
func (u *Update) PutCompressed(ref Ref, dict *Dict, data []byte) {
	d := dict.Clone()
	d.Set("Filter", Name("FlateDecode"))
	var b bytes.Buffer
	if u.deflate == nil {
		u.deflate = zlib.NewWriter(&b)
	} else {
		u.deflate.Reset(&b)
	}
	// Writing to a bytes.Buffer does not fail.
	_, _ = u.deflate.Write(data)
	_ = u.deflate.Close()
	u.PutStream(ref, d, b.Bytes())
}

func (u *Update) put(o *newObject) {
	if _, ok := u.objects[o.ref.Num]; !ok {
		u.order = append(u.order, o.ref.Num)
	}
	u.objects[o.ref.Num] = o
}

// Resolve is [File.Resolve] with the objects of this update in the place of the old ones. For a new stream it gives the
// dictionary.
func (u *Update) Resolve(v any) (any, error) {
	for range maxReferences {
		ref, ok := v.(Ref)
		if !ok {
			return v, nil
		}
		o, ok := u.objects[ref.Num]
		if !ok || o.ref != ref {
			loaded, err := u.f.load(ref)
			if err != nil {
				return nil, err
			}
			v = loaded
			continue
		}
		v = o.value
	}
	return nil, &LimitError{What: "a reference leads to a reference, and so on", Limit: maxReferences}
}

// ResolveDict is Resolve for what should be a dictionary; anything else gives nil.
func (u *Update) ResolveDict(v any) (*Dict, error) {
	v, err := u.Resolve(v)
	if err != nil {
		return nil, err
	}
	switch d := v.(type) {
	case *Dict:
		return d, nil
	case *Stream:
		return d.Dict, nil
	}
	return nil, nil
}

// ResolveArray is Resolve for what should be an array; anything else gives nil.
func (u *Update) ResolveArray(v any) (Array, error) {
	v, err := u.Resolve(v)
	if err != nil {
		return nil, err
	}
	a, _ := v.(Array)
	return a, nil
}

// Bytes writes the update: what is to be appended to the file. The cross-reference section has the style of the file's
// newest one, as a reader that needs a table cannot use a stream (7.5.8.4). It sets the offsets of the placeholders.
func (u *Update) Bytes() ([]byte, error) {
	if u.next >= maxObjects {
		return nil, &LimitError{Offset: u.f.size, What: "the updated file has too many objects", Limit: maxObjects}
	}
	w := &writer{at: u.f.size, b: make([]byte, 0, u.length())}
	if err := u.startOnNewLine(w); err != nil {
		return nil, err
	}
	offsets := make(map[int]int64, len(u.order)+1)
	for _, num := range u.order {
		offsets[num] = w.offset() - u.f.base
		w.object(u.objects[num])
	}
	newest := u.f.sections[0]
	start := w.offset() - u.f.base
	trailer := u.trailer(w)
	if newest.stream {
		u.writeStream(w, trailer, offsets)
	} else {
		u.writeTable(w, trailer, offsets)
	}
	w.printf("startxref\n%d\n%%%%EOF\n", start)
	return w.b, w.err
}

// length is about what Bytes returns, but for its dictionaries: what is large are streams and placeholders.
func (u *Update) length() (n int) {
	for _, o := range u.objects {
		n += 512 + len(o.data)
		if d, ok := o.value.(*Dict); ok {
			for _, p := range d.pairs {
				if place, ok := p.value.(*Placeholder); ok {
					n += len(place.Text)
				}
			}
		}
	}
	return n
}

// startOnNewLine ends the last line of the original where it is open.
func (u *Update) startOnNewLine(w *writer) error {
	last := make([]byte, 1)
	if err := u.f.readAt(last, u.f.size-1); err != nil {
		return err
	}
	if last[0] != '\n' && last[0] != '\r' {
		w.print("\n")
	}
	return nil
}

// trailer carries over the entries of the newest trailer, except for those that describe its own section.
func (u *Update) trailer(w *writer) *Dict {
	d := u.f.trailer.Clone()
	for _, k := range []Name{"Type", "W", "Index", "Filter", "DecodeParms", "Length", "XRefStm", "DL", "F", "FFilter", "FDecodeParms"} {
		d.Delete(k)
	}
	d.Set("Size", u.next)
	d.Set("Prev", u.f.sections[0].offset-u.f.base)
	d.Set("ID", u.newID(d.Get("ID"), w.b))
	return d
}

// newID keeps the first half of the file identifier and changes the second (14.4).
func (u *Update) newID(old any, body []byte) Array {
	h := sha256.New()
	h.Write(body)
	resolved, err := u.Resolve(old)
	ids, _ := resolved.(Array)
	if err == nil && len(ids) == 2 {
		var w writer
		w.value(ids, 0)
		h.Write(w.b)
	}
	changed := Raw("<" + hex.EncodeToString(h.Sum(nil)[:16]) + ">")
	if len(ids) == 2 {
		return Array{ids[0], changed}
	}
	return Array{changed, changed}
}

// runs groups object numbers that follow each other.
func runs(nums []int) [][]int {
	slices.Sort(nums)
	var all [][]int
	for len(nums) > 0 {
		n := 1
		for n < len(nums) && nums[n] == nums[n-1]+1 {
			n++
		}
		all, nums = append(all, nums[:n]), nums[n:]
	}
	return all
}

func (u *Update) writeTable(w *writer, trailer *Dict, offsets map[int]int64) {
	w.print("xref\n")
	for _, run := range runs(slices.Clone(u.order)) {
		w.printf("%d %d\n", run[0], len(run))
		for _, num := range run {
			if offsets[num] > 9999999999 {
				w.fail(fmt.Errorf("pdf: the file is too long for a cross-reference table: 10 digits"))
			}
			w.printf("%010d %05d n\r\n", offsets[num], u.objects[num].ref.Gen)
		}
	}
	w.print("trailer\n")
	w.value(trailer, 0)
	w.print("\n")
}

func (u *Update) writeStream(w *writer, trailer *Dict, offsets map[int]int64) {
	self := Ref{Num: u.next}
	offsets[self.Num] = w.offset() - u.f.base
	width := 4
	for offsets[self.Num]>>(8*width) > 0 {
		width++
	}
	var data []byte
	index := Array{}
	for _, run := range runs(append(slices.Clone(u.order), self.Num)) {
		index = append(index, run[0], len(run))
		for _, num := range run {
			data = append(data, 1)
			for i := width - 1; i >= 0; i-- {
				data = append(data, byte(offsets[num]>>(8*i)))
			}
			gen := 0
			if o := u.objects[num]; o != nil {
				gen = o.ref.Gen
			}
			data = append(data, byte(gen>>8), byte(gen))
		}
	}
	d := D("Type", Name("XRef"), "W", Array{1, width, 2}, "Index", index)
	for _, k := range trailer.Keys() {
		d.Set(k, trailer.Get(k))
	}
	d.Set("Size", self.Num+1)
	d.Set("Length", len(data))
	w.object(&newObject{ref: self, value: d, data: data, isStm: true})
}

// writer spells objects; the first error sticks.
type writer struct {
	b   []byte
	at  int64 // file offset of b[0]
	err error
}

func (w *writer) offset() int64 { return w.at + int64(len(w.b)) }

func (w *writer) printf(format string, args ...any) { w.b = fmt.Appendf(w.b, format, args...) }

func (w *writer) print(s string) { w.b = append(w.b, s...) }

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *writer) object(o *newObject) {
	w.b = strconv.AppendInt(w.b, int64(o.ref.Num), 10)
	w.b = append(w.b, ' ')
	w.b = strconv.AppendInt(w.b, int64(o.ref.Gen), 10)
	w.print(" obj\n")
	w.value(o.value, 0)
	if o.isStm {
		w.print("\nstream\n")
		w.b = append(w.b, o.data...)
		w.print("\nendstream")
	}
	w.print("\nendobj\n")
}

func (w *writer) value(v any, depth int) {
	if depth > maxDepth {
		w.fail(&LimitError{Offset: w.offset(), What: "arrays and dictionaries to write are nested too deep", Limit: maxDepth})
		return
	}
	switch x := v.(type) {
	case nil:
		w.print("null")
	case Raw:
		w.b = append(w.b, x...)
	case Name:
		w.name(x)
	case Ref:
		w.print(x.String())
	case bool:
		w.printf("%t", x)
	case int:
		w.b = strconv.AppendInt(w.b, int64(x), 10)
	case int64:
		w.b = strconv.AppendInt(w.b, x, 10)
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			w.fail(fmt.Errorf("pdf: %v is not a number that can be written", x))
		}
		w.b = append(w.b, formatNumber(x)...)
	case *Placeholder:
		x.Offset = w.offset()
		w.b = append(w.b, x.Text...)
	case Array:
		w.print("[")
		for i, e := range x {
			if i > 0 {
				w.print(" ")
			}
			w.value(e, depth+1)
		}
		w.print("]")
	case *Dict:
		w.print("<<")
		for _, p := range x.pairs {
			w.print("\n")
			w.name(p.key)
			w.print(" ")
			w.value(p.value, depth+1)
		}
		w.print("\n>>")
	default:
		w.fail(fmt.Errorf("pdf: a %T cannot be written", v))
	}
}

func (w *writer) name(n Name) {
	w.b = append(w.b, '/')
	for i := range len(n) {
		c := n[i]
		if c <= ' ' || c > '~' || c == '#' || isDelimiter(c) {
			w.printf("#%02X", c)
			continue
		}
		w.b = append(w.b, c)
	}
}

// formatNumber spells a number without an exponent, which PDF does not have, and with at most four decimals.
func formatNumber(x float64) []byte {
	b := strconv.AppendFloat(nil, x, 'f', 4, 64)
	b = bytes.TrimRight(b, "0")
	b = bytes.TrimSuffix(b, []byte("."))
	if len(b) == 0 || string(b) == "-" || string(b) == "-0" {
		return []byte("0")
	}
	return b
}
