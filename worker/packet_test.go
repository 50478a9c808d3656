package worker

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dealseal/dealseal/mocks/hostile"
)

const testLimit = 1 << 16

func encode(t testing.TB, p packet) []byte {
	t.Helper()
	head, err := p.head(testLimit)
	if err != nil {
		t.Fatal(err)
	}
	return append(head, p.Body...)
}

var samples = []packet{
	{kind: kindConfine, Frame: Frame{Header: []byte(`{"frame":1}`)}},
	{kind: kindCall, id: 7, Frame: Frame{Op: "sign", Header: []byte("h"), Body: []byte("body")}},
	{kind: kindError, id: 1<<32 - 1, Frame: Frame{Op: strings.Repeat("o", maxOp)}},
	{kind: kindReply, Frame: Frame{Body: make([]byte, testLimit)}},
}

func TestPacketsReadAsTheyWereWritten(t *testing.T) {
	var stream bytes.Buffer
	for _, p := range samples {
		stream.Write(encode(t, p))
	}
	for _, want := range samples {
		got, err := readPacket(&stream, testLimit)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(packet{}), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := readPacket(&stream, testLimit); err != io.EOF {
		t.Errorf("after the last packet: %v", err)
	}
}

func TestPacketThatBreaksABoundIsRefused(t *testing.T) {
	whole := encode(t, samples[1])
	change := func(i int, b ...byte) []byte {
		c := bytes.Clone(whole)
		copy(c[i:], b)
		return c
	}
	var bad *FrameError
	for name, in := range map[string][]byte{
		"kind 0":        change(0, 0),
		"kind too high": change(0, byte(kindError)+1),
		"op":            change(1, maxOp+1),
		"files":         change(2, maxFiles+1),
		"reserved":      change(3, 1),
		"header":        change(8, 0xff, 0xff, 0xff, 0xff),
		"body":          change(12, 0xff, 0xff, 0xff, 0xff),
		"one over":      change(8, 0, 0, 0, 1, 0, 1, 0, 0),
	} {
		if _, err := readPacket(bytes.NewReader(in), testLimit); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for n := 1; n < len(whole); n++ {
		if _, err := readPacket(bytes.NewReader(whole[:n]), testLimit); err != io.ErrUnexpectedEOF {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func FuzzReadPacket(f *testing.F) {
	for _, p := range samples {
		f.Add(encode(f, p))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		hostile.Budget(t)
		p, err := readPacket(bytes.NewReader(in), testLimit)
		if err != nil {
			return
		}
		if len(p.Header)+len(p.Body) > testLimit || len(p.Op) > maxOp || p.files > maxFiles {
			t.Fatalf("a packet beyond its bounds was read: %d %d %d %d", len(p.Op), len(p.Header), len(p.Body), p.files)
		}
		again := encode(t, p)
		again[2] = byte(p.files)
		if !bytes.HasPrefix(in, again) {
			t.Fatalf("%x was read, %x is written", in, again)
		}
	})
}

func TestBackoffGrowsToItsBound(t *testing.T) {
	b := Backoff{Min: 200 * time.Millisecond, Max: time.Second}
	for failures, want := range []time.Duration{0, 0, 200, 400, 800, 1000, 1000} {
		if got := b.delay(failures); got != want*time.Millisecond {
			t.Errorf("after %d failures %v, want %v", failures, got, want*time.Millisecond)
		}
	}
	if got := b.delay(1 << 20); got != time.Second {
		t.Errorf("after very many failures %v", got)
	}
}

func TestErrorOfAChildIsBoundedByTheParent(t *testing.T) {
	w := wireError{Message: strings.Repeat("ä", maxMessage), Code: strings.Repeat("c", 1<<20), RetryAfter: 1<<63 - 1}
	got := w.remote("test", "op")
	if len(got.Message) > maxMessage+3 || len(got.Code()) > maxOp+3 || got.RetryAfter() != maxRetryAfter {
		t.Errorf("%d bytes, %d bytes, %v", len(got.Message), len(got.Code()), got.RetryAfter())
	}
	if again := (wireError{RetryAfter: -1}).remote("test", "op"); again.RetryAfter() != 0 {
		t.Error(again.RetryAfter())
	}
}
