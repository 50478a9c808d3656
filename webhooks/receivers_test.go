package webhooks

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/secret"
)

// attempt is what a receiver gets, and what it should say.
type attempt struct {
	Name    string            `json:"name"`
	Dialect string            `json:"dialect"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	Secret  string            `json:"secret"`
	want    bool
}

// attempts are deliveries of each dialect, whole and damaged.
func attempts(t *testing.T) (all []attempt) {
	t.Helper()
	private := func() string {
		s, err := (&Endpoint{Asymmetric: true}).NewSecret()
		if err != nil {
			t.Fatal(err)
		}
		return string(s.Reveal())
	}
	for dialect, secrets := range map[string][3]string{
		"standard-webhooks": {standardSecretOf("the older of the two secrets"), standardSecretOf("the newer of the two secrets"), standardSecretOf("the secret of somebody else")},
		"asymmetric":        {private(), private(), private()},
		"sdf":               {"the older of the two secrets", "the newer of the two secrets", "the secret of somebody else"},
		"custom":            {"the older of the two secrets", "the newer of the two secrets", "the secret of somebody else"},
		"certyneo":          {"the older of the two secrets", "the newer of the two secrets", "the secret of somebody else"},
	} {
		older, newer, foreign := secrets[0], secrets[1], secrets[2]
		add := func(name string, want bool, own string, at time.Time, change func(h map[string]string, body string) string) {
			e := endpointWith(t, strings.Replace(dialect, "asymmetric", "standard-webhooks", 1), newer, older)
			e.Asymmetric = dialect == "asymmetric"
			if dialect == "custom" { // as the example of the documentation
				e.Headers, e.Signed = map[string]string{"X-Signature-256": "sha256={signature}", "X-Timestamp": "{timestamp_ms}"}, "{timestamp_ms}.{body}"
			}
			header, body := signed(t, e, 0, at)
			known, err := e.Shown(secret.New([]byte(own)))
			if err != nil {
				t.Fatal(err)
			}
			a := attempt{Name: dialect + ": " + name, Dialect: strings.TrimSuffix(dialect, "-webhooks"), Headers: map[string]string{}, Body: string(body), Secret: known, want: want}
			for key := range header {
				a.Headers[strings.ToLower(key)] = header.Get(key)
			}
			if change != nil {
				a.Body = change(a.Headers, a.Body)
			}
			all = append(all, a)
		}
		now := time.Now()
		add("as it is sent", true, older, now, nil)
		add("another secret", false, foreign, now, nil)
		add("another byte", false, older, now, func(_ map[string]string, b string) string { return strings.Replace(b, "test", "tesT", 1) })
		add("a byte less", false, older, now, func(_ map[string]string, b string) string { return b[:len(b)-1] })
		add("a byte order mark", false, older, now, func(_ map[string]string, b string) string { return "\ufeff" + b })
		add("no header", false, older, now, func(h map[string]string, b string) string { clear(h); return b })
		if dialect != "sdf" && dialect != "custom" { // which have room for one secret
			add("the newer secret", true, newer, now, nil)
		}
		if dialect != "sdf" { // whose signature knows no time
			// Five minutes are the limit, and the receivers may come to it late.
			add("three minutes old", true, older, now.Add(-3*time.Minute), nil)
			add("six minutes old", false, older, now.Add(-6*time.Minute), nil)
			add("eight minutes early", false, older, now.Add(8*time.Minute), nil)
		}
	}
	return all
}

// snippet is the code of a language in the documentation.
func snippet(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```" + language + " verify\n(.*?)```").FindSubmatch(text)
	if found == nil {
		t.Fatalf("docs/webhooks.md has no code in %s", language)
	}
	return string(found[1])
}

// drivers feed a snippet with attempts on standard input and print, for each, whether it verifies.
var drivers = map[string]struct{ file, code, command string }{
	"js": {"verify.js", `
const dialects = { standard, asymmetric, sdf, certyneo, custom };
const all = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(all.map((a) => dialects[a.dialect](a.headers, Buffer.from(a.body), a.secret))));`, "node"},
	"python": {"verify.py", `
import json, sys
dialects = {"standard": standard, "asymmetric": asymmetric, "sdf": sdf, "certyneo": certyneo, "custom": custom}
print(json.dumps([dialects[a["dialect"]](a["headers"], a["body"].encode(), a["secret"]) for a in json.load(sys.stdin)]))`, "python3"},
	"php": {"verify.php", `
$out = [];
foreach (json_decode(file_get_contents('php://stdin'), true) as $a) { $out[] = ($a['dialect'])($a['headers'], $a['body'], $a['secret']); }
echo json_encode($out);`, "php"},
	"go": {"verify.go", "", "go"},
}

const goDriver = `package main

import (
	"encoding/json"
	"net/http"
	"os"
)

func main() {
	var all []struct {
		Dialect, Body, Secret string
		Headers               map[string]string
	}
	if err := json.NewDecoder(os.Stdin).Decode(&all); err != nil {
		panic(err)
	}
	dialects := map[string]func(http.Header, []byte, string) bool{"standard": standard, "asymmetric": asymmetric, "sdf": sdf, "certyneo": certyneo, "custom": custom}
	out := []bool{}
	for _, a := range all {
		h := http.Header{}
		for key, value := range a.Headers {
			h.Set(key, value)
		}
		out = append(out, dialects[a.Dialect](h, []byte(a.Body), a.Secret))
	}
	json.NewEncoder(os.Stdout).Encode(out)
}
`

func TestTheSnippetsOfTheDocumentationVerifyDeliveries(t *testing.T) {
	for language, d := range drivers {
		t.Run(language, func(t *testing.T) {
			program, err := exec.LookPath(d.command)
			if err != nil {
				t.Skipf("%s is not on this machine: its snippet is NOT tried", d.command)
			}
			dir := t.TempDir()
			write(t, filepath.Join(dir, d.file), snippet(t, language)+d.code)
			args := []string{d.file}
			if language == "go" {
				write(t, filepath.Join(dir, "main.go"), goDriver)
				write(t, filepath.Join(dir, "go.mod"), "module verify\n\ngo 1.24\n")
				args = []string{"run", "."}
			}
			if language == "python" && exec.Command(program, "-c", "import cryptography").Run() != nil {
				t.Log("Python's package cryptography is not on this machine: asymmetric is NOT tried in Python")
				write(t, filepath.Join(dir, d.file), snippet(t, language)+"\nasymmetric = lambda headers, body, key: None\n"+d.code)
			}
			judge(t, dir, program, args...)
		})
	}
}

// TestReceiversOfOthersVerifyDeliveries has the packages verify that receivers use for Standard Webhooks.
func TestReceiversOfOthersVerifyDeliveries(t *testing.T) {
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not on this machine: the packages standardwebhooks and svix are NOT tried", name)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "package.json"), `{"private": true, "dependencies": {"standardwebhooks": "1.1.1", "svix": "2.5.0"}}`)
	install := exec.Command("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("npm reaches no registry: the packages standardwebhooks and svix are NOT tried: %v\n%s", err, out)
	}
	for _, library := range []string{"standardwebhooks", "svix"} {
		write(t, filepath.Join(dir, library+".js"), `
const { Webhook } = require("`+library+`");
const all = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(all.map((a) => {
  if (a.dialect !== "standard") return null;
  try { new Webhook(a.secret).verify(a.body, a.headers); return true; } catch { return false; }
})));`)
		judge(t, dir, "node", library+".js")
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// judge runs a receiver; null stands for what it does not speak.
func judge(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	all := attempts(t)
	input, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(input)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	var got []*bool
	if err != nil || json.Unmarshal(out, &got) != nil || len(got) != len(all) {
		t.Fatalf("%s %v: %v\n%s\n%s", program, args, err, out, problems.Bytes())
	}
	judged := 0
	for i, a := range all {
		if got[i] == nil {
			continue
		}
		judged++
		if *got[i] != a.want {
			t.Errorf("%v: %s: it verifies: %v", args, a.Name, *got[i])
		}
	}
	if judged < 10 {
		t.Errorf("%v: %d attempts were judged", args, judged)
	}
}
