package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/dealseal/dealseal/documents"
)

// shelf keeps every bundle that a deal may still need, by the hash of its content, so that editing the templates folder
// never changes a deal in flight.
type shelf struct {
	dir string

	mu      sync.Mutex
	bundles map[string]*documents.Bundle
}

// newShelf puts the configured bundles on the shelf.
func (h *house) newShelf() (*shelf, error) {
	s := &shelf{dir: filepath.Join(h.cfg.StateDir, "bundles")}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	return s, s.add(h.bundles)
}

// add puts bundles on the shelf, durably, before any deal can name them. They are kept in memory in the place of those
// that were added before, which are on the disk.
func (s *shelf) add(bundles map[string]*documents.Bundle) error {
	byHash := map[string]*documents.Bundle{}
	for _, b := range bundles {
		if err := s.put(b); err != nil {
			return fmt.Errorf("template %s: %w", b.Name(), err)
		}
		byHash[b.Hash()] = b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bundles = byHash
	return nil
}

func (s *shelf) path(hash string) string { return filepath.Join(s.dir, hash) }

func (s *shelf) put(b *documents.Bundle) error {
	path := s.path(b.Hash())
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := writeNew(temp, b.Pack()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Bundle returns the bundle of that hash. Its content is compared with the hash.
func (s *shelf) Bundle(hash string) (*documents.Bundle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.bundles[hash]; ok {
		return b, nil
	}
	packed, err := os.ReadFile(s.path(hash))
	if err != nil {
		return nil, fmt.Errorf("the template that this deal was noticed with is gone: %w", err)
	}
	b, err := documents.Unpack(packed)
	if err != nil {
		return nil, err
	}
	if b.Hash() != hash {
		return nil, fmt.Errorf("the stored template %s has other content than its name says", hash)
	}
	s.bundles[hash] = b
	return b, nil
}
