package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/pdf"
	"github.com/dealseal/dealseal/store"
)

// stage is a daemon in its surroundings, from start to end.
type stage struct {
	b        *bench
	scene    scene
	control  string        // of the surroundings
	page     string        // of the daemon
	starting time.Duration // until it was ready

	world  *exec.Cmd
	hold   io.Closer // closing it ends the surroundings
	daemon *exec.Cmd
	ended  chan error
	log    string
}

// newStage starts surroundings and daemon and waits until the daemon is ready.
func (b *bench) newStage(poll time.Duration, tenants ...sceneTenant) (*stage, error) {
	return b.newStageIn(scene{Tenants: tenants, Poll: poll}, seedOptions{})
}

// newStageIn is newStage in a scene of which all but the paths is given, with a ledger that may be there already.
func (b *bench) newStageIn(given scene, ledger seedOptions) (s *stage, err error) {
	given.Renderer, given.Templates, given.State, given.MasterKey = b.options.renderer, b.templates, ledger.dir, ledger.key
	s = &stage{b: b, scene: given}
	if s.scene.Dir, err = os.MkdirTemp("", "dealseal-bench-"); err != nil {
		return nil, err
	}
	if ledger.dir == "" {
		s.scene.State, s.scene.MasterKey = s.scene.path("state"), s.scene.path("master-key")
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := s.startWorld(); err != nil {
		return s, err
	}
	if err := os.MkdirAll(b.rendererCache(), 0o700); err != nil { // of a machine that has compiled none
		return s, err
	}
	if err := os.Symlink(b.rendererCache(), filepath.Join(s.scene.State, "renderer")); err != nil && !errors.Is(err, fs.ErrExist) {
		return s, err
	}
	return s, s.startDaemon()
}

func (s *stage) startWorld() error {
	args, err := json.Marshal(s.scene)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s.world = exec.Command(self, "surroundings", string(args))
	s.world.Stderr = os.Stderr
	if s.hold, err = s.world.StdinPipe(); err != nil {
		return err
	}
	out, err := s.world.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.world.Start(); err != nil {
		return err
	}
	var h hello
	if err := json.NewDecoder(out).Decode(&h); err != nil {
		return fmt.Errorf("the surroundings did not start: %w", err)
	}
	s.control = h.Control
	return nil
}

var (
	readyLine    = regexp.MustCompile(`msg=ready page=http://(\S+)`)
	sendersLine  = regexp.MustCompile(`msg="senders are answered" address=(\S+)`)
	programsLine = regexp.MustCompile(`msg="programs are answered" address=(\S+)`)
)

// address waits until the daemon says where it answers.
func (s *stage) address(line *regexp.Regexp) (url string, err error) {
	err = s.wait(time.Minute, soon, "answering", func() (bool, error) {
		b, err := os.ReadFile(s.log)
		if m := line.FindSubmatch(b); m != nil {
			url = "http://" + string(m[1])
		}
		return url != "", err
	})
	return url, err
}

func (s *stage) startDaemon() error {
	s.log = s.scene.path("daemon.log")
	logFile, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer logFile.Close()
	s.daemon = exec.Command(s.b.dealseal, "serve", "--config", s.scene.path("dealseal.yaml"))
	s.daemon.Stderr = logFile
	s.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.daemon.Start(); err != nil {
		return err
	}
	begun := time.Now()
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.daemon.Wait() }()
	s.page, err = s.address(readyLine)
	s.starting = time.Since(begun)
	return err
}

// How often something is asked: soon where little is going on, seldom where the asking would be a part of the load.
const (
	soon   = 100 * time.Millisecond
	seldom = 500 * time.Millisecond
)

// wait polls until done says so. The daemon must live.
func (s *stage) wait(limit, every time.Duration, what string, done func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	over := time.After(limit)
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-s.b.ctx.Done():
			return s.b.ctx.Err()
		case err := <-s.ended:
			s.ended <- err
			log, _ := os.ReadFile(s.log)
			return fmt.Errorf("the daemon ended while it was waited for (%v):\n%s", err, tail(log))
		case <-over:
			log, _ := os.ReadFile(s.log)
			return fmt.Errorf("not %s within %s; the end of the daemon's log:\n%s", what, limit, tail(log))
		case <-tick.C:
		}
	}
}

// tail is the end of a log.
func tail(log []byte) []byte { return log[max(0, len(log)-2000):] }

// order tells the surroundings something and reads the answer into v.
func (s *stage) order(method, path string, values url.Values, v any) error {
	req, err := http.NewRequestWithContext(s.b.ctx, method, s.control+path+"?"+values.Encode(), nil)
	if err != nil {
		return err
	}
	return get(req, v)
}

func get(req *http.Request, v any) error {
	req.Header.Set("Accept-Encoding", "identity") // compressing answers is no part of what is measured
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", req.URL.Path, resp.Status, bytes.TrimSpace(body))
	}
	if text, ok := v.(*string); ok {
		*text = string(body)
		return nil
	}
	return json.Unmarshal(body, v)
}

// open makes deals that no rule cares for yet; close moves as many of them into their stage.
func (s *stage) open(tenant, rule string, lines, n int) error {
	var got int
	return s.order("POST", "/open", url.Values{"tenant": {tenant}, "rule": {rule}, "lines": {strconv.Itoa(lines)}, "n": {strconv.Itoa(n)}}, &got)
}

func (s *stage) closeDeals(tenant string, n int) error {
	var got int
	return s.order("POST", "/close", url.Values{"tenant": {tenant}, "n": {strconv.Itoa(n)}}, &got)
}

// calls are those to a tenant's CRM since the last forget, by what was asked.
func (s *stage) calls(tenant string) (by map[string]int, err error) {
	return by, s.order("GET", "/calls", url.Values{"tenant": {tenant}}, &by)
}

// forget lets the counting of a tenant's calls begin anew.
func (s *stage) forget(tenant string) error {
	var got int
	return s.order("POST", "/forget", url.Values{"tenant": {tenant}}, &got)
}

// worldCPU is the processor time of mocks and load.
func (s *stage) worldCPU() (used time.Duration, err error) {
	return used, s.order("GET", "/cpu", nil, &used)
}

func (s *stage) daemonSpent() spent { return spentOf(s.daemon.Process.Pid, "daemon") }

var sealingsMetric = regexp.MustCompile(`(?m)^dealseal_sealings\{condition="(\w+)",step="(\w+)",tenant="([\w-]+)"\} (\d+)`)

// tally is how many deals of a tenant the ledger knows, how many of them are done, and how many wait for a person.
type tally struct{ known, done, waiting int }

func (s *stage) count(tenant string) (n tally, err error) {
	req, err := http.NewRequestWithContext(s.b.ctx, "GET", s.page+"/metrics", nil)
	if err != nil {
		return n, err
	}
	var text string
	if err := get(req, &text); err != nil {
		return n, err
	}
	for _, m := range sealingsMetric.FindAllStringSubmatch(text, -1) {
		if m[3] != tenant {
			continue
		}
		deals, err := strconv.Atoi(m[4])
		if err != nil {
			return n, err
		}
		n.known += deals
		switch {
		case m[2] == string(deal.Done):
			n.done += deals
		case deal.Condition(m[1]).Waiting():
			n.waiting += deals
		}
	}
	return n, nil
}

// waitDone waits until so many deals of a tenant are done.
func (s *stage) waitDone(tenant string, n int, limit, every time.Duration) error {
	return s.wait(limit, every, fmt.Sprintf("%d deals of tenant %q done", n, tenant), func() (bool, error) {
		now, err := s.count(tenant)
		if err == nil && now.waiting > 0 {
			log, _ := os.ReadFile(s.log)
			err = fmt.Errorf("%d deals wait for a person; the end of the daemon's log:\n%s", now.waiting, tail(log))
		}
		return now.done >= n, err
	})
}

// stop ends the daemon, at once if it need not drain.
func (s *stage) stop(drain bool) error {
	if s.daemon == nil || s.daemon.Process == nil {
		return nil
	}
	signal := syscall.SIGKILL
	if drain {
		signal = syscall.SIGTERM
	}
	if err := s.daemon.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-s.ended:
		s.ended <- err
		if !drain {
			return nil
		}
		return err
	case <-time.After(time.Minute):
		s.daemon.Process.Kill()
		return errors.New("the daemon did not end within a minute of SIGTERM and was killed")
	}
}

func (s *stage) close() {
	s.stop(false)
	if s.hold != nil {
		s.hold.Close()
		s.world.Wait()
	}
	os.RemoveAll(s.scene.Dir)
}

// sealed reads what the stopped daemon's ledger knows of a tenant's finished deals, oldest first.
func (s *stage) sealed(tenant string) (all []*deal.Sealing, err error) {
	master, err := masterKey(s.scene.MasterKey)
	if err != nil {
		return nil, err
	}
	ledger, err := store.Open(s.b.ctx, store.Options{Dir: s.scene.State, MasterKey: master})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ledger.Close()) }()
	f := store.Filter{Tenant: deal.TenantID(tenant), Step: deal.Done, Limit: 1000}
	for {
		list, err := ledger.List(s.b.ctx, f)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			sl, err := ledger.Load(s.b.ctx, m.Tx)
			if err != nil {
				return nil, err
			}
			all = append([]*deal.Sealing{sl}, all...)
		}
		if len(list) < f.Limit {
			break
		}
		f.Before = list[len(list)-1].Seq
	}
	return all, s.checkPages(ledger, all)
}

// checkPages makes sure that the order forms have the two pages that the limits are about.
func (s *stage) checkPages(ledger *store.Store, all []*deal.Sealing) error {
	if len(all) == 0 || all[0].Change.Rule == ruleReady {
		return nil
	}
	f, err := ledger.OpenKept(s.b.ctx, all[0].Facts.Archive, "contract.pdf")
	if err != nil {
		return err
	}
	defer f.Close()
	doc, err := pdf.Open(f, f.Length)
	if err != nil {
		return err
	}
	if n, err := doc.PageCount(); err != nil || n != orderForm.pages {
		return fmt.Errorf("the sealed order form has %d pages, %d are measured (%v)", n, orderForm.pages, err)
	}
	return nil
}

// has reports whether a child of that name lives.
func (s *stage) has(name string) bool {
	return slices.ContainsFunc(tree(s.daemon.Process.Pid), func(p process) bool { return strings.Contains(p.name, name) })
}

// memory is that of the daemon's tree without renderers, and of the renderers.
func (s *stage) memory() (house, renderers memory, each string) {
	var parts []string
	for _, p := range tree(s.daemon.Process.Pid) {
		m := memoryOf(p.pid)
		if strings.Contains(p.name, "render") {
			renderers.rss, renderers.pss = renderers.rss+m.rss, renderers.pss+m.pss
			continue
		}
		house.rss, house.pss = house.rss+m.rss, house.pss+m.pss
		parts = append(parts, fmt.Sprintf("%s %s", filepath.Base(p.name), short(megabytes(m.rss))))
	}
	return house, renderers, strings.Join(parts, ", ")
}
