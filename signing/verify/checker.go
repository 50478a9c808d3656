package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/worker"
)

const (
	defaultTimeout        = 30 * time.Second
	defaultOpinionTimeout = 10 * time.Second
	childGoMemory         = 200 << 20   // what the garbage collector of a child aims at
	childMemory           = 1 << 30     // what it dies of
	idleChild             = time.Minute // it starts in a blink
)

// CheckerOptions of NewChecker. The zero value is useful.
type CheckerOptions struct {
	Children       int           // how many documents are read at once; default 1
	Timeout        time.Duration // for our own reader; default 30 s
	OpinionTimeout time.Duration // for the second reader, on top; default 10 s
	Log            *slog.Logger
}

// Checker reads documents in child processes. The two readers have children of their own, so that what the second one does to its process never costs our
// report, nor delays that of the next document. It is safe for concurrent use.
type Checker struct {
	options         CheckerOptions
	reader, opinion *worker.Pool
}

// NewChecker returns a Checker whose children start when they are needed.
func NewChecker(o CheckerOptions) *Checker {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.OpinionTimeout <= 0 {
		o.OpinionTimeout = defaultOpinionTimeout
	}
	spec := worker.Spec{
		Name:    WorkerName,
		Limits:  worker.Limits{Procs: 1, GoMemory: childGoMemory, Memory: childMemory},
		Sandbox: worker.Sandbox{SealFiles: true},
		// The second reader crashes on documents, not on its surroundings: a pause would only spoil the opinion on the next one.
		Restart: worker.Backoff{Max: time.Second},
		Idle:    idleChild,
	}
	return &Checker{options: o, reader: worker.NewPool(spec, o.Children, o.Log), opinion: worker.NewPool(spec, o.Children, o.Log)}
}

// Close ends the children.
func (c *Checker) Close() error {
	return errors.Join(c.reader.Close(), c.opinion.Close())
}

// Check is Verify in a child, with the second opinion in the report. A document with a method File() *os.File, whose first bytes it is, is handed to the
// child as that file; any other is copied into memory that the child can read.
//
// An error says that our own reader gave no report: it is one of package worker, or of reading the document. The second reader never causes an error.
func (c *Checker) Check(ctx context.Context, doc pades.Document, o Options) (*Report, error) {
	file, done, err := fileOf(doc)
	if err != nil {
		return nil, err
	}
	defer done()
	report, err := c.read(ctx, file, doc.Size(), o)
	if err != nil {
		return nil, err
	}
	if report.SecondOpinion, err = c.ask(ctx, file, report); err != nil {
		return nil, err
	}
	return report, nil
}

// Verify is the function Verify in a child, without the second opinion.
func (c *Checker) Verify(ctx context.Context, doc pades.Document, o Options) (*Report, error) {
	file, done, err := fileOf(doc)
	if err != nil {
		return nil, err
	}
	defer done()
	return c.read(ctx, file, doc.Size(), o)
}

func (c *Checker) read(ctx context.Context, file *os.File, size int64, o Options) (*Report, error) {
	o = o.withDefaults()
	report := new(Report)
	request := checkRequest{target: target{size}, Roots: rawAll(o.Roots), TSARoots: rawAll(o.TSARoots), Intermediates: rawAll(o.Intermediates), Now: o.Now, Revocation: o.RequireRevocation}
	if err := call(ctx, c.reader, c.options.Timeout, opCheck, request, file, report); err != nil {
		return nil, fmt.Errorf("check the document: %w", err)
	}
	return report, nil
}

// ask returns an error only when ctx itself has ended.
func (c *Checker) ask(ctx context.Context, file *os.File, r *Report) (*Opinion, error) {
	q, why := questionOf(r)
	if why != "" {
		return opinion(OpinionNotApplicable, why), nil
	}
	var o Opinion
	err := call(ctx, c.opinion, c.options.OpinionTimeout, opOpinion, opinionRequest{target{q.size}, q.signatures}, file, &o)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("ask the second reader: %w", ctx.Err())
	}
	if err != nil {
		return opinionFailure(err), nil
	}
	if q.size < r.Size && o.Detail == "" {
		o.Detail = fmt.Sprintf("of the first %d bytes, up to the newest signature: document time-stamps are beyond it", q.size)
	}
	return &o, nil
}

func call(ctx context.Context, p *worker.Pool, timeout time.Duration, op string, request any, file *os.File, reply any) error {
	header, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := p.Call(ctx, worker.Frame{Op: op, Header: header, Files: []*os.File{file}})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer.Body, reply); err != nil {
		return fmt.Errorf("decode the reply: %w", err)
	}
	return nil
}

// fileOf returns the document as an open file, and what to do with it afterwards.
func fileOf(doc pades.Document) (file *os.File, done func(), err error) {
	if f, ok := doc.(interface{ File() *os.File }); ok {
		return f.File(), func() {}, nil
	}
	if file, err = newMemoryFile(); err != nil {
		return nil, nil, fmt.Errorf("make a copy of the document: %w", err)
	}
	done = func() { _ = file.Close() }
	if _, err := io.Copy(file, io.NewSectionReader(doc, 0, doc.Size())); err != nil {
		done()
		return nil, nil, fmt.Errorf("make a copy of the document: %w", err)
	}
	return file, done, nil
}
