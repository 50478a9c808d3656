package verify

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/worker"
)

// WorkerName is the name under which Program is given to worker.Main.
const WorkerName = "read-worker"

const (
	opWake    = "wake"    // reply: nothing
	opCheck   = "check"   // header: checkRequest; file: the document; reply: Report
	opOpinion = "opinion" // header: opinionRequest; file: the document; reply: Opinion
)

// target is the document: the first bytes of the file that comes with the frame. If that is a socket, Served is how many can be asked for over it.
type target struct {
	Size   int64 `json:"size"`
	Served int64 `json:"served,omitempty"`
}

// checkRequest is Options for the wire; certificates are DER.
type checkRequest struct {
	target
	Roots         [][]byte  `json:"roots"`
	TSARoots      [][]byte  `json:"tsa_roots"`
	Intermediates [][]byte  `json:"intermediates"`
	Now           time.Time `json:"now"`
	Revocation    bool      `json:"require_revocation"`
	Known         *Known    `json:"known,omitempty"`
}

type opinionRequest struct {
	target
	Signatures int `json:"signatures"`
}

// maxStack bounds the stack of a child. An endless recursion of the second reader ends there at once, and not after it has filled a gigabyte.
const maxStack = 64 << 20

// gcPercent has the collector of a child run seldom: a document is small beside the memory that it may take (childGoMemory,
// which holds all the same), what was read of it is garbage at once, and the child ends when nothing comes.
const gcPercent = 400

// Program is the child that reads documents. It needs no files and no network of its own: documents come as open files.
func Program(context.Context, []byte) (worker.Handler, error) {
	debug.SetMaxStack(maxStack)
	debug.SetGCPercent(gcPercent)
	askForHugePages()
	return handle, nil
}

// askForHugePages has the kernel put huge pages where the heap will grow to, if it has any. The second reader makes three copies of a document: each 4 kB
// of them would be a fault of its own, which together cost as much as hashing it.
func askForHugePages() {
	room := make([]byte, childGoMemory/2) // taken from the kernel, but never touched
	adviseHugePages(room)
	runtime.KeepAlive(room)
	runtime.GC() // gives it back to the heap, which keeps the addresses
}

func handle(ctx context.Context, f worker.Frame) (worker.Frame, error) {
	if f.Op == opWake {
		return worker.Frame{}, nil
	}
	doc, err := document(f)
	if err != nil {
		return worker.Frame{}, err
	}
	var reply any
	switch f.Op {
	case opCheck:
		reply, err = handleCheck(ctx, f.Header, doc)
	case opOpinion:
		reply, err = handleOpinion(f.Header, doc)
	default:
		err = fmt.Errorf("verify: unknown operation %q", f.Op)
	}
	if err != nil {
		return worker.Frame{}, err
	}
	body, err := json.Marshal(reply)
	if err != nil {
		return worker.Frame{}, fmt.Errorf("verify: encode the reply: %w", err)
	}
	return worker.Frame{Op: f.Op, Body: body}, nil
}

func document(f worker.Frame) (pades.Document, error) {
	if len(f.Files) != 1 {
		return nil, fmt.Errorf("verify: %d files came instead of the document", len(f.Files))
	}
	var t target
	if err := json.Unmarshal(f.Header, &t); err != nil {
		return nil, fmt.Errorf("verify: request: %w", err)
	}
	if t.Served > 0 {
		return io.NewSectionReader(&served{socket: f.Files[0], size: t.Served}, 0, t.Size), nil
	}
	return held(io.NewSectionReader(f.Files[0], 0, t.Size)), nil
}

// maxHeld is up to which size a document is read at once. The second reader asks for each of its objects anew, in pieces of
// 4 kB, and the system's calls for them took a tenth of what a contract costs.
const maxHeld = 1 << 20

// held is a small document in memory, and any other as it is; so is one that cannot be read, for the readers to say so.
func held(doc *io.SectionReader) pades.Document {
	if doc.Size() <= 0 || doc.Size() > maxHeld {
		return doc
	}
	content := make([]byte, doc.Size())
	if _, err := doc.ReadAt(content, 0); err != nil {
		return doc
	}
	return bytes.NewReader(content)
}

func handleCheck(ctx context.Context, header []byte, doc pades.Document) (*Report, error) {
	var r checkRequest
	if err := json.Unmarshal(header, &r); err != nil {
		return nil, fmt.Errorf("verify: request: %w", err)
	}
	o := Options{Now: r.Now, RequireRevocation: r.Revocation, Known: r.Known}
	var err error
	if o.Roots, err = parseAll(r.Roots); err != nil {
		return nil, err
	}
	if o.TSARoots, err = parseAll(r.TSARoots); err != nil {
		return nil, err
	}
	if o.Intermediates, err = parseAll(r.Intermediates); err != nil {
		return nil, err
	}
	return Verify(ctx, doc, o)
}

func handleOpinion(header []byte, doc pades.Document) (*Opinion, error) {
	var r opinionRequest
	if err := json.Unmarshal(header, &r); err != nil {
		return nil, fmt.Errorf("verify: request: %w", err)
	}
	return secondOpinion(doc, r.Signatures), nil
}

func parseAll(ders [][]byte) ([]*x509.Certificate, error) {
	if ders == nil {
		return nil, nil
	}
	certs := make([]*x509.Certificate, 0, len(ders))
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("verify: trusted certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

func rawAll(certs []*x509.Certificate) [][]byte {
	if certs == nil {
		return nil
	}
	ders := make([][]byte, 0, len(certs))
	for _, c := range certs {
		ders = append(ders, c.Raw)
	}
	return ders
}
