package main

import (
	"bufio"
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what the figures depend on.
type machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"` // of the state directories
	MemoryMB   int64  `json:"memory_mb"`
	Go         string `json:"go"`
}

func thisMachine(dir string) machine {
	m := machine{CPU: cpuModel(), Cores: runtime.NumCPU(), FileSystem: fileSystem(dir), Go: runtime.Version()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		m.MemoryMB = int64(s.Totalram) * int64(s.Unit) / 1e6
	}
	return m
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// fileSystem names the type of the mount that holds dir.
func fileSystem(dir string) string {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "unknown"
	}
	dir, _ = filepath.Abs(dir)
	best, kind := "", "unknown"
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < len(best) {
			continue
		}
		if f[1] == "/" || dir == f[1] || strings.HasPrefix(dir, f[1]+"/") {
			best, kind = f[1], f[2]
		}
	}
	return kind
}

// commit is the revision that is measured, with a mark if files were changed since.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// process is one of a tree of processes.
type process struct {
	pid  int
	name string // of the worker, or of the command
}

// tree lists a process and all its living descendants.
func tree(root int) (all []process) {
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if f := statFields(pid); len(f) > 1 {
			parent, _ := strconv.Atoi(f[1])
			children[parent] = append(children[parent], pid)
		}
	}
	var walk func(pid int)
	walk = func(pid int) {
		name := "daemon"
		if pid != root {
			name = workerName(pid)
		}
		all = append(all, process{pid, name})
		for _, c := range children[pid] {
			walk(c)
		}
	}
	walk(root)
	return all
}

// workerName reads what a child was started as.
func workerName(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	arg0, rest, _ := strings.Cut(strings.TrimRight(string(b), "\x00"), "\x00")
	if rest == "" {
		rest = filepath.Base(arg0)
	}
	return strings.ReplaceAll(rest, "\x00", " ")
}

// statFields returns the fields of /proc/PID/stat from the third, the state, on.
func statFields(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.Fields(rest)
}

// spent is the processor time of a tree of processes, by what they are. That of children that have ended, which nobody can
// ask any more, is under ended.
type spent map[string]time.Duration

const ended = "children that have ended"

// spentOf is what a process of that name and its descendants have used.
func spentOf(root int, name string) spent {
	const perTick = time.Second / 100 // USER_HZ is 100 on all that Go runs on
	u := spent{}
	for _, p := range tree(root) {
		f := statFields(p.pid)
		if len(f) < 15 {
			continue
		}
		if p.pid == root {
			p.name = name
		}
		for i, field := range f[11:15] { // utime, stime, cutime, cstime
			of := p.name
			if i >= 2 {
				of = ended
			}
			n, _ := strconv.ParseInt(field, 10, 64)
			u[of] += time.Duration(n) * perTick
		}
	}
	return u
}

// since is what was used after an earlier moment. A child that has ended since then moves its whole life to ended: only the
// sum is true then.
func (u spent) since(before spent) spent {
	used := maps.Clone(u)
	for name, d := range before {
		used[name] -= d
	}
	return used
}

func (u spent) sum() (all time.Duration) {
	for _, d := range u {
		all += d
	}
	return all
}

// perDeal lists the shares of n deals, the largest first.
func (u spent) perDeal(n int) string {
	var parts []string
	for _, name := range slices.SortedFunc(maps.Keys(u), func(a, b string) int { return cmp.Compare(u[b], u[a]) }) {
		if u[name] > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", name, short(ms(u[name])/float64(n))))
		}
	}
	return strings.Join(parts, ", ")
}

// memory is what a process has in memory: all of it, and with shared pages divided among those that share them.
type memory struct{ rss, pss int64 }

func memoryOf(pid int) (m memory) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return m
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		kb, _ := strconv.ParseInt(strings.Fields(value + " 0")[0], 10, 64)
		switch name {
		case "Rss":
			m.rss = kb * 1024
		case "Pss":
			m.pss = kb * 1024
		}
	}
	return m
}

// highWater is the most that a process has ever had in memory.
func highWater(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kb, _ := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
	return kb * 1024
}
