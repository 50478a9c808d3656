//go:build amd64 || arm64

package worker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newConns returns both ends of a socketpair.
func newConns(t *testing.T) (a, b *conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*conn
	for i, fd := range fds {
		if ends[i], err = newConn(os.NewFile(uintptr(fd), "end"), defaultFrame); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ends[i].Close() })
	}
	return ends[0], ends[1]
}

// newFile returns an open file that holds a word.
func newFile(t *testing.T, word string) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(word), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestPacketsThatWaitTogetherKeepTheirFiles writes all packets before the first is read.
func TestPacketsThatWaitTogetherKeepTheirFiles(t *testing.T) {
	a, b := newConns(t)
	var sent []packet
	for i, files := range []int{0, 1, 0, 0, 2, maxFiles, maxFiles, 1, 0} {
		p := packet{kind: kindCall, id: uint32(i), Frame: Frame{Op: "op", Body: make([]byte, i*1000)}}
		for n := range files {
			p.Files = append(p.Files, newFile(t, fmt.Sprint(i, n)))
		}
		sent = append(sent, p)
		if err := a.write(p); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range sent {
		got, err := b.read()
		if err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		if got.id != want.id || len(got.Body) != len(want.Body) || len(got.Files) != len(want.Files) {
			t.Errorf("packet %d came as %d, with %d bytes and %d files", i, got.id, len(got.Body), len(got.Files))
		}
		for n, f := range got.Files {
			if text, err := io.ReadAll(f); err != nil || string(text) != fmt.Sprint(i, n) {
				t.Errorf("file %d of packet %d holds %q, %v", n, i, text, err)
			}
		}
		closeFiles(got.Files)
	}
}

func TestFilesThatWereNotAnnouncedAreRefused(t *testing.T) {
	for announced, came := range map[int]int{0: 1, 1: 2, 2: 1} {
		a, b := newConns(t)
		files := make([]*os.File, came)
		for i := range files {
			files[i] = newFile(t, "x")
		}
		head, err := packet{kind: kindCall, Frame: Frame{Files: make([]*os.File, announced)}}.head(defaultFrame)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.writeWithFiles(head, files); err != nil {
			t.Fatal(err)
		}
		_, err = b.read()
		var bad *FrameError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), "announced") {
			t.Errorf("%d files came, %d were announced: %v", came, announced, err)
		}
		if len(b.in.files) > 0 {
			t.Error("the files that came are still open")
		}
	}
}
