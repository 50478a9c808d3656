//go:build crashpoints

package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// crashHook ends the process, as a power cut would, when it passes the point named by DEALSEAL_CRASH_AT for the n-th
// time (DEALSEAL_CRASH_COUNT, default 1), and records every point that is passed in the file DEALSEAL_CRASH_LOG.
func crashHook() func(point string) { return crash().hit }

// crash is one for the whole process: engine, store and transports count the same passings.
var crash = sync.OnceValue(func() *crasher {
	c := &crasher{at: os.Getenv("DEALSEAL_CRASH_AT"), log: os.Getenv("DEALSEAL_CRASH_LOG"), left: 1, seen: map[string]bool{}}
	if n, err := strconv.Atoi(os.Getenv("DEALSEAL_CRASH_COUNT")); err == nil {
		c.left = n
	}
	return c
})

type crasher struct {
	at, log string

	mu   sync.Mutex
	left int
	seen map[string]bool
}

// hit takes the lock until the process is dead, so that no other goroutine gets past a point meanwhile.
func (c *crasher) hit(point string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.log != "" && !c.seen[point] {
		c.seen[point] = true
		appendLine(c.log, point)
	}
	if point != c.at {
		return
	}
	if c.left--; c.left == 0 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func appendLine(file, line string) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	f.WriteString(line + "\n")
}

// crashTransport makes a point of each HTTP call: "http/<name>/<METHOD> <path>/before" and "/after". After means that
// the other side has done its work and the answer has begun to arrive.
func crashTransport(name string, through http.RoundTripper) http.RoundTripper {
	if through == nil {
		through = http.DefaultTransport.(*http.Transport).Clone()
	}
	return &crashingTransport{name: "http/" + name + "/", next: through}
}

type crashingTransport struct {
	name string
	next http.RoundTripper
}

func (t *crashingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	point := t.name + callName(r)
	crash().hit(point + "/before")
	resp, err := t.next.RoundTrip(r)
	crash().hit(point + "/after")
	return resp, err
}

var (
	// identifier matches those of Salesforce (15 or 18 characters that begin with 0) and of HubSpot (digits; of a workflow more).
	identifier = regexp.MustCompile(`^(?:0[0-9A-Za-z]{14}(?:[0-9A-Za-z]{3})?|[0-9]{3,}|ap-[0-9-]+)$`)
	// queried finds the objects that a SOQL query and its subqueries select from.
	queried = regexp.MustCompile(`(?i)\bFROM\s+(\w+)`)
)

// isTimeline tells a note of a HubSpot timeline from those that carry files, which are made by the same call.
func isTimeline(r *http.Request) bool {
	if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/notes") || r.GetBody == nil {
		return false
	}
	body, err := r.GetBody()
	if err != nil {
		return false
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return err == nil && !bytes.Contains(b, []byte("hs_attachment_ids"))
}

// callName names what kind of call it is, the same for every record.
func callName(r *http.Request) string {
	path, _, found := strings.Cut(r.URL.Path, "/stat/") // HubSpot's look for a file by its path
	if found {
		path += "/stat/{path}"
	}
	parts := strings.Split(path, "/")
	for i, part := range parts {
		parts[i] = identifier.ReplaceAllString(part, "{id}")
	}
	name := r.Method + " " + strings.Join(parts, "/")
	if isTimeline(r) {
		name += " timeline"
	}
	if from := queried.FindAllStringSubmatch(r.URL.Query().Get("q"), -1); len(from) > 0 {
		name += " FROM"
		for _, f := range from {
			name += " " + f[1]
		}
	}
	return name
}
