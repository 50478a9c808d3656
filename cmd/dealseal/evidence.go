package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/store"
)

// evidenceCommand has the daemon, which has the key, write all that proves a deal into one file.
func evidenceCommand(ctx context.Context, c *call) error {
	if len(c.args) != 1 || c.out == "" {
		return usagef("name a transaction and the file to write")
	}
	tx, err := deal.ParseTxID(c.args[0])
	if err != nil {
		return usagef("%v", err)
	}
	r, _, err := findDaemon(ctx, c.config)
	if errors.Is(err, errNoDaemon) {
		return fmt.Errorf("%w: a bundle is signed with the key of the seal, which the daemon holds", err)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if err := writeAtOnce(c.out, func(w io.Writer) error { return r.Evidence(ctx, tx, w) }); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s: it holds the contract and what went into it; \"dealseal verify %s --trust ROOTS.pem\" checks it anywhere\n", c.out, c.out)
	return err
}

// evidenceDone stands behind a bundle that is complete.
const evidenceDone = "Dealseal-Evidence"

// Evidence writes the bundle to w; it is complete only if the error is nil.
func (r *remote) Evidence(ctx context.Context, tx deal.TxID, w io.Writer) error {
	req, err := r.request(ctx, "POST", "/evidence/"+string(tx), nil)
	if err != nil {
		return err
	}
	patient := *r.client
	patient.Timeout = 0
	resp, err := patient.Do(req)
	if err != nil {
		return fmt.Errorf("the daemon does not answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // the status alone says enough
		return fmt.Errorf("the daemon refuses (%s): %s", resp.Status, bytes.TrimSpace(text))
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("the bundle broke off: %w", err)
	}
	if text, err := url.QueryUnescape(resp.Trailer.Get(backupFailed)); err != nil || text != "" {
		return fmt.Errorf("the daemon could not make the bundle: %s", text)
	}
	if resp.Trailer.Get(evidenceDone) == "" {
		return errors.New("the bundle broke off: the daemon did not say that it is complete")
	}
	return nil
}

// evidenceRoutes are the daemon's side of it.
func (d *service) evidenceRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /evidence/{tx}", func(w http.ResponseWriter, r *http.Request) {
		who := peerOf(r.Context())
		if who == "" {
			answer(w, nil, errNoPeer)
			return
		}
		b, err := d.bundles().prepare(r.Context(), deal.TxID(r.PathValue("tx")), who)
		if err != nil {
			answer(w, nil, err)
			return
		}
		d.log.Info("an evidence bundle was fetched", "tx", b.manifest.Tx, "who", who)
		w.Header().Set("Trailer", evidenceDone+", "+backupFailed)
		if err := b.write(r.Context(), w); err != nil {
			w.Header().Set(backupFailed, url.QueryEscape(err.Error()))
			return
		}
		w.Header().Set(evidenceDone, "complete")
	})
}

// bundleMaker makes evidence bundles of what the store keeps.
type bundleMaker struct {
	store  *store.Store
	sealer *signing.Sealer
	limits func(name, spki string) (of string, limits deal.KeyLimits)
}

func (d *service) bundles() *bundleMaker {
	return &bundleMaker{store: d.store, sealer: d.sealer, limits: d.registry.limits}
}

// outgoing is a bundle that is ready to be written.
type outgoing struct {
	*bundleMaker
	folder   string
	manifest manifest
	own      map[string][]byte // files that are not in the archive
}

// prepare gathers, and has the manifest signed. Who fetches the bundle is in the audit log before anything leaves, and the
// signature, which is one of its own and over no document, before the key is used for it.
func (m *bundleMaker) prepare(ctx context.Context, tx deal.TxID, who string) (*outgoing, error) {
	s, err := m.store.Load(ctx, tx)
	if err != nil {
		return nil, err
	}
	if s.Facts.Archive == "" {
		return nil, &store.NotKeptError{Tx: tx}
	}
	private, err := m.store.Values(ctx, tx, who)
	if err != nil {
		return nil, err
	}
	if err := m.store.Witness(ctx, tx, deal.Entry{Who: who, What: "downloaded", Why: "evidence bundle", Detail: map[string]string{"sha256": s.Facts.Contract.SHA256}}); err != nil {
		return nil, err
	}
	out := &outgoing{bundleMaker: m, folder: s.Facts.Archive, own: map[string][]byte{}}
	if out.own[bundleAudit], err = m.store.Proof(ctx, tx, who); err != nil {
		return nil, err
	}
	snapshot := struct {
		Values   json.RawMessage `json:"values,omitempty"`   // as the CRM had them
		Document json.RawMessage `json:"document,omitempty"` // as the document was made of them
	}{private.Values, private.Document}
	if out.own[bundleRecord], err = json.MarshalIndent(snapshot, "", "  "); err != nil {
		return nil, err
	}
	out.manifest = manifest{
		Form: bundleForm, Tx: tx, Tenant: string(s.Tenant), Account: string(s.Account), Record: s.Change.Ref.String(), Rule: s.Plan.Rule,
		Made: time.Now().UTC().Truncate(time.Second), Dealseal: version, Template: s.Plan.Template, TemplateSHA256: s.Plan.Bundle, RenderKey: s.Facts.RenderKey,
		Level: s.Facts.Level, SealedAt: s.Facts.SealedAt.UTC(), SignedDigest: s.Facts.Digest, Files: map[string]bundleFile{},
	}
	if second := s.Facts.Second; second != nil && second.GivenUp == "" && second.Cert != nil {
		out.manifest.Second = &secondSealOf{second.Level, second.Digest, second.Cert.SHA256}
	}
	kept, err := m.store.KeptFiles(s.Facts.Archive)
	if err != nil {
		return nil, err
	}
	for _, f := range kept {
		out.manifest.Files[f.Name] = bundleFile{f.SHA256, f.Size}
	}
	for name, content := range out.own {
		out.manifest.Files[name] = bundleFileOf(content)
	}
	return out, out.sign(ctx, s, who)
}

// sign has the key of the deal's profile sign the manifest. A bundle goes out unsigned, and says so, where the certificate has
// ended, maybe years ago, or the key has no use left for it, while the tenant is paused, and that of a contract that a vendor had
// signed: the contract proves itself.
func (o *outgoing) sign(ctx context.Context, s *deal.Sealing, who string) error {
	if s.Plan.Delegated != nil { // no key of ours has anything to do with it
		return o.leaveUnsigned()
	}
	var profile signing.Profile
	if err := json.Unmarshal(s.Plan.Profile, &profile); err != nil {
		return err
	}
	text, err := json.MarshalIndent(o.manifest, "", "  ")
	if err != nil {
		return err
	}
	a, err := o.sealer.PrepareAttestation(ctx, profile, text)
	if err == nil {
		digest, key := hex.EncodeToString(a.Digest()), hex.EncodeToString(a.SPKISHA256)
		_, limits := o.limits(profile.Key, key)
		err = o.store.Attesting(ctx, s.Tx, deal.Entry{Who: who, What: "attesting", Why: "the manifest of the evidence bundle is signed: " + bundleFileOf(text).SHA256, Cert: hex.EncodeToString(a.CertSHA256),
			Detail: map[string]string{"digest": digest, "key": key}}, deal.Intent{What: "attest", Digest: digest, Key: key, Limits: limits})
	}
	var spent *deal.SpentError
	var paused *store.PauseError
	switch {
	case signing.IsUnusable(err), errors.As(err, &spent), errors.As(err, &paused):
		return o.leaveUnsigned()
	case err != nil:
		return err
	}
	o.own[bundleManifest] = text
	o.own[bundleSignature], err = o.sealer.Attest(ctx, a)
	return err
}

func (o *outgoing) leaveUnsigned() (err error) {
	o.manifest.Unsigned = true
	o.own[bundleManifest], err = json.MarshalIndent(o.manifest, "", "  ")
	return err
}

// write puts everything into w, stored as it is. What has changed in the archive meanwhile is an error.
func (o *outgoing) write(ctx context.Context, w io.Writer) error {
	z := zip.NewWriter(w)
	names := []string{bundleManifest}
	if !o.manifest.Unsigned {
		names = append(names, bundleSignature)
	}
	names = append(names, slices.Sorted(maps.Keys(o.manifest.Files))...)
	for _, name := range names {
		to, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store, Modified: o.manifest.Made})
		if err != nil {
			return err
		}
		if content, ok := o.own[name]; ok {
			if _, err := to.Write(content); err != nil {
				return err
			}
			continue
		}
		if err := o.copy(ctx, to, name); err != nil {
			return err
		}
	}
	return z.Close()
}

func (o *outgoing) copy(ctx context.Context, to io.Writer, name string) error {
	f, err := o.store.OpenKept(ctx, o.folder, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if want := o.manifest.Files[name]; f.SHA256 != want.SHA256 {
		return fmt.Errorf("%s was changed while the bundle was made", name)
	}
	return copyUntil(ctx, to, f.Open())
}
