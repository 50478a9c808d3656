// Package secret keeps secret values out of everything that is printed, and
// names the places that they are read from.
//
// Configuration holds references ([Ref]) only: env:NAME, file:/PATH or
// credential:NAME. [Ref.Resolve] turns one into a [Secret] at the moment that
// it is needed.
package secret

import (
	"bytes"
	"fmt"
	"log/slog"
)

// mask is what every way of printing a Secret shows.
const mask = "[secret]"

// Secret is a value that does not print: fmt with any verb, slog, JSON and
// every other text encoding show "[secret]" whether it is set or not. The zero
// Secret is empty. A Secret is safe for concurrent use.
type Secret struct {
	// A closure, because fmt does not call the methods of a value that it
	// reaches through an unexported field. It then prints the field itself: of
	// a pointer, with a verb such as %s, even what it points to; of a function
	// only the address.
	reveal func() []byte
}

// New returns a Secret that holds a copy of value.
func New(value []byte) Secret {
	held := bytes.Clone(value)
	return Secret{func() []byte { return held }}
}

// Reveal returns a copy of the value. The caller may overwrite it after use.
func (s Secret) Reveal() []byte {
	if s.reveal == nil {
		return nil
	}
	return bytes.Clone(s.reveal())
}

// RevealString returns the value as a string, for libraries that take nothing
// else.
func (s Secret) RevealString() string {
	if s.reveal == nil {
		return ""
	}
	return string(s.reveal())
}

// IsZero reports whether s holds no value, or an empty one.
func (s Secret) IsZero() bool { return s.reveal == nil || len(s.reveal()) == 0 }

// Format implements [fmt.Formatter] for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(mask)) }

// String implements [fmt.Stringer] for callers that do not go through fmt.
func (s Secret) String() string { return mask }

// GoString implements [fmt.GoStringer].
func (s Secret) GoString() string { return mask }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalText implements [encoding.TextMarshaler], and with it JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(mask), nil }
