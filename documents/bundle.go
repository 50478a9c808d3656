package documents

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // what a logo may be
	_ "image/png"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// ContractFile is the Typst source that a bundle's document is made from.
const ContractFile = "contract.typ"

// Limits of a bundle. They are far above any sane template and far below what would hurt.
const (
	maxFileBytes   = 5 << 20
	maxBundleBytes = 20 << 20
	maxFiles       = 200
)

// Bundle is one version of a template with all its files, as it was read. It never changes and is safe for concurrent
// use.
type Bundle struct {
	Manifest

	hash   string
	files  map[string][]byte
	schema *jsonschema.Schema
	words  func() map[string]bool // see wordsIn
}

// Name is what a rule calls the bundle: order-form@1.
func (b *Bundle) Name() string { return fmt.Sprintf("%s@%d", b.ID, b.Version) }

// Hash is the hex SHA-256 over all files of the bundle. Two bundles with one hash make the same documents.
func (b *Bundle) Hash() string { return b.hash }

// File returns the content of one file; it must not be changed.
func (b *Bundle) File(name string) ([]byte, bool) {
	data, ok := b.files[name]
	return data, ok
}

// FileNames lists all files, sorted.
func (b *Bundle) FileNames() []string { return sortedKeys(b.files) }

// Samples lists the sample records, sorted: samples/*.json.
func (b *Bundle) Samples() []string {
	return slices.DeleteFunc(b.FileNames(), func(n string) bool { return !strings.HasPrefix(n, "samples/") })
}

// RequireApproved returns an *ApprovalError for a draft. Callers ask it before real contracts are made.
func (b *Bundle) RequireApproved() error {
	if b.Approval.State != "approved" {
		return &ApprovalError{Template: b.Name()}
	}
	return nil
}

// Load reads and checks the bundle in folder dir. All faults are a *BundleError or an I/O error.
func Load(dir string) (*Bundle, error) {
	files, err := readFiles(dir)
	if err != nil {
		return nil, err
	}
	b, err := newBundle(files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return b, nil
}

// LoadAll reads every bundle in the folders below dir, keyed by Name. Hidden entries are passed over; a plain file
// beside the bundles, a broken bundle and two bundles of one name are errors.
func LoadAll(dir string) (map[string]*Bundle, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("templates: %w", err)
	}
	all := make(map[string]*Bundle)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.Name() == "README.md" {
			continue
		}
		where := filepath.Join(dir, e.Name())
		if info, err := os.Stat(where); err != nil || !info.IsDir() {
			return nil, &BundleError{File: where, Reason: "is not a folder: templates holds one folder per bundle"}
		}
		b, err := Load(where)
		if err != nil {
			return nil, err
		}
		if all[b.Name()] != nil {
			return nil, &BundleError{File: where, Reason: "a second bundle is called " + b.Name()}
		}
		all[b.Name()] = b
	}
	return all, nil
}

// Pack writes all files as one deterministic byte string, whose SHA-256 is the bundle's hash. A deal in flight keeps
// it, so that editing the folder does not change the deal.
func (b *Bundle) Pack() []byte { return pack(b.files) }

// Unpack is the inverse of Pack, with all the checks of Load.
func Unpack(packed []byte) (*Bundle, error) {
	files, err := unpack(packed)
	if err != nil {
		return nil, err
	}
	return newBundle(files)
}

func newBundle(files map[string][]byte) (*Bundle, error) {
	if err := checkFiles(files); err != nil {
		return nil, err
	}
	m, err := parseManifest(files[ManifestFile])
	if err != nil {
		return nil, err
	}
	for name := range files {
		if !strings.Contains(name, "/") && strings.HasSuffix(name, ".json") && name != m.Schema {
			return nil, &BundleError{File: name, Reason: "is not the schema that template.yaml names; records belong in samples/"}
		}
	}
	if err := checkLogos(m.Signers, files); err != nil {
		return nil, err
	}
	schema, err := compileSchema(m.Schema, files)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(pack(files))
	words := sync.OnceValue(func() map[string]bool { return wordsIn(files) })
	return &Bundle{Manifest: *m, hash: hex.EncodeToString(sum[:]), files: files, schema: schema, words: words}, nil
}

// maxLogo bounds a logo in pixels: it is written into every document.
const maxLogo = 1 << 20

// checkLogos refuses what the seal could not show.
func checkLogos(signers []Signer, files map[string][]byte) error {
	for _, s := range signers {
		if s.Logo == "" {
			continue
		}
		fault := func(reason string) error { return &BundleError{File: s.Logo, Reason: reason} }
		data, ok := files[s.Logo]
		if !ok {
			return fault("is the logo of signer " + s.Name + ", and missing")
		}
		c, _, err := image.DecodeConfig(bytes.NewReader(data))
		if err != nil {
			return fault("is a logo, and must be PNG or JPEG")
		}
		if c.Width < 1 || c.Height < 1 || c.Width > maxLogo/c.Height {
			return fault("is a logo of more than a million pixels: make it smaller")
		}
	}
	return nil
}

// readFiles reads a bundle's folder. It follows no symbolic link below it: what is hashed is what lies there.
func readFiles(dir string) (map[string][]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	defer func() { _ = root.Close() }()
	files := make(map[string][]byte)
	total := 0
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return nil
		}
		fault := func(reason string) error { return &BundleError{File: path.Join(dir, name), Reason: reason} }
		info, err := e.Info()
		switch {
		case err != nil:
			return err
		case !e.Type().IsRegular():
			return fault("is not a plain file; symbolic links and devices cannot be part of a bundle")
		case info.Size() > maxFileBytes:
			return fault("is larger than 5 MB")
		case len(files) == maxFiles:
			return fault("is one file too many: a bundle has at most 200")
		}
		data, err := root.ReadFile(name)
		if err != nil {
			return err
		}
		if total += len(data); total > maxBundleBytes {
			return fault("makes the bundle larger than 20 MB")
		}
		files[name] = data
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("template %s: %w", dir, err)
	}
	return files, nil
}

// assetTypes are the kinds of file that contract.typ can make use of.
var assetTypes = []string{".png", ".jpg", ".jpeg", ".svg", ".typ", ".csv", ".txt"}

// checkFiles refuses what has no place in a bundle: a stray file would change the hash and nobody would know why.
func checkFiles(files map[string][]byte) error {
	for _, must := range []string{ManifestFile, ContractFile} {
		if _, ok := files[must]; !ok {
			return &BundleError{File: must, Reason: "is missing"}
		}
	}
	for _, name := range sortedKeys(files) {
		if reason := misplaced(name); reason != "" {
			return &BundleError{File: name, Reason: reason}
		}
	}
	return nil
}

func misplaced(name string) string {
	folder, file := path.Split(name)
	ext := strings.ToLower(path.Ext(file))
	switch {
	case !fs.ValidPath(name) || strings.ContainsAny(name, "\\\x00"):
		return "is not a usable file name"
	case strings.HasPrefix(file, ".") || strings.Contains(name, "/."):
		return "is a hidden file: remove it from the bundle"
	case folder == "" && (file == ManifestFile || file == ContractFile || file == "README.md" || ext == ".json"):
		return ""
	case folder == "samples/" && ext == ".json":
		return ""
	case strings.HasPrefix(folder, "assets/") && slices.Contains(assetTypes, ext):
		return ""
	case folder == "samples/":
		return "samples/ holds records only (.json)"
	case strings.HasPrefix(folder, "assets/"):
		return "assets/ holds " + strings.Join(assetTypes, " ") + " only"
	}
	return "does not belong in a bundle, which has template.yaml, contract.typ, its schema, README.md, assets/ and samples/"
}

// packHeader names the encoding, so that a later one cannot collide with it.
const packHeader = "dealseal/bundle/1"

func pack(files map[string][]byte) []byte {
	out := field(nil, []byte(packHeader))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		out = field(field(out, []byte(name)), files[name])
	}
	return out
}

func field(to, data []byte) []byte {
	return append(binary.BigEndian.AppendUint64(to, uint64(len(data))), data...)
}

var errPacked = errors.New("template: the stored bundle is damaged")

func unpack(b []byte) (map[string][]byte, error) {
	var fields [][]byte
	for len(b) > 0 {
		if len(b) < 8 || len(fields) > 2*maxFiles {
			return nil, errPacked
		}
		n := binary.BigEndian.Uint64(b)
		if n > uint64(len(b)-8) {
			return nil, errPacked
		}
		fields = append(fields, bytes.Clone(b[8:8+n]))
		b = b[8+n:]
	}
	if len(fields)%2 != 1 || string(fields[0]) != packHeader {
		return nil, errPacked
	}
	files := make(map[string][]byte)
	for i := 1; i < len(fields); i += 2 {
		if _, twice := files[string(fields[i])]; twice {
			return nil, errPacked
		}
		files[string(fields[i])] = fields[i+1]
	}
	return files, nil
}
