package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxSize is the most bytes that a secret may have: a private key in PEM with
// room to spare, and far from exhausting memory when the path is a wrong one.
const maxSize = 64 << 10

// The places that a secret can be read from.
const (
	schemeEnv        = "env"
	schemeFile       = "file"
	schemeCredential = "credential"
)

// credentialsDirectory is the variable in which systemd names the directory of
// a unit's credentials (systemd.exec(5), "Credentials").
const credentialsDirectory = "CREDENTIALS_DIRECTORY"

// Ref says where a secret is: env:NAME (a variable of the environment),
// file:/PATH (a file) or credential:NAME (a systemd credential). A Ref is not
// secret and prints as it was written. The zero Ref names nothing.
type Ref struct {
	scheme, name string
}

// ParseRef reads a reference. Its error never repeats text, because what does
// not parse may be the secret itself.
func ParseRef(text string) (Ref, error) {
	scheme, name, _ := strings.Cut(text, ":")
	switch scheme {
	case schemeEnv:
		if !isVariable(name) {
			return Ref{}, errors.New("env: must be followed by the name of an environment variable: letters, digits and _ only")
		}
	case schemeFile:
		if !filepath.IsAbs(name) || strings.ContainsRune(name, 0) {
			return Ref{}, errors.New("file: must be followed by an absolute path, such as file:/etc/dealseal/hsm-pin")
		}
		name = filepath.Clean(name)
	case schemeCredential:
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") {
			return Ref{}, errors.New("credential: must be followed by the name of a systemd credential, which is no path")
		}
	default:
		return Ref{}, errors.New("not a reference to a secret: write env:NAME, file:/PATH or credential:NAME; the secret itself never stands in the configuration")
	}
	return Ref{scheme, name}, nil
}

func isVariable(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// String returns the reference as it is written in the configuration.
func (r Ref) String() string {
	if r.IsZero() {
		return ""
	}
	return r.scheme + ":" + r.name
}

// IsZero reports whether r names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// MarshalText implements [encoding.TextMarshaler].
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]; empty text is the zero
// Ref.
func (r *Ref) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = Ref{}
		return nil
	}
	parsed, err := ParseRef(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// Env returns the name of the environment variable that r reads, if it is an
// env: reference.
func (r Ref) Env() (name string, ok bool) { return r.name, r.scheme == schemeEnv }

// Path returns the file that the secret is read from. It fails for an env:
// reference, and for a credential: reference outside a unit with credentials.
func (r Ref) Path() (string, error) {
	switch r.scheme {
	case schemeFile:
		return r.name, nil
	case schemeCredential:
		dir := os.Getenv(credentialsDirectory)
		if dir == "" {
			return "", fmt.Errorf("%s: $%s is not set: start the daemon as a systemd unit with LoadCredential=%s:PATH, or use a file: reference", r, credentialsDirectory, r.name)
		}
		return filepath.Join(dir, r.name), nil
	default:
		return "", fmt.Errorf("%s names no file", r)
	}
}

// Resolve reads the secret anew. One newline at the end of a file is not part
// of it. A file that every user of the machine may read is refused; a secret
// that is empty or has more than 64 KiB is an error.
func (r Ref) Resolve() (Secret, error) {
	if r.IsZero() {
		return Secret{}, errors.New("no secret is configured: write env:NAME, file:/PATH or credential:NAME")
	}
	value, err := r.read()
	if err != nil {
		return Secret{}, err
	}
	switch {
	case len(value) == 0:
		return Secret{}, fmt.Errorf("%s: is empty", r)
	case len(value) > maxSize:
		return Secret{}, fmt.Errorf("%s: is larger than %d bytes", r, maxSize)
	}
	return New(value), nil
}

func (r Ref) read() ([]byte, error) {
	if name, ok := r.Env(); ok {
		value, set := os.LookupEnv(name)
		if !set {
			return nil, fmt.Errorf("%s: the variable is not set", r)
		}
		return []byte(value), nil
	}
	path, err := r.Path()
	if err != nil {
		return nil, err
	}
	value, err := readFile(path, r.scheme == schemeFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	return value, nil
}

// readFile reads one byte more than maxSize, so that the caller sees that
// there is too much. Credentials are guarded by systemd; their mode is not
// ours to judge, hence private.
func readFile(path string, private bool) ([]byte, error) {
	// Before opening, because opening a FIFO waits for its writer.
	if info, err := os.Stat(path); err != nil {
		return nil, withoutPath(err)
	} else if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, withoutPath(err)
	}
	if private && info.Mode().Perm()&0o004 != 0 {
		return nil, fmt.Errorf("every user may read the file (mode %#o): chmod 600 it", info.Mode().Perm())
	}
	value, err := io.ReadAll(io.LimitReader(f, maxSize+3))
	if err != nil {
		return nil, withoutPath(err)
	}
	value = bytes.TrimSuffix(value, []byte("\n"))
	return bytes.TrimSuffix(value, []byte("\r")), nil
}

// withoutPath drops the path, which the reference already shows.
func withoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
