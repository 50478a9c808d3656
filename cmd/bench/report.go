package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what out.json holds.
type report struct {
	Date    time.Time `json:"date"`
	Commit  string    `json:"commit"`
	Machine machine   `json:"machine"`
	Figures []figure  `json:"figures"`
}

// figure is one measured number beside its limit.
type figure struct {
	Part string `json:"part"`
	Name string `json:"name"`
	// Value in Unit: ms, MB (10^6 bytes), deals/s, %, x (a ratio), calls ...
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Limit is missing for figures that only explain others.
	Limit *limit `json:"limit,omitempty"`
	Met   *bool  `json:"met,omitempty"`
	// Beside says what the limit was measured by in the same run, and what else is needed to judge the figure.
	Beside string `json:"beside,omitempty"`
}

// limit is a bound on a figure, in its unit.
type limit struct {
	AtMost  *float64 `json:"at_most,omitempty"`
	AtLeast *float64 `json:"at_least,omitempty"`
}

func atMost(v float64) *limit  { return &limit{AtMost: &v} }
func atLeast(v float64) *limit { return &limit{AtLeast: &v} }

func (l *limit) met(v float64) bool {
	return (l.AtMost == nil || v <= *l.AtMost) && (l.AtLeast == nil || v >= *l.AtLeast)
}

func (l *limit) String() string {
	switch {
	case l == nil:
		return ""
	case l.AtMost != nil:
		return "≤ " + short(*l.AtMost)
	}
	return "≥ " + short(*l.AtLeast)
}

// short writes a number with three digits that count.
func short(v float64) string {
	switch a := math.Abs(v); {
	case v == math.Trunc(v) && a < 1e6, a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// add judges a figure and keeps it. A figure of an earlier run with the same part and name is replaced.
func (r *report) add(f figure) {
	f.Value = math.Round(f.Value*1000) / 1000
	if f.Limit != nil {
		met := f.Limit.met(f.Value)
		f.Met = &met
	}
	r.Figures = append(r.Figures, f)
}

// missed counts the figures that are outside of their limits.
func (r *report) missed() (n int) {
	for _, f := range r.Figures {
		if f.Met != nil && !*f.Met {
			n++
		}
	}
	return n
}

// table writes the figures for people.
func (r *report) table(w io.Writer) error {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores, %s, %s; commit %s, %s\n\n", m.CPU, m.Cores, m.Kernel, m.FileSystem, r.Commit, r.Date.Format("2006-01-02 15:04 MST"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	part := ""
	for _, f := range r.Figures {
		if f.Part != part {
			part = f.Part
			fmt.Fprintf(t, "%s\t\t\t\t\n", part)
		}
		fmt.Fprintf(t, "  %s\t%s %s\t%s\t%s\t%s\n", f.Name, short(f.Value), f.Unit, f.Limit, verdict(f), f.Beside)
	}
	return t.Flush()
}

// markdown writes the figures that have limits as the table of the README.
func (r *report) markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%s, %d cores, %s, %s; commit %s, %s.\n\n| | measured | limit | |\n|---|---|---|---|\n", m.CPU, m.Cores, m.Kernel, m.FileSystem, r.Commit, r.Date.Format("2006-01-02"))
	for _, f := range r.Figures {
		if f.Limit != nil && !r.isBehind(&f) {
			fmt.Fprintf(&b, "| %s: %s | %s %s | %s %s%s | %s |\n", f.Part, f.Name, short(f.Value), f.Unit, f.Limit, f.Unit, map[bool]string{true: "", false: " (missed)"}[*f.Met], f.Beside)
		}
	}
	return b.String()
}

// isBehind reports whether one of many pages need not be shown: it meets its limit, and another with the same limit took longer.
// Of the one that is shown, f is told how many it stands for.
func (r *report) isBehind(f *figure) bool {
	if f.Part != "pages" || !*f.Met {
		return false
	}
	like := 0
	for _, other := range r.Figures {
		if other.Part != f.Part || other.Limit == nil || other.Limit.String() != f.Limit.String() {
			continue
		}
		if like++; other.Value > f.Value {
			return true
		}
	}
	f.Beside += fmt.Sprintf("; the slowest of %d", like)
	return false
}

func verdict(f figure) string {
	switch {
	case f.Met == nil:
		return ""
	case *f.Met:
		return "met"
	}
	return "MISSED"
}

// save writes out.json. Figures of parts that were not run this time stay as they were.
func (r *report) save(file string, of suite, ran []string) error {
	var old report
	if b, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(b, &old); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	out := *r
	out.Figures = nil
	for _, p := range of.parts {
		from := old.Figures
		if slices.Contains(ran, p.name) {
			from = r.Figures
		}
		for _, f := range from {
			if f.Part == p.name {
				out.Figures = append(out.Figures, f)
			}
		}
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// Marks of the table in the README.
const (
	tableBegins = "<!-- figures: made by bench readme -->\n"
	tableEnds   = "<!-- end of figures -->\n"
)

// readme puts the table of a report into a file, between its marks.
func readme(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	text, err := os.ReadFile(to)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the figures: it is between %q and %q", to, strings.TrimSpace(tableBegins), strings.TrimSpace(tableEnds))
	}
	return os.WriteFile(to, []byte(before+tableBegins+r.markdown()+tableEnds+after), 0o644)
}

// sample is a set of durations.
type sample []time.Duration

// quantile returns the smallest duration that at least the share q of the sample does not exceed (the nearest rank); 0
// for an empty sample.
func (s sample) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }
