package hubspot

import (
	"context"
	"sync"
)

// turns lets one call at a time do something to the thing that a key names.
type turns struct {
	mu   sync.Mutex
	keys map[string]*turn
}

type turn struct {
	held    chan struct{} // holds a value while someone has the turn
	holders int           // those who have it or wait for it
}

func newTurns() *turns { return &turns{keys: map[string]*turn{}} }

// take waits for the turn. release must be called.
func (t *turns) take(ctx context.Context, key string) (release func(), err error) {
	t.mu.Lock()
	k := t.keys[key]
	if k == nil {
		k = &turn{held: make(chan struct{}, 1)}
		t.keys[key] = k
	}
	k.holders++
	t.mu.Unlock()
	select {
	case k.held <- struct{}{}:
		return func() { <-k.held; t.leave(key, k) }, nil
	case <-ctx.Done():
		t.leave(key, k)
		return nil, ctx.Err()
	}
}

func (t *turns) leave(key string, k *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.holders--; k.holders == 0 {
		delete(t.keys, key)
	}
}
