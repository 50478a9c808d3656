package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify"
)

// signCommand seals one file with a profile of the configuration. The result is verified before it gets its name.
func signCommand(ctx context.Context, c *call) error {
	if len(c.args) != 1 || c.out == "" || c.profile == "" {
		return usagef("name profile, input and output: sign --profile NAME IN.pdf -o OUT.pdf")
	}
	cfg, err := config.Load(c.config)
	if err != nil {
		return err
	}
	h := &house{cfg: cfg}
	if h.roots, err = loadRoots(cfg); err != nil {
		return err
	}
	profile, err := h.profile(c.profile)
	if err != nil {
		return usagef("%v%s", err, config.Nearest(c.profile, profileNames(cfg)))
	}
	log := newLogQuiet(c.stderr)
	keys, err := h.newKeys(log)
	if err != nil {
		return err
	}
	defer keys.Close()
	stamper, err := h.newTimestamper(log)
	if err != nil {
		return err
	}
	in, err := openFile(c.args[0])
	if err != nil {
		return err
	}
	defer in.Close()
	tail, err := sealFile(ctx, signing.NewSealer(keys, stamper, time.Now), in, profile)
	if err != nil {
		return err
	}
	checker := newChecker(h.roots, log)
	defer checker.Close()
	level, err := writeSealed(ctx, c.out, in, tail, checker, profile.Level)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s: sealed, PAdES %s\n", c.out, level)
	return err
}

func profileNames(cfg *config.Config) (names []string) {
	for name := range cfg.Signing.Profiles {
		names = append(names, name)
	}
	return names
}

func sealFile(ctx context.Context, s *signing.Sealer, in *file, p signing.Profile) (tail []byte, err error) {
	t, err := s.Prepare(ctx, in, signing.Request{Profile: p})
	if err != nil {
		return nil, err
	}
	value, err := s.Redeem(ctx, t)
	if err != nil {
		return nil, err
	}
	token, err := s.Timestamp(ctx, t, value)
	if err != nil && p.OnDowngrade != signing.AcceptAndFlag {
		return nil, err
	}
	tail, _, err = s.Complete(t, value, token)
	return tail, err
}

// writeSealed writes beside the target, verifies what it wrote, and only then gives it its name.
func writeSealed(ctx context.Context, out string, in *file, tail []byte, checker *checker, want pades.Level) (level pades.Level, err error) {
	temp, err := os.CreateTemp(filepath.Dir(out), ".dealseal-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	if _, err := io.Copy(temp, io.NewSectionReader(in, 0, in.size)); err != nil {
		return "", err
	}
	if _, err := temp.Write(tail); err != nil {
		return "", err
	}
	if err := errors.Join(temp.Sync(), temp.Chmod(0o644)); err != nil {
		return "", err
	}
	report, err := checker.Check(ctx, &file{temp, in.size + int64(len(tail))})
	if err != nil {
		return "", err
	}
	if n := len(report.Signatures); n == 0 || report.Signatures[n-1].Verdict != verify.Valid {
		return "", fmt.Errorf("our own verification of the sealed file says %s: nothing was written (roots: signing.trust)", report.Verdict)
	}
	level = report.Signatures[len(report.Signatures)-1].Level
	if !level.AtLeast(want) {
		fmt.Fprintf(os.Stderr, "warning: level %s was asked for, %s was reached\n", want, level)
	}
	return level, os.Rename(temp.Name(), out)
}
