package documents

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/hostile"
)

func TestLoadReadsABundleAndNamesItsParts(t *testing.T) {
	b, err := Load(writeBundle(t, t.TempDir(), bundleFiles()))
	if err != nil {
		t.Fatal(err)
	}
	if b.Name() != "offer@2" || b.Signers[0].Role != RoleSeal {
		t.Errorf("name %s, signers %v", b.Name(), b.Signers)
	}
	if diff := cmp.Diff([]string{"samples/one.json"}, b.Samples()); diff != "" {
		t.Error(diff)
	}
}

func TestBrokenBundlesAreRefusedWithPlaceAndCure(t *testing.T) {
	manifest := func(old, replacement string) []string { return []string{ManifestFile, manifestWith(old, replacement)} }
	cases := []struct {
		name    string
		changes []string
		want    []string // parts of the message
	}{
		{"no manifest", []string{ManifestFile, ""}, []string{"template.yaml", "missing"}},
		{"no contract", []string{ContractFile, ""}, []string{"contract.typ", "missing"}},
		{"no schema", []string{"schema.json", ""}, []string{"schema.json", "missing"}},
		{"a second schema", []string{"other.json", "{}"}, []string{"other.json", "samples/"}},
		{"a stray file", []string{"notes.docx", "x"}, []string{"notes.docx", "does not belong"}},
		{"a hidden file", []string{"assets/.DS_Store", "x"}, []string{".DS_Store", "hidden"}},
		{"a typ beside contract.typ", []string{"dealseal.typ", "x"}, []string{"dealseal.typ"}},
		{"text among the samples", []string{"samples/x.txt", "x"}, []string{"samples/x.txt", "records only"}},
		{"a program among the assets", []string{"assets/x.exe", "x"}, []string{"assets/x.exe"}},
		{"a logo that is missing", manifest("role: seal", "role: seal, logo: assets/x.png"), []string{"assets/x.png", "missing"}},
		{"a logo that is no picture", manifest("role: seal", "role: seal, logo: assets/logo.svg"), []string{"assets/logo.svg", "PNG or JPEG"}},
		{"a logo for a person", manifest("role: seal", "role: signer, logo: assets/logo.svg"), []string{"role seal"}},
		{"a QR code of no page", manifest("role: seal", `role: seal, qr: "javascript:{tx}"`), []string{"qr", "https://"}},
		{"unknown key", manifest("retention:", "retension:"), []string{"template.yaml:10", "retension"}},
		{"unknown nested key", manifest("by: Legal", "who: Legal"), []string{"template.yaml:9", "who"}},
		{"a key twice", manifest("version: 2", "version: 2\nversion: 3"), []string{"template.yaml:3", "version"}},
		{"a second document", manifest("version: 2", "version: 2\n---\nid: x"), []string{"template.yaml", "single document"}},
		{"version as text", manifest("version: 2", "version: two"), []string{"template.yaml:2"}},
		{"version zero", manifest("version: 2", "version: 0"), []string{"version"}},
		{"blank justification", manifest(`"no particular form is required"`, `" "`), []string{"signature.justification"}},
		{"unknown level", manifest("AES", "B-T"), []string{"signature.level", "SES, AES or QES"}},
		{"approved by nobody", manifest("by: Legal, ", ""), []string{"approval.by"}},
		{"approved some day", manifest("2026-11-02", "soon"), []string{"approval.on"}},
		{"unknown state", manifest("state: approved", "state: fine"), []string{"approval.state"}},
		{"bad id", manifest("id: offer", "id: Offer!"), []string{"id"}},
		{"bad locale", manifest("en-GB", "english please"), []string{"locale"}},
		{"schema elsewhere", manifest("schema: schema.json", "schema: ../schema.json"), []string{"schema"}},
		{"two seals", manifest("{name: house, role: seal}", "{name: a, role: seal}\n  - {name: b, role: seal}"), []string{"at most one"}},
		{"a signer twice", manifest("{name: house, role: seal}", "{name: a, role: seal}\n  - {name: a, role: signer}"), []string{`"a"`, "twice"}},
		{"unknown role", manifest("role: seal", "role: boss"), []string{"seal or signer"}},
		{"no amount check", manifest("amount_check: exact", ""), []string{"amount_check"}},
		{"unknown amount check", manifest("amount_check: exact", "amount_check: roughly"), []string{"template.yaml:12", "exact"}},
		{"off without reason", manifest("amount_check: exact", `amount_check: {off: " "}`), []string{"template.yaml:12", "reason"}},
		{"negative tolerance", manifest("amount_check: exact", `amount_check: {tolerance: "-1"}`), []string{"tolerance"}},
		{"nothing to compare", manifest(", equals: Amount", ""), []string{"amount_check", "salesforce"}},
		{"unknown kind", manifest("  salesforce:", "  saleforce:"), []string{"saleforce", "hubspot, salesforce"}},
		{"bad CRM path", manifest("Account.Name", "Account..Name"), []string{"template.yaml:16", "Account..Name"}},
		{"unknown source", manifest("{date: CloseDate}", "{day: CloseDate}"), []string{"template.yaml:17", "date"}},
		{"two sources in one", manifest("{date: CloseDate}", "{date: CloseDate, number: X}"), []string{"both"}},
		{"stray key in a source", manifest("{date: CloseDate}", "{date: CloseDate, zone: X}"), []string{"zone"}},
		{"constant without quotes", manifest("{date: CloseDate}", "{value: 5}"), []string{"quotes"}},
		{"reserved field", manifest("start:", "meta.start:"), []string{"meta"}},
		{"field inside a field", manifest("start:", "customer.name.start:"), []string{"cannot stand inside"}},
		{"sum of nothing", manifest("sum: lines.amount", "sum: lines.quantity"), []string{"lines.quantity"}},
		{"file name is no PDF", manifest("{tx}.pdf", "{tx}.doc"), []string{"file_name", ".pdf"}},
		{"file name with a slash", manifest("Offer {", "Offers/{"), []string{"file_name"}},
		{"file name of an unknown field", manifest("{customer.name}", "{customer.nam}"), []string{"customer.nam", "salesforce"}},
		{"schema is no JSON", []string{"schema.json", "{"}, []string{"schema.json", "JSON"}},
		{"schema from the net", []string{"schema.json", `{"$ref": "https://example.com/x.json"}`}, []string{"schema.json", "stand on its own"}},
		{"schema is no schema", []string{"schema.json", `{"type": "objekt"}`}, []string{"schema.json"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := newBundle(bundleFiles(c.changes...))
			var bundle *BundleError
			if !errors.As(err, &bundle) {
				t.Fatalf("error %v, want a BundleError", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
}

func TestLoadRefusesWhatIsNoPlainFile(t *testing.T) {
	dir := writeBundle(t, t.TempDir(), bundleFiles())
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "assets/host.txt")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "host.txt") || !strings.Contains(err.Error(), "symbolic") {
		t.Errorf("symbolic link: %v", err)
	}
}

func TestLoadRefusesLargeFiles(t *testing.T) {
	dir := writeBundle(t, t.TempDir(), bundleFiles())
	if err := os.WriteFile(filepath.Join(dir, "assets/big.txt"), make([]byte, maxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "big.txt") || !strings.Contains(err.Error(), "5 MB") {
		t.Errorf("large file: %v", err)
	}
}

func TestLoadAllKeysBundlesByNameAndRefusesDoubles(t *testing.T) {
	dir := t.TempDir()
	writeBundle(t, filepath.Join(dir, "offer"), bundleFiles())
	all, err := LoadAll(dir)
	if err != nil || all["offer@2"] == nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	writeBundle(t, filepath.Join(dir, "copy"), bundleFiles())
	if _, err := LoadAll(dir); err == nil || !strings.Contains(err.Error(), "offer@2") {
		t.Errorf("double: %v", err)
	}
}

func TestHashChangesWithEveryFileAndName(t *testing.T) {
	seen := map[string]string{mustBundle(t).Hash(): "unchanged"}
	for _, change := range [][]string{
		{ManifestFile, goodManifest + "\n"}, {"schema.json", goodSchema + " "}, {ContractFile, "Hullo"}, {"samples/one.json", `{} `},
		{"assets/logo.svg", "<svg />"}, {"README.md", ""}, {"assets/logo.svg", "", "assets/logp.svg", "<svg/>"},
	} {
		h := mustBundle(t, change...).Hash()
		if before, ok := seen[h]; ok {
			t.Errorf("change of %s has the hash of %s", change[0], before)
		}
		seen[h] = change[0]
	}
	if _, ok := seen[mustBundle(t).Hash()]; !ok {
		t.Error("the hash of one bundle differs from itself")
	}
}

func TestUnpackGivesBackThePackedBundle(t *testing.T) {
	b := mustBundle(t)
	again, err := Unpack(b.Pack())
	if err != nil {
		t.Fatal(err)
	}
	if again.Hash() != b.Hash() {
		t.Errorf("hash %s, want %s", again.Hash(), b.Hash())
	}
	packed := b.Pack()
	for _, bad := range [][]byte{nil, packed[:len(packed)-1], packed[1:], append(packed, 0), []byte("\xff\xff\xff\xff\xff\xff\xff\xff")} {
		if _, err := Unpack(bad); err == nil {
			t.Errorf("unpacked %d damaged bytes", len(bad))
		}
	}
}

func TestDraftsAreRefusedWhereContractsAreReal(t *testing.T) {
	if err := mustBundle(t).RequireApproved(); err != nil {
		t.Errorf("approved: %v", err)
	}
	draft := mustBundle(t, ManifestFile, manifestWith("{state: approved, by: Legal, on: 2026-11-02}", "{state: draft}"))
	var approval *ApprovalError
	if err := draft.RequireApproved(); !errors.As(err, &approval) || !strings.Contains(err.Error(), "offer@2") {
		t.Errorf("draft: %v", err)
	}
}

func TestSampleBundlesLoad(t *testing.T) {
	all, err := LoadAll("../templates")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"order-form@1", "nda@1", "audit-trail@1"} {
		b := all[name]
		if b == nil {
			t.Fatalf("%s is not there", name)
		}
		for _, s := range b.Samples() {
			record, _ := b.File(s)
			if err := b.Validate(record); err != nil {
				t.Errorf("%s %s: %v", name, s, err)
			}
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(goodManifest))
	f.Add([]byte("id: &a [*a]\n"))
	f.Add([]byte("fields: {salesforce: {a: {from: X, each: {b: {from: Y, each: {}}}}}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		hostile.Budget(t)
		if len(text) > 64<<10 {
			return
		}
		m, err := parseManifest(text)
		if (m == nil) == (err == nil) {
			t.Errorf("manifest %v with error %v", m, err)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add(pack(bundleFiles()))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, packed []byte) {
		hostile.Budget(t)
		files, err := unpack(packed)
		if err == nil && string(pack(files)) != string(packed) && len(files) > 0 {
			// Only the order of files may differ: pack sorts them.
			if again, err := unpack(pack(files)); err != nil || !cmp.Equal(again, files) {
				t.Errorf("pack and unpack disagree: %v", err)
			}
		}
	})
}

func writeBundle(t *testing.T, dir string, files map[string][]byte) string {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
