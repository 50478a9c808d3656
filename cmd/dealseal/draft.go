package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

// draft is a copy of a file, beside what is to be made of it. It is made in the background, and brought to the disk: what
// is put behind it takes as long to make, for it reads the file too.
type draft struct {
	in       *file
	out      string
	temp     *os.File
	reading  *os.File      // the same file for those who may only read it: children
	tail     []byte        // what stands behind the copy
	copied   chan struct{} // closed when err is final
	err      error
	syncing  sync.WaitGroup
	unsynced error // final when nothing is syncing

	original pades.Document // in, which is hashed once
	hashing  sync.WaitGroup
	stop     context.CancelFunc // of the hashing

	rehearsed *verify.Report // of the newest seal
	asked     *verify.Asked  // of the second reader, about what was sealed
}

func newDraft(in *file, out string) (*draft, error) {
	temp, err := os.CreateTemp(filepath.Dir(out), ".dealseal-*")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the folder of %s does not exist", out)
	}
	if err != nil {
		return nil, err
	}
	reading, err := os.Open(temp.Name())
	if err != nil {
		return nil, errors.Join(err, os.Remove(temp.Name()), temp.Close())
	}
	d := &draft{in: in, out: out, temp: temp, reading: reading, copied: make(chan struct{}), original: pades.Once(in), stop: func() {}}
	d.syncing.Go(func() {
		d.err = d.copy()
		close(d.copied)
		d.unsynced = d.temp.Sync() // most of the work; what is wrong with the disk is told once
	})
	return d, nil
}

// copy leaves the copying to the kernel, which knows both files.
func (d *draft) copy() error {
	if _, err := d.in.open.Seek(0, io.SeekStart); err != nil {
		return err
	}
	n, err := io.Copy(d.temp, io.LimitReader(d.in.open, d.in.size))
	if err == nil && n < d.in.size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("copy the file: %w", err)
	}
	return nil
}

// hash begins to hash the file in the background.
func (d *draft) hash(ctx context.Context, h crypto.Hash) {
	ctx, d.stop = context.WithCancel(ctx)
	d.hashing.Go(func() { pades.Ahead(ctx, d.original, crypto.SHA256, cmp.Or(h, crypto.SHA256)) })
}

// close removes what has not got its name.
func (d *draft) close() {
	d.stop()
	d.hashing.Wait()
	d.syncing.Wait()
	_ = os.Remove(d.temp.Name()) // after the file got its name this is nobody's
	_ = d.temp.Close()
	_ = d.reading.Close()
}

// with is the file with the tail behind it, until the next call with one that does not begin with this one: what stands there
// already is not written again, because somebody may be reading it.
func (d *draft) with(tail []byte) (*file, error) {
	<-d.copied
	if d.err != nil {
		return nil, d.err
	}
	kept := len(d.tail)
	if !bytes.HasPrefix(tail, d.tail) {
		kept = 0
	}
	if kept == 0 {
		if err := d.temp.Truncate(d.in.size); err != nil {
			return nil, err
		}
	}
	if _, err := d.temp.WriteAt(tail[kept:], d.in.size+int64(kept)); err != nil {
		return nil, err
	}
	d.tail = bytes.Clone(tail)
	return &file{d.reading, d.in.size + int64(len(tail))}, nil
}

// finish gives the file with the tail behind it its name, if check has nothing against it and it is on the disk: the one need not
// wait for the other.
func (d *draft) finish(tail []byte, check func(*file) error) error {
	made, err := d.with(tail)
	if err != nil {
		return err
	}
	info, err := d.in.open.Stat()
	if err != nil {
		return err
	}
	// Who may read the file that was made is who may read the one that it was made of.
	if err := d.temp.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	var unsynced error
	d.syncing.Go(func() { unsynced = d.temp.Sync() })
	err = check(made)
	d.syncing.Wait()
	if err := cmp.Or(err, d.unsynced, unsynced); err != nil {
		return err
	}
	return os.Rename(d.temp.Name(), d.out)
}
