package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/engine"
	"github.com/dealseal/dealseal/store"
	"github.com/dealseal/dealseal/webhooks"
)

// operations is what the commands ask of the state: of the running daemon over its control socket, or of the state
// directory itself when no daemon runs.
type operations interface {
	List(ctx context.Context, f store.Filter) ([]store.Summary, error)
	Story(ctx context.Context, tx deal.TxID) (*store.Story, error)
	// Tenants returns the configured ones and those that have deals, sorted.
	Tenants(ctx context.Context) ([]deal.TenantID, error)
	// Decide retries, releases, prepares again or drops a deal.
	Decide(ctx context.Context, d decision) error
	// Guards returns what the guard holds until a person decides. DecideGuarded releases or drops all of a scope, and
	// returns how many deals these were.
	Guards(ctx context.Context) ([]deal.GuardHold, error)
	DecideGuarded(ctx context.Context, d guardDecision) (n int, err error)
	// Checkpoint signs the audit log as it is now.
	Checkpoint(ctx context.Context) (signed []byte, err error)
	// Proof returns the audit proof of a deal; who has asked for it is in the audit log. An empty who is whoever runs the
	// command.
	Proof(ctx context.Context, tx deal.TxID, who string) (proof []byte, err error)
	// AuditLog returns entries of the audit log that are about no deal, the newest first.
	AuditLog(ctx context.Context, q store.AuditQuery) ([]store.AuditLine, error)
	VerifyAudit(ctx context.Context, checkpoint []byte) (store.AuditReport, error)
	Recover(ctx context.Context) (recovered []recovery, err error)
	// Backup writes a backup to w; it is complete only if the error is nil. NoteBackup has it count, once it is where it
	// is to be kept.
	Backup(ctx context.Context, w io.Writer, archive bool) (store.BackupInfo, error)
	NoteBackup(ctx context.Context, info store.BackupInfo) error
	// Quarantined returns the rows of CRMs that could not be understood and nobody has dealt with, newest first. DealWith
	// takes note that somebody has dealt with one, or with all for an empty name, and returns how many these were.
	Quarantined(ctx context.Context, limit int) ([]deal.Quarantine, error)
	DealWith(ctx context.Context, row, why string) (n int, err error)
	// Filtered returns entries that filters of rules have left out, the newest first.
	Filtered(ctx context.Context, q store.FilteredQuery) ([]deal.FilteredEntry, error)
	// Discrepancies returns what CRMs do not show as the ledger has it, as of the last look, and nobody has dealt with, newest
	// first. DealWithDiscrepancies takes note that somebody has dealt with what is known of a deal. An empty who is whoever
	// runs the command.
	Discrepancies(ctx context.Context, tenant deal.TenantID, limit int) ([]deal.Discrepancy, error)
	DealWithDiscrepancies(ctx context.Context, tx deal.TxID, who, why string) (n int, err error)
	// Certificates returns the registry of certificates; what is in use first.
	Certificates(ctx context.Context) ([]deal.Certificate, error)
	// ChangeCertificate imports, activates, retires or revokes a certificate, and returns it as it is then.
	ChangeCertificate(ctx context.Context, c certChange) (deal.Certificate, error)
	// RequestCertificate has a key sign a request for a certificate (PKCS #10, DER).
	RequestCertificate(ctx context.Context, r certRequest) (csr []byte, err error)
	// Webhooks returns how all endpoints are doing, Deliveries the newest deliveries to one or all of them in a state or any, and
	// Attempts those of a delivery.
	Webhooks(ctx context.Context) ([]store.EndpointState, error)
	Deliveries(ctx context.Context, endpoint, state string, limit int) ([]store.DeliveryState, error)
	Attempts(ctx context.Context, delivery int64) ([]store.AttemptState, error)
	// ChangeWebhook does with an endpoint or a delivery what a person wants.
	ChangeWebhook(ctx context.Context, c hookChange) (hookAnswer, error)
	// Pauses returns the tenants that a person has wait; TurnTenant pauses one or has it go on.
	Pauses(ctx context.Context) ([]deal.Pause, error)
	TurnTenant(ctx context.Context, t turn) error
	// Tokens returns who may use the API, also who might once. ChangeToken makes or revokes a token.
	Tokens(ctx context.Context) ([]deal.Token, error)
	ChangeToken(ctx context.Context, r tokenRequest) (tokenAnswer, error)
	// Channels returns how those are doing who are told of what needs a person.
	Channels(ctx context.Context) ([]store.ChannelState, error)
	// Reload has the daemon read its configuration anew.
	Reload(ctx context.Context) (reloadReport, error)
	Close() error
}

// decision is what a person has decided about a deal.
type decision struct {
	Verb string    `json:"verb"` // retry, release, prepare or drop
	Tx   deal.TxID `json:"tx"`
	Why  string    `json:"why"`
	// Who is filled in by whoever knows it for sure: the socket's peer credentials, or the process itself.
	Who string `json:"-"`
}

// guardDecision is what a person has decided about all deals that the guard holds of a tenant or rule.
type guardDecision struct {
	deal.GuardScope
	Verb string `json:"verb"` // release or drop
	Why  string `json:"why"`
	Who  string `json:"-"` // as in a decision
}

// recovery is what became of one archive folder.
type recovery struct {
	Folder  string    `json:"folder"`
	Tx      deal.TxID `json:"tx"`
	Problem string    `json:"problem,omitempty"` // empty: the ledger has it again
}

// openOperations finds the daemon, or takes its place.
func (c *call) openOperations(ctx context.Context) (operations, error) {
	if r, _, err := findDaemon(ctx, c.config); err == nil {
		return r, nil
	} else if !errors.Is(err, errNoDaemon) {
		return nil, err
	}
	cfg, err := config.LoadWithoutTenants(c.config)
	if err != nil {
		return nil, err
	}
	var foreign *foreignError
	err = checkStateDir(cfg)
	switch {
	case errors.As(err, &foreign) && os.Geteuid() == 0: // the store gives what it makes to the owner
	case errors.As(err, &foreign):
		return nil, fmt.Errorf("no daemon is running, and %w: run the command as root", err)
	case err != nil:
		return nil, err
	}
	master, err := c.masterKeyOf(cfg)
	if err != nil {
		return nil, err
	}
	s, err := openStoreUnder(ctx, cfg, master, nil)
	if err != nil {
		return nil, err
	}
	keys := &lazy[*registry]{make: func() (*registry, error) { return openRegistry(ctx, cfg, s, foreign != nil, newLogQuiet(c.stderr)) }}
	return &local{Store: s, who: myName(), registry: func(context.Context) (*registry, error) { return keys.get() },
		deliverer: func() (*webhooks.Deliverer, error) { return newDeliverer(cfg, nil, newLogQuiet(c.stderr)) },
		closeKeys: func() error { return keys.close((*registry).Close) }, configured: func() ([]config.Tenant, error) {
			all, err := config.Load(c.config)
			if err != nil {
				return nil, err
			}
			return all.Loaded, nil
		}}, nil
}

// foreignError means that a state directory belongs to another user than the one who runs the command.
type foreignError struct{ dir, owner string }

func (e *foreignError) Error() string { return fmt.Sprintf("%s belongs to %s", e.dir, e.owner) }

// checkStateDir keeps a command from making what only the daemon should: a state directory where a path is misspelt, or
// files that the daemon's user could not open afterwards, which is a *foreignError.
func checkStateDir(cfg *config.Config) error {
	info, err := os.Stat(cfg.StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return cfg.At("state_dir", "%s does not exist: the daemon makes it when it first starts", cfg.StateDir)
	}
	if err != nil {
		return cfg.At("state_dir", "%v", err)
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		return &foreignError{cfg.StateDir, userName(int(s.Uid))}
	}
	return nil
}

// local works on the state directory itself.
type local struct {
	*store.Store
	who    string
	reload func(context.Context) (reloadReport, error) // nil when no daemon runs
	// configured returns the tenants of the configuration.
	configured func() ([]config.Tenant, error)
	// registry returns the registry of certificates with the keys.
	registry func(context.Context) (*registry, error)
	// deliverer returns what tries endpoints.
	deliverer func() (*webhooks.Deliverer, error)
	// closeKeys closes keys that were opened for the registry; nil when they are the daemon's.
	closeKeys func() error
}

// openRegistry opens the keys for a command while no daemon runs.
func openRegistry(ctx context.Context, cfg *config.Config, s *store.Store, foreign bool, log *slog.Logger) (*registry, error) {
	if foreign { // the HSM's refusals are remembered in files that the daemon could not open
		return nil, fmt.Errorf("no daemon is running, and %s belongs to another user: run the command as that user", cfg.StateDir)
	}
	h := &house{cfg: cfg}
	var err error
	if h.roots, err = loadRoots(cfg); err != nil {
		return nil, err
	}
	keys, err := h.newKeys(log)
	if err != nil {
		return nil, err
	}
	r, err := h.newRegistry(ctx, keys, keys.standIns(keys, log), s, log)
	if err != nil {
		keys.Close()
	}
	return r, err
}

// Close closes what this process has opened.
func (l *local) Close() error {
	if l.closeKeys == nil {
		return l.Store.Close()
	}
	return errors.Join(l.closeKeys(), l.Store.Close())
}

func (l *local) ChangeCertificate(ctx context.Context, c certChange) (deal.Certificate, error) {
	r, err := l.registry(ctx)
	if err != nil {
		return deal.Certificate{}, err
	}
	c.Who = cmp.Or(c.Who, l.who)
	return r.carryOut(ctx, c)
}

func (l *local) RequestCertificate(ctx context.Context, c certRequest) ([]byte, error) {
	r, err := l.registry(ctx)
	if err != nil {
		return nil, err
	}
	c.Who = cmp.Or(c.Who, l.who)
	return r.request(ctx, c)
}

func (l *local) Reload(ctx context.Context) (reloadReport, error) {
	if l.reload == nil {
		return reloadReport{}, errNoDaemon
	}
	return l.reload(ctx)
}

func (l *local) Story(ctx context.Context, tx deal.TxID) (*store.Story, error) {
	story, err := l.Store.Story(ctx, tx)
	if err == nil {
		story.Sealing.Private = deal.Private{} // the story is about the deal, not about what it says
	}
	return story, err
}

func (l *local) Tenants(ctx context.Context) (all []deal.TenantID, err error) {
	counts, err := l.Counts(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range counts {
		all = append(all, n.Tenant)
	}
	configured, err := l.configured()
	if err != nil {
		return nil, err
	}
	for _, t := range configured {
		all = append(all, deal.TenantID(t.Tenant.ID))
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func (l *local) Decide(ctx context.Context, d decision) error {
	if d.Who == "" {
		d.Who = l.who
	}
	switch d.Verb {
	case "retry":
		return l.Retry(ctx, d.Tx, d.Who, d.Why)
	case "release":
		s, err := l.Load(ctx, d.Tx)
		if err != nil {
			return err
		}
		return l.Release(ctx, d.Tx, engine.HoldName(s.Reason, l.Epoch()), d.Who, d.Why)
	case "prepare":
		return l.PrepareAgain(ctx, d.Tx, d.Who, d.Why)
	case "drop":
		return l.Drop(ctx, d.Tx, d.Who, d.Why)
	}
	return fmt.Errorf("%q is nothing that can be decided about a deal", d.Verb)
}

func (l *local) DecideGuarded(ctx context.Context, d guardDecision) (int, error) {
	return l.Store.DecideGuarded(ctx, d.GuardScope, d.Verb, cmp.Or(d.Who, l.who), d.Why)
}

func (l *local) Proof(ctx context.Context, tx deal.TxID, who string) ([]byte, error) {
	if who == "" {
		who = l.who
	}
	return l.Store.Proof(ctx, tx, who)
}

func (l *local) DealWith(ctx context.Context, row, why string) (int, error) {
	return l.Store.DealWith(ctx, row, cmp.Or(peerOf(ctx), l.who), why)
}

func (l *local) DealWithDiscrepancies(ctx context.Context, tx deal.TxID, who, why string) (int, error) {
	return l.Store.DealWithDiscrepancies(ctx, tx, cmp.Or(who, l.who), why)
}

func (l *local) Recover(ctx context.Context) (recovered []recovery, err error) {
	err = l.Store.Recover(ctx, func(folder string, tx deal.TxID, err error) {
		r := recovery{Folder: folder, Tx: tx}
		if err != nil {
			r.Problem = err.Error()
		}
		recovered = append(recovered, r)
	})
	return recovered, err
}

func (l *local) Backup(ctx context.Context, w io.Writer, archive bool) (store.BackupInfo, error) {
	return l.Store.Backup(ctx, w, store.BackupOptions{WithoutArchive: !archive, Who: cmp.Or(peerOf(ctx), l.who), Dealseal: version})
}

func controlSocket(stateDir string) string { return filepath.Join(stateDir, "control.sock") }
