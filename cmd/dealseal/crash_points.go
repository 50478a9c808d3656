//go:build crashpoints

package main

import (
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
)

// crashHook ends the process, as a power cut would, when it passes the point named by DEALSEAL_CRASH_AT for the n-th
// time (DEALSEAL_CRASH_COUNT, default 1), and records every point that is passed in the file DEALSEAL_CRASH_LOG.
func crashHook() func(point string) {
	at, log := os.Getenv("DEALSEAL_CRASH_AT"), os.Getenv("DEALSEAL_CRASH_LOG")
	left := &atomic.Int64{}
	left.Store(1)
	if n, err := strconv.ParseInt(os.Getenv("DEALSEAL_CRASH_COUNT"), 10, 64); err == nil {
		left.Store(n)
	}
	return func(point string) {
		if log != "" {
			appendLine(log, point)
		}
		if point == at && left.Add(-1) == 0 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
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
