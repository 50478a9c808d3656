package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"
)

// Exit codes. verify documents its own.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 3
)

// command is one subcommand.
type command struct {
	name, args, summary string
	run                 func(ctx context.Context, c *call) error
	flags               func(*flag.FlagSet, *options)
}

// options are the flags of all commands; each command registers those that it knows.
type options struct {
	config, profile, out, trust, record, checkpoint, why, tenant, passphrase, subject string
	json, all                                                                         bool
	limit                                                                             int
}

// call is one invocation.
type call struct {
	command
	options
	args           []string
	in             io.Reader
	stdout, stderr io.Writer
}

// usageError is answered with the command's usage and exit code 3.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// exitError ends the process with a code and no further words.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func commands() []command {
	conf := func(fs *flag.FlagSet, o *options) {
		fs.StringVar(&o.config, "config", "/etc/dealseal/dealseal.yaml", "configuration `file`")
	}
	with := func(more ...func(*flag.FlagSet, *options)) func(*flag.FlagSet, *options) {
		return func(fs *flag.FlagSet, o *options) {
			conf(fs, o)
			for _, f := range more {
				f(fs, o)
			}
		}
	}
	asJSON := func(fs *flag.FlagSet, o *options) { fs.BoolVar(&o.json, "json", false, "print JSON") }
	out := func(fs *flag.FlagSet, o *options) { fs.StringVar(&o.out, "o", "", "write to this `file`") }
	why := func(fs *flag.FlagSet, o *options) {
		fs.StringVar(&o.why, "why", "", "the `reason`, for the audit log")
	}
	return []command{
		{name: "serve", summary: "run the daemon", run: serve, flags: conf},
		{name: "check", summary: "check configuration, templates and field sources, without a network", run: checkCommand, flags: conf},
		{name: "jobs", args: "[list | retry TX | release TX | drop TX]", summary: "list deals in the works, or decide about one", run: jobs,
			flags: with(asJSON, why, func(fs *flag.FlagSet, o *options) {
				fs.BoolVar(&o.all, "all", false, "list finished deals too")
				fs.IntVar(&o.limit, "n", 50, "list at most this `many`")
				fs.StringVar(&o.tenant, "tenant", "", "only deals of this tenant `id`")
			})},
		{name: "explain", args: "TX", summary: "the whole story of one deal", run: explain, flags: with(asJSON)},
		{name: "audit", args: "verify", summary: "check the audit log against itself and against an older checkpoint", run: auditCommand,
			flags: with(func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.checkpoint, "checkpoint", "", "a signed checkpoint `file` that the log must still agree with")
			})},
		{name: "recover", summary: "rebuild missing ledger entries from the archive", run: recoverCommand, flags: conf},
		{name: "sign", args: "IN.pdf", summary: "seal a file, without a CRM", run: signCommand,
			flags: with(out, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.profile, "profile", "", "signing `profile` of the configuration")
			})},
		{name: "verify", args: "FILE.pdf", summary: "verify a sealed file: exit 0 valid, 1 invalid, 2 indeterminate, 3 usage", run: verifyCommand,
			flags: func(fs *flag.FlagSet, o *options) {
				asJSON(fs, o)
				fs.StringVar(&o.trust, "trust", "", "PEM `file` with the roots to trust (default: the system's)")
			}},
		{name: "template", args: "validate DIR | preview DIR", summary: "check a template bundle, or render a record with a watermark", run: template,
			flags: with(out, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.record, "record", "", "record `file` (JSON) to preview")
			})},
		{name: "keygen", args: "master FILE | soft FILE", summary: "make a master key, or an encrypted soft key with a self-signed certificate", run: keygen,
			flags: func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.passphrase, "passphrase", "", "where a soft key's passphrase is: a `reference` such as file:PATH or env:NAME")
				fs.StringVar(&o.subject, "subject", "Evaluation seal", "common `name` in a soft key's certificate")
			}},
		{name: "version", summary: "print the version", run: func(_ context.Context, c *call) error {
			_, err := fmt.Fprintln(c.stdout, "dealseal", version)
			return err
		}, flags: func(*flag.FlagSet, *options) {}},
	}
}

// run is main without the process: it parses, runs and turns errors into exit codes.
func run(args []string, in io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		printUsage(stderr)
		return exitUsage
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" || args[0] == "-help" {
		printUsage(stdout)
		return exitOK
	}
	for _, cmd := range commands() {
		if cmd.name == args[0] {
			return runCommand(cmd, args[1:], in, stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "dealseal: unknown command %q\n\n", args[0])
	printUsage(stderr)
	return exitUsage
}

func runCommand(cmd command, args []string, in io.Reader, stdout, stderr io.Writer) int {
	c := &call{command: cmd, in: in, stdout: stdout, stderr: stderr}
	fs := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	cmd.flags(fs, &c.options)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "usage: dealseal %s\n\n%s\n", strings.TrimSpace(cmd.name+" [flags] "+cmd.args), cmd.summary)
		fs.PrintDefaults()
	}
	rest, err := parseMixed(fs, args)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		return exitUsage
	}
	c.args = rest
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return c.exit(fs, cmd.run(ctx, c))
}

func (c *call) exit(fs *flag.FlagSet, err error) int {
	var usage *usageError
	var exit *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage):
		fmt.Fprintf(c.stderr, "dealseal %s: %s\n\n", c.name, usage.msg)
		fs.Usage()
		return exitUsage
	}
	fmt.Fprintf(c.stderr, "dealseal %s: %s\n", c.name, err)
	return exitFailed
}

// parseMixed lets flags stand behind arguments too, as people type them.
func parseMixed(fs *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		args = fs.Args()
		if len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

func printUsage(w io.Writer) {
	fmt.Fprint(w, "dealseal turns a closed deal in a CRM into a sealed contract on its record.\n\nusage: dealseal COMMAND [flags] [arguments]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\n\"dealseal COMMAND -h\" explains one command.\n")
}
