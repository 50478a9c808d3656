// Package pades writes PAdES baseline signatures (ETSI EN 319 142-1) into PDF files, in two phases.
//
// [Prepare] makes everything except for the signature value: the bytes to append to the file and the digest that the
// key has to sign. The result can be stored and comes back after a crash; whatever happens in between, it stands for one
// digest only. [Prepared.Embed] puts the value and a time-stamp into their place. The original is never changed: the
// sealed file is the original followed by the tail.
//
// [AddValidation] and [PrepareTimestamp] add, behind it, what makes a signature of B-T one of B-LT and B-LTA.
//
// The package needs no key, no network and no clock.
package pades

import (
	"fmt"
	"io"
)

// Document is a PDF file of known size. Its bytes must not change while the package works on it.
type Document interface {
	io.ReaderAt
	Size() int64
}

// Level is a baseline level of PAdES.
type Level string

// The levels, each with all that the ones before it have.
const (
	BB   Level = "B-B"   // signature
	BT   Level = "B-T"   // and a time-stamp over it
	BLT  Level = "B-LT"  // and the certificates and revocation data to check it with
	BLTA Level = "B-LTA" // and a time-stamp over these
)

// rank orders the levels; 0 is no level.
func (l Level) rank() int {
	switch l {
	case BB:
		return 1
	case BT:
		return 2
	case BLT:
		return 3
	case BLTA:
		return 4
	}
	return 0
}

// ParseLevel reads a level's name, "B-B" to "B-LTA".
func ParseLevel(s string) (Level, error) {
	if l := Level(s); l.rank() > 0 {
		return l, nil
	}
	return "", fmt.Errorf("pades: there is no level %q; the levels are B-B, B-T, B-LT and B-LTA", s)
}

// AtLeast tells whether l has all that other has. What is no level has nothing.
func (l Level) AtLeast(other Level) bool { return l.rank() > 0 && l.rank() >= other.rank() }

// RefusedError says why a document or a request cannot be signed, and what to change.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "pades: " + e.Reason }

// Permanent is true: the same request is refused again.
func (e *RefusedError) Permanent() bool { return true }

func refuse(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}
