package main

import (
	"fmt"
	"time"

	"github.com/dealseal/dealseal/deal"
)

const (
	flowDeals = 25 // per CRM, one after the other
	flowPoll  = 200 * time.Millisecond
	idleLimit = 2 * time.Minute // more than the readers live without a document
)

// flow takes one deal after the other the whole way, in both CRMs.
func (b *bench) flow() error {
	s, err := b.newStage(flowPoll, sceneTenant{"acme", "salesforce"}, sceneTenant{"contoso", "hubspot"})
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.wait(time.Minute, soon, "polling", func() (bool, error) { return s.polled() }); err != nil {
		return err
	}
	b.idle(s, "before the first deal")
	for _, t := range s.scene.Tenants {
		if err := b.sealOneByOne(s, t); err != nil {
			return err
		}
	}
	if err := s.wait(idleLimit, seldom, "without readers", func() (bool, error) { return !s.has("read-worker"), nil }); err != nil {
		return err
	}
	b.idle(s, "after the deals")
	if err := s.stop(true); err != nil {
		return err
	}
	for _, t := range s.scene.Tenants {
		all, err := s.sealed(t.ID)
		if err != nil {
			return err
		}
		b.legs(kindName(t.Kind), all)
	}
	return nil
}

func kindName(kind string) string {
	return map[string]string{"salesforce": "Salesforce", "hubspot": "HubSpot"}[kind]
}

func (b *bench) idle(s *stage, when string) {
	house, renderers, each := s.memory()
	b.figure("idle memory "+when, megabytes(house.pss), "MB", atMost(80), "PSS of daemon and children without renderers, since all are one binary and share its pages; RSS %s MB (%s), renderers %s MB",
		short(megabytes(house.rss)), each, short(megabytes(renderers.rss)))
}

// polled reports whether every tenant's CRM was polled.
func (s *stage) polled() (bool, error) {
	for _, t := range s.scene.Tenants {
		by, err := s.calls(t.ID)
		if by[pollCall] < 2 || err != nil {
			return false, err
		}
	}
	return true, nil
}

// sealOneByOne takes deals the whole way, one after the other; the ledger keeps the times.
func (b *bench) sealOneByOne(s *stage, t sceneTenant) error {
	if err := s.open(t.ID, ruleOrderForm, dealLines, flowDeals); err != nil {
		return err
	}
	for i := range flowDeals {
		if err := s.closeDeals(t.ID, 1); err != nil {
			return err
		}
		if err := s.waitDone(t.ID, i+1, time.Minute, soon); err != nil {
			return err
		}
	}
	return nil
}

// legs reports how long finished deals took from being seen to written fields, and in which steps. The first deal of a
// daemon starts its children and is told apart.
func (b *bench) legs(name string, all []*deal.Sealing) {
	if len(all) < 2 {
		return
	}
	whole := seenToWritten(all[1:])
	b.figure(name+", seen to fields written, p50", ms(whole.quantile(0.5)), "ms", nil, "%d order forms of 2 pages, B-T, SoftHSM P-256, audit trail attached", len(whole))
	b.figure(name+", seen to fields written, p95", ms(whole.quantile(0.95)), "ms", atMost(1000), "the first deal of the daemon took %s ms", short(ms(seenToWritten(all[:1])[0])))
	for i, step := range deal.Steps[1:] {
		took := leg(all[1:], deal.Steps[i], step)
		b.figure(fmt.Sprintf("%s, %s to %s, p50", name, deal.Steps[i], step), ms(took.quantile(0.5)), "ms", nil, "p95 %s ms", short(ms(took.quantile(0.95))))
	}
}

// leg is how long deals took from one step to another.
func leg(all []*deal.Sealing, from, to deal.Step) (took sample) {
	for _, sl := range all {
		took = append(took, sl.Facts.Times[to].Sub(sl.Facts.Times[from]))
	}
	return took
}

func seenToWritten(all []*deal.Sealing) (s sample) {
	for _, sl := range all {
		s = append(s, sl.Facts.Times[deal.Reported].Sub(sl.Noticed))
	}
	return s
}
