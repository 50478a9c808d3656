package main

import (
	"context"
	"crypto"
	"io"
	"sync/atomic"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/web"
)

// meter passes on what keys and time-stamp servers do, once somebody wants to know: they are made before the metrics are.
type meter struct{ to atomic.Pointer[web.Metrics] }

func (m *meter) signed(key string, took time.Duration, err error) {
	if to := m.to.Load(); to != nil {
		to.Signed(key, took, err)
	}
}

func (m *meter) stamped(server string, took time.Duration, err error) {
	if to := m.to.Load(); to != nil {
		to.Stamped(server, took, err)
	}
}

// measure has everything told to the metrics that is counted in memory.
func (d *service) measure(m *web.Metrics) {
	d.house.meter.to.Store(m)
	d.engine.Seen, d.engine.Stepped = m.Seen, m.Stepped
	d.engine.Asked = func(tenant deal.TenantID, c connectors.Call) { m.Asked(tenant, c.Endpoint, c.Result()) }
}

// measuredKeys are keys whose use is measured.
type measuredKeys struct {
	keySource
	seen func(key string, took time.Duration, err error)
}

func (k measuredKeys) Open(ctx context.Context, name string) (signing.Key, error) {
	return k.measure(name, func() (signing.Key, error) { return k.keySource.Open(ctx, name) })
}

func (k measuredKeys) Bare(ctx context.Context, name string) (signing.Key, error) {
	return k.measure(name, func() (signing.Key, error) { return k.keySource.Bare(ctx, name) })
}

func (k measuredKeys) measure(name string, open func() (signing.Key, error)) (signing.Key, error) {
	start := time.Now()
	key, err := open()
	if err != nil {
		k.seen(name, time.Since(start), err) // a use that failed, as one that the key refused
		return nil, err
	}
	m := measuredKey{Key: key, name: name, seen: k.seen}
	if s, ok := key.(signing.ContextSigner); ok {
		return interruptibleKey{m, s}, nil
	}
	return m, nil
}

type measuredKey struct {
	signing.Key
	name string
	seen func(key string, took time.Duration, err error)
}

func (k measuredKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	start := time.Now()
	value, err := k.Key.Sign(random, digest, opts)
	k.seen(k.name, time.Since(start), err)
	return value, err
}

// Unwrap gives the other abilities of the key.
func (k measuredKey) Unwrap() signing.Key { return k.Key }

// interruptibleKey keeps the ability of a key to be stopped.
type interruptibleKey struct {
	measuredKey
	signer signing.ContextSigner
}

func (k interruptibleKey) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	start := time.Now()
	value, err := k.signer.SignContext(ctx, digest, opts)
	k.seen(k.name, time.Since(start), err)
	return value, err
}

// machine answers for the metrics what the page does not show.
type machine struct{ *service }

func (m machine) Vitals(ctx context.Context) (v web.Vitals, err error) {
	s, err := m.store.Vitals(ctx)
	if err != nil {
		return v, err
	}
	v = web.Vitals{Database: s.Database, WAL: s.WAL, DiskFloor: m.disk.floor, Backup: s.Backup, BackupDatabase: s.BackupDatabase, Failing: s.Failing, Due: s.Due}
	for _, o := range s.Outcomes {
		v.Outcomes = append(v.Outcomes, web.Outcome(o))
	}
	v.DiskFree, err = m.disk.look()
	return v, err
}
