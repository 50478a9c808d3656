package signin

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"sync"
	"time"
)

// TicketLasts is how long a person may take at the provider.
const TicketLasts = 10 * time.Minute

// mostSpent is how many used tickets are remembered. Whoever wants one to be forgotten has to begin so many anew within
// TicketLasts, and then finds the provider remembering its code.
const mostSpent = 4096

// maxTicket is the longest ticket, in bytes: a cookie holds no more.
const maxTicket = 4096

// journey is what a browser takes along to the provider and back.
type journey struct {
	State, Nonce, Verifier, To string
	Until                      time.Time
}

// tickets seals journeys with a key of this process, so that those who only begin take no room here.
type tickets struct {
	now  func() time.Time
	seal func(journey) (string, error)
	open func(string) (journey, bool)

	mu    *sync.Mutex
	spent map[string]time.Time // states, until when their tickets would be good
}

func newTickets(now func() time.Time) tickets {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has a length that AES knows
	}
	box, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // AES has blocks of the right size
	}
	t := tickets{now: now, mu: &sync.Mutex{}, spent: map[string]time.Time{}}
	t.seal = func(j journey) (string, error) {
		j.Until = now().Add(TicketLasts)
		b, err := json.Marshal(j)
		return base64.RawURLEncoding.EncodeToString(box.Seal(nil, nil, b, nil)), err
	}
	t.open = func(text string) (j journey, ok bool) {
		b, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || len(text) > maxTicket {
			return j, false
		}
		if b, err = box.Open(nil, nil, b, nil); err != nil || json.Unmarshal(b, &j) != nil {
			return journey{}, false
		}
		return j, now().Before(j.Until)
	}
	return t
}

// spend reports whether a journey comes to its end for the first time.
func (t *tickets) spend(j journey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, oldest := t.now(), ""
	for state, until := range t.spent {
		if !now.Before(until) {
			delete(t.spent, state)
		} else if oldest == "" || until.Before(t.spent[oldest]) {
			oldest = state
		}
	}
	if _, used := t.spent[j.State]; used {
		return false
	}
	if len(t.spent) >= mostSpent {
		delete(t.spent, oldest)
	}
	t.spent[j.State] = j.Until
	return true
}
