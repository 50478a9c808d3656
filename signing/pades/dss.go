package pades

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/pdf"
)

// Validation is what signatures can be checked with when those who made it are gone. Everything is DER.
type Validation struct {
	Certs [][]byte // certificates
	OCSPs [][]byte // OCSPResponses
	CRLs  [][]byte // CertificateLists
}

// AddValidation puts v into the document security store of doc (ISO 32000-2, 12.8.4.3), beside what is there, and returns
// the bytes to append; nil if all of it is there already. It is no change that a certification could forbid. Errors are
// those of package pdf, permanent, or those of reading doc and of ctx.
func AddValidation(ctx context.Context, doc Document, v Validation) (tail []byte, err error) {
	return addValidation(ctx, doc, v, false)
}

// AddIndexedValidation is AddValidation that says besides for which signatures v is: for all that doc has, time-stamps
// included, each by the hash of its value (/VRI of the store). Some validators look there first; none may need it.
func AddIndexedValidation(ctx context.Context, doc Document, v Validation) (tail []byte, err error) {
	return addValidation(ctx, doc, v, true)
}

func addValidation(ctx context.Context, doc Document, v Validation, index bool) (tail []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file, err := pdf.Open(doc, doc.Size())
	if err != nil {
		return nil, err
	}
	ref, catalog, err := file.Catalog()
	if err != nil {
		return nil, err
	}
	s := &storeUpdate{file: file, update: file.Update()}
	store, err := file.ResolveDict(catalog.Get("DSS"))
	if err != nil {
		return nil, err
	}
	if s.store = store.Clone(); store == nil {
		s.store = pdf.D("Type", pdf.Name("DSS"))
	}
	var refs [3][]pdf.Ref
	for i, list := range [][][]byte{v.Certs, v.OCSPs, v.CRLs} {
		if refs[i], err = s.add(storeKeys[i], list); err != nil {
			return nil, err
		}
	}
	if index {
		if err := s.index(refs); err != nil {
			return nil, err
		}
	}
	if !s.changed {
		return nil, nil
	}
	s.put(ref, catalog)
	return s.update.Bytes()
}

// storeKeys are the lists of a store, and indexKeys the same of one of its entries about a signature.
var (
	storeKeys = [3]pdf.Name{"Certs", "OCSPs", "CRLs"}
	indexKeys = [3]pdf.Name{"Cert", "OCSP", "CRL"}
)

// storeUpdate adds to a document security store.
type storeUpdate struct {
	file    *pdf.File
	update  *pdf.Update
	store   *pdf.Dict // changed
	changed bool
}

// add puts objects into one of the store's lists, each as a stream of its own. They are not compressed: DER hardly gets
// smaller. It returns where each of them is now.
func (s *storeUpdate) add(key pdf.Name, list [][]byte) (refs []pdf.Ref, err error) {
	array, err := s.file.ResolveArray(s.store.Get(key))
	if err != nil {
		return nil, err
	}
	known := map[[sha256.Size]byte]pdf.Ref{}
	if err := eachValidationObject(s.file, array, func(ref pdf.Ref, der []byte) { known[sha256.Sum256(der)] = ref }); err != nil {
		return nil, err
	}
	array = append(pdf.Array(nil), array...)
	for _, der := range list {
		sum := sha256.Sum256(der)
		ref, there := known[sum]
		if !there {
			ref = s.update.Alloc()
			known[sum] = ref
			s.update.PutStream(ref, pdf.D(), der)
			array = append(array, ref)
			s.store.Set(key, array)
			s.changed = true
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// index says of each signature that these objects are for it, beside what is said of it already.
func (s *storeUpdate) index(refs [3][]pdf.Ref) error {
	all, err := s.file.ResolveDict(s.store.Get("VRI"))
	if err != nil {
		return err
	}
	if all = all.Clone(); all == nil {
		all = pdf.D()
	}
	names, err := signatureHashes(s.file)
	if err != nil {
		return err
	}
	for _, name := range names {
		entry, err := s.file.ResolveDict(all.Get(name))
		if err != nil {
			return err
		}
		if entry = entry.Clone(); entry == nil {
			entry = pdf.D("Type", pdf.Name("VRI"))
		}
		changed := false
		for i, key := range indexKeys {
			more, err := s.refer(entry, key, refs[i])
			if err != nil {
				return err
			}
			changed = changed || more
		}
		if changed {
			all.Set(name, entry)
			s.store.Set("VRI", all)
			s.changed = true
		}
	}
	return nil
}

// refer puts references into a list of an entry that lacks them.
func (s *storeUpdate) refer(entry *pdf.Dict, key pdf.Name, refs []pdf.Ref) (changed bool, err error) {
	array, err := s.file.ResolveArray(entry.Get(key))
	if err != nil {
		return false, err
	}
	if len(array) > maxValidationObjects {
		return false, tooManyObjects()
	}
	array = append(pdf.Array(nil), array...)
	for _, ref := range refs {
		if !slices.Contains(array, any(ref)) {
			array = append(array, ref)
			entry.Set(key, array)
			changed = true
		}
	}
	return changed, nil
}

// signatureHashes are the names under which a store knows the signatures and time-stamps of a file: SHA-1 over the value
// with its padding, which tells signatures apart and protects nothing.
func signatureHashes(file *pdf.File) (names []pdf.Name, err error) {
	fields, err := file.Form()
	if err != nil {
		return nil, err
	}
	for _, field := range fields {
		if field.Type != "Sig" || field.Value == nil {
			continue
		}
		d, err := file.ResolveDict(field.Value)
		if err != nil {
			return nil, err
		}
		if contents, ok := pdf.StringBytes(d.Get("Contents")); ok {
			sum := sha1.Sum(contents)
			names = append(names, pdf.Name(strings.ToUpper(hex.EncodeToString(sum[:]))))
		}
	}
	return names, nil
}

// put writes the store to where it was, or makes a place for it.
func (s *storeUpdate) put(catalogRef pdf.Ref, catalog *pdf.Dict) {
	if ref, ok := catalog.Get("DSS").(pdf.Ref); ok {
		s.update.Put(ref, s.store)
		return
	}
	ref := s.update.Alloc()
	s.update.Put(ref, s.store)
	changed := catalog.Clone()
	changed.Set("DSS", ref)
	s.update.Put(catalogRef, changed)
}

// ReadValidation returns what the document security store of file holds, in its lists or in its entries about signatures.
// Objects that cannot be read count as not there.
func ReadValidation(file *pdf.File) (v Validation, err error) {
	_, catalog, err := file.Catalog()
	if err != nil {
		return v, err
	}
	store, err := file.ResolveDict(catalog.Get("DSS"))
	if err != nil {
		return v, err
	}
	r := &storeReader{file: file, lists: [3]*[][]byte{&v.Certs, &v.OCSPs, &v.CRLs}, seen: map[pdf.Ref]bool{}}
	if err := r.read(store, storeKeys); err != nil {
		return v, err
	}
	entries, err := file.ResolveDict(store.Get("VRI"))
	if err != nil {
		return v, err
	}
	if entries.Len() > maxValidationObjects {
		return v, tooManyObjects()
	}
	for _, name := range entries.Keys() {
		entry, err := file.ResolveDict(entries.Get(name))
		if err != nil {
			return v, err
		}
		if err := r.read(entry, indexKeys); err != nil {
			return v, err
		}
	}
	return v, nil
}

// storeReader reads each object once, however often it is referred to.
type storeReader struct {
	file  *pdf.File
	lists [3]*[][]byte
	seen  map[pdf.Ref]bool
}

func (r *storeReader) read(d *pdf.Dict, keys [3]pdf.Name) error {
	for i, key := range keys {
		array, err := r.file.ResolveArray(d.Get(key))
		if err != nil {
			return err
		}
		if len(array) > maxValidationObjects {
			return tooManyObjects() // entries may share a list: it is gone through for each
		}
		fresh := slices.DeleteFunc(append(pdf.Array(nil), array...), func(item any) bool {
			ref, ok := item.(pdf.Ref)
			known := ok && r.seen[ref]
			r.seen[ref] = true
			return known
		})
		if len(*r.lists[i])+len(fresh) > maxValidationObjects {
			return tooManyObjects()
		}
		if err := eachValidationObject(r.file, fresh, func(_ pdf.Ref, der []byte) { *r.lists[i] = append(*r.lists[i], der) }); err != nil {
			return err
		}
	}
	return nil
}

// maxValidationObjects bounds one list of a store.
const maxValidationObjects = 1000

func tooManyObjects() error {
	return &pdf.LimitError{What: "the document security store has too many objects", Limit: maxValidationObjects}
}

// eachValidationObject reads a list. An object that cannot be read counts as not there.
func eachValidationObject(file *pdf.File, array pdf.Array, do func(ref pdf.Ref, der []byte)) error {
	if len(array) > maxValidationObjects {
		return tooManyObjects()
	}
	for _, item := range array {
		value, err := file.Resolve(item)
		if err != nil {
			return err
		}
		stream, ok := value.(*pdf.Stream)
		if !ok {
			continue
		}
		der, err := file.StreamData(stream)
		var damaged *pdf.SyntaxError
		if errors.As(err, &damaged) {
			continue
		}
		if err != nil {
			return err
		}
		ref, _ := item.(pdf.Ref) // a stream is always referred to
		do(ref, der)
	}
	return nil
}
