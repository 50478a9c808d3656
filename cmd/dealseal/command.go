package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/dealseal/dealseal/config"
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
	config, profile, level, out, trust, record, checkpoint, why, tenant, passphrase, subject, page, masterKey, guard, role string
	json, all, online, strict, vri                                                                                         bool
	limit                                                                                                                  int
	backup                                                                                                                 backupOptions
	certs                                                                                                                  certOptions
	reconcile                                                                                                              reconcileOptions
	provision                                                                                                              provisionOptions
	shadow                                                                                                                 shadowOptions
	hooks                                                                                                                  hookOptions
	tokens                                                                                                                 tokenOptions
	audit                                                                                                                  auditOptions
	enrol                                                                                                                  enrolOptions
}

// usualConfig is where the configuration is when no flag says otherwise.
const usualConfig = "/etc/dealseal/dealseal.yaml"

// call is one invocation.
type call struct {
	command
	options
	args           []string
	in             io.Reader
	stdout, stderr io.Writer
}

// usageError is answered with the command's synopsis and exit code 3.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// exitError ends the process with a code and no further words.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func commands() []command {
	conf := func(fs *flag.FlagSet, o *options) {
		fs.StringVar(&o.config, "config", usualConfig, "configuration `file`")
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
	unlock := func(fs *flag.FlagSet, o *options) {
		fs.StringVar(&o.backup.passphrase, "passphrase-file", "", "`file` with the passphrase that the backup is encrypted with")
		fs.StringVar(&o.backup.identity, "identity", "", "age identity `file` of a recipient, to read an encrypted backup")
	}
	// Without a daemon the state is opened by the command itself, which cannot read the credentials of a service.
	key := func(fs *flag.FlagSet, o *options) {
		fs.StringVar(&o.masterKey, "master-key", "", "`reference` to a copy of the master key, such as file:/media/safe/master-key, for when no daemon runs (default: master_key of the configuration)")
	}
	return []command{
		{name: "serve", summary: "run the daemon", run: serve, flags: conf},
		{name: "reload", summary: "have the running daemon read its tenant files and templates anew", run: reloadCommand, flags: conf},
		{name: "check", args: "[--online [--json]]", summary: "check configuration, keys, templates and field sources; with --online also CRMs, HSM, TSA, clocks and disk", run: checkCommand,
			flags: with(asJSON, func(fs *flag.FlagSet, o *options) {
				fs.BoolVar(&o.online, "online", false, "ask everything that the configuration names, too: exit 1 if anything fails")
			})},
		{name: "matrix", args: "[--tenant ID] [--json]", summary: "print which stage makes which document, how it is sealed, and what the record shows of it", run: matrixCommand,
			flags: with(asJSON, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.tenant, "tenant", "", "only rules of the tenant with this `id`")
			})},
		{name: "shadow", args: "--days N [--tenant ID] [--calls N] [--json]", summary: "rehearse the configuration with the stage entries of some days: what would have been made, held and asked; nothing is written anywhere", run: shadowCommand,
			flags: with(asJSON, func(fs *flag.FlagSet, o *options) {
				fs.IntVar(&o.shadow.days, "days", 0, "replay the last so `many` days")
				fs.StringVar(&o.tenant, "tenant", "", "only the tenant with this `id`")
				fs.IntVar(&o.shadow.calls, "calls", usualShadowCalls, "make about so `many` calls to the CRM of each tenant at most")
			})},
		{name: "doctor", args: "[--json]", summary: "check --online, and the five questions that a house must be able to answer", run: doctorCommand, flags: with(asJSON)},
		{name: "jobs", args: "[list | retry TX | retry all | release TX --why REASON | release --guard TENANT[/RULE] --why REASON | prepare TX --why REASON | drop TX --why REASON | drop --guard TENANT[/RULE] --why REASON | seen [ROW --why REASON] | filtered [RECORD]]", summary: "list deals in the works, or decide: retry after an outage, release a hold, prepare anew, drop; list and settle rows that could not be understood; list what filters have left out", run: jobs,
			flags: with(asJSON, why, key, func(fs *flag.FlagSet, o *options) {
				fs.BoolVar(&o.all, "all", false, "list finished deals too")
				fs.IntVar(&o.limit, "n", 50, "list at most so `many`")
				fs.StringVar(&o.tenant, "tenant", "", "only deals of the tenant with this `id`")
				fs.StringVar(&o.guard, "guard", "", "decide about all deals that the guard holds of this `tenant[/rule]`")
			})},
		{name: "admin", args: "login [--page URL] [--role ROLE] | sessions [--json] | logout", summary: "log in to the status page, list who is, or end all sessions", run: admin,
			flags: with(asJSON, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.role, "role", "admin", "what the link is good for: viewer, operator, signer-admin, auditor or admin")
				fs.StringVar(&o.page, "page", "", "the `address` of the page in the browser, where a proxy stands before it")
			})},
		{name: "explain", args: "TX", summary: "the whole story of one deal", run: explain, flags: with(asJSON, key)},
		{name: "certs", args: "[list | show THUMBPRINT [-o FILE] | csr --key NAME [--pair NAME] -o FILE | enrol --key NAME [--pair NAME] --est URL [--within DAYS] | import FILE.pem --key NAME [--pair NAME] | activate THUMBPRINT [--at TIME] --why REASON | rollover THUMBPRINT --at TIME [--dual-until TIME] --why REASON | retire THUMBPRINT [--revoked] --why REASON]", summary: "show the certificates that keys seal with, ask a CA for the next, import it, and say from when on it is used", run: certs,
			flags: with(asJSON, out, why, key, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.certs.key, "key", "", "the key, by its `name` in the configuration")
				fs.StringVar(&o.certs.pair, "pair", "", "of csr, enrol and import: the key, by its `name` in the configuration, whose key pair is to follow that of --key (default: the same; of enrol: the one that seals now)")
				fs.StringVar(&o.certs.at, "at", "", "activate at this `time`, such as 2027-01-31T06:00:00Z or 2027-01-31 (default: now)")
				fs.StringVar(&o.certs.until, "dual-until", "", "of a rollover: until this `time` documents get a second seal, with the certificate that was followed")
				fs.BoolVar(&o.certs.revoked, "revoked", false, "retire it as revoked: nothing that was staged with it is finished either")
				fs.StringVar(&o.enrol.est, "est", "", "of enrol: the https `address` of the CA's EST service, such as https://ca.example.com/.well-known/est")
				fs.IntVar(&o.enrol.within, "within", 0, "of enrol: do nothing unless the key's certificates end within so many `days`")
				fs.StringVar(&o.enrol.ca, "ca", "", "of enrol: a PEM `file` with the roots that the EST service is trusted by (default: those of the machine)")
				fs.StringVar(&o.enrol.pins, "pins", "", "of enrol: `pins` with commas between them, sha256/BASE64, one of which the EST service's chain must have (default: any)")
				fs.StringVar(&o.enrol.user, "user", "", "of enrol: the `name` to log in with")
				fs.StringVar(&o.enrol.password, "password", "", "of enrol: a `reference` to its password, such as file:/PATH")
				fs.StringVar(&o.enrol.clientCert, "client-cert", "", "of enrol: a PEM `file` with the certificate to log in with")
				fs.StringVar(&o.enrol.clientKey, "client-key", "", "of enrol: a `reference` to its key, such as file:/PATH")
				fs.StringVar(&o.subject, "subject", "", "of a csr or enrol: the `name` to be certified, such as \"CN=House Seal,O=House Ltd,C=GB\" (default: that of the key's newest certificate)")
			})},
		{name: "webhooks", args: "[list | add TENANT/NAME URL|- --why REASON | remove|enable|disable|rotate ENDPOINT --why REASON | test ENDPOINT | deliveries [ENDPOINT] | attempts DELIVERY | redeliver DELIVERY|ENDPOINT [--failed | --since TIME] --why REASON | events [TYPE] | secret | debug DIALECT HEADERS BODY --secret REF]", summary: "show where events are delivered to and what became of them, add endpoints, give them other secrets, try them, deliver once more, and say why the signature of a received request does not fit", run: webhooksCommand,
			flags: with(asJSON, why, key, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.hooks.dialect, "dialect", "", "of an added endpoint: standard-webhooks, sdf, certyneo (default: standard-webhooks)")
				fs.StringVar(&o.hooks.format, "format", "", "of an added endpoint: native, sdf, certyneo, certyneo-crm (default: that of the dialect)")
				fs.StringVar(&o.hooks.events, "events", "", "of an added endpoint: `names` with commas between them, such as document.signed,envelope.* (default: all)")
				fs.StringVar(&o.hooks.secret, "secret", "", "a `reference` to a secret of your choice, such as file:/PATH (default: one is made, and shown)")
				fs.StringVar(&o.hooks.publicKey, "public-key", "", "of debug: a PEM `file` with the sender's public keys")
				fs.StringVar(&o.hooks.url, "url", "", "of debug: the `address` that the sender was told, where the dialect signs it")
				fs.StringVar(&o.hooks.at, "at", "", "of debug: the `time` at which the request came (default: now)")
				fs.BoolVar(&o.hooks.asymmetric, "asymmetric", false, "of an added endpoint: sign with Ed25519; the receiver is given a public key")
				fs.BoolVar(&o.hooks.callbacks, "callbacks", false, "of an added endpoint: it is told only of what programs ask for with a callback_url at its address or below it")
				fs.BoolVar(&o.hooks.title, "title", false, "of an added endpoint: tell the name of the contract's file, which may hold names of people")
				fs.StringVar(&o.hooks.event, "event", "", "the `type` to test with (default: the first that the endpoint takes)")
				fs.StringVar(&o.hooks.state, "state", "", "only deliveries that are pending, delivered or failed")
				fs.BoolVar(&o.hooks.failed, "failed", false, "deliver all once more that have failed")
				fs.StringVar(&o.hooks.since, "since", "", "deliver all once more that has happened since this `time`, delivered or not")
				fs.IntVar(&o.limit, "n", 50, "list at most so `many`")
			})},
		{name: "tokens", args: "[list | create NAME --role ROLE --tenant ID[,ID]|--all [--test] [--days N] [--certificate FILE.pem | --new-certificate FILE.pem] --why REASON | revoke NAME|ID --why REASON]", summary: "list who may use the API, let a program in with a token or a client certificate, and keep it out again", run: tokensCommand,
			flags: with(asJSON, why, key, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.tokens.role, "role", "", "what it may do: viewer, operator, signer-admin, auditor or admin")
				fs.StringVar(&o.tenant, "tenant", "", "the `ids` of the tenants that it sees, with commas between them")
				fs.BoolVar(&o.all, "all", false, "it sees all tenants of its environment")
				fs.BoolVar(&o.tokens.test, "test", false, "it is for sandboxes (default: for tenants in production)")
				fs.IntVar(&o.tokens.days, "days", usualTokenDays, "it is good for so `many` days, at most 366")
				fs.StringVar(&o.tokens.certificate, "certificate", "", "let in whoever shows this client certificate, in a PEM `file`, instead of making a token")
				fs.StringVar(&o.tokens.newCertificate, "new-certificate", "", "make a client certificate and its key, and write them to this PEM `file`, instead of making a token")
			})},
		{name: "tenants", args: "[list | pause TENANT --why REASON | resume TENANT --why REASON]", summary: "list tenants, have one wait (its entries are noticed, and nothing is made, sealed or written to its CRM), and have it go on", run: tenantsCommand, flags: with(asJSON, why, key)},
		{name: "notify", args: "[list | test CHANNEL]", summary: "show who is told of what needs a person and whether that works, or tell a channel that this is a test", run: notifyCommand, flags: with(asJSON, key)},
		{name: "audit", args: "log [--since TIME] [--what ENTRY] [--tenant ID] | verify [--checkpoint FILE] | checkpoint -o FILE | proof TX -o FILE | check FILE [--checkpoint FILE]", summary: "list what the audit log has beside deals (who let programs in and what they asked for, who changed certificates, webhooks, pauses), check it, take a signed checkpoint to be kept elsewhere, or prove to others what the log says of a deal", run: auditCommand,
			flags: with(asJSON, out, key, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.audit.since, "since", "", "list only what is not older than this `time`, such as 2027-01-31")
				fs.StringVar(&o.audit.what, "what", "", "list only `entries` that are called so, such as api.called")
				fs.StringVar(&o.tenant, "tenant", "", "list only what concerns the tenant with this `id`")
				fs.IntVar(&o.limit, "n", 50, "list at most so `many`")
				fs.StringVar(&o.checkpoint, "checkpoint", "", "a signed checkpoint `file` that was kept elsewhere, and that log or proof must agree with")
			})},
		{name: "evidence", args: "TX -o BUNDLE.zip", summary: "write the contract, what went into it and all that proves it into one signed file, which \"dealseal verify\" checks anywhere", run: evidenceCommand,
			flags: with(out)},
		{name: "reconcile", args: "[[--days N] [--dry-run] | list | seen TX --why REASON]", summary: "compare the CRMs with the ledger: missed entries, files, fields, values; exit 1 if anything is left to a person", run: reconcileCommand,
			flags: with(asJSON, why, key, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.tenant, "tenant", "", "only the tenant with this `id`")
				fs.IntVar(&o.reconcile.days, "days", 0, "look so `many` days back (default: reconcile.days of the tenant)")
				fs.BoolVar(&o.reconcile.dryRun, "dry-run", false, "mend nothing, write nothing down")
			})},
		{name: "provision", args: "--tenant T [--dry-run] [--yes] [--sfdx DIR | --project DIR]", summary: "make in the CRM what receipts are written to: fields with options, and the rights to them", run: provisionCommand,
			flags: with(asJSON, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.tenant, "tenant", "", "the tenant, by its `id`")
				fs.BoolVar(&o.provision.dryRun, "dry-run", false, "show what is missing, make nothing")
				fs.BoolVar(&o.provision.yes, "yes", false, "make it without asking")
				fs.StringVar(&o.provision.sfdx, "sfdx", "", "write a Salesforce source `folder` to be deployed by an administrator, and make nothing")
				fs.StringVar(&o.provision.project, "project", "", "write the files of a HubSpot project `folder`: an app with the least scopes, its workflow action if the tenant has a sender hubspot-action, and with --url its webhooks")
				fs.StringVar(&o.provision.url, "url", "", "the `address` that HubSpot posts webhooks to, as it is set up for dealseal")
			})},
		{name: "recover", summary: "rebuild missing ledger entries from the archive", run: recoverCommand, flags: with(key)},
		{name: "backup", args: "FILE [--db-only] [--recipient age1… | --passphrase-file FILE] | verify FILE", summary: "write database and archive into one file, while the daemon runs or not; or check such a file", run: backupCommand,
			flags: with(unlock, key, func(fs *flag.FlagSet, o *options) {
				fs.BoolVar(&o.backup.databaseOnly, "db-only", false, "leave the archive out; documents of deals under way are always in it")
				fs.Func("recipient", "encrypt to this age `recipient`; may be given more than once", func(r string) error {
					o.backup.recipients = append(o.backup.recipients, r)
					return nil
				})
			})},
		{name: "restore", args: "FILE [--to DIR]", summary: "make a state directory of a backup, after checking all of it", run: restoreCommand,
			flags: with(unlock, key, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.backup.to, "to", "", "the `directory` to make; it must be empty (default: state_dir of the configuration)")
			})},
		{name: "sign", args: "--profile NAME IN.pdf -o OUT.pdf", summary: "seal a file, without a CRM", run: signCommand,
			flags: with(out, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.profile, "profile", "", "signing profile of the configuration, by `name`")
			})},
		{name: "extend", args: "IN.pdf --level B-LT|B-LTA [--vri] -o OUT.pdf", summary: "add to a signed file what it is checked with when those who made it are gone", run: extendCommand,
			flags: with(out, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.level, "level", "", "B-LT or B-LTA: the `level` to reach")
				fs.BoolVar(&o.vri, "vri", false, "say in the document for which signatures the evidence is (/VRI)")
			})},
		{name: "verify", args: "FILE.pdf|BUNDLE.zip [--trust ROOTS.pem] [--require-revocation] [--json]", summary: "verify a sealed file or an evidence bundle: exit 0 valid, 1 invalid, 2 indeterminate, 3 usage", run: verifyCommand,
			flags: func(fs *flag.FlagSet, o *options) {
				asJSON(fs, o)
				fs.StringVar(&o.trust, "trust", "", "PEM `file` with the roots to trust; without it none are")
				fs.BoolVar(&o.strict, "require-revocation", false, "call a signature indeterminate that carries no evidence that its certificates were not revoked")
			}},
		{name: "template", args: "validate DIR | preview DIR --record FILE -o OUT.pdf", summary: "check a template bundle, or render a record with a watermark", run: template,
			flags: with(out, func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.record, "record", "", "record `file` (JSON) to preview")
			})},
		{name: "keygen", args: "master FILE | soft FILE --passphrase REFERENCE", summary: "make a master key, or an encrypted soft key with a self-signed certificate", run: keygen,
			flags: func(fs *flag.FlagSet, o *options) {
				fs.StringVar(&o.passphrase, "passphrase", "", "where a soft key's passphrase is: a `reference` such as file:/PATH or env:NAME")
				fs.StringVar(&o.subject, "subject", "Evaluation seal", "common `name` in a soft key's certificate")
			}},
		{name: "ca", args: "DIR [client NAME | server HOST[,HOST]]", summary: "for development only: make a CA with certificates for this machine's servers and a client of the API, or one more", run: ca, flags: func(*flag.FlagSet, *options) {}},
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
	var names []string
	for _, cmd := range commands() {
		if cmd.name == args[0] {
			return runCommand(cmd, args[1:], in, stdout, stderr)
		}
		names = append(names, cmd.name)
	}
	fmt.Fprintf(stderr, "dealseal: unknown command %q%s\n\"dealseal help\" lists the commands.\n", args[0], config.Nearest(args[0], names))
	return exitUsage
}

func runCommand(cmd command, args []string, in io.Reader, stdout, stderr io.Writer) int {
	c := &call{command: cmd, in: in, stdout: stdout, stderr: stderr}
	flags := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // what is wrong is said below
	cmd.flags(flags, &c.options)
	rest, err := parseMixed(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		printHelp(stdout, cmd, flags)
		return exitOK
	}
	if err == nil && cmd.flagsOnly() && len(rest) > 0 {
		err = fmt.Errorf("%q is too much: the command takes flags only", rest[0])
	}
	if err != nil {
		return c.exit(usagef("%v", err))
	}
	c.args = rest
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	return c.exit(cmd.run(ctx, c))
}

func (c *call) exit(err error) int {
	var usage *usageError
	var exit *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage):
		fmt.Fprintf(c.stderr, "dealseal %s: %s\nusage: dealseal %s\n\"dealseal %s -h\" explains the flags.\n", c.name, usage.msg, c.synopsis(), c.name)
		return exitUsage
	}
	for _, one := range flatten(err) {
		fmt.Fprintf(c.stderr, "dealseal %s: %s%s\n", c.name, one, c.cure(one))
	}
	return exitFailed
}

// flatten parts joined errors, so that each gets a line of its own.
func flatten(err error) (list []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	for _, e := range joined.Unwrap() {
		list = append(list, flatten(e)...)
	}
	return list
}

// cure is what config cannot know: that a flag would have named another file.
func (c *call) cure(err error) string {
	var where *config.Error
	if errors.As(err, &where) && where.File == c.config && errors.Is(where, fs.ErrNotExist) {
		return ": name your configuration with --config FILE"
	}
	return ""
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

// flagsOnly reports whether the command takes nothing but flags.
func (c command) flagsOnly() bool {
	return c.args == "" || strings.HasPrefix(c.args, "[--") || c.name == "shadow"
}

func (c command) synopsis() string {
	if c.args == "" {
		return c.name
	}
	return c.name + " " + c.args
}

func printUsage(w io.Writer) {
	fmt.Fprint(w, "dealseal turns a closed deal in a CRM into a sealed contract on its record.\n\nusage: dealseal COMMAND [flags] [arguments]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\n\"dealseal COMMAND -h\" explains one command.\n")
}

func printHelp(out io.Writer, c command, flags *flag.FlagSet) {
	fmt.Fprintf(out, "usage: dealseal %s\n\n%s\n\n", c.synopsis(), c.summary)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	flags.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		dashes := "--"
		if len(f.Name) == 1 {
			dashes = "-"
		}
		if f.DefValue != "" && f.DefValue != "false" {
			text += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(w, "  %s\t%s\n", strings.TrimSpace(dashes+f.Name+" "+strings.ToUpper(value)), text)
	})
	w.Flush() // writing help cannot fail in a way that anyone could be told
}
