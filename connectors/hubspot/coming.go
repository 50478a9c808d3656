package hubspot

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
)

// coming is a deal that was found to have entered a stage, and whose record nobody has asked for since. When many wait, the
// first of them finds out what belongs to the others, so that this can be read where a call has room: most of the calls
// that a record takes are for what belongs to it.
type coming struct {
	number   int // in the order in which they were found
	since    time.Time
	modified string          // its stamp when it was found
	listed   map[string]bool // for which groups of what belongs to it that was asked for
}

const (
	// comingLife is how long what was read for a deal that waits is good for its first reading, under the conditions of
	// belongingLife. What changes in that time shows at the last look, and is gathered again.
	comingLife = 30 * time.Second
	// comingAtMost is how long a deal is expected: one that waits for a person, say.
	comingAtMost = 5 * time.Minute
	// comingFewest is how many have to wait for it to be worth a call for each type.
	comingFewest = 4
)

// expect is for a deal that was found to have entered a stage.
func (f *fresh) expect(h *history) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := strconv.FormatInt(h.id, 10)
	if f.since.IsZero() || !h.entered().After(f.since) || f.begun[id] {
		return
	}
	if len(f.coming) >= maxFresh {
		maps.DeleteFunc(f.coming, func(_ string, c coming) bool { return time.Since(c.since) >= comingAtMost })
	}
	if _, known := f.coming[id]; !known && len(f.coming) < maxFresh {
		f.found++
		f.coming[id] = coming{number: f.found, since: time.Now(), modified: h.modified, listed: map[string]bool{}}
	}
}

// comes reports whether deals wait for their first reading.
func (f *fresh) comes() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.coming {
		if time.Since(c.since) < comingAtMost {
			return true
		}
	}
	return false
}

// unlisted are the next deals of which it is not known what of a group belongs to them; none if they are too few. They are
// not returned again.
func (f *fresh) unlisted(group string) (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, c := range f.coming {
		if !c.listed[group] && time.Since(c.since) < comingAtMost {
			ids = append(ids, id)
		}
	}
	if len(ids) < comingFewest {
		return nil
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(f.coming[a].number, f.coming[b].number) })
	ids = ids[:min(len(ids), objectBatch)]
	for _, id := range ids {
		f.coming[id].listed[group] = true
	}
	return ids
}

// list takes in what of a type belongs to deals that wait. Those that somebody reads meanwhile read it themselves.
func (f *fresh) list(group string, ids map[string][]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, of := range ids {
		key := belongingKey{id, group}
		c, waits := f.coming[id]
		_, known := f.belongings[key]
		if waits && !known && len(of) > 0 && len(f.belongings) < maxFresh {
			f.belongings[key] = belonging{ids: of, modified: c.modified, used: time.Now()}
		}
	}
}

// lookAhead finds out what belongs to the deals that wait, as far as a record is read with it. It only saves calls: what
// fails is asked for by each deal, and told of there.
func (c *Connector) lookAhead(ctx context.Context, wanted selection) {
	var g sync.WaitGroup
	list := func(objectType string, properties []string, chosen func([]associated) []associated) {
		group := belongingGroup(objectType, properties)
		ids := c.fresh.unlisted(group)
		if len(ids) == 0 {
			return
		}
		g.Go(func() {
			ends, err := c.allAssociations(ctx, ids, objectType)
			if err != nil {
				return
			}
			of := map[string][]string{}
			for id, list := range ends {
				of[id] = idsOf(chosen(list))
			}
			c.fresh.list(group, of)
		})
	}
	for name, properties := range wanted.lists {
		list(name, askedOf(name, properties), func(all []associated) []associated { return all })
	}
	if len(wanted.company) > 0 {
		list("companies", wanted.company, func(all []associated) []associated {
			if len(all) == 0 {
				return nil
			}
			return []associated{chosenCompany(all)}
		})
	}
	if len(wanted.parent) > 0 {
		list(Object, wanted.parent, func(all []associated) []associated { return all[:min(len(all), 1)] })
	}
	g.Wait()
}
