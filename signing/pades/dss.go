package pades

import (
	"context"
	"crypto/sha256"
	"errors"

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
	for _, part := range []struct {
		key  pdf.Name
		list [][]byte
	}{{"Certs", v.Certs}, {"OCSPs", v.OCSPs}, {"CRLs", v.CRLs}} {
		if err := s.add(part.key, part.list); err != nil {
			return nil, err
		}
	}
	if !s.changed {
		return nil, nil
	}
	s.put(ref, catalog)
	return s.update.Bytes()
}

// storeUpdate adds to a document security store.
type storeUpdate struct {
	file    *pdf.File
	update  *pdf.Update
	store   *pdf.Dict // changed
	changed bool
}

// add puts objects into one of the store's lists, each as a stream of its own. They are not compressed: DER hardly gets
// smaller.
func (s *storeUpdate) add(key pdf.Name, list [][]byte) error {
	array, err := s.file.ResolveArray(s.store.Get(key))
	if err != nil {
		return err
	}
	known, err := s.known(array)
	if err != nil {
		return err
	}
	array = append(pdf.Array(nil), array...)
	for _, der := range list {
		sum := sha256.Sum256(der)
		if known[sum] {
			continue
		}
		known[sum] = true
		ref := s.update.Alloc()
		s.update.PutStream(ref, pdf.D(), der)
		array = append(array, ref)
		s.store.Set(key, array)
		s.changed = true
	}
	return nil
}

// known are the objects of a list.
func (s *storeUpdate) known(array pdf.Array) (map[[sha256.Size]byte]bool, error) {
	known := map[[sha256.Size]byte]bool{}
	objects, err := validationObjects(s.file, array)
	for _, der := range objects {
		known[sha256.Sum256(der)] = true
	}
	return known, err
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

// ReadValidation returns what the document security store of file holds. Objects that cannot be read count as not there.
func ReadValidation(file *pdf.File) (v Validation, err error) {
	_, catalog, err := file.Catalog()
	if err != nil {
		return v, err
	}
	store, err := file.ResolveDict(catalog.Get("DSS"))
	if err != nil {
		return v, err
	}
	for _, part := range []struct {
		key  pdf.Name
		list *[][]byte
	}{{"Certs", &v.Certs}, {"OCSPs", &v.OCSPs}, {"CRLs", &v.CRLs}} {
		array, err := file.ResolveArray(store.Get(part.key))
		if err != nil {
			return v, err
		}
		if *part.list, err = validationObjects(file, array); err != nil {
			return v, err
		}
	}
	return v, nil
}

// maxValidationObjects bounds one list of a store.
const maxValidationObjects = 1000

// validationObjects reads a list. An object that cannot be read counts as not there.
func validationObjects(file *pdf.File, array pdf.Array) (list [][]byte, err error) {
	if len(array) > maxValidationObjects {
		return nil, &pdf.LimitError{What: "the document security store has too many objects", Limit: maxValidationObjects}
	}
	for _, item := range array {
		value, err := file.Resolve(item)
		if err != nil {
			return nil, err
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
			return nil, err
		}
		list = append(list, der)
	}
	return list, nil
}
