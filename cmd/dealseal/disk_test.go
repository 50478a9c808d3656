package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestAShortDiskStopsNewDealsThenAllOfThemAndGoesOnByItself(t *testing.T) {
	var log bytes.Buffer
	free := int64(1 << 30)
	w := &diskWatch{free: func() (int64, error) { return free, nil }, floor: 256 << 20, log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, c := range []struct {
		free                 int64
		notice, work, logged string
	}{
		{1 << 30, "", "", ""},
		{256 << 20, "", "", ""},
		{256<<20 - 1, "less than 256 MiB", "", "no new deals are noticed"},
		{64 << 20, "less than 256 MiB", "", ""},
		{64<<20 - 1, "less than 256 MiB", "less than 64 MiB", "under way wait as well"},
		{0, "less than 256 MiB", "less than 64 MiB", ""},
		{100 << 20, "less than 256 MiB", "", "no new deals are noticed"},
		{300 << 20, "", "", "has room again"},
	} {
		free = c.free
		log.Reset()
		for range 2 { // each change is logged once
			says(t, c.free, w.mayNotice(), c.notice)
			says(t, c.free, w.mayWork(), c.work)
			if err := w.check(); (err == nil) != (c.notice == "") {
				t.Errorf("%d bytes free: ready says %v", c.free, err)
			}
		}
		if lines := strings.Count(log.String(), "\n"); !strings.Contains(log.String(), c.logged) || lines > 1 || lines == 1 && c.logged == "" {
			t.Errorf("%d bytes free: logged %q, want %q once", c.free, log.String(), c.logged)
		}
	}
}

func says(t *testing.T, free int64, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%d bytes free: %v, want %q", free, err, want)
	}
}

func TestADiskThatCannotBeMeasuredIsNotTakenForFree(t *testing.T) {
	gone := errors.New("no such directory")
	w := &diskWatch{free: func() (int64, error) { return 0, gone }, floor: 1, log: slog.New(slog.DiscardHandler)}
	for _, err := range []error{w.mayNotice(), w.mayWork(), w.check()} {
		if !errors.Is(err, gone) {
			t.Errorf("it says %v", err)
		}
	}
}
