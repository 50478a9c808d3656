package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/store"
)

func TestAFileThatCannotBeWrittenToItsEndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "backup.tar")
	err := writeAtOnce(file, func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 3<<20)); err != nil {
			return err
		}
		return unix.ENOSPC
	})
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("the error is %v", err)
	}
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("%v was left", left)
	}
}

func TestAFileHasItsNameOnlyWhenItIsWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "backup.tar")
	must(t, writeAtOnce(file, func(w io.Writer) error {
		if _, err := os.Lstat(file); err == nil {
			t.Error("the name stands before the content")
		}
		_, err := io.WriteString(w, "content")
		return err
	}))
	if err := writeAtOnce(file, func(io.Writer) error { t.Error("it is written over"); return nil }); err == nil {
		t.Error("a second file of the same name is no error")
	}
	b, err := os.ReadFile(file)
	must(t, err)
	if string(b) != "content" {
		t.Errorf("it holds %q", b)
	}
}

func TestARefusedBackupIsToldOverTheSocketAndLeavesNoFile(t *testing.T) {
	dir, err := os.MkdirTemp("", "dealseal-") // a socket's path must be short
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := store.Open(t.Context(), store.Options{Dir: dir, MasterKey: secret.New(bytes.Repeat([]byte("m"), minMasterKey))})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	l, err := listenControl(dir)
	must(t, err)
	var served errgroup.Group
	ctx, stop := context.WithCancel(t.Context())
	served.Go(func() error { return serveControl(ctx, slog.New(slog.DiscardHandler), l, &local{Store: s}, nil) })
	r, err := dialControl(t.Context(), dir)
	must(t, err)
	t.Cleanup(func() { r.Close() })

	file := filepath.Join(t.TempDir(), "second.tar")
	_, err = s.Backup(t.Context(), during(func() {
		err := writeAtOnce(file, func(w io.Writer) error {
			_, err := r.Backup(t.Context(), w, true)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "another backup is being made") {
			t.Errorf("a second backup at the same time: %v", err)
		}
	}), store.BackupOptions{Who: "root"})
	must(t, err)
	if _, err := os.Lstat(file); err == nil {
		t.Error("it left a file")
	}
	info, err := r.Backup(t.Context(), io.Discard, true)
	if err != nil || info.Files < 2 || info.Bytes == 0 {
		t.Errorf("a later one: %+v, %v", info, err)
	}
	if last, _, err := s.LastBackup(t.Context()); err != nil || !last.IsZero() {
		t.Errorf("it counts before it is kept: %s, %v", last, err)
	}
	must(t, r.NoteBackup(t.Context(), info))
	if last, _, err := s.LastBackup(t.Context()); err != nil || !last.Equal(info.At) {
		t.Errorf("the newest backup is said to be of %s, not %s: %v", last, info.At, err)
	}
	stop()
	must(t, served.Wait())
}

// during is a writer that does something once, at the first byte.
func during(do func()) io.Writer {
	var once sync.Once
	return writing(func(p []byte) (int, error) {
		once.Do(do)
		return len(p), nil
	})
}

type writing func(p []byte) (int, error)

func (f writing) Write(p []byte) (int, error) { return f(p) }
