//go:build !race

// The browser is a process of its own, and the packages that steer it take long to build.

package web

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web/signin"
)

//go:embed audit_test.js
var auditScript string

// browser is a Chromium with one tab, and what its console has said.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu      sync.Mutex
	console []string
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("NO BROWSER: chromium is missing, so the pages are not tried in one: install it (scripts/deps.sh browser)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP seals.example 127.0.0.1"), chromedp.Flag("disable-sync", true), chromedp.Flag("no-first-run", true))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(allocator)
	t.Cleanup(end)
	ctx, cancel := context.WithTimeout(ctx, 8*time.Minute)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	messages := chromedp.Console(ctx)
	b.do(chromedp.Navigate("about:blank"))
	go func() { // ends with the context
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Type != chromedp.ConsoleLog && m.Type != chromedp.ConsoleDebug && m.Type != chromedp.ConsoleInfo {
				b.mu.Lock()
				b.console = append(b.console, m.Text)
				b.mu.Unlock()
			}
		}
	}()
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

func eval[T any](b *browser, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// said returns what the console has said since the last call.
func (b *browser) said() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	said := b.console
	b.console = nil
	return said
}

func (b *browser) look(width int64, scheme string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.do(chromedp.EmulateViewport(width, 900))
}

func (b *browser) scripts(on bool) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on}); err != nil {
		b.t.Fatal(err)
	}
}

// house serves a village; the link logs in to it.
func house(t *testing.T, v *village, h http.Handler) (base, link string) {
	t.Helper()
	m := h.(member)
	s := httptest.NewServer(m.Handler)
	t.Cleanup(s.Close)
	return s.URL, s.URL + invite(m.sessions)
}

func (b *browser) logIn(link string) {
	b.t.Helper()
	b.do(chromedp.Navigate(link), chromedp.Click(chromedp.CSS("button.main")), chromedp.WaitVisible(chromedp.CSS("#tenants")))
}

func TestEveryPageIsSoundInABrowser(t *testing.T) {
	v := settle()
	v.guards = []deal.GuardHold{{GuardScope: deal.GuardScope{Tenant: "acme", Rule: "order-form"}, Cause: "4,000 deals in an hour, more than the 500 of guard.per_hour", Since: noon, Held: 4000}}
	h, _, _ := open(v, func(o *Options) { o.Deeds, o.Hooks = &doer{}, office{} })
	base, link := house(t, v, h)
	d := v.deals[len(v.deals)-1]
	d.Sealing.Private.Document = []byte(`{"customer":{"name":"Żółć GmbH","iban":"` + strings.Repeat("X", 120) + `"},"lines":[{"amount":"1.00"}],"note":null}`)
	b := newBrowser(t)
	pages := []struct{ name, path string }{{"gate", "/"}, {"login", ""}, {"no link", "/login?token=x"}, {"log in first", "/deals"}}
	signed := []struct{ name, path string }{{"status", "/"}, {"list", "/deals"}, {"narrowed list", "/deals?state=held&tenant=acme"}, {"nothing found", "/deals?q=nobody"}, {"bad day", "/deals?day=x"},
		{"done", path(d)}, {"fields", path(d) + "/fields"}, {"webhooks", "/webhooks"}, {"delivery", "/webhooks/deliveries/2"}, {"guard", "/guard/acme/order-form"}, {"tenant", "/tenants/acme"}, {"unknown", "/deals/aaaaaaaaaaaaaaaaaaaaaaaaaa"}}
	for _, condition := range []deal.Condition{deal.Held, deal.Dead, deal.Retrying, deal.Running, deal.Ended} {
		for _, x := range v.deals {
			if s := x.Sealing; s.Condition == condition && s.Step == deal.Kept {
				signed = append(signed, struct{ name, path string }{string(condition), path(x)})
			}
		}
	}
	for _, width := range []int64{375, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			for _, p := range pages {
				b.judge(width, scheme, p.name, base+p.path, link)
			}
		}
	}
	b.logIn(link)
	for _, width := range []int64{375, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			for _, p := range signed {
				b.judge(width, scheme, p.name, base+p.path, "")
			}
		}
	}
}

// judge opens a page, or the link when it has none of its own, and reports everything that is wrong with it.
func (b *browser) judge(width int64, scheme, name, address, link string) {
	b.t.Helper()
	if name == "login" {
		address = link
	}
	b.look(width, scheme)
	b.do(chromedp.Navigate(address), chromedp.WaitReady(chromedp.CSS("footer")))
	for _, c := range eval[[]string](b, auditScript) {
		b.t.Errorf("%s, %s, %d px: %s", name, scheme, width, c)
	}
	for _, s := range b.said() {
		if !strings.Contains(s, "the server responded with a status of 40") { // as it should
			b.t.Errorf("%s, %s, %d px: the console says %s", name, scheme, width, s)
		}
	}
}

func TestAPersonLogsInSearchesAndLogsOutWithTheKeyboardAlone(t *testing.T) {
	v := settle()
	h, _, _ := open(v)
	base, link := house(t, v, h)
	b := newBrowser(t)
	b.look(1280, "light")
	b.scripts(false) // and without JavaScript
	b.do(chromedp.Navigate(link), chromedp.KeyEvent(kb.Tab))
	b.scripts(true)
	b.tabTo("button.main")
	b.scripts(false)
	b.do(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS("#tenants")))
	b.scripts(true)
	if at := eval[string](b, "location.pathname + location.search"); at != "/" {
		t.Errorf("logged in, the browser is at %s", at)
	}
	b.tabTo(".find input")
	record := v.deals[3].Sealing.Change.Ref.ID
	b.do(chromedp.KeyEvent(record), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS(".narrow")))
	if found := eval[string](b, "document.querySelector('tbody').textContent"); !strings.Contains(found, record) {
		t.Errorf("looking for %s finds %s", record, found)
	}
	b.tabTo("tbody a")
	b.do(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS(".timeline")))
	b.tabTo(".out button")
	b.do(chromedp.KeyEvent(kb.Enter), chromedp.WaitNotPresent(chromedp.CSS(".out")))
	b.do(chromedp.Navigate(base + "/deals"))
	if title := eval[string](b, "document.querySelector('h1').textContent"); title != "Log in to see this" {
		t.Errorf("logged out, the list is titled %q", title)
	}
}

// To a name without TLS browsers tell less of where a request comes from than to localhost.
func TestAPersonLogsInAndOutUnderANameWithoutTLS(t *testing.T) {
	v := settle()
	h, _, _ := open(v, func(o *Options) { o.Hosts = []string{"seals.example"} })
	base, link := house(t, v, h)
	address, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	named := "http://seals.example:" + address.Port()
	b := newBrowser(t)
	b.do(chromedp.Navigate(named+strings.TrimPrefix(link, base)), chromedp.Click(chromedp.CSS("button.main")),
		chromedp.WaitVisible(chromedp.CSS("#tenants, body > pre"))) // the browser's frame around a refusal
	if !eval[bool](b, "document.querySelector('#tenants') !== null") {
		t.Fatal(eval[string](b, "document.body.textContent"))
	}
	b.do(chromedp.Click(chromedp.CSS(".out button")), chromedp.WaitNotPresent(chromedp.CSS(".out")))
	b.await("document.title.includes('dealseal is')") // it says so once its head is there
}

// A browser keeps its cookies from pages that another site leads to, and follows no form to another site.
func TestAPersonSignsInAtAnotherSiteInABrowser(t *testing.T) {
	g := newGatehouse(t)
	g.mock.Say(map[string]any{"groups": "seal-operators", "email": strings.Repeat("anna.", 12) + "@example.com", "email_verified": true, "sub": strings.Repeat("s", 200)})
	b := newBrowser(t)
	for _, scheme := range []string{"light", "dark"} {
		b.judge(375, scheme, "gate with a provider", g.page, "")
		b.judge(375, scheme, "not let in", g.page+signin.Back+"?code=x", "")
	}
	b.do(chromedp.Navigate(g.page+"/deals"), chromedp.Click(chromedp.CSS("main a.button")), chromedp.WaitVisible(chromedp.CSS(".narrow")))
	if at := eval[string](b, "location.pathname + location.search"); at != "/deals" {
		t.Errorf("signed in, the browser is at %s", at)
	}
	if who := eval[string](b, "document.querySelector('.out').textContent"); !strings.Contains(who, "@example.com (oidc:ssss") || !strings.Contains(who, ", operator") {
		t.Errorf("signed in as %s", who)
	}
	b.judge(375, "light", "a person with a long name", g.page, "")
	b.do(chromedp.Click(chromedp.CSS(".out button")), chromedp.WaitVisible(chromedp.CSS("main a.button")))
	g.mustHide()
}

// tabTo presses Tab until the element has the focus, which must be visible there.
func (b *browser) tabTo(selector string) {
	b.t.Helper()
	for range 60 {
		there := eval[bool](b, fmt.Sprintf("document.activeElement === document.querySelector(%q)", selector))
		if there {
			if width := eval[string](b, "getComputedStyle(document.activeElement).outlineWidth"); width != "3px" {
				b.t.Errorf("the focus on %s is drawn %s wide", selector, width)
			}
			return
		}
		b.do(chromedp.KeyEvent(kb.Tab))
	}
	b.t.Fatalf("Tab does not lead to %s", selector)
}

func TestTheFocusGoesInTheOrderOfThePage(t *testing.T) {
	v := settle()
	h, _, _ := open(v)
	_, link := house(t, v, h)
	b := newBrowser(t)
	b.look(1280, "light")
	b.logIn(link)
	b.do(chromedp.Navigate(strings.Split(link, "/login")[0] + path(v.deals[len(v.deals)-1])))
	const order = `[...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary")].filter((e) => e.checkVisibility())`
	all := eval[int](b, order+".length")
	for i := range all {
		b.do(chromedp.KeyEvent(kb.Tab))
		if at := eval[int](b, order+".indexOf(document.activeElement)"); at != i {
			t.Fatalf("Tab %d leads to element %d: %s", i+1, at, eval[string](b, "document.activeElement.outerHTML.slice(0, 200)"))
		}
	}
}

func TestAnOpenPageIsKeptCurrentAndSaysWhenItCannotBe(t *testing.T) {
	v := settle()
	h, _, _ := open(v)
	_, link := house(t, v, h)
	b := newBrowser(t)
	b.logIn(link)
	b.do(chromedp.Click(chromedp.CSS("#sealed-table summary")))
	title := eval[string](b, "document.title")
	v.mu.Lock()
	v.untold = 7
	v.mu.Unlock()
	b.await(fmt.Sprintf("document.title !== %q && document.title.includes('7 records')", title))
	if !eval[bool](b, "document.querySelector('#sealed-table').open") {
		t.Error("what was opened is closed again")
	}
	h.(member).sessions.EndAll()
	b.await("document.getElementById('live').textContent.includes('the session has ended')")
}

// TestAPersonDecidesWithTheKeyboardAlone also needs no JavaScript.
func TestAPersonDecidesWithTheKeyboardAlone(t *testing.T) {
	v, did := settle(), &doer{}
	h, _, _ := open(v, func(o *Options) { o.Deeds = did })
	base, link := house(t, v, h)
	held := in(v, deal.Held)
	b := newBrowser(t)
	b.look(375, "light")
	b.logIn(link)
	b.do(chromedp.Navigate(base+path(held)), chromedp.WaitVisible(chromedp.CSS(".deed")))
	if name := eval[string](b, "document.querySelector('#why').labels[0].textContent"); name != "Why" {
		t.Errorf("the field is called %q", name)
	}
	b.tabTo("#why")
	b.do(chromedp.KeyEvent("it was right"))
	b.tabTo("button[value=release]")
	eval[bool](b, "window.before = true") // the page that comes looks like the one that goes
	b.scripts(false)
	b.do(chromedp.KeyEvent(kb.Enter))
	b.scripts(true)
	b.await(fmt.Sprintf("window.before === undefined && location.pathname === %q", path(held)))
	if want := fmt.Sprintf("release %s by alice: it was right", held.Sealing.Tx); len(did.done) != 1 || did.done[0] != want {
		t.Errorf("%v, want %s", did.done, want)
	}
}

// pageGone is the code of all that the browser says of a question to a page that goes while it is asked.
const pageGone = "(-32000)"

// await waits until something holds, on the page that is there or the one that comes.
func (b *browser) await(predicate string) {
	b.t.Helper()
	for {
		_, err := chromedp.Run(b.ctx, chromedp.Poll[bool](predicate, chromedp.WithPollingInterval(100*time.Millisecond)))
		switch {
		case err == nil:
			return
		case strings.Contains(err.Error(), pageGone):
		default:
			b.t.Fatalf("%s: %v", predicate, err)
		}
	}
}
