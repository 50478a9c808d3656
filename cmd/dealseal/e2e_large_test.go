package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/deal"
)

// Sizes of attachments, in bytes: both are more than what is copied in memory for a reader, so that the daemon does the same with both.
const (
	largeQuote = 18 << 20
	muchLarger = 64 << 20 // on top
	mayGrow    = muchLarger / 2
	megabyte   = 1 << 20
)

// TestAContractIsSealedKeptAndPutOnItsRecordInConstantMemory compares the daemon and its children at their peaks after large attachments with what they
// have come to after much larger ones. The daemon's heap has a limit for that, which is less than the file: at its own pace under load the garbage of
// decrypting grows to a hundred megabytes, however large the file is. What is held takes its room all the same.
func TestAContractIsSealedKeptAndPutOnItsRecordInConstantMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{level: "B-LTA"})
	s := &stage{world: w, daemon: w.start(t, "GOGC=100", "GOMEMLIMIT=56MiB"), ops: w.control(t, w.stateDir)}
	seal := func(quote []byte) map[string]int64 {
		for _, c := range s.crms {
			record := c.open(sale{quote: quote})
			c.move(record, ruleMemo)
			awaitDone(t, s.ops, record)
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
