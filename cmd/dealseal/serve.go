package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents/typst"
	"github.com/dealseal/dealseal/engine"
	"github.com/dealseal/dealseal/notify"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/store"
	"github.com/dealseal/dealseal/web"
	"github.com/dealseal/dealseal/web/api"
	"github.com/dealseal/dealseal/web/signin"
	"github.com/dealseal/dealseal/webhooks"
)

// serve is the assembly: the only place that knows every package.
func serve(ctx context.Context, c *call) error {
	// From here on a hangup is a wish, not an end.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	defer signal.Stop(hup)
	h, err := loadHouse(c.config)
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	log := newLog(h.cfg.Log, level, c.stderr)
	d, err := h.assemble(ctx, level, log)
	if err != nil {
		return err
	}
	err = d.run(ctx, hup)
	if closeErr := d.close(); err == nil {
		err = closeErr
	}
	log.Info("stopped", "took", time.Since(d.asked).Round(time.Millisecond))
	return err
}

// service is the daemon with everything open, before it runs.
type service struct {
	house       *house // as of the start: what a reload cannot take never changes
	log         *slog.Logger
	level       *slog.LevelVar // of log
	supervisor  *supervisor
	store       *store.Store
	queue       *store.Queue
	engine      *engine.Engine
	disk        *diskWatch
	deliverer   *webhooks.Deliverer
	notifier    *notify.Notifier
	messages    *prometheus.CounterVec // of notifier
	keys        *keyring
	standIns    *signing.Failover // over keys
	sealer      *signing.Sealer
	registry    *registry   // over standIns
	stamps      *tsa.Client // nil without a time-stamp server
	shelf       *shelf
	residents   residents
	reloads     reloads
	page        http.Handler
	sessions    *web.Sessions    // who may read the page
	signIn      *signin.Provider // where they sign in beside the link; nil without a provider
	listen      net.Listener
	control     net.Listener
	public      net.Listener // nil without one
	certificate *certificate // of public; nil without TLS
	ingress     *web.Ingress
	secrets     secretWatch
	asks        *apiListener // nil without an API
	api         *api.API
	closers     []func() error
	asked       time.Time // to stop

	checkups checkups
	nights   nights
}

func (d *service) close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	return errors.Join(errs...)
}

// assemble opens everything and refuses to guess: whatever is missing or does not fit is an error before the first poll.
func (h *house) assemble(ctx context.Context, level *slog.LevelVar, log *slog.Logger) (d *service, err error) {
	d = &service{house: h, log: log, level: level, supervisor: &supervisor{log: log}, checkups: checkups{due: make(chan struct{}, 1)}, nights: newNights(time.Now())}
	d.reloads.note(nil, time.Now())
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.listen, err = net.Listen("tcp", h.cfg.Listen.Admin); err != nil {
		return d, h.cfg.At("listen.admin", "listen.admin: %v", err)
	}
	if d.public, d.certificate, err = h.listenPublic(); err != nil {
		return d, err
	}
	if d.public != nil {
		d.closers = append(d.closers, func() error { d.public.Close(); return nil }) // it is closed already when it was served
	}
	if d.asks, err = h.listenAPI(log); err != nil {
		return d, err
	}
	if d.asks != nil {
		d.closers = append(d.closers, func() error { d.asks.Close(); return nil })
	}
	if d.certificate != nil {
		d.certificate.log = func(err error) {
			log.Error("the certificate of the public listener has changed and cannot be read: the old one stays in use", "err", err)
		}
	}
	if d.store, err = openStore(ctx, h.cfg, log); err != nil {
		return d, err
	}
	d.closers = append(d.closers, d.store.Close)
	if d.shelf, err = h.newShelf(); err != nil {
		return d, err
	}
	renderer, err := h.newRenderer(log)
	if err != nil {
		return d, err
	}
	d.closers = append(d.closers, renderer.Close)
	if err := renderer.Warm(ctx); err != nil {
		return d, err
	}
	if d.keys, err = h.newKeys(log); err != nil {
		return d, err
	}
	d.closers = append(d.closers, d.keys.Close, h.logins.Close)
	d.standIns = d.keys.standIns(measuredKeys{d.keys, h.meter.signed}, log)
	if d.registry, err = h.newRegistry(ctx, d.keys, d.standIns, d.store, log); err != nil {
		return d, err
	}
	if err := h.checkKeys(ctx, d.registry, h.usedKeys(), log); err != nil {
		return d, err
	}
	stamper, err := d.newStamper()
	if err != nil {
		return d, err
	}
	d.disk = &diskWatch{free: d.store.FreeSpace, floor: int64(h.cfg.DiskFloor), log: log}
	checker := h.newChecker(log)
	d.closers = append(d.closers, checker.Close)
	d.residents.store, d.residents.log = d.store, log
	tenants, residence, err := d.residents.move(h)
	if err != nil {
		return d, err
	}
	d.residents.settle(residence)
	d.queue = d.store.Queue(store.Workers{Tenants: ids(tenants), Drain: drain})
	d.sealer = signing.NewSealer(d.registry, stamper, time.Now)
	d.engine = &engine.Engine{
		Tenants: tenants, Ledger: d.store, Books: d.store, Files: files{d.store}, Queue: d.queue,
		Documents: renderer, Bundles: d.shelf, Sealer: d.sealer, Extender: watchful{h.newExtender(stamper, log), d.registry}, Checker: checker,
		Log: log, Inbox: d.store, Callbacks: d.store, Lost: d.nights.ask, Hook: crashHook(), MayNotice: d.disk.mayNotice, MayWork: d.disk.mayWork, Places: h.places(renderer), Limits: d.registry.limits, Retry: engine.Retry{First: h.cfg.Retry.First, Max: h.cfg.Retry.Max, Attempts: h.cfg.Retry.Attempts},
	}
	d.engine.Envelopes, d.engine.Vendor = d.store, vendorsOf(d.residents.house, checker)
	if d.deliverer, err = h.newDeliverer(d.store, log); err != nil {
		return d, err
	}
	keys, templates := h.audience()
	d.store.Audience(keys)
	if err := errors.Join(d.store.PublishTemplates(ctx, templates), d.store.KeepTenants(ctx, ids(tenants))); err != nil {
		return d, err
	}
	if err := d.newNotifier(ctx); err != nil {
		return d, err
	}
	endpoints, err := h.endpointsWithSecrets()
	if err != nil {
		return d, err
	}
	if err := d.store.ConfigureEndpoints(ctx, endpoints); err != nil {
		return d, err
	}
	for _, t := range tenants {
		d.goOn(ctx, t.ID, readAnew, false, engine.HoldUnconfigured, engine.HoldSpent)
	}
	if d.signIn, err = h.signIn(); err != nil {
		return d, err
	}
	d.ingress = d.newIngress()
	d.page = d.newPage()
	// It listens before anyone is told that the daemon is ready, so that commands find it.
	d.control, err = listenControl(h.cfg.StateDir)
	return d, err
}

// newStamper counts in the database, so that a restart gives no TSA more than its quota.
func (d *service) newStamper() (_ signing.Timestamper, err error) {
	if d.stamps, err = d.house.newStampClient(d.store, d.log); d.stamps == nil {
		return nil, err
	}
	return d.stamps, nil
}

// How long a stop may take altogether: steps under way may use up drain, are then told to give up, for which the queue
// gives them ten seconds, and closing what is open takes a few more. A minute is never exceeded.
const (
	drain       = 40 * time.Second
	serverGrace = 5 * time.Second // for requests under way
)

// run works until ctx ends, then lets running steps finish.
func (d *service) run(ctx context.Context, hup <-chan os.Signal) error {
	heard := d.beforeTheFirstSeal(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.engine.Run(ctx) })
	g.Go(func() error { return d.lookAfterCertificates(ctx, heard) })
	g.Go(func() error { return servePage(ctx, d.log, d.listen, d.page) })
	g.Go(func() error {
		ops := d.operations()
		return serveControl(ctx, d.log, d.control, ops, d.examine, d.sessionRoutes, d.stampRoutes, d.evidenceRoutes, d.reconcileRoutes, d.provisionRoutes, d.shadowRoutes, hookRoutes(d.log, ops), tokenRoutes(d.log, ops), pauseRoutes(d.log, ops), channelRoutes(ops))
	})
	g.Go(func() error { return d.servePublic(ctx) })
	g.Go(func() error { return d.serveAPI(ctx) })
	g.Go(func() error { return d.stapleListeners(ctx) })
	g.Go(func() error { return d.ingress.Run(ctx) })
	g.Go(func() error { return d.lookAfterPushes(ctx) })
	g.Go(func() error { return d.lookAfterSecrets(ctx) })
	g.Go(func() error { return d.checkpoints(ctx) })
	g.Go(func() error { return d.deliverer.Run(ctx) })
	g.Go(func() error { return d.forgetDeliveries(ctx) })
	g.Go(func() error { return d.notifier.Run(ctx) })
	g.Go(func() error { return d.tellWeekly(ctx) })
	g.Go(func() error { return d.examineDaily(ctx) })
	g.Go(func() error { return d.reconcileNightly(ctx) })
	g.Go(func() error { return d.keepKeysAlive(ctx) })
	g.Go(func() error { return d.renewLimits(ctx) })
	g.Go(func() error { return d.hangups(ctx, hup) })
	g.Go(func() error { return d.watch(ctx) })
	g.Go(func() error { return newCollector().watch(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		d.asked = time.Now()
		d.log.Info("stopping: no new work, steps under way are finished; a second signal ends it at once", "limit", drain)
		d.supervisor.stopping("stopping: steps under way are finished")
		return nil
	})
	d.sayPauses(ctx)
	d.log.Info("ready", "page", "http://"+d.listen.Addr().String(), "tenants", len(d.engine.Tenants), "version", version)
	if d.public != nil {
		d.log.Info("senders are answered", "address", d.public.Addr().String(), "senders", len(d.house.senders))
	}
	if d.asks != nil {
		d.log.Info("programs are answered", "address", d.asks.Addr().String())
	}
	d.supervisor.ready(d.status(ctx))
	err := g.Wait()
	d.log.Info("steps under way have ended", "after", time.Since(d.asked).Round(time.Millisecond))
	d.supervisor.say("stopping: the audit log and the database are closed")
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// operations are what commands and programs ask of the running daemon.
func (d *service) operations() *local {
	return &local{Store: d.store, reload: d.reload, configured: func() ([]config.Tenant, error) { return d.residents.house().cfg.Loaded, nil },
		registry: func(context.Context) (*registry, error) { return d.registry, nil }, deliverer: func() (*webhooks.Deliverer, error) { return d.deliverer, nil }}
}

// checkpoints signs the audit tree every hour; the store does it once more when it closes.
func (d *service) checkpoints(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, err := d.store.Checkpoint(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("the audit log could not be signed", "err", err)
		}
	}
}

func servePage(ctx context.Context, log *slog.Logger, l net.Listener, page http.Handler) error {
	s := &http.Server{Handler: page, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 32 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	return serveUntil(ctx, s, l)
}

// serveUntil serves until ctx ends, and then lets requests under way finish for a while.
func serveUntil(ctx context.Context, s *http.Server, l net.Listener) error {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), serverGrace)
		defer cancel()
		if s.Shutdown(grace) != nil {
			s.Close()
		}
	})
	err := s.Serve(l)
	if !stop() {
		<-closed
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// files hands the store's files to the engine.
type files struct{ *store.Store }

func (f files) OpenStaged(ctx context.Context, tx deal.TxID, name string, want deal.FileFact) (deal.File, io.Closer, error) {
	file, err := f.Store.OpenStaged(ctx, tx, name, want)
	if err != nil {
		return deal.File{}, nil, err
	}
	return file.File, file, nil
}

func (f files) OpenKept(ctx context.Context, folder, name string) (deal.File, io.Closer, error) {
	file, err := f.Store.OpenKept(ctx, folder, name)
	if err != nil {
		return deal.File{}, nil, err
	}
	return file.File, file, nil
}

// places are as many as the children and sessions that there are.
func (h *house) places(r *typst.Renderer) engine.Places {
	p := engine.Places{Render: r.Children(), Check: readers()}
	for _, k := range h.cfg.Signing.Keys {
		p.Key = max(p.Key, k.Sessions)
	}
	return p
}

// openStore opens the state with its master key. From then on the process holds what must not land in a core file.
func openStore(ctx context.Context, cfg *config.Config, log *slog.Logger) (*store.Store, error) {
	master, err := masterKey(cfg.MasterKey)
	if err != nil {
		return nil, cfg.At("master_key", "%v", err)
	}
	return openStoreUnder(ctx, cfg, master, log)
}

// openStoreUnder is openStore with a master key that was found elsewhere.
func openStoreUnder(ctx context.Context, cfg *config.Config, master secret.Secret, log *slog.Logger) (*store.Store, error) {
	if err := errors.Join(unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0), unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})); err != nil {
		return nil, fmt.Errorf("core dumps cannot be switched off: %w", err)
	}
	return store.Open(ctx, store.Options{Dir: cfg.StateDir, MasterKey: master, Log: log, Hook: crashHook()})
}

func newLog(c config.Log, level *slog.LevelVar, w io.Writer) *slog.Logger {
	level.Set(levelOf(c))
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(engine.LogHandler(slog.NewJSONHandler(w, o)))
	}
	return slog.New(engine.LogHandler(slog.NewTextHandler(w, o)))
}

func levelOf(c config.Log) (level slog.Level) {
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return slog.LevelInfo // config has checked the word
	}
	return level
}

// rendererCache is where below the state directory the compiled renderer is kept.
const rendererCache = "renderer"

func (h *house) newRenderer(log *slog.Logger) (*typst.Renderer, error) {
	return h.newRendererIn(filepath.Join(h.cfg.StateDir, rendererCache), log, func(elapsed time.Duration) {
		log.Info("compiling the renderer, once", "elapsed", elapsed.Round(time.Second))
	})
}

// newRendererFor is for a command, whose log is quiet: whoever waits for it is told once why.
func (h *house) newRendererFor(cache string, log *slog.Logger) (*typst.Renderer, error) {
	var once sync.Once
	return h.newRendererIn(cache, log, func(time.Duration) {
		once.Do(func() { log.Warn("the renderer is compiled, once: this takes up to a minute") })
	})
}

func (h *house) newRendererIn(cache string, log *slog.Logger, progress func(elapsed time.Duration)) (*typst.Renderer, error) {
	wasm, err := h.findRenderer()
	if err != nil {
		return nil, err
	}
	return typst.New(typst.Options{WASM: wasm, CacheDir: cache, FontDirs: h.cfg.Renderer.Fonts, Children: h.cfg.Renderer.Children, Timeout: h.cfg.Renderer.Timeout, Log: log, Progress: progress})
}

// findRenderer looks where the file usually is when the configuration does not say.
func (h *house) findRenderer() (string, error) {
	if h.cfg.Renderer.WASM != "" {
		path := relativeTo(h.cfg.File, h.cfg.Renderer.WASM)
		if _, err := os.Stat(path); err != nil {
			return "", h.cfg.At("renderer.wasm", "renderer.wasm: %v: \"make renderer\" fetches the file", err)
		}
		return path, nil
	}
	places := []string{"/usr/lib/dealseal/typst.wasm"}
	if exe, err := os.Executable(); err == nil {
		places = append([]string{filepath.Join(filepath.Dir(exe), "typst.wasm")}, places...)
	}
	for _, p := range places {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("the document renderer typst.wasm is neither beside the executable nor in /usr/lib/dealseal: fetch it with \"make renderer\" and name it as renderer.wasm in %s", h.cfg.File)
}
