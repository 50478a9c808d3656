package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
)

func TestOpenRefusesAMasterKeyThatIsTooShortAndSaysHowToMakeOne(t *testing.T) {
	_, err := Open(t.Context(), Options{Dir: t.TempDir(), MasterKey: secret.New(testKey[:31])})
	if err == nil || !strings.Contains(err.Error(), "31 bytes") || !strings.Contains(err.Error(), "/dev/urandom") {
		t.Fatalf("got %v", err)
	}
}

func TestOpenRefusesAnotherMasterKey(t *testing.T) {
	s, _ := newStore(t)
	dir := s.dir
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Options{Dir: dir, MasterKey: secret.New(bytes.Repeat([]byte{8}, 32))})
	var wrong *WrongKeyError
	if !errors.As(err, &wrong) {
		t.Fatalf("got %v, want *WrongKeyError", err)
	}
	open(t, options(dir, nil)) // the failed attempt let go of the lock and changed nothing
}

func TestASecondDaemonIsRefusedAndToldWhoHoldsTheDirectory(t *testing.T) {
	s, _ := newStore(t)
	_, err := Open(t.Context(), options(s.dir, nil))
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != fmt.Sprint(os.Getpid()) {
		t.Fatalf("got %v, want *LockedError with this process", err)
	}
}

func TestANewerDatabaseIsRefused(t *testing.T) {
	s, _ := newStore(t)
	if _, err := s.write.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	dir := s.dir
	s.release()
	_, err := Open(t.Context(), options(dir, nil))
	var schema *SchemaError
	if !errors.As(err, &schema) || schema.Found != 99 {
		t.Fatalf("got %v, want *SchemaError", err)
	}
}

func TestPragmasThatTheDriverIgnoredAreNoticed(t *testing.T) {
	s, _ := newStore(t)
	for _, p := range pragmas {
		value := map[string]string{"journal_mode": "delete"}[p.name]
		if value == "" {
			value = "3"
			if p.want == "1" {
				value = "0"
			}
			if p.want == "0" {
				value = "1"
			}
		}
		t.Run(p.name, func(t *testing.T) {
			other, err := s.pool(t.Context(), filepath.Join(t.TempDir(), "x.db"), map[string][]string{"_pragma": dsn(p.name, value)}, 1, new(atomic.Bool))
			if err == nil {
				other.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), p.name) {
				t.Fatalf("the error does not name %s: %v", p.name, err)
			}
		})
	}
}

func dsn(name, value string) (out []string) {
	for _, p := range pragmas {
		if p.name == name {
			p.set = value
		}
		out = append(out, p.name+"("+p.set+")")
	}
	return out
}

func TestEveryTableIsStrict(t *testing.T) {
	s, _ := newStore(t)
	rows, err := s.read.Query(`SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND NOT strict AND name NOT LIKE 'river_%' AND name NOT LIKE 'sqlite_%'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		t.Errorf("table %s is not STRICT", name)
	}
}

func TestPersonalDataIsInNoFile(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	toSealed(t, s, sl, "contract of "+private)
	sl.Private.Values, sl.Private.Document = []byte(`{"name":"`+private+`"}`), []byte(`["`+private+`"]`)
	err := s.Advance(t.Context(), sl, deal.Entry{Who: private, What: "noted", Why: private, Detail: map[string]string{"x": private},
		Events: []deal.Event{{Type: "document.sealed", Data: map[string]string{"x": private}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Keep(t.Context(), sl, contractName, map[string][]byte{"report.json": []byte(private)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Memory(acme).Put(t.Context(), "token", []byte(private), 0); err != nil {
		t.Fatal(err)
	}
	if got := load(t, s, sl.Tx); string(got.Private.Values) != string(sl.Private.Values) {
		t.Fatalf("private values came back as %s", got.Private.Values)
	}
	err = filepath.WalkDir(s.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		for _, form := range []string{private, "g\\u0119\\u015bl"} {
			if bytes.Contains(b, []byte(form)) {
				t.Errorf("%s contains personal data", name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFullDiskIsACleanErrorAndLosesNothing(t *testing.T) {
	s, _ := newStore(t)
	sl := one(t, s, "006A")
	pages := query[int](t, s, "PRAGMA page_count")
	if _, err := s.write.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
		t.Fatal(err)
	}
	sl.Private.Values = []byte(`"` + strings.Repeat("x", 1<<20) + `"`)
	sl.Step = deal.Gathered
	err := s.Advance(t.Context(), sl, deal.Entry{Who: "daemon", What: "gathered"})
	var full *DiskFullError
	if !errors.As(err, &full) || deal.RetryAfter(err) == 0 || deal.IsPermanent(err) {
		t.Fatalf("got %v, want a *DiskFullError that can be retried", err)
	}
	if got := load(t, s, sl.Tx); got.Step != deal.Noticed || sl.Version != got.Version {
		t.Fatalf("the refused change left a trace: %s, version %d and %d", got.Step, sl.Version, got.Version)
	}
	if _, err := s.write.Exec("PRAGMA max_page_count = 1000000"); err != nil {
		t.Fatal(err)
	}
	advance(t, s, sl, "gathered")
	verified(t, s)
}

func TestFreeSpaceIsKnown(t *testing.T) {
	s, _ := newStore(t)
	if n, err := s.FreeSpace(); err != nil || n <= 0 {
		t.Fatalf("got %d, %v", n, err)
	}
	if _, err := FreeSpace(filepath.Join(s.dir, "absent")); err == nil {
		t.Fatal("no error for a folder that does not exist")
	}
}

func TestConnectorMemoryIsComparedBeforeItIsReplaced(t *testing.T) {
	s, c := newStore(t)
	m := s.Memory(acme)
	if v, n, err := m.Get(t.Context(), "token"); v != nil || n != 0 || err != nil {
		t.Fatalf("unset: %q, %d, %v", v, n, err)
	}
	if err := m.Put(t.Context(), "token", []byte("one"), 0); err != nil {
		t.Fatal(err)
	}
	for _, version := range []int64{0, 2} {
		if err := m.Put(t.Context(), "token", []byte("late"), version); !errors.Is(err, deal.ErrStale) {
			t.Fatalf("version %d: got %v, want ErrStale", version, err)
		}
	}
	if err := m.Put(t.Context(), "token", []byte("two"), 1); err != nil {
		t.Fatal(err)
	}
	dir := s.dir
	s.Close()
	s = open(t, options(dir, c.Now))
	if v, n, err := s.Memory(acme).Get(t.Context(), "token"); string(v) != "two" || n != 2 || err != nil {
		t.Fatalf("after a restart: %q, %d, %v", v, n, err)
	}
	if v, _, err := s.Memory("other").Get(t.Context(), "token"); v != nil || err != nil {
		t.Fatalf("another tenant reads %q, %v", v, err)
	}
}
