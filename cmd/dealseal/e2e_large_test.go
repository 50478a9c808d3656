package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// Sizes in bytes.
const (
	largeQuote = 18 << 20 // more than what is copied in memory for a reader, so that the daemon does the same with what is larger
	mayGrow    = 32 << 20
	megabyte   = 1 << 20
)

// TestAContractIsSealedKeptAndPutOnItsRecordInConstantMemory compares the daemon and its children at their peaks after large attachments with what they
// have come to after much larger ones. The daemon's heap has a limit for that, which is less than the file: at its own pace under load the garbage of
// decrypting grows to a hundred megabytes, however large the file is. What is held takes its room all the same. It is 64 MB more here; "make large" takes
// half a gigabyte.
func TestAContractIsSealedKeptAndPutOnItsRecordInConstantMemory(t *testing.T) {
	t.Parallel()
	muchLarger := number(t, "MORE", 64) << 20
	w := newWorld(t, worldOptions{level: "B-LTA", hubspotFile: 1 << 30})
	s := &stage{world: w, daemon: w.start(t, "GOGC=100", "GOMEMLIMIT=56MiB"), ops: w.control(t, w.stateDir)}
	seal := func(quote []byte) map[string]int64 {
		for _, c := range s.crms {
			record := c.open(sale{quote: quote})
			c.move(record, ruleMemo)
			began := time.Now()
			waitFor(t, patience*time.Duration(1+len(quote)/(64<<20)), 10*time.Millisecond, record+" is done", func() (bool, string) {
				list := sealings(t, s.ops, record)
				return len(list) == 1 && isDone(list[0]), fmt.Sprint(list)
			})
			t.Logf("%s: %d MB in %s", c.kind(), len(quote)/megabyte, time.Since(began).Round(100*time.Millisecond))
			mustBear(t, c, record, 1)
			mustShow(t, c, record, deal.StatusSigned)
			for _, f := range c.files(record) {
				if f.contract() && len(f.content) <= len(quote) {
					t.Errorf("the contract of %s has %d bytes, its attachment %d", record, len(f.content), len(quote))
				}
			}
		}
		return s.peaks(t)
	}
	before := seal(filled(quotation(1), largeQuote))
	for name, peak := range seal(filled(quotation(2), largeQuote+muchLarger)) {
		t.Logf("%s: %d MB, %d MB before", name, peak/megabyte, before[name]/megabyte)
		if before[name] == 0 {
			continue // those of before had rested and ended
		}
		if grown := peak - before[name]; grown > mayGrow {
			t.Errorf("attachments that were %d MB larger made %s grow by %d MB", muchLarger/megabyte, name, grown/megabyte)
		}
	}
	s.daemon.stop(t)
}

// peaks is the most that the daemon, and the largest of its children of each kind, have ever had in memory, in bytes.
func (s *stage) peaks(t *testing.T) map[string]int64 {
	peaks := map[string]int64{}
	for _, pid := range append(childrenOf(t, s.daemon.cmd.Process.Pid), s.daemon.cmd.Process.Pid) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		line, lineErr := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || lineErr != nil {
			continue // it has just ended
		}
		var kB int64
		_, peak, _ := strings.Cut(string(status), "VmHWM:")
		if _, err := fmt.Sscan(peak, &kB); err != nil {
			continue // it is ending
		}
		words := strings.SplitN(string(line), "\x00", 3)
		name := strings.Join(words[:min(len(words), 2)], " ")
		peaks[name] = max(peaks[name], kB<<10)
	}
	return peaks
}
