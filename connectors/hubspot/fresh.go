package hubspot

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// belongingLife is how long a company, contact or line item that was read is good for, if nothing says that it was changed
// since: the deal itself is always read again, and shows in its stamp what HubSpot has counted as a change of it. Each type
// of what belongs to a deal costs a call, and between the last look and the use of a key there may be more time than this.
const belongingLife = time.Second

// fresh is what was read a moment ago, so that it need not be read again. It is safe for concurrent use, and forgets in
// doubt.
type fresh struct {
	mu sync.Mutex
	// properties and types are what records are read with, of all rules.
	properties, types []string
	ahead             map[string]readAhead
	// begun are the deals whose record was asked for after since, which is HubSpot's time.
	begun      map[string]bool
	since      time.Time
	coming     map[string]coming
	found      int // of coming, ever
	belongings map[belongingKey]belonging
}

const (
	// aheadLife leaves, of the time for which a look is good, enough for what comes between the reading and the first write.
	aheadLife = lookLife * 3 / 4
	// underWay is how long after it was read a deal is taken to be on its way to its seal.
	underWay = 20 * time.Second
)

// belongingKey names a deal, and a type with the properties that are read.
type belongingKey struct{ deal, group string }

func belongingGroup(objectType string, properties []string) string {
	return objectType + " " + strings.Join(properties, ",")
}

// readAhead is a deal, and what was asked of it.
type readAhead struct {
	dealData
	properties, types []string
}

// belonging is what of a type belongs to a deal.
type belonging struct {
	ids      []string
	objects  []object
	modified string    // of the deal
	date     time.Time // HubSpot's
	at       time.Time // ours; zero for what was listed and not read yet
	asked    int       // how often the deal itself has asked for it
	used     time.Time // when it did so last, or when it was listed
}

const (
	maxFresh = 2_000
	maxBegun = 20_000
)

func newFresh() *fresh {
	return &fresh{ahead: map[string]readAhead{}, begun: map[string]bool{}, coming: map[string]coming{}, belongings: map[belongingKey]belonging{}}
}

// learn takes note of what a record was read with, and when.
func (f *fresh) learn(properties, types []string, date time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since.IsZero() && !date.IsZero() || len(f.begun) > maxBegun {
		f.begin(date)
	}
	all := sortedSet(slices.Concat(f.properties, properties))
	if len(strings.Join(all, ",")) > maxQuery {
		return // its deals are read once more
	}
	f.properties, f.types = all, sortedSet(slices.Concat(f.types, types))
}

// begin forgets which records were asked for until now.
func (f *fresh) begin(date time.Time) {
	clear(f.begun)
	clear(f.ahead)
	clear(f.coming)
	if f.since = date; !date.IsZero() {
		f.since = date.Add(time.Second) // which it was cut to
	}
}

// learned is empty before the first record was read.
func (f *fresh) learned() (properties, types []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.properties, f.types
}

// keep remembers a deal for whoever is about to read it for the first time since it has entered its stage. Any other reading
// may be the last look before a seal, or one for what has changed, and is a reading: so nothing is kept of a deal whose record
// may have been asked for already, be it by the process before this one.
func (f *fresh) keep(d readAhead, entered time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since.IsZero() || !entered.After(f.since) || f.begun[d.ID] {
		return
	}
	maps.DeleteFunc(f.ahead, func(_ string, d readAhead) bool { return time.Since(d.at) > aheadLife })
	if len(f.ahead) < maxFresh {
		f.ahead[d.ID] = d
	}
}

// take returns a deal that was read a moment ago, once: whoever asks again wants to know whether it has changed. first says
// that nobody has asked for it since it was found to have entered its stage.
func (f *fresh) take(id string, properties, types []string) (d dealData, first, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.ahead[id]
	delete(f.ahead, id)
	_, first = f.coming[id]
	delete(f.coming, id)
	f.begun[id] = true
	ok = ok && time.Since(a.at) <= aheadLife && isSubset(properties, a.properties) && isSubset(types, a.types)
	return a.dealData, first, ok
}

// forget is for a deal that is about to be written to.
func (f *fresh) forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.ahead, id)
}

// belongingTo reads what of a type belongs to a deal, unless that was done a moment ago and nothing has changed that shows:
// neither which ones they are nor the deal's stamp, but for what we wrote to it ourselves.
func (c *Connector) belongingTo(ctx context.Context, d dealData, objectType string, ids, properties []string) ([]object, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	key := belongingKey{d.ID, belongingGroup(objectType, properties)}
	if objects, ok := c.fresh.use(key, d, ids, c.seen.ours(d.ID, d.modified())); ok {
		return objects, nil
	}
	b := belonging{ids: ids, modified: d.modified(), date: d.date, at: time.Now()}
	var err error
	if b.objects, err = c.readObjects(ctx, objectType, ids, properties); err != nil {
		return nil, err
	}
	c.fresh.hold(key, b)
	return slices.Clone(b.objects), nil
}

// use returns what was read a moment ago, or for the first reading of a deal while that waited.
func (f *fresh) use(key belongingKey, d dealData, ids []string, ours bool) ([]object, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.belongings[key]
	if !ok {
		return nil, false
	}
	b.asked++
	b.used = time.Now()
	f.belongings[key] = b
	life := belongingLife
	if d.first {
		life = comingLife
	}
	ok = !b.at.IsZero() && time.Since(b.at) < life && d.date.Sub(b.date) <= life && slices.Equal(b.ids, ids) && (b.modified == d.modified() || ours)
	return slices.Clone(b.objects), ok
}

func (f *fresh) hold(key belongingKey, b belonging) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.belongings, func(_ belongingKey, b belonging) bool {
		return time.Since(b.used) >= underWay && (b.asked > 0 || time.Since(b.used) >= comingAtMost)
	})
	b.asked, b.used = max(f.belongings[key].asked, 1), time.Now()
	if len(f.belongings) < maxFresh {
		f.belongings[key] = b
	}
}

// alongside returns, for a call that has room for so many, what belongs to other deals and is soon to be asked for: to those
// that are looked at once more before their seal, the first of them first, and in turn with them to those that come.
func (f *fresh) alongside(group string, room int) map[belongingKey][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var underway, next []belongingKey
	for key, b := range f.belongings {
		_, comes := f.coming[key.deal]
		switch {
		case key.group != group:
		case comes && b.asked == 0 && time.Since(b.at) >= comingLife/2:
			next = append(next, key)
		case b.asked == 1 && time.Since(b.used) < underWay && time.Since(b.at) >= belongingLife/3:
			underway = append(underway, key)
		}
	}
	slices.SortFunc(underway, func(a, b belongingKey) int { return f.belongings[a].used.Compare(f.belongings[b].used) })
	slices.SortFunc(next, func(a, b belongingKey) int { return cmp.Compare(f.coming[a.deal].number, f.coming[b.deal].number) })
	along := map[belongingKey][]string{}
	for i := range max(len(underway), len(next)) {
		for _, keys := range [][]belongingKey{underway, next} {
			if i >= len(keys) {
				continue
			}
			if ids := f.belongings[keys[i]].ids; len(ids) <= room {
				along[keys[i]], room = ids, room-len(ids)
			}
		}
	}
	return along
}

// renew takes in what came along.
func (f *fresh) renew(along map[belongingKey][]string, found map[string]object, at, date time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, ids := range along {
		b, ok := f.belongings[key]
		if !ok || !slices.Equal(b.ids, ids) || b.at.After(at) {
			continue
		}
		b.objects, b.at, b.date = nil, at, date
		for _, id := range ids {
			if o, ok := found[id]; ok {
				b.objects = append(b.objects, o)
			}
		}
		f.belongings[key] = b
	}
}

// done is for a deal that is sealed: nothing of it is read again soon.
func (f *fresh) done(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.belongings, func(key belongingKey, _ belonging) bool { return key.deal == id })
}

// historyAhead reads the history of one deal, and in the same call what a record of it is read with: a deal that has
// entered a stage is about to be read. found is false where this cannot be done, and the history is to be read by itself.
func (c *Connector) historyAhead(ctx context.Context, id int64) (h *history, date time.Time, found bool, err error) {
	properties, types := c.fresh.learned()
	if len(types) == 0 {
		return nil, time.Time{}, false, nil
	}
	properties = sortedSet(slices.Concat(c.kind.always(), c.kind.histories(), properties))
	name := strconv.FormatInt(id, 10)
	d, body, err := c.askDealAnd(ctx, name, properties, types, c.kind.histories())
	switch {
	case errors.Is(err, deal.ErrGone) || err == nil && d.ID != name: // deleted, or merged into another that is listed itself
		return nil, d.date, true, nil
	case err == nil:
		h, err = c.kind.parseHistory(body)
	}
	switch {
	case err != nil && (mayBeOnes(err) || connectors.IsLogin(err)):
		return nil, time.Time{}, false, nil // such as a refused association: the history is to be judged all the same
	case err != nil:
		return nil, time.Time{}, false, err
	}
	c.fresh.keep(readAhead{d, properties, types}, h.entered())
	return h, d.date, true, nil
}

func isSubset(names, of []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(of, name) })
}
