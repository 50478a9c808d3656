package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/store"
)

// smallDisk gives the world's state directory a file system of its own, of 64 MiB.
func (w *world) smallDisk(t *testing.T) {
	t.Helper()
	if err := unix.Mount("tmpfs", w.stateDir, "tmpfs", 0, "size=64m,mode=0700"); err != nil {
		t.Skipf("SKIPPED, a full disk is not tried: no file system may be mounted here (%v); run as root", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(w.stateDir, unix.MNT_DETACH)) })
	w.shareRendererCache(w.stateDir)
}

// leave fills the disk but for so many bytes, and returns what gives the room back.
func (w *world) leave(t *testing.T, free int64) (giveBack func()) {
	t.Helper()
	name := filepath.Join(w.stateDir, "ballast")
	f, err := os.Create(name)
	must(t, err)
	defer f.Close()
	block := make([]byte, 64<<10)
	for len(block) >= 4<<10 {
		have, err := store.FreeSpace(w.stateDir)
		must(t, err)
		if free > 0 && have <= free { // what is said of the last pages is not exact
			break
		}
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			block = block[:len(block)/2]
		} else {
			must(t, err)
		}
	}
	return func() { must(t, os.Remove(name)) }
}

// large makes a PDF 2 MiB larger.
func large(pdf []byte) []byte { return filled(pdf, 2<<20) }

// filled makes a PDF so many bytes larger.
func filled(pdf []byte, more int) []byte {
	end := pdf[bytes.LastIndex(pdf, []byte("startxref")):]
	return slices.Concat(pdf, bytes.Repeat([]byte("%\n"), more/2), end)
}

// downloads are the requests for a file's content, of either CRM.
func downloads(r *http.Request) bool {
	return r.Method == http.MethodGet && (strings.HasSuffix(r.URL.Path, "/VersionData") || strings.HasPrefix(r.URL.Path, "/content/signed/"))
}

// readiness is what /readyz answers.
func (d *process) readiness(t *testing.T) (status int, text string) {
	t.Helper()
	resp, err := http.Get(d.page() + "/readyz")
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(b)
}

func (d *process) awaitNotReady(t *testing.T, words string) {
	t.Helper()
	eventually(t, "/readyz says "+words, func() (bool, string) {
		status, text := d.readiness(t)
		return status == http.StatusServiceUnavailable && strings.Contains(text, words), fmt.Sprint(status, text)
	})
}

func (d *process) awaitReadiness(t *testing.T) {
	t.Helper()
	eventually(t, "/readyz is content", func() (bool, string) {
		status, text := d.readiness(t)
		return status == http.StatusOK, text
	})
}

// TestAFullDiskLosesNothingAndTheDaemonGoesOnOnceThereIsRoom fills the disk below the floor, where new deals wait in the
// CRM, and to the last byte while a deal's attachment is on its way.
func TestAFullDiskLosesNothingAndTheDaemonGoesOnOnceThereIsRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.smallDisk(t)
	w.rewrite(t, "dealseal.yaml", "state_dir:", "disk_floor: 16MiB\nstate_dir:")
	s := w.begin(t)
	quote := sale{quote: quotation(1)}
	for _, c := range s.crms {
		r := c.open(quote)
		c.move(r, ruleMemo)
		awaitDone(t, s.ops, r)
	}

	giveBack := w.leave(t, 10<<20)
	late := map[crm]string{}
	for _, c := range s.crms {
		late[c] = c.open(quote)
		c.move(late[c], ruleMemo)
		eventually(t, "the page says why "+c.tenant()+" is not read", func() (bool, string) {
			page := s.daemon.see(t, "/")
			return strings.Count(page, "less than 16 MiB are free") >= len(s.crms), page
		})
		if n := len(sealings(t, s.ops, late[c])); n > 0 {
			t.Errorf("%s was noticed although the disk is nearly full", late[c])
		}
	}
	s.daemon.awaitNotReady(t, "less than 16 MiB are free")
	giveBack()
	for _, c := range s.crms {
		mustUseTheKey(t, awaitDone(t, s.ops, late[c]), 1) // by itself
		mustBear(t, c, late[c], 1)
	}
	s.daemon.awaitReadiness(t)

	under := map[crm]string{}
	full := make(chan func(), 1)
	s.at(0, downloads, func() { full <- w.leave(t, 0) }) // staging what comes needs room
	before := len(s.daemon.log())
	for _, c := range s.crms {
		under[c] = c.open(sale{quote: large(quotation(1))})
		c.move(under[c], ruleMemo)
	}
	giveBack = <-full
	eventually(t, "the log says what is wrong", func() (bool, string) {
		log := s.daemon.log()[before:]
		return strings.Contains(log, "is full: free some space"), tail(log)
	})
	s.daemon.awaitNotReady(t, "MiB are free")
	giveBack()
	for _, c := range s.crms {
		through(t, s.ops, under[c])
		mustUseTheKey(t, awaitDone(t, s.ops, under[c]), 1)
		mustBear(t, c, under[c], 1)
		mustShow(t, c, under[c], deal.StatusSigned)
	}
	auditIsWhole(t, s.ops, nil)
	s.daemon.stop(t)
}

// TestADatabaseThatAnotherProgramHoldsLockedIsNamedAndWaitedFor holds the lock for longer than a write waits for it, once
// before a deal is noticed and in the middle of it.
func TestADatabaseThatAnotherProgramHoldsLockedIsNamedAndWaitedFor(t *testing.T) {
	t.Parallel()
	s := newStage(t, worldOptions{})
	ctx := context.Background()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.stateDir, "dealseal.db")+"?_txlock=immediate&_pragma=busy_timeout(10000)")
	must(t, err)
	defer db.Close()
	s.daemon.see(t, "/")
	var other *sql.Tx
	locked := make(chan struct{})
	under := s.crms[0].open(sale{quote: quotation(1)})
	s.at(0, s.crms[0].uploads, func() {
		if other, err = db.BeginTx(ctx, nil); err != nil {
			t.Error(err)
		}
		close(locked)
	})
	s.crms[0].move(under, ruleMemo)
	<-locked
	fresh := s.crms[1].open(sale{quote: quotation(1)})
	s.crms[1].move(fresh, ruleMemo)
	s.daemon.awaitNotReady(t, "another program holds the database locked")
	eventually(t, "the log names the cause", func() (bool, string) { // once the writes before it have waited in vain, ten seconds each
		log := s.daemon.log()
		return strings.Contains(log, "another program holds the database"), tail(log)
	})
	if page := s.daemon.see(t, "/"); !strings.Contains(page, under) {
		t.Error("the page cannot be read meanwhile")
	}
	must(t, other.Rollback())
	for c, r := range map[crm]string{s.crms[0]: under, s.crms[1]: fresh} {
		mustUseTheKey(t, awaitDone(t, s.ops, r), 1)
		mustBear(t, c, r, 1)
		mustShow(t, c, r, deal.StatusSigned)
	}
	s.daemon.awaitReadiness(t)
	auditIsWhole(t, s.ops, nil)
	s.daemon.stop(t)
}
