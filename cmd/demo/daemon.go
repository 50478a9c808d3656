package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/dealseal/dealseal/store"
)

// dealsealDaemon is the real daemon, run as a child.
type dealsealDaemon struct {
	cmd     *exec.Cmd
	ended   chan error
	stopped bool
	page    string
	logFile string
	control *http.Client
}

// startDaemon starts "dealseal serve" and waits until it is ready, showing what it waits for.
func startDaemon(ctx context.Context, w *world, screen *screen) (*dealsealDaemon, error) {
	if err := shareRendererCache(w); err != nil {
		return nil, err
	}
	d := &dealsealDaemon{ended: make(chan error, 1), logFile: w.path("dealseal.log")}
	logFile, err := os.Create(d.logFile)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	r, err := os.Open(d.logFile)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	d.cmd = exec.Command(w.dealseal, "serve", "--config", w.path("config/dealseal.yaml"))
	d.cmd.Stderr = logFile
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to pass on
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { d.ended <- d.cmd.Wait() }()
	socket := w.path("state/control.sock")
	d.control = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	if d.page, err = d.waitReady(ctx, bufio.NewReader(r), screen); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

var (
	readyLine = regexp.MustCompile(`msg=ready page=(\S+)`)
	elapsed   = regexp.MustCompile(`msg="compiling the renderer, once" elapsed=(\S+)`)
)

// waitReady follows the daemon's log until it says that it is ready.
func (d *dealsealDaemon) waitReady(ctx context.Context, log *bufio.Reader, screen *screen) (page string, err error) {
	const usual = 15 * time.Second // of a first start on a small machine
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	line := ""
	for {
		part, err := log.ReadString('\n')
		line += part
		if err == nil {
			if m := elapsed.FindStringSubmatch(line); m != nil {
				if t, err := time.ParseDuration(m[1]); err == nil {
					screen.bar("compiling the document renderer (only the first time)", float64(t)/float64(usual))
				}
			}
			if m := readyLine.FindStringSubmatch(line); m != nil {
				screen.barDone()
				return m[1], nil
			}
			line = ""
			continue
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case err := <-d.ended:
			d.stopped = true
			return "", fmt.Errorf("the daemon ended before it was ready (%v): its log is %s", err, d.logFile)
		case <-tick.C:
		}
	}
}

// shareRendererCache lets demos share the compiled renderer: it is made once per machine, not once per demo.
func shareRendererCache(w *world) error {
	cache := filepath.Join(filepath.Dir(absolute(w.renderer)), "renderer-cache")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	return os.Symlink(cache, w.path("state/renderer"))
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// stop drains the daemon and waits for its end.
func (d *dealsealDaemon) stop() error {
	if d.stopped {
		return nil
	}
	d.stopped = true
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-d.ended:
		return err
	case <-time.After(60 * time.Second):
		d.cmd.Process.Kill()
		return errors.New("the daemon did not end within a minute of SIGTERM and was killed")
	}
}

// list and story ask the daemon's control socket, as the command line does.
func (d *dealsealDaemon) list(ctx context.Context) (list []store.Summary, err error) {
	filter, err := json.Marshal(store.Filter{Limit: 20})
	if err != nil {
		return nil, err
	}
	return list, d.ask(ctx, "/jobs?filter="+url.QueryEscape(string(filter)), &list)
}

func (d *dealsealDaemon) story(ctx context.Context, tx string) (*store.Story, error) {
	var s store.Story
	return &s, d.ask(ctx, "/deals/"+tx, &s)
}

// login asks for a link that begins a session of the status page, as "dealseal admin login" does.
func (d *dealsealDaemon) login(ctx context.Context) (link string, err error) {
	var in struct{ Page, Path string }
	err = d.send(ctx, "POST", "/admin/login", strings.NewReader("{}"), &in)
	return in.Page + in.Path, err
}

func (d *dealsealDaemon) ask(ctx context.Context, path string, into any) error {
	return d.send(ctx, "GET", path, nil, into)
}

func (d *dealsealDaemon) send(ctx context.Context, method, path string, body io.Reader, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://dealseal"+path, body)
	if err != nil {
		return err
	}
	resp, err := d.control.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the daemon answers %s to %s", resp.Status, path)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
