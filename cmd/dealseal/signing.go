package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/keyservice"
	"github.com/dealseal/dealseal/signing/keyservice/awskms"
	"github.com/dealseal/dealseal/signing/keyservice/azurekv"
	"github.com/dealseal/dealseal/signing/keyservice/gcpkms"
	"github.com/dealseal/dealseal/signing/keyservice/vault"
	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/pkcs11"
	"github.com/dealseal/dealseal/signing/revocation"
	"github.com/dealseal/dealseal/signing/softkey"
	"github.com/dealseal/dealseal/signing/tsa"
	"github.com/dealseal/dealseal/signing/verify"
)

// keyring gives the configured keys by name, whatever their kind.
type keyring struct {
	hsm      *pkcs11.Keys
	soft     *softkey.Keys
	services *keyservice.Keys
	// kind tells them apart.
	kind   map[string]string
	groups map[string]signing.Group // by the name of the key that is preferred
}

// newKeys opens no key yet.
func (h *house) newKeys(log *slog.Logger) (*keyring, error) {
	k := &keyring{kind: map[string]string{}}
	hard, soft, distant := map[string]pkcs11.Config{}, map[string]softkey.Config{}, map[string]keyservice.Config{}
	for name, c := range h.cfg.Signing.Keys {
		k.kind[name] = c.Kind
		switch c.Kind {
		case "soft":
			soft[name] = softkey.Config{Path: relativeTo(h.cfg.File, c.File), Passphrase: c.Passphrase}
			continue
		case config.KindVault, config.KindAWS, config.KindGoogle, config.KindAzure:
			service, err := h.newService(name, c)
			if err != nil {
				return nil, err
			}
			distant[name] = keyservice.Config{Service: service, Certificates: relativeTo(h.cfg.File, c.Certificates), Timeout: c.Timeout}
			continue
		}
		hard[name] = pkcs11.Config{Module: c.Module, Token: c.Token, Label: c.Label, ID: c.ID, PIN: c.PIN,
			Certificates: relativeTo(h.cfg.File, c.Certificates), Sessions: c.Sessions, Timeout: c.Timeout, StateDir: filepath.Join(h.cfg.StateDir, "hsm"),
			Env: c.Env, Read: c.Read, Write: c.Write, LocalSockets: c.LocalSockets, Network: c.Network}
	}
	var err error
	if k.groups, err = h.keyGroups(); err != nil {
		return nil, err
	}
	k.soft, k.services = softkey.New(soft), keyservice.New(distant)
	k.hsm, err = pkcs11.New(hard, log)
	return k, err
}

// keyGroups are the keys that stand in for each other, and those that are alone.
func (h *house) keyGroups() (map[string]signing.Group, error) {
	groups := map[string]signing.Group{}
	for name, k := range h.cfg.Signing.Keys {
		g := signing.Group{Members: append([]string{name}, k.FallBack...)}
		if len(k.FallBack) > 0 {
			certificates, err := readCertificates(relativeTo(h.cfg.File, k.Certificates))
			if err != nil {
				return nil, h.cfg.At("signing.keys."+name+".certificates", "signing.keys.%s.certificates: %v", name, err)
			}
			g.SPKI = digestOf(certificates[0].RawSubjectPublicKeyInfo)
		}
		groups[name] = g
	}
	return groups, nil
}

// standIns has the keys of a house stand in for each other.
func (k *keyring) standIns(keys signing.Keys, log *slog.Logger) *signing.Failover {
	return signing.NewFailover(keys, k.groups, time.Now, log)
}

func digestOf(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

func (k *keyring) Open(ctx context.Context, name string) (signing.Key, error) {
	return k.source(name).Open(ctx, name)
}

// Bare gives a key without certificates; see keySource.
func (k *keyring) Bare(ctx context.Context, name string) (signing.Key, error) {
	return k.source(name).Bare(ctx, name)
}

// source is where a key of its kind comes from.
func (k *keyring) source(name string) keySource {
	switch k.kind[name] {
	case "soft":
		return k.soft
	case config.KindVault, config.KindAWS, config.KindGoogle, config.KindAzure:
		return k.services
	}
	return k.hsm
}

func (k *keyring) Close() error {
	return errors.Join(k.soft.Close(), k.services.Close(), k.hsm.Close())
}

// newService is the client of a service that keeps a key. It asks nothing yet.
func (h *house) newService(name string, c config.Key) (s keyservice.Service, err error) {
	var section string
	switch c.Kind {
	case config.KindVault:
		v := c.Vault
		section = "vault"
		var login *vault.Login
		if l := v.Login; l != nil {
			login = &vault.Login{Method: l.Method, Mount: l.Mount, Role: l.Role, Secret: l.Secret}
		}
		s, err = vault.New(vault.Config{Login: login, Address: v.Address, Mount: v.Mount, Key: v.Key, Version: v.Version, Token: v.Token, Namespace: v.Namespace, CA: relativeTo(h.cfg.File, v.CA)})
	case config.KindAWS:
		a := c.AWS
		section = "aws"
		s, err = awskms.New(awskms.Config{Region: a.Region, Key: a.Key, Credentials: a.Credentials, Instance: a.InstanceRole, Endpoint: a.Endpoint})
	case config.KindGoogle:
		g := c.GCP
		section = "gcp"
		s, err = gcpkms.New(gcpkms.Config{Version: g.Version, Credentials: g.Credentials, Attached: g.AttachedAccount, Endpoint: g.Endpoint})
	case config.KindAzure:
		a := c.Azure
		section = "azure"
		s, err = azurekv.New(azurekv.Config{Key: a.Key, Tenant: a.Tenant, Client: a.ClientID, Secret: a.ClientSecret, Managed: a.ManagedIdentity, Authority: a.Authority})
	}
	var bad *keyservice.ConfigError
	if errors.As(err, &bad) {
		path := fmt.Sprintf("signing.keys.%s.%s.%s", name, section, bad.Field)
		return nil, h.cfg.At(path, "%s %s", path, bad.Reason)
	}
	return s, err
}

// checkKeys tries keys that rules use. A key that cannot be reached, or that the registry of certificates keeps from
// sealing, is waited for later; one that does not fit what is configured, or whose seals nobody would take for valid, is an
// error now.
func (h *house) checkKeys(ctx context.Context, keys *registry, names []string, log *slog.Logger) error {
	var errs []error
	for _, name := range names {
		first, others := keys.signers(name)
		errs = append(errs, h.checkGroup(ctx, keys, name, first, log))
		for _, other := range others {
			if err := h.checkGroup(ctx, keys, name, other, log); err != nil {
				log.Error("a key that makes second seals, or is to follow another one, cannot be used", "key", other, "err", err)
			}
		}
	}
	return errors.Join(errs...)
}

// checkGroup tries a key and those that stand in for it. While one of them is good, what is wrong with another is no reason
// not to start, unless it is another key altogether.
func (h *house) checkGroup(ctx context.Context, keys *registry, profiles, name string, log *slog.Logger) error {
	g, configured := keys.groups[name]
	if !configured {
		return h.cfg.At("signing.keys", "the registry has certificates of key %q for the key pair of %q, which is not under signing.keys: put it back, or activate another certificate", profiles, name)
	}
	var good int
	var wrong, foreign []error
	members := keys.alone(g.Members[0])
	for _, name := range g.Members {
		err := h.checkKey(ctx, members, name)
		if err == nil {
			good++
			if key, _ := members.Open(ctx, name); key != nil {
				err = g.Admits(name, key)
			}
			if err != nil {
				foreign = append(foreign, h.cfg.At("signing.keys."+g.Members[0]+".fall_back", "%v", err))
			}
			continue
		}
		var kept *registryError
		if errors.As(err, &kept) {
			log.Error("a key seals nothing until somebody sees to its certificate; its deals will wait", "key", name, "err", err)
			continue
		}
		if deal.IsPermanent(err) {
			wrong = append(wrong, h.cfg.At("signing.keys."+name, "key %q: %v", name, err))
			continue
		}
		log.Error("a key cannot be reached; its deals will wait, unless another one stands in", "key", name, "err", err)
	}
	if len(foreign) > 0 || good == 0 {
		return errors.Join(append(foreign, wrong...)...)
	}
	for _, err := range wrong {
		log.Error("a key cannot be used; another one stands in", "err", err)
	}
	return nil
}

// usedKeys are the keys of the profiles that rules use.
func (h *house) usedKeys() (names []string) {
	for _, t := range h.tenants {
		for _, r := range t.file.Rules {
			if key := h.keyOf(r); key != "" {
				names = append(names, key)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// checkKey opens a key, judges its certificate as the verifier will judge it on every document, and has it sign a test.
func (h *house) checkKey(ctx context.Context, keys membersOf, name string) error {
	ctx, cancel := context.WithTimeout(ctx, keyLimit)
	defer cancel()
	key, err := keys.Open(ctx, name)
	if err != nil {
		return err
	}
	now := keys.from(keys.group)
	if err := signing.CheckKey(name, key, now); err != nil {
		return err
	}
	if err := verify.CheckSigner(key.Chain(), h.roots, now); err != nil {
		return &signing.KeyError{Key: name, Reason: fmt.Sprintf("%v: %s", err, untrustedCure)}
	}
	algorithms, err := h.algorithms(keys.serves(keys.group), key)
	if err != nil {
		return err
	}
	for _, a := range algorithms {
		if err := signing.Try(ctx, name, key, a); err != nil {
			return err
		}
	}
	return nil
}

const untrustedCure = "name the root of the issuer under signing.trust, put missing intermediates behind the key's certificate, or use a certificate for signing documents"

// newTimestamper returns nil when no TSA is configured: config has seen to it that then no profile needs one.
func (h *house) newTimestamper(log *slog.Logger) (signing.Timestamper, error) {
	c, err := h.newStampClient(nil, log)
	if c == nil {
		return nil, err
	}
	return c, nil
}

// newStampClient is newTimestamper with somebody who counts what servers with a quota are sent; nil counts for as long as
// this process lives.
func (h *house) newStampClient(counter tsa.Counter, log *slog.Logger) (*tsa.Client, error) {
	if len(h.cfg.Signing.TSA) == 0 {
		return nil, nil
	}
	var servers []tsa.Server
	for i, t := range h.cfg.Signing.TSA {
		policy, err := parseOID(t.Policy)
		if err != nil {
			return nil, h.cfg.At(fmt.Sprintf("signing.tsa.%d.policy", i), "%v", err)
		}
		servers = append(servers, tsa.Server{URL: t.URL, Timeout: t.Timeout, Policy: policy, Quota: t.Quota})
	}
	roots := x509.NewCertPool()
	for _, c := range h.roots {
		roots.AddCert(c)
	}
	c, err := tsa.NewClient(servers, tsa.Options{Roots: roots, Log: log, Counter: counter, Seen: h.meter.stamped, HTTP: &http.Client{Transport: crashTransport("tsa", h.stampTransport())}})
	if err != nil {
		return nil, h.cfg.At("signing.tsa", "%v", err)
	}
	return c, nil
}

// newExtender gets what makes seals last. stamper may be nil.
func (h *house) newExtender(stamper signing.Timestamper, log *slog.Logger) *signing.Extender {
	return &signing.Extender{Timestamper: stamper, Anchors: revocation.Anchors{Roots: h.roots},
		Revocation: revocation.NewClient(revocation.Options{Log: log, HTTP: &http.Client{Transport: crashTransport("revocation", nil)}})}
}

func parseOID(s string) (oid asn1.ObjectIdentifier, err error) {
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q is not an object identifier such as 1.3.6.1.4.1.32473.1.1", s)
		}
		oid = append(oid, n)
	}
	return oid, nil
}

// checker reads sealed files in child processes, with the configured roots.
type checker struct {
	*verify.Checker
	roots []*x509.Certificate
}

func newChecker(roots []*x509.Certificate, log *slog.Logger) *checker {
	return &checker{verify.NewChecker(verify.CheckerOptions{Children: readers(), Log: log}), roots}
}

func (h *house) newChecker(log *slog.Logger) *checker { return newChecker(h.roots, log) }

func (c *checker) Check(ctx context.Context, doc pades.Document) (*verify.Report, error) {
	return c.Checker.Check(ctx, doc, verify.Options{Roots: c.roots})
}

// checkAsked is Check for what the second reader may have been asked about already.
func (c *checker) checkAsked(ctx context.Context, doc pades.Document, asked *verify.Asked) (*verify.Report, error) {
	return c.CheckAsked(ctx, doc, verify.Options{Roots: c.roots}, asked)
}

func (c *checker) CheckRehearsal(ctx context.Context, doc pades.Document, root *x509.Certificate) (*verify.Report, error) {
	return c.checkRehearsal(ctx, doc, root, nil)
}

// checkRehearsal is CheckRehearsal for a document whose beginning was hashed a moment ago; nil knows nothing of it.
func (c *checker) checkRehearsal(ctx context.Context, doc pades.Document, root *x509.Certificate, known *verify.Known) (*verify.Report, error) {
	return c.Checker.Verify(ctx, doc, verify.Options{Roots: []*x509.Certificate{root}, Known: known})
}

// readers is how many sealed files are read back at once, by each of the two readers.
func readers() int { return min(runtime.NumCPU(), 4) }

// newLogQuiet is for commands: only what goes wrong, and not when, which whoever waits for the command knows.
func newLogQuiet(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return a
	}}))
}
