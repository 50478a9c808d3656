package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/web"
)

// mostConnections are open at the public listener at the same time.
const mostConnections = 1000

// listenPublic opens the public listener; nil when none is configured.
func (h *house) listenPublic() (net.Listener, *certificate, error) {
	at := h.cfg.Listen.Public
	if at == "" {
		return nil, nil, nil
	}
	var c *certificate
	if t := h.cfg.Listen.TLS; t != nil {
		c = newCertificate(h.cfg, *t)
		if _, err := c.get(nil); err != nil {
			return nil, nil, h.cfg.At("listen.tls", "listen.tls: %v", err)
		}
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return nil, nil, h.cfg.At("listen.public", "listen.public: %v", err)
	}
	return l, c, nil
}

// newIngress puts the senders that are configured now before the store and the engine.
func (d *service) newIngress() *web.Ingress {
	return &web.Ingress{Senders: func() map[string][]*web.Sender { return d.residents.house().senders }, URL: d.house.cfg.Listen.URL, Inbox: d.store,
		Account: d.engine.Account, Wake: d.engine.Wake, Now: time.Now, Log: d.log}
}

// servePublic answers senders until ctx ends. Whoever is slow to say what it wants is cut off.
func (d *service) servePublic(ctx context.Context) error {
	if d.public == nil {
		return nil
	}
	l := netutil.LimitListener(d.public, mostConnections)
	if d.certificate != nil {
		l = tls.NewListener(l, d.tlsConfig())
	}
	s := &http.Server{Handler: d.ingress, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug)} // strangers cause most of what it would say
	return serveUntil(ctx, s, l)
}

// tlsConfig asks for a client certificate and leaves it to the sender's own rules what to make of it.
func (d *service) tlsConfig() *tls.Config {
	c := listenerTLS(d.certificate, *d.house.cfg.Listen.TLS)
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if !d.residents.house().asksForCertificates() {
			return nil, nil
		}
		asking := c.Clone()
		asking.GetConfigForClient, asking.ClientAuth = nil, tls.RequestClientCert
		return asking, nil
	}
	return c
}

func listenerTLS(own *certificate, t config.TLS) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: own.get, NextProtos: []string{"http/1.1"}}
	if t.MinVersion == "1.2" {
		c.MinVersion = tls.VersionTLS12
	}
	return c
}

// certificate is that of a listener, read again when its files change.
type certificate struct {
	chain string
	key   func() ([]byte, error)
	files []string
	log   func(error)

	renewed chan struct{} // has room for one; told when another certificate is current

	mu          sync.Mutex
	looked      time.Time
	seen        [2]fileState
	current     *tls.Certificate
	stapled     *tls.Certificate // current with what its CA says about it; nil before that is known
	stapleUntil time.Time
}

// fileState tells whether a file is still the one that was read.
type fileState struct {
	size     int64
	modified time.Time
}

func newCertificate(cfg *config.Config, t config.TLS) *certificate {
	c := &certificate{renewed: make(chan struct{}, 1), chain: relativeTo(cfg.File, t.Certificate), key: func() ([]byte, error) {
		s, err := t.Key.Resolve()
		return s.Reveal(), err
	}}
	c.files = []string{c.chain}
	if path, err := t.Key.Path(); err == nil {
		c.files = append(c.files, path)
	}
	return c
}

// certificateAfresh is how long it is not looked whether the files have changed.
const certificateAfresh = time.Second

// get is for tls.Config. What cannot be read does not take the place of what was.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && time.Since(c.looked) < certificateAfresh {
		return c.shown(), nil
	}
	c.looked = time.Now()
	var now [2]fileState
	for i, name := range c.files {
		if info, err := os.Stat(name); err == nil {
			now[i] = fileState{info.Size(), info.ModTime()}
		}
	}
	if c.current != nil && now == c.seen {
		return c.shown(), nil
	}
	next, err := c.read()
	c.seen = now
	if err == nil {
		c.current, c.stapled = next, nil
		select {
		case c.renewed <- struct{}{}:
		default:
		}
		return next, nil
	}
	if c.current == nil {
		return nil, err
	}
	if c.log != nil {
		c.log(err)
	}
	return c.shown(), nil
}

func (c *certificate) read() (*tls.Certificate, error) {
	chain, err := os.ReadFile(c.chain)
	if err != nil {
		return nil, err
	}
	key, err := c.key()
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("certificate and key of the listener: %w", err)
	}
	return &pair, nil
}

// lookAfterPushes forgets what cannot come again, until ctx ends.
func (d *service) lookAfterPushes(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		if _, err := d.store.ForgetPushes(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("old pushes could not be removed", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
