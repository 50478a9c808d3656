package engine

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/documents"
)

// marker notes the marks that it is told to put on documents.
type marker struct {
	renderer
	mu    sync.Mutex
	marks []string
	plain int
}

func (m *marker) Render(ctx context.Context, b *documents.Bundle, record []byte) (documents.Output, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plain++
	return m.renderer.Render(ctx, b, record)
}

func (m *marker) RenderMarked(ctx context.Context, b *documents.Bundle, record []byte, mark string) (documents.Output, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marks = append(m.marks, mark)
	return m.renderer.Render(ctx, b, record)
}

func TestWhatIsMadeInASandboxIsMarkedOrNotMade(t *testing.T) {
	t.Parallel()
	marked := func(p *deal.Plan) {
		withTemplate(t)(p)
		p.Mark = "TEST"
	}
	w := newWorld(t)
	d := w.daemon(marked)
	m := &marker{}
	d.Documents = m
	w.won()
	d.wantDone(d.run())
	if !slices.Equal(m.marks, []string{"TEST", "TEST"}) || m.plain != 0 { // the contract and its audit trail
		t.Errorf("the marks are %q, %d documents have none", m.marks, m.plain)
	}
	other := newWorld(t)
	d = other.daemon(marked) // whose renderer knows no marks
	other.won()
	if s := d.run(); s.Condition != deal.Dead || other.key.uses() != 0 {
		t.Errorf("without a mark it is %s, %s", s.Step, s.Condition)
	}
}
