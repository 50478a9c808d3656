package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/google/go-cmp/cmp"
)

const tx = deal.TxID("abcdefghijklmnopqrstuvwxyz")

var (
	macKey = []byte("0123456789abcdef0123456789abcdef")
	month  = time.Date(2026, 12, 31, 23, 30, 0, 0, time.FixedZone("", -3600)) // January in UTC
)

func keyOf(deal.TenantID) []byte { return macKey }

func manifest() *Manifest {
	return &Manifest{Plan: deal.Plan{Profile: []byte(`{}`)}, Tx: tx, Tenant: "acme", Account: "hubspot:1", Noticed: month.UTC(), Kept: month.UTC(), Retention: "10y", Key: []byte{1}, Private: []byte{2}}
}

func source(name, stored, plainHash string) Source {
	return Source{Name: name, Plain: deal.FileFact{SHA256: plainHash, Size: 3}, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(stored)), nil
	}}
}

func TestAFolderIsNamedByTenantMonthAndTransaction(t *testing.T) {
	if got, want := Folder("acme", month, tx), "acme/2027/01/"+string(tx); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

func TestWhatIsKeptIsReadBack(t *testing.T) {
	a := &Archive{Root: filepath.Join(t.TempDir(), "archive")}
	if a.Exists() {
		t.Fatal("an archive exists before anything was kept")
	}
	m, folder := manifest(), Folder("acme", month, tx)
	if err := a.Keep(t.Context(), folder, m, macKey, []Source{source("contract.pdf", "cipher", "aa"), source("evidence/cms.der", "c", "bb")}); err != nil {
		t.Fatal(err)
	}
	got, err := a.Read(folder, keyOf)
	if err != nil || !cmp.Equal(got, m) {
		t.Fatalf("%v %s", err, cmp.Diff(m, got))
	}
	if f := got.Files["contract.pdf"]; f.StoredSize != 6 || f.StoredSHA256 == "" || f.SHA256 != "aa" {
		t.Errorf("%+v", f)
	}
	f, err := a.Open(folder, "contract.pdf")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "cipher" {
		t.Fatalf("%q, %v", b, err)
	}
	var seen []string
	if err := a.Walk(t.Context(), time.Time{}, func(folder string) error { seen = append(seen, folder); return nil }); err != nil || !cmp.Equal(seen, []string{folder}) {
		t.Fatalf("walked %v, %v", seen, err)
	}
}

func TestAFailureLeavesNothing(t *testing.T) {
	broken := errors.New("disk gone")
	for name, src := range map[string]Source{
		"unreadable": {Name: "contract.pdf", Open: func() (io.ReadCloser, error) { return nil, broken }},
		"bad name":   source("../x", "c", "aa"),
		"hidden":     source("evidence/.x", "c", "aa"),
	} {
		a := &Archive{Root: filepath.Join(t.TempDir(), "archive")}
		folder := Folder("acme", month, tx)
		if err := a.Keep(t.Context(), folder, manifest(), macKey, []Source{src}); err == nil {
			t.Errorf("%s: kept", name)
		}
		entries, err := os.ReadDir(filepath.Join(a.Root, filepath.Dir(folder)))
		if err != nil || len(entries) != 0 {
			t.Errorf("%s: %v is left, %v", name, entries, err)
		}
	}
	a := &Archive{Root: filepath.Join(t.TempDir(), "archive")}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Keep(ctx, Folder("acme", month, tx), manifest(), macKey, []Source{source("contract.pdf", "c", "aa")}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestAWalkSinceAMonthPassesOverEarlierOnes(t *testing.T) {
	a := &Archive{Root: filepath.Join(t.TempDir(), "archive")}
	for _, month := range []string{"2025/12", "2026/01", "2026/02", "2027/01"} {
		if err := os.MkdirAll(filepath.Join(a.Root, "acme", month, string(tx)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for since, want := range map[time.Time]int{
		{}: 4, time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC): 3, time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC): 2,
		time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC): 1, time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC): 0,
	} {
		n := 0
		if err := a.Walk(t.Context(), since, func(string) error { n++; return nil }); err != nil || n != want {
			t.Errorf("since %s: %d folders, %v; want %d", since, n, err, want)
		}
	}
}

func TestAWalkLeavesWhatIsBeingKeptAlone(t *testing.T) {
	a := &Archive{Root: filepath.Join(t.TempDir(), "archive")}
	var walked error
	a.Hook = func(point string) {
		if point == "rename/archive:before" {
			walked = a.Walk(t.Context(), time.Time{}, func(string) error { return errors.New("it is not kept yet") })
		}
	}
	folder := Folder("acme", month, tx)
	if err := errors.Join(a.Keep(t.Context(), folder, manifest(), macKey, []Source{source("contract.pdf", "whole", "aa")}), walked); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Open(folder, "contract.pdf"); err != nil {
		t.Error(err)
	}
}

func TestSweepRemovesWhatACrashLeft(t *testing.T) {
	a := &Archive{Root: filepath.Join(t.TempDir(), "archive")}
	folder := Folder("acme", month, tx)
	left := filepath.Join(a.Root, filepath.Dir(folder), unfinished+string(tx))
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.Keep(t.Context(), Folder("acme", month, "bbcdefghijklmnopqrstuvwxyz"), manifest(), macKey, nil); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := a.Sweep(t.Context(), time.Time{}, func(string) error { n++; return nil }); err != nil || n != 1 {
		t.Fatalf("%d folders, %v", n, err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("still there: %v", err)
	}
}

func TestWhatACrashLeftIsWrittenAgain(t *testing.T) {
	a := &Archive{Root: filepath.Join(t.TempDir(), "archive")}
	folder := Folder("acme", month, tx)
	left := filepath.Join(a.Root, filepath.Dir(folder), unfinished+string(tx))
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "contract.pdf.age"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := manifest()
	if err := a.Keep(t.Context(), folder, m, macKey, []Source{source("contract.pdf", "whole", "aa")}); err != nil || m.Files["contract.pdf"].StoredSize != 5 {
		t.Fatalf("%+v, %v", m.Files, err)
	}
}

func TestPathsStayInsideTheArchive(t *testing.T) {
	a := &Archive{Root: t.TempDir()}
	for _, folder := range []string{"", "..", "acme", "../2026/01/" + string(tx), "acme/2026/01/../../x", "/etc"} {
		if _, err := a.Read(folder, keyOf); err == nil || !strings.Contains(err.Error(), "not a folder of the archive") {
			t.Errorf("%q: %v", folder, err)
		}
	}
	if _, err := a.Open(Folder("acme", month, tx), "../../x"); err == nil || !strings.Contains(err.Error(), "not the name") {
		t.Errorf("name: %v", err)
	}
}

func TestAManifestThatWasAlteredIsRefused(t *testing.T) {
	good, err := manifest().encode(macKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(good, keyOf); err == nil || !strings.Contains(err.Error(), "version 0") {
		t.Fatalf("another version: %v", err)
	}
	m := manifest()
	m.Version = Version
	if good, err = m.encode(macKey); err != nil {
		t.Fatal(err)
	}
	if _, err := parse(good, keyOf); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"another tenant": bytes.Replace(good, []byte("acme"), []byte("acne"), 1),
		"another key":    bytes.Replace(good, []byte(`"key":"AQ=="`), []byte(`"key":"AA=="`), 1),
		"no mac":         bytes.Replace(good, []byte(`hmac_sha256`), []byte(`hmac_sha255`), 1),
		"truncated":      good[:len(good)-3],
		"empty":          nil,
	} {
		if bytes.Equal(bad, good) {
			t.Fatalf("%s: nothing was altered", name)
		}
		if _, err := parse(bad, keyOf); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	m := manifest()
	m.Version = Version
	good, err := m.encode(macKey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"manifest":{},"hmac_sha256":""}`))
	f.Add([]byte(`{"manifest":null,"hmac_sha256":"zz"}`))
	f.Fuzz(func(t *testing.T, stored []byte) {
		hostile.Budget(t)
		m, err := parse(stored, keyOf)
		if err != nil {
			return
		}
		if _, err := m.encode(macKey); err != nil {
			t.Fatalf("a manifest that was read cannot be written: %v", err)
		}
	})
}
