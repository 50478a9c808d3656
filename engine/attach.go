package engine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// attach puts the contract, and beside it the audit trail, on the record. The connector looks before it writes.
func (r *run) attach(ctx context.Context) error {
	s := r.s
	if left := s.Facts.AttachAfter.Sub(r.Now()); left > 0 && left < farFuture {
		return &tooSoonError{left} // a person has had it tried again at once
	}
	if err := r.begin(ctx, *r.toAttach()); err != nil {
		return err
	}
	pieces, closeAll, err := r.pieces(ctx)
	if err != nil {
		return err
	}
	defer closeAll()
	at, err := r.put(ctx, pieces)
	if err != nil {
		return err
	}
	if len(at) != len(pieces) || slices.ContainsFunc(at, func(a deal.Attachment) bool { return a.ID == "" }) {
		return errors.New("the connector says that the files are on the record, and not of each where: this is a mistake in the program, please report it")
	}
	contract := at[0]
	s.Facts.Attachment = &contract
	if len(at) > 1 {
		s.Facts.AuditTrail = &at[1]
	}
	return r.advance(ctx, "attached", deal.Attached, deal.Entry{What: "attached", Why: "file " + contract.ID, Cert: certOf(s), Detail: map[string]string{"file": contract.ID},
		Events: []deal.Event{{Type: "document.attached", Data: map[string]string{"file": contract.ID}}}})
}

// pieces opens what belongs on the record, the contract first. closeAll must be called unless there is an error.
func (r *run) pieces(ctx context.Context) (pieces []connectors.Piece, closeAll func(), err error) {
	s := r.s
	var closers []io.Closer
	closeAll = func() {
		for _, c := range closers {
			c.Close()
		}
	}
	add := func(role deal.Role, staged string, want deal.FileFact, name string) {
		f, closer, openErr := r.open(ctx, role, staged, want)
		if openErr != nil {
			err = errors.Join(err, openErr)
			return
		}
		closers = append(closers, closer)
		f.Name, f.MediaType = name, "application/pdf"
		pieces = append(pieces, connectors.Piece{Role: role, File: f, New: r.made[staged]})
	}
	add(deal.RoleContract, fileContract, *s.Facts.Contract, s.Private.FileName)
	if s.Plan.AuditTrail != "" && s.Facts.AuditTrail == nil { // an adopted record may bear one
		add(deal.RoleAuditTrail, fileTrail, *s.Facts.Trail, trailName(s.Private.FileName))
	}
	if err != nil {
		closeAll()
	}
	return pieces, closeAll, err
}

// put attaches the files together where the connector can do that.
func (r *run) put(ctx context.Context, pieces []connectors.Piece) (at []deal.Attachment, err error) {
	t, err := r.tenant(ctx, r.s)
	if err != nil {
		return nil, err
	}
	err = r.ask(ctx, "files", uploadLimit, func(ctx context.Context) (err error) {
		if b, ok := t.CRM.(connectors.Bundler); ok {
			at, err = b.AttachAll(ctx, r.s.Change.Ref, r.s.Tx, pieces)
			return err
		}
		for _, p := range pieces {
			one, err := t.CRM.Attach(ctx, r.s.Change.Ref, r.s.Tx, p.Role, p.File)
			if err != nil {
				return err
			}
			at = append(at, one)
		}
		return nil
	})
	if late := deal.Unsettled(err); late > 0 {
		r.s.Facts.AttachAfter = r.Now().Add(late)
	}
	return at, err
}

// tooSoonError says that the record has to be left alone, whoever wants otherwise: what is looked for now may not be found
// and yet appear beside what is then made.
type tooSoonError struct{ left time.Duration }

func (e *tooSoonError) Error() string {
	return "an earlier attempt got no clear answer, and it may still be carried out: nothing is put on the record before that is over"
}

func (e *tooSoonError) RetryAfter() time.Duration { return e.left }

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
