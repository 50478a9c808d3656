package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuantileIsTheNearestRank(t *testing.T) {
	s := sample{5, 1, 4, 2, 3}
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{{0, 1}, {0.2, 1}, {0.21, 2}, {0.5, 3}, {0.95, 5}, {1, 5}} {
		if got := s.quantile(c.q); got != c.want {
			t.Errorf("quantile %v is %d, want %d", c.q, got, c.want)
		}
	}
	if got := (sample{}).quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing is %d", got)
	}
}

func TestAFigureIsJudgedByItsLimit(t *testing.T) {
	for _, c := range []struct {
		value float64
		limit *limit
		want  string
	}{{80, atMost(80), "met"}, {80.1, atMost(80), "MISSED"}, {60, atLeast(60), "met"}, {59.9, atLeast(60), "MISSED"}, {1, nil, ""}} {
		var r report
		r.add(figure{Value: c.value, Limit: c.limit})
		if got := verdict(r.Figures[0]); got != c.want {
			t.Errorf("%v %s: %q, want %q", c.value, c.limit, got, c.want)
		}
	}
}

// Whoever reads out.json relies on these names.
func TestTheFileNamesMachineAndLimits(t *testing.T) {
	r := report{Date: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Commit: "abc", Machine: machine{CPU: "c", Cores: 2, Kernel: "k", FileSystem: "f", MemoryMB: 1, Go: "g"}}
	r.add(figure{Part: "flow", Name: "n", Value: 1.23456, Unit: "ms", Limit: atMost(2), Beside: "b"})
	file := filepath.Join(t.TempDir(), "bench", "out.json")
	if err := r.save(file, suites[0], []string{"flow"}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"date": "2026-03-04T05:06:07Z", "commit": "abc",
		"machine": map[string]any{"cpu": "c", "cores": 2.0, "kernel": "k", "file_system": "f", "memory_mb": 1.0, "go": "g"},
		"figures": []any{map[string]any{"part": "flow", "name": "n", "value": 1.235, "unit": "ms", "limit": map[string]any{"at_most": 2.0}, "met": true, "beside": "b"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFiguresOfPartsThatDidNotRunStay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.json")
	var first, second report
	first.add(figure{Part: "flow", Name: "old"})
	first.add(figure{Part: "renderer", Name: "old"})
	if err := first.save(file, suites[0], []string{"flow", "renderer"}); err != nil {
		t.Fatal(err)
	}
	second.add(figure{Part: "flow", Name: "new"})
	if err := second.save(file, suites[0], []string{"flow"}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range got.Figures {
		names = append(names, f.Part+" "+f.Name)
	}
	if diff := cmp.Diff([]string{"renderer old", "flow new"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheTableSaysWhatIsMissed(t *testing.T) {
	var r report
	r.add(figure{Part: "flow", Name: "good", Value: 1, Unit: "ms", Limit: atMost(2)})
	r.add(figure{Part: "flow", Name: "bad", Value: 3, Unit: "ms", Limit: atMost(2), Beside: "why"})
	var b bytes.Buffer
	if err := r.table(&b); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{"good": " met", "bad": " MISSED"} {
		for l := range strings.Lines(b.String()) {
			if strings.Contains(l, line) && !strings.Contains(l, want) {
				t.Errorf("%q has no %q", l, want)
			}
		}
	}
	if r.missed() != 1 || !strings.Contains(r.markdown(), "| flow: bad | 3 ms | ≤ 2 ms (missed) | why |") {
		t.Errorf("%d missed; %s", r.missed(), r.markdown())
	}
}

func TestOfManyPagesTheSlowestIsShownAndWhatMisses(t *testing.T) {
	var r report
	for name, took := range map[string]float64{"quick": 1, "slower": 2, "slow": 9, "too slow": 11, "far too slow": 12} {
		r.add(figure{Part: "pages", Name: name, Value: took, Unit: "ms", Limit: atMost(10), Beside: "x"})
	}
	if shown := r.markdown(); strings.Count(shown, "| pages: ") != 2 || !strings.Contains(shown, "too slow | 11 ms | ≤ 10 ms (missed) | x") {
		t.Errorf("with two that miss: %s", shown)
	}
	r.Figures = slices.DeleteFunc(r.Figures, func(f figure) bool { return !*f.Met })
	if shown := r.markdown(); strings.Count(shown, "| pages: ") != 1 || !strings.Contains(shown, "| pages: slow | 9 ms | ≤ 10 ms | x; the slowest of 3 |") {
		t.Errorf("with none: %s", shown)
	}
}

func TestTheTableIsPutBetweenItsMarks(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "out.json"), filepath.Join(dir, "README.md")
	var r report
	r.add(figure{Part: "flow", Name: "good", Value: 1, Unit: "ms", Limit: atMost(2)})
	if err := r.save(from, suites[0], []string{"flow"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := readme(from, to); err == nil || !strings.Contains(err.Error(), "no place") {
		t.Errorf("a file without marks: %v", err)
	}
	if err := os.WriteFile(to, []byte("before\n"+tableBegins+"old\n"+tableEnds+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := readme(from, to); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	if want := "before\n" + tableBegins + r.markdown() + tableEnds + "after\n"; string(b) != want {
		t.Errorf("%q, want %q", b, want)
	}
}

func TestAnUnknownPartIsRefused(t *testing.T) {
	if _, err := suites[0].choose("flow,nonsense"); err == nil || !strings.Contains(err.Error(), `"nonsense"`) || !strings.Contains(err.Error(), "renderer") {
		t.Errorf("%v", err)
	}
	if all, err := suites[0].choose(""); err != nil || len(all) != len(suites[0].parts) {
		t.Errorf("%v, %v", all, err)
	}
}
