// Package hostile makes input as a stranger may send it, and holds tests to what reading it may cost.
package hostile

import (
	"bytes"
	"fmt"
	"iter"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// Limit is the processor time that one input may cost.
const Limit = 2 * time.Second

// Budget fails the test if what follows, until the test ends, takes more processor time than Limit. It counts that of the
// whole process, so nothing else may run in it meanwhile; time that the machine gives to others does not count.
func Budget(t testing.TB) {
	t.Helper()
	before := spent(t)
	t.Cleanup(func() {
		if took := spent(t) - before; took > Limit {
			t.Errorf("one input took %s of processor time; %s is the limit", took.Round(time.Millisecond), Limit)
		}
	})
}

func spent(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// words are what damages the structure of a document when it stands in the wrong place.
var words = []string{
	"0", "-1", "1", "255", "65536", "2147483648", "99999999999999999999", "0 0 R", "1 0 R", "9999 0 R", "1 0 obj", "endobj", "stream\n", "endstream",
	"<<", ">>", "[", "]", "(", ")", "<", ">", "/Length 9999999", "/Type /ObjStm", "/Kids [1 0 R]", "/Parent 1 0 R", "/Prev 0", "/Filter /FlateDecode",
	"xref\n", "trailer", "startxref\n0\n", "%%EOF", "null", "\x00", "\xff\xff\xff\xff", "\x30\x80", "\x30\x84\xff\xff\xff\xff", "\x24\x80", "\"", "{", "}",
}

// Mutants yields n lightly damaged copies of a document: one to three places cut, doubled, overwritten or put in. The
// same seed yields the same ones. A copy is good until the next one is asked for.
func Mutants(seed uint64, document []byte, n int) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for i := range n {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			b := bytes.Clone(document)
			for range 1 + r.IntN(3) {
				b = damage(r, b)
			}
			if !yield(fmt.Sprintf("seed %d, mutant %d", seed, i), b) {
				return
			}
		}
	}
}

func damage(r *rand.Rand, b []byte) []byte {
	if len(b) == 0 {
		return b
	}
	at := r.IntN(len(b))
	end := min(len(b), at+1+r.IntN(1+min(len(b), 64)))
	word := words[r.IntN(len(words))]
	switch r.IntN(6) {
	case 0:
		b[at] ^= byte(1 + r.IntN(255))
	case 1: // a digit, where most of a structure's meaning is
		for i := at; i < len(b); i++ {
			if b[i] >= '0' && b[i] <= '9' {
				b[i] = byte('0' + r.IntN(10))
				break
			}
		}
	case 2:
		b = append(b[:at], b[end:]...)
	case 3:
		b = append(b[:end:end], b[at:]...)
	case 4:
		copy(b[at:], word)
	case 5:
		b = append(b[:at:at], append([]byte(word), b[at:]...)...)
	}
	return b
}
