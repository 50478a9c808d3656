package dealseal

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/dealseal/dealseal/"

// rule says what the non-test files of a top-level folder may import of ours, and never import of anyone's. "x" allows
// the package x, "x/..." x and everything below.
type rule struct {
	ours   []string
	never  []string
	noCode bool
}

// layout is the table of docs/ARCHITECTURE.md. A folder that is not in it does not belong here.
var layout = map[string]rule{
	"cmd": {ours: []string{"cmd/...", "config/...", "connectors/...", "deal", "doctor", "documents/...", "engine/...", "mocks/...", "notify", "pdf", "pins", "secret",
		"signing/...", "store/...", "web/...", "webhooks/...", "worker/...", "delegates"}},
	"config":     {ours: []string{"pins", "secret"}},
	"connectors": {ours: []string{"connectors/...", "deal", "secret"}},
	"deal":       {never: []string{"net/...", "os/...", "database/...", "syscall"}},
	"delegates":  {ours: []string{"deal", "secret", "webhooks"}},
	"doctor":     {never: []string{"net/...", "os/...", "database/...", "syscall"}},
	"documents":  {ours: []string{"deal", "documents/...", "pdf", "worker"}},
	"engine":     {ours: []string{"connectors", "deal", "documents", "signing/..."}},
	"mocks":      {ours: []string{"mocks/..."}},
	"notify":     {ours: []string{"secret", "webhooks"}},
	"pdf":        {never: []string{"net/...", "os/exec", "database/..."}},
	"pins":       {never: []string{"os/...", "database/..."}},
	"secret":     {},
	"signing":    {ours: []string{"pdf", "secret", "signing/...", "worker"}},
	"store":      {ours: []string{"deal", "notify", "secret", "store/...", "webhooks"}},
	"web":        {ours: []string{"deal", "secret", "web/...", "webhooks"}},
	"webhooks":   {ours: []string{"pins", "secret", "webhooks/..."}},
	"worker":     {},
	"bench":      {noCode: true}, "build": {noCode: true}, "deploy": {noCode: true}, "docs": {noCode: true}, "scripts": {noCode: true}, "templates": {noCode: true},
}

// mocksMayEnter are the only non-test importers of mocks: the product binary contains none of it.
var mocksMayEnter = []string{"cmd/bench", "cmd/demo", "cmd/mockcrm", "mocks"}

func TestEveryImportFollowsTheLayout(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "build" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || !strings.Contains(path, "/") {
			return nil
		}
		files++
		for _, complaint := range check(t, filepath.ToSlash(path)) {
			t.Error(complaint)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Fatal("no Go file was read")
	}
}

func TestTopLevelFoldersAreKnown(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, known := layout[e.Name()]; e.IsDir() && !known && !strings.HasPrefix(e.Name(), ".") {
			t.Errorf("folder %s/ is not in the layout: give it a line in layout_test.go and docs/ARCHITECTURE.md, with a reason", e.Name())
		}
	}
}

func TestAForbiddenArrowIsSeen(t *testing.T) {
	for _, c := range []struct{ file, imports string }{
		{"store/x.go", module + "engine"}, {"deal/x.go", "net/http"}, {"web/x.go", module + "store"}, {"cmd/dealseal/x.go", module + "mocks/pki"},
		{"engine/x.go", module + "connectors/salesforce"}, {"util/x.go", "fmt"}, {"docs/x.go", "fmt"},
	} {
		if len(judge(c.file, []string{c.imports})) == 0 {
			t.Errorf("%s may import %s", c.file, c.imports)
		}
	}
}

func check(t *testing.T, path string) []string {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var imports []string
	for _, spec := range f.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		imports = append(imports, name)
	}
	return judge(path, imports)
}

func judge(path string, imports []string) (complaints []string) {
	top, _, _ := strings.Cut(path, "/")
	r, known := layout[top]
	if !known || r.noCode {
		return []string{path + ": no Go code belongs in " + top + "/"}
	}
	for _, name := range imports {
		local, ours := strings.CutPrefix(name, module)
		switch {
		case ours && strings.HasPrefix(local, "mocks") && !slices.ContainsFunc(mocksMayEnter, func(p string) bool { return strings.HasPrefix(path, p+"/") }):
			complaints = append(complaints, path+" imports "+local+": mocks stay out of the product")
		case ours && !allowed(r.ours, local):
			complaints = append(complaints, path+" imports "+local+", which "+top+"/ may not")
		case !ours && allowed(r.never, name):
			complaints = append(complaints, path+" imports "+name+", which "+top+"/ may never")
		}
	}
	return complaints
}

func allowed(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if base, ok := strings.CutSuffix(p, "/..."); ok {
			return name == base || strings.HasPrefix(name, base+"/")
		}
		return name == p
	})
}
