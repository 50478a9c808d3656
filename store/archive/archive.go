// Package archive keeps sealed contracts as files: one folder per sealing with the encrypted contract, its evidence and
// a manifest from which the ledger can be rebuilt. A folder is either there as a whole and on stable storage, or not at
// all.
package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

const (
	manifestName = "manifest.json"
	suffix       = ".age"
	unfinished   = ".unfinished-"
)

// Archive is a folder of kept sealings. Its methods may be used concurrently for different sealings.
type Archive struct {
	Root string
	Hook Hook
}

// Source is one file to keep. Open returns its stored, that is encrypted, bytes; Plain names the bytes inside.
type Source struct {
	Name  string // "contract.pdf" or "evidence/<name>"
	Plain deal.FileFact
	Open  func() (io.ReadCloser, error)
}

// ConflictError means that something else is already kept under the same transaction.
type ConflictError struct {
	Folder string
	Name   string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("archive folder %s exists with another %s: it is not overwritten", e.Folder, e.Name)
}

// Permanent is always true.
func (e *ConflictError) Permanent() bool { return true }

// Folder is where a sealing is kept, relative to the root: <tenant>/<yyyy>/<mm>/<tx>, by the month (UTC) of at.
func Folder(tenant deal.TenantID, at time.Time, tx deal.TxID) string {
	return path.Join(string(tenant), at.UTC().Format("2006/01"), string(tx))
}

// Exists reports whether anything was ever kept.
func (a *Archive) Exists() bool {
	_, err := os.Stat(a.Root)
	return err == nil
}

// Keep writes a folder and returns when it is on stable storage. A second call for the same contract changes nothing. It
// fills m.Version and m.Files; key authenticates the manifest.
func (a *Archive) Keep(ctx context.Context, folder string, m *Manifest, key []byte, sources []Source) error {
	final, err := a.path(folder)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(final); err == nil {
		return a.sameAs(folder, m.Tenant, key, sources)
	}
	month, temp := filepath.Dir(final), filepath.Join(filepath.Dir(final), unfinished+filepath.Base(final))
	if err := a.mkdirAll(month); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if err := a.fill(ctx, temp, m, key, sources); err != nil {
		return errors.Join(fmt.Errorf("archive %s: %w", folder, err), os.RemoveAll(temp))
	}
	if err := a.Hook.Around("rename/archive", func() error { return os.Rename(temp, final) }); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return a.syncDir("fsync/archive-dir", month)
}

// fill writes everything into a fresh temporary folder.
func (a *Archive) fill(ctx context.Context, temp string, m *Manifest, key []byte, sources []Source) error {
	if err := os.RemoveAll(temp); err != nil { // what a crash left
		return err
	}
	evidence := filepath.Join(temp, "evidence")
	if err := os.MkdirAll(evidence, 0o700); err != nil {
		return err
	}
	m.Version, m.Files = Version, map[string]File{}
	for _, src := range sources {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := a.copy(temp, src)
		if err != nil {
			return fmt.Errorf("%s: %w", src.Name, err)
		}
		m.Files[src.Name] = f
	}
	stored, err := m.encode(key)
	if err != nil {
		return err
	}
	if err := a.writeFile("fsync/archive-manifest", filepath.Join(temp, manifestName), strings.NewReader(string(stored))); err != nil {
		return err
	}
	if err := a.syncDir("fsync/archive-new-dir", evidence); err != nil {
		return err
	}
	return a.syncDir("fsync/archive-new-dir", temp)
}

// nameForm is what a kept file may be called.
var nameForm = regexp.MustCompile(`^(evidence/)?[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func (a *Archive) copy(temp string, src Source) (File, error) {
	if !nameForm.MatchString(src.Name) {
		return File{}, fmt.Errorf("not a name for a kept file")
	}
	r, err := src.Open()
	if err != nil {
		return File{}, err
	}
	defer r.Close()
	h := sha256.New()
	counted := &counter{r: io.TeeReader(r, h)}
	if err := a.writeFile("fsync/archive-file", filepath.Join(temp, filepath.FromSlash(src.Name)+suffix), counted); err != nil {
		return File{}, err
	}
	return File{SHA256: src.Plain.SHA256, MD5: src.Plain.MD5, Size: src.Plain.Size,
		StoredSHA256: hex.EncodeToString(h.Sum(nil)), StoredSize: counted.n}, nil
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (a *Archive) writeFile(operation, name string, content io.Reader) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = a.Hook.Around(operation, f.Sync)
	}
	return errors.Join(err, f.Close())
}

// sameAs checks that an existing folder holds what is to be kept.
func (a *Archive) sameAs(folder string, tenant deal.TenantID, key []byte, sources []Source) error {
	m, err := a.Read(folder, func(deal.TenantID) []byte { return key })
	if err != nil {
		return err
	}
	for _, src := range sources {
		if src.Name == "contract.pdf" && (m.Files[src.Name].SHA256 != src.Plain.SHA256 || m.Tenant != tenant) {
			return &ConflictError{Folder: folder, Name: src.Name}
		}
	}
	// A crash may have come between the rename and this.
	final, err := a.path(folder)
	if err != nil {
		return err
	}
	return a.syncDir("fsync/archive-dir", filepath.Dir(final))
}

// Read returns the manifest of a folder; key returns the key that authenticates a tenant's manifests. The error is a
// *DamagedError if the folder is not as it was kept, and fs.ErrNotExist if there is none.
func (a *Archive) Read(folder string, key func(deal.TenantID) []byte) (*Manifest, error) {
	dir, err := a.path(folder)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(dir, manifestName))
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	defer f.Close()
	stored, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	if len(stored) > maxManifest {
		return nil, &DamagedError{folder, fmt.Errorf("the manifest is larger than %d bytes", maxManifest)}
	}
	m, err := parse(stored, key)
	var version versionError
	switch {
	case errors.As(err, &version):
		return nil, fmt.Errorf("archive %s: %w", folder, err)
	case err != nil:
		return nil, &DamagedError{folder, err}
	case string(m.Tx) != path.Base(folder):
		return nil, &DamagedError{folder, fmt.Errorf("the manifest is that of %s", m.Tx)}
	}
	return m, nil
}

// Replace overwrites the manifest of a folder, atomically and durably.
func (a *Archive) Replace(folder string, m *Manifest, key []byte) error {
	dir, err := a.path(folder)
	if err != nil {
		return err
	}
	stored, err := m.encode(key)
	if err != nil {
		return err
	}
	temp := filepath.Join(dir, unfinished+manifestName)
	if err := os.RemoveAll(temp); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if err := a.writeFile("fsync/archive-manifest", temp, strings.NewReader(string(stored))); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if err := a.Hook.Around("rename/manifest", func() error { return os.Rename(temp, filepath.Join(dir, manifestName)) }); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return a.syncDir("fsync/archive-dir", dir)
}

// Open opens the stored bytes of a kept file.
func (a *Archive) Open(folder, name string) (*os.File, error) {
	dir, err := a.path(folder)
	if err != nil {
		return nil, err
	}
	if !nameForm.MatchString(name) {
		return nil, fmt.Errorf("archive %s: %q is not the name of a kept file", folder, name)
	}
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)+suffix))
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return f, nil
}

// Walk calls visit with each folder that is kept under the month (UTC) of since or a later one, in lexical order. The
// zero time means all. What is being kept meanwhile may be passed over.
func (a *Archive) Walk(ctx context.Context, since time.Time, visit func(folder string) error) error {
	return a.walk(ctx, since, visit, func(string) error { return nil })
}

// Sweep is Walk for a start, when nothing is being kept: it removes what a crash left unfinished.
func (a *Archive) Sweep(ctx context.Context, since time.Time, visit func(folder string) error) error {
	return a.walk(ctx, since, visit, os.RemoveAll)
}

func (a *Archive) walk(ctx context.Context, since time.Time, visit, half func(string) error) error {
	if !a.Exists() {
		return nil
	}
	first := since.UTC().Format("2006/01")
	err := filepath.WalkDir(a.Root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		if strings.HasPrefix(d.Name(), unfinished) {
			if err := half(name); err != nil {
				return err
			}
			return fs.SkipDir
		}
		rel, err := filepath.Rel(a.Root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if month := monthForm.FindStringSubmatch(rel); month != nil && month[1] < first[:len(month[1])] {
			return fs.SkipDir
		}
		if !folderForm.MatchString(rel) {
			return nil
		}
		if err := visit(rel); err != nil {
			return err
		}
		return fs.SkipDir
	})
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return nil
}

// monthForm is the way to a folder: a tenant's year, or a month of it.
var monthForm = regexp.MustCompile(`^[^/]+/([0-9]{4}(?:/[0-9]{2})?)$`)

// folderForm is what Folder makes.
var folderForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}/[0-9]{4}/[0-9]{2}/[a-z2-7]{26}$`)

func (a *Archive) path(folder string) (string, error) {
	if !folderForm.MatchString(folder) {
		return "", fmt.Errorf("%q is not a folder of the archive: <tenant>/<yyyy>/<mm>/<transaction> is expected", folder)
	}
	return filepath.Join(a.Root, filepath.FromSlash(folder)), nil
}

// mkdirAll makes a folder and its parents; each new one is made durable in its parent.
func (a *Archive) mkdirAll(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := a.mkdirAll(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return a.syncDir("fsync/archive-dir", parent)
}

func (a *Archive) syncDir(operation, dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return errors.Join(a.Hook.Around(operation, d.Sync), d.Close())
}
