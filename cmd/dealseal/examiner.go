package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/store"
)

// How long examinations may take: all of them together, and one of each kind. A renderer that was never used is compiled
// first, which takes most of a minute; nothing else comes near its limit.
const (
	totalLimit    = 3 * time.Minute
	tenantLimit   = 60 * time.Second
	keyLimit      = 30 * time.Second
	stampLimit    = 20 * time.Second
	machineLimit  = 20 * time.Second
	documentLimit = 170 * time.Second
)

// examiner is what the checks of a house need. What differs between a command and the daemon is in its functions: the
// daemon lends what it has open.
type examiner struct {
	*house
	log *slog.Logger
	// connect opens the CRM of a tenant.
	connect func(ctx context.Context, t tenant) (connectors.CRM, error)
	// registry is that with which a key is opened.
	registry func(ctx context.Context, name string) (*registry, error)
	// renderer returns the renderer; it is asked for once.
	renderer func() (documents.Renderer, error)
	// stamps counts what time-stamp servers with a quota are sent.
	stamps func() (stampCounter, error)
	// guards returns what the guard holds; nil for a command, which leaves the state directory to the daemon.
	guards func(context.Context) ([]deal.GuardHold, error)
	// pauses returns the tenants that are paused; nil for a command.
	pauses func(context.Context) ([]deal.Pause, error)
	// callbacks returns how workflows are doing that wait for deals; nil for a command.
	callbacks func(context.Context) (map[deal.TenantID]store.CallbackFigures, error)
	// endpoints returns how webhooks are doing.
	endpoints func(ctx context.Context) ([]store.EndpointState, error)
	// secretsSince says how old secrets are; nil for a command.
	secretsSince sinceKnown
	// tokens returns who may use the API; nil for a command.
	tokens func(ctx context.Context) ([]deal.Token, error)
	// http asks OCSP responders and time-stamp servers.
	http *http.Client
	// serving is set in the daemon, which also knows of endpoints that no file names.
	serving bool
	// stateDir says why the state directory cannot be used by this process; nil when it can.
	stateDir error
	closers  []func() error
}

// newExaminer is for a command while no daemon runs. It leaves nothing in the state directory that the daemon's user could
// not read, and makes none.
func (h *house) newExaminer(ctx context.Context, log *slog.Logger) *examiner {
	x := &examiner{house: h, log: log, http: &http.Client{}, stateDir: checkStateDir(h.cfg)}
	left := &notAskedError{x.stateDir, "run the command as the daemon's user, or while the daemon runs"}
	if _, err := os.Stat(h.cfg.StateDir); errors.Is(err, fs.ErrNotExist) {
		left.cure = "start the daemon, which makes the directory, and ask again"
	}
	keys := &lazy[*keyring]{make: func() (*keyring, error) { return h.newKeys(log) }}
	x.registry = func(ctx context.Context, name string) (*registry, error) {
		if x.stateDir != nil && h.cfg.Signing.Keys[name].Kind == "pkcs11" {
			// The HSM's refusals are remembered there: without them a wrong PIN would be tried again and again.
			return nil, left
		}
		k, err := keys.get()
		if err != nil {
			return nil, err
		}
		return h.readRegistry(ctx, k, log)
	}
	state := &lazy[*store.Store]{make: func() (*store.Store, error) {
		if x.stateDir != nil {
			return nil, left
		}
		return openStore(ctx, h.cfg, log)
	}}
	x.stamps = func() (stampCounter, error) { return state.get() }
	x.endpoints = func(ctx context.Context) ([]store.EndpointState, error) {
		s, err := state.get()
		if err != nil {
			return nil, err
		}
		return s.EndpointStates(ctx)
	}
	x.connect = func(_ context.Context, t tenant) (connectors.CRM, error) {
		var memory connectors.Memory
		if t.remembers {
			s, err := state.get()
			if err != nil {
				return nil, err
			}
			memory = s.Memory(deal.TenantID(t.file.Tenant.ID))
		}
		return t.connect(log.With("tenant", t.file.Tenant.ID), memory)
	}
	renderer := &lazy[rendererCloser]{make: func() (rendererCloser, error) {
		cache := filepath.Join(h.cfg.StateDir, rendererCache)
		if x.stateDir != nil {
			own, err := os.UserCacheDir()
			if err != nil {
				return nil, err
			}
			cache = filepath.Join(own, "dealseal", rendererCache)
		}
		return h.newRendererFor(cache, log)
	}}
	x.renderer = func() (documents.Renderer, error) { return renderer.get() }
	x.closers = []func() error{
		func() error { return renderer.close(rendererCloser.Close) },
		func() error { return keys.close((*keyring).Close) },
		h.logins.Close,
		func() error { return state.close((*store.Store).Close) },
	}
	return x
}

type rendererCloser interface {
	documents.Renderer
	Close() error
}

func (x *examiner) close() error {
	var errs []error
	for _, c := range x.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// notAskedError says that something was left alone, and what would make it possible.
type notAskedError struct {
	why  error
	cure string
}

func (e *notAskedError) Error() string { return fmt.Sprintf("not asked: %v", e.why) }
func (e *notAskedError) Cure() string  { return e.cure }

// run carries out every check.
func (x *examiner) run(ctx context.Context) []doctor.Finding {
	ctx, cancel := context.WithTimeout(ctx, totalLimit)
	defer cancel()
	found := doctor.Run(ctx, x.examinations())
	spareStamps(found)
	return found
}

// spareStamps makes warnings of time-stamp servers that fail while another one is good: nothing is kept from being sealed.
func spareStamps(found []doctor.Finding) {
	isStamp := func(f doctor.Finding) bool {
		return f.Group == doctor.Signing && (f.Check == checkTSA || f.Check == checkQuota)
	}
	if !slices.ContainsFunc(found, func(f doctor.Finding) bool { return f.Check == checkTSA && f.Result == doctor.Pass }) {
		return
	}
	for i, f := range found {
		if isStamp(f) && f.Result == doctor.Failure {
			found[i].Result = doctor.Warning
		}
	}
}

func (x *examiner) examinations() (all []doctor.Examination) {
	if x.secretsSince != nil {
		all = append(all, x.examineHouseSecrets())
	}
	for _, t := range x.tenants {
		all = append(all, x.examineTenant(t))
		if x.secretsSince != nil {
			all = append(all, x.examineSecrets(t))
		}
		if len(t.endpoints) > 0 || x.serving {
			all = append(all, x.examineWebhooks(t))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(x.cfg.Signing.Keys)) {
		all = append(all, x.examineKey(name))
	}
	for _, name := range slices.Sorted(maps.Keys(x.cfg.LoginKeys)) {
		all = append(all, x.examineLoginKey(name))
	}
	for i := range x.cfg.Signing.TSA {
		all = append(all, x.examineTSA(i))
	}
	channels, _ := x.channels() // what is wrong with them is a finding about the files
	for _, c := range channels {
		all = append(all, x.examineChannel(c))
	}
	if p, err := x.signIn(); p != nil && err == nil {
		all = append(all, x.examineSignIn(p))
	}
	for _, path := range slices.Sorted(maps.Keys(x.listeners())) {
		all = append(all, x.examineListener(path, x.listeners()[path]))
	}
	if x.cfg.API.Proxies != nil {
		all = append(all, x.examineCallers())
	}
	if x.tokens != nil {
		all = append(all, x.examineTokens())
	}
	return append(all, x.examineStateDir(), x.examineMasterKey(), x.examineTemplates())
}

// examination fills in a group's usual values.
func examination(group, name, subject string, limit time.Duration, run func(ctx context.Context, report func(doctor.Finding))) doctor.Examination {
	return doctor.Examination{Group: group, Name: name, Subject: subject, Limit: limit, Run: run}
}

// failed makes a failure of an error. The error's own cure comes before the given one.
func failed(check string, err error, cure string) doctor.Finding {
	what, own := connectors.Explain(err)
	if own != "" {
		cure = own
	}
	var left *notAskedError
	if errors.As(err, &left) {
		return doctor.Warned(check, cure, "%s", what)
	}
	return doctor.Failed(check, cure, "%s", what)
}

// lazy makes something when it is first needed, once. It is safe for concurrent use.
type lazy[T any] struct {
	make func() (T, error)

	mu    sync.Mutex
	made  bool
	value T
	err   error
}

func (l *lazy[T]) get() (T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.made {
		l.value, l.err = l.make()
		l.made = true
	}
	return l.value, l.err
}

// close ends what was made.
func (l *lazy[T]) close(end func(T) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.made || l.err != nil {
		return nil
	}
	return end(l.value)
}
