package store

import (
	"reflect"
	"slices"
	"sync"

	"github.com/dealseal/dealseal/deal"
)

// privates remembers the private parts of the sealings that are being worked, as they were stored last, and no others. Most
// changes leave them alone, and what is in them at the end, such as the verification report, need not be put into words and
// encrypted anew for each: the same ciphertext says the same. The zero value is ready; it is safe for concurrent use.
type privates struct {
	mu    sync.Mutex
	known map[deal.TxID]storedPrivate
}

type storedPrivate struct {
	key   *dataKey
	plain deal.Private // a copy, see copyPrivate
	boxed []byte
}

// seal is sealPrivate for what may have been sealed before.
func (p *privates) seal(key *dataKey, sl *deal.Sealing) ([]byte, error) {
	p.mu.Lock()
	known := p.known[sl.Tx]
	p.mu.Unlock()
	if known.key == key && reflect.DeepEqual(known.plain, sl.Private) {
		return known.boxed, nil
	}
	boxed, err := sealPrivate(key, sl)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) >= maxRing {
		p.known = map[deal.TxID]storedPrivate{}
	}
	p.known[sl.Tx] = storedPrivate{key, copyPrivate(sl.Private), boxed}
	return boxed, nil
}

// copyPrivate copies what may be changed in place; bytes are replaced by others and never changed.
func copyPrivate(p deal.Private) deal.Private {
	if p.Second != nil {
		second := *p.Second
		p.Second = &second
	}
	p.Differences = slices.Clone(p.Differences)
	return p
}

// forget is for a sealing whose private part is of no use any more.
func (p *privates) forget(tx deal.TxID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, tx)
}
