package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/doctor"
)

// doctorCommand asks everything that can be asked of the house, and answers the five questions.
func doctorCommand(ctx context.Context, c *call) error { return c.consult(ctx, true) }

// consult has the running daemon examine the house, because it alone has its credentials, the newest tokens and the lock;
// without a daemon the command examines it itself. Any failure is exit code 1.
func (c *call) consult(ctx context.Context, questions bool) error {
	ctx, cancel := context.WithTimeout(ctx, totalLimit+10*time.Second)
	defer cancel()
	report, err := c.examine(ctx)
	if err != nil {
		return err
	}
	if !questions {
		report.Questions = nil
	}
	if c.json {
		err = printJSON(c.stdout, report)
	} else {
		err = report.Print(c.stdout, styleOf(c.stdout))
	}
	if err == nil && report.Failed() {
		err = &exitError{exitFailed}
	}
	return err
}

func (c *call) examine(ctx context.Context) (*doctor.Report, error) {
	began := time.Now()
	const by = "this command; no daemon runs"
	stateDir, err := config.StateDir(c.config)
	if err != nil {
		const by = "this command; without a state_dir no daemon can be found"
		return doctor.NewReport(by, time.Now(), time.Since(began), c.misconfigured(err)), nil
	}
	daemon, err := dialControl(ctx, stateDir)
	if err == nil {
		defer daemon.Close()
		return daemon.Examine(ctx)
	}
	if !errors.Is(err, errNoDaemon) {
		return nil, err
	}
	h, err := loadHouse(c.config)
	if err != nil {
		return doctor.NewReport(by, time.Now(), time.Since(began), c.misconfigured(err)), nil
	}
	x := h.newExaminer(ctx, newLogQuiet(c.stderr))
	defer x.close()
	findings := append([]doctor.Finding{h.wellConfigured()}, x.run(ctx)...)
	report := doctor.NewReport(by, time.Now(), time.Since(began), findings)
	report.Questions = x.questions(findings)
	return report, nil
}

// misconfigured makes a failure of every complaint about the files.
func (c *call) misconfigured(err error) []doctor.Finding {
	findings := misconfigured(err)
	for i, one := range flatten(err) {
		if cure := c.cure(one); cure != "" {
			findings[i].Cure = cure[2:]
		}
	}
	return findings
}

func misconfigured(err error) (findings []doctor.Finding) {
	for _, one := range flatten(err) {
		f := doctor.Failed("files", "correct that first: nothing else was asked", "%v", one)
		f.Group = doctor.Configuration
		findings = append(findings, f)
	}
	return findings
}

func (h *house) wellConfigured() doctor.Finding {
	f := doctor.Passed("files", "%s: %s, %s", h.cfg.File, plural(len(h.tenants), "tenant"), plural(len(h.bundles), "template"))
	f.Group = doctor.Configuration
	return f
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// styleOf is for people where the output is a terminal (and nobody has set NO_COLOR), else without colours.
func styleOf(out any) doctor.Style {
	f, ok := out.(*os.File)
	if !ok {
		return doctor.Style{}
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return doctor.Style{}
	}
	s := doctor.Style{Colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		s.Width = min(int(size.Col), 140)
	}
	return s
}

// asker names the daemon in a report.
func asker() string { return "the running daemon (process " + strconv.Itoa(os.Getpid()) + ")" }
