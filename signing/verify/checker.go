package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
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

	perByte = 100 * time.Nanosecond // that our own reader may take on top
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
	waking          sync.WaitGroup
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

// Wake starts a child of each reader, for who will need them soon. What keeps one from starting is said by the call that needs it.
func (c *Checker) Wake() {
	for _, pool := range []*worker.Pool{c.reader, c.opinion} {
		c.waking.Go(func() { _, _ = pool.Call(context.Background(), worker.Frame{Op: opWake}) }) // Close ends it
	}
}

// Close ends the children.
func (c *Checker) Close() error {
	err := errors.Join(c.reader.Close(), c.opinion.Close())
	c.waking.Wait()
	return err
}

// Check is Verify in a child, with the second opinion in the report. A document with a method File() *os.File, whose first bytes it is, is handed to the
// child as that file. Of any other, a small one is copied into memory that the child can read, and of a large one the child asks for what it reads.
//
// An error says that our own reader gave no report: it is one of package worker, or of reading the document. The second reader never causes an error.
func (c *Checker) Check(ctx context.Context, doc pades.Document, o Options) (*Report, error) {
	return c.CheckAsked(ctx, doc, o, nil)
}

// Asked is a question that the second reader is working on. A nil Asked is none.
type Asked struct {
	question question
	answered chan struct{} // closed when the rest is final
	opinion  *Opinion
	err      error
}

// Ask has the second reader begin with a document before our own is asked. What there is to ask is taken from the report of its rehearsal, which had the
// same signatures in the same places and nothing behind them; of a document that has, another question will be asked. The document must have a method File,
// and stay as it is; more may be put behind it.
func (c *Checker) Ask(ctx context.Context, doc pades.Document, rehearsal *Report) *Asked {
	q, why := questionOf(rehearsal)
	f, ok := doc.(interface{ File() *os.File })
	if why != "" || !ok || q.size != doc.Size() {
		return nil
	}
	a := &Asked{question: q, answered: make(chan struct{})}
	go func() {
		defer close(a.answered)
		a.opinion, a.err = c.ask(ctx, &handed{file: f.File()}, q)
	}()
	return a
}

// CheckAsked is Check for a document that the second reader may have been asked about. The answer counts if our own reader finds the same question in the
// document; otherwise it is asked again.
func (c *Checker) CheckAsked(ctx context.Context, doc pades.Document, o Options, a *Asked) (report *Report, err error) {
	h, err := handOver(doc)
	if err != nil {
		return nil, err
	}
	defer func() { err = h.done(err) }()
	if report, err = c.read(ctx, h, o); err != nil {
		return nil, err
	}
	report.SecondOpinion, err = c.opinionOn(ctx, h, report, a)
	return report, err
}

// opinionOn returns an error only when ctx itself has ended.
func (c *Checker) opinionOn(ctx context.Context, h *handed, r *Report, a *Asked) (o *Opinion, err error) {
	q, why := questionOf(r)
	if why != "" {
		return opinion(OpinionNotApplicable, why), nil
	}
	if a != nil && a.question == q {
		<-a.answered // it has a deadline
		o, err = a.opinion, a.err
	} else {
		o, err = c.ask(ctx, h, q)
	}
	if err == nil && q.size < r.Size && o.Detail == "" {
		o.Detail = fmt.Sprintf("of the first %d bytes, up to the newest signature: document time-stamps are beyond it", q.size)
	}
	return o, err
}

// Verify is the function Verify in a child, without the second opinion.
func (c *Checker) Verify(ctx context.Context, doc pades.Document, o Options) (report *Report, err error) {
	h, err := handOver(doc)
	if err != nil {
		return nil, err
	}
	defer func() { err = h.done(err) }()
	return c.read(ctx, h, o)
}

func (c *Checker) read(ctx context.Context, h *handed, o Options) (*Report, error) {
	o = o.withDefaults()
	report := new(Report)
	request := checkRequest{target: h.first(h.size), Roots: rawAll(o.Roots), TSARoots: rawAll(o.TSARoots), Intermediates: rawAll(o.Intermediates), Now: o.Now, Revocation: o.RequireRevocation, Known: o.Known}
	if err := call(ctx, c.reader, c.options.Timeout+time.Duration(h.size)*perByte, opCheck, request, h.file, report); err != nil {
		return nil, fmt.Errorf("check the document: %w", err)
	}
	return report, nil
}

// ask returns an error only when ctx itself has ended.
func (c *Checker) ask(ctx context.Context, h *handed, q question) (*Opinion, error) {
	var o Opinion
	err := call(ctx, c.opinion, c.options.OpinionTimeout, opOpinion, opinionRequest{h.first(q.size), q.signatures}, h.file, &o)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("ask the second reader: %w", ctx.Err())
	}
	if err != nil {
		return opinionFailure(err), nil
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
