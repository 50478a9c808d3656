package engine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/dealseal/dealseal/deal"
)

// attach puts the contract, and beside it the audit trail, on the record. The connector looks before it writes.
func (r *run) attach(ctx context.Context) error {
	s := r.s
	if err := r.begin(ctx, deal.Intent{What: "attach", Digest: s.Facts.Contract.SHA256, Lease: transferLease}); err != nil {
		return err
	}
	contract, err := r.put(ctx, deal.RoleContract, fileContract, *s.Facts.Contract, s.Private.FileName)
	if err != nil {
		return err
	}
	s.Facts.Attachment = &contract
	if s.Plan.AuditTrail != "" && s.Facts.AuditTrail == nil { // an adopted record may bear one
		trail, err := r.put(ctx, deal.RoleAuditTrail, fileTrail, *s.Facts.Trail, trailName(s.Private.FileName))
		if err != nil {
			return err
		}
		s.Facts.AuditTrail = &trail
	}
	return r.advance(ctx, "attached", deal.Attached, deal.Entry{What: "attached", Why: "file " + contract.ID, Cert: certOf(s), Detail: map[string]string{"file": contract.ID},
		Events: []deal.Event{{Type: "document.attached", Data: map[string]string{"file": contract.ID}}}})
}

func (r *run) put(ctx context.Context, role deal.Role, staged string, want deal.FileFact, name string) (at deal.Attachment, err error) {
	t, err := r.tenant(ctx, r.s)
	if err != nil {
		return at, err
	}
	f, closer, err := r.open(ctx, role, staged, want)
	if err != nil {
		return at, err
	}
	defer closer.Close()
	f.Name, f.MediaType = name, "application/pdf"
	err = r.call(ctx, string(role), uploadLimit, func(ctx context.Context) error {
		at, err = t.CRM.Attach(ctx, r.s.Change.Ref, r.s.Tx, role, f)
		return err
	})
	return at, err
}

// trailName puts the audit trail beside its contract in an alphabetical list.
func trailName(contract string) string {
	return strings.TrimSuffix(contract, path.Ext(contract)) + " - audit trail.pdf"
}

// open takes the staged file, or the archive's where nothing is staged any more: a deal that was recovered from there.
func (r *run) open(ctx context.Context, role deal.Role, staged string, want deal.FileFact) (deal.File, io.Closer, error) {
	f, closer, err := r.Files.OpenStaged(ctx, r.s.Tx, staged, want)
	if !errors.Is(err, fs.ErrNotExist) || r.s.Facts.Archive == "" {
		return f, closer, err
	}
	kept := map[deal.Role]string{deal.RoleContract: "contract.pdf", deal.RoleAuditTrail: "evidence/" + fileTrail}
	return r.Files.OpenKept(ctx, r.s.Facts.Archive, kept[role])
}
