package hubspot

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// noteToDeal is the type of the association from a note to a deal.
const noteToDeal = 214

// maxFiles bounds the files of one record, each of which costs a call.
const maxFiles = 500

// fileCalls is how many of them are made at once.
const fileCalls = 4

// note is a note on a deal that carries files.
type note struct {
	id    string
	files []string
	// tx, role, sha256 and file are set when the note bears our marker. file is the one of files that the marker speaks
	// of: a user may have added others to our note.
	tx     deal.TxID
	role   deal.Role
	sha256 string
	file   string
}

// key is the text by which a note is found again: the marker, the content's hash, and the file.
func key(tx deal.TxID, role deal.Role, sha256, file string) string {
	return deal.Marker(tx, role) + ":" + sha256 + ":" + file
}

func parseNote(o object) note {
	n := note{id: o.ID, files: splitIDs(value(o.Properties, "hs_attachment_ids"))}
	body := value(o.Properties, "hs_note_body")
	tx, role, ok := deal.ParseMarker(body)
	if !ok {
		return n
	}
	_, rest, _ := strings.Cut(body, deal.Marker(tx, role))
	sha, rest, hasHash := strings.Cut(strings.TrimPrefix(rest, ":"), ":")
	if !hasHash || !isHash(sha) {
		return n
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	if _, ok := parseID(rest[:end]); !ok {
		return n
	}
	n.tx, n.role, n.sha256, n.file = tx, role, sha, rest[:end]
	return n
}

func isHash(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// notes lists the notes of a deal that carry files or our marker, by the order of IDs. It goes over associations, because
// the search for notes lags.
func (c *Connector) notes(ctx context.Context, d dealData) ([]note, error) {
	ends, err := c.endsOf(ctx, d, "notes")
	if err != nil || len(ends) == 0 {
		return nil, err
	}
	objects, err := c.readObjects(ctx, "notes", idsOf(ends), []string{"hs_attachment_ids", "hs_note_body"})
	if err != nil {
		return nil, err
	}
	var notes []note
	for _, o := range objects {
		if n := parseNote(o); n.tx != "" || len(n.files) > 0 {
			notes = append(notes, n)
		}
	}
	slices.SortFunc(notes, func(a, b note) int { return compareIDs(a.id, b.id) })
	return notes, nil
}

// ourNote finds among notes the one of a file of ours, nil when there is none, and one of another file of the transaction
// in the same role.
func ourNote(notes []note, tx deal.TxID, role deal.Role, sha256 string) (ours, other *note) {
	for _, n := range notes {
		switch {
		case n.tx != tx || n.role != role:
		case n.sha256 == sha256:
			return &n, other
		case slices.Contains(n.files, n.file):
			other = &n
		}
	}
	return nil, other
}

// files lists the files that the notes of a deal carry, oldest first.
func (c *Connector) files(ctx context.Context, asked string, d dealData, page string) ([]deal.RecordFile, error) {
	notes, err := c.notes(ctx, d)
	if err != nil {
		return nil, err
	}
	c.told.sawNotes(asked, d.at, notes)
	ids, marked := attachments(notes)
	if len(ids) > maxFiles {
		return nil, refuse("the %s carries more than %d files", c.kind.one, maxFiles)
	}
	found := make([]*deal.RecordFile, len(ids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fileCalls)
	for i, id := range ids {
		g.Go(func() error {
			f, err := c.file(ctx, id)
			if isMissing(err) {
				return nil // the note outlives the file
			}
			found[i] = &f
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var files []deal.RecordFile
	for i, f := range found {
		if f == nil {
			continue
		}
		f.URL, f.Tx, f.Role = page, marked[ids[i]].tx, marked[ids[i]].role
		files = append(files, *f)
	}
	slices.SortFunc(files, func(a, b deal.RecordFile) int {
		return cmp.Or(a.Created.Compare(b.Created), compareIDs(a.ID, b.ID))
	})
	return files, nil
}

// attachments lists each file once, and the notes that bear our marker by the file that it speaks of.
func attachments(notes []note) (ids []string, marked map[string]note) {
	marked = map[string]note{}
	for _, n := range notes {
		for _, id := range n.files {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
			if _, taken := marked[id]; n.file == id && !taken {
				marked[id] = n
			}
		}
	}
	return ids, marked
}

// words begin the body of our notes.
var words = map[deal.Role]string{
	deal.RoleContract:   "Sealed contract",
	deal.RoleAuditTrail: "Audit trail of the sealed contract",
}

// linkAll connects stored files with the deal, through new notes, which are made in one call, or through those that speak of
// them already. There is no idempotency key: after an outcome that is not clear the notes are read again.
func (c *Connector) linkAll(ctx context.Context, dealID string, tx deal.TxID, stored []storedFile) error {
	var fresh []noteInput
	typ, err := c.noteType(ctx)
	if err != nil {
		return fmt.Errorf("put the file on the %s: %w", c.kind.one, err)
	}
	for _, s := range stored {
		if s.note != nil {
			if err := c.mend(ctx, dealID, tx, s); err != nil {
				return err
			}
			continue
		}
		fresh = append(fresh, noteInput{Properties: s.noteProperties(tx), Associations: []map[string]any{association(dealID, typ)}})
	}
	if len(fresh) == 0 {
		return nil
	}
	wrote := c.seen.writes(dealID) // a new note is a change of its deal
	answer, err := c.newNotes.Ask(ctx, "", fresh)
	made, err := asked(ctx, answer, err)
	wrote(made.stamp, made.date)
	return c.linked(ctx, dealID, tx, stored, err)
}

// mend lets a note that speaks of a file bear it.
func (c *Connector) mend(ctx context.Context, dealID string, tx deal.TxID, s storedFile) error {
	properties := s.noteProperties(tx)
	if others := slices.DeleteFunc(slices.Clone(s.note.files), func(id string) bool { return id == s.note.file || id == s.file.ID }); len(others) > 0 {
		properties["hs_attachment_ids"] += ";" + strings.Join(others, ";")
	}
	delete(properties, "hs_timestamp")
	var said object
	r, err := c.send(ctx, http.MethodPatch, c.objects("notes")+"/"+url.PathEscape(s.note.id), withToken, map[string]any{"properties": properties})
	if err == nil {
		err = r.decode(&said)
	}
	return c.linked(ctx, dealID, tx, []storedFile{s}, err)
}

// linked judges the outcome of putting files on a deal.
func (c *Connector) linked(ctx context.Context, dealID string, tx deal.TxID, stored []storedFile, err error) error {
	if isUnclear(err) && ctx.Err() == nil {
		notes, lookErr := c.notes(ctx, dealData{object: object{ID: dealID}})
		there := lookErr == nil
		for _, s := range stored {
			n, _ := ourNote(notes, tx, s.Role, s.File.SHA256)
			there = there && n != nil && n.file == s.file.ID
		}
		if there {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("put the file on the %s: %w", c.kind.one, c.later(err))
	}
	return nil
}

// storedFile is a file that HubSpot has stored, and the note that speaks of it already, if there is one.
type storedFile struct {
	connectors.Piece
	file deal.RecordFile
	note *note
}

func (s storedFile) noteProperties(tx deal.TxID) map[string]string {
	return map[string]string{
		"hs_attachment_ids": s.file.ID,
		"hs_note_body":      words[s.Role] + ", attached by dealseal. It is found again by this line: " + key(tx, s.Role, s.File.SHA256, s.file.ID),
		"hs_timestamp":      stampOf(s.file.Created), // HubSpot's clock, not ours
	}
}

// fileReply is a file as the API answers it. Its name has no extension.
type fileReply struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Extension string `json:"extension"`
	Size      int64  `json:"size"`
	MD5       string `json:"fileMd5"`
	CreatedAt string `json:"createdAt"`
}

func (r fileReply) read() (deal.RecordFile, error) {
	at, err := parseTime(r.CreatedAt)
	if _, ok := parseID(r.ID); !ok || err != nil || r.Size < 0 {
		return deal.RecordFile{}, malformed("a file has no ID, date or size")
	}
	name := r.Name
	if r.Extension != "" {
		name += "." + r.Extension
	}
	return deal.RecordFile{ID: r.ID, Name: name, Size: r.Size, MD5: strings.ToLower(r.MD5), Created: at}, nil
}
