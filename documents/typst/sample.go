package typst

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/worker"
)

// maxSample bounds the record of a sample that instances are warmed with, in bytes. It travels with every document, and a
// longer one has more of what no other document shares.
const maxSample = 4 << 10

// sample is what instances are warmed with. It is kept for as long as the process lives, and holds no files of its bundle,
// which may be megabytes, nor their texts.
type sample struct {
	name     string
	locale   string // of the bundle
	prepared *documents.Prepared
}

// suits reports whether s is more like most documents than another sample: it has no words that are too long for a line, and
// then, the longer it is the more it has of what a document may have.
func (s *sample) suits(other *sample) bool {
	breaks := func(s *sample) bool { return bytes.Contains(s.prepared.Print, []byte("\u200b")) }
	if breaks(s) != breaks(other) {
		return breaks(other)
	}
	return len(s.prepared.Record) > len(other.prepared.Record)
}

// files are what the sample has beside the bundle's own files, for documents of that manner.
func (s *sample) files(m manner) map[string][]byte {
	return map[string][]byte{recordFile: s.prepared.Print, fontsFile: []byte("[]"), mainFile: []byte(mainSource(s.locale, s.prepared, m))}
}

// sampleOf is the sample of the bundle that instances are warmed with; nil for none.
func (r *Renderer) sampleOf(b *documents.Bundle, c *conduct) *sample {
	c.choose.Do(func() {
		for _, name := range b.Samples() {
			if s := r.sample(b, name); s != nil && (c.sample == nil || s.suits(c.sample)) {
				c.sample = s
			}
		}
	})
	return c.sample
}

// sample returns nil for one that is too large, or needs further fonts: documents with those begin without an image.
func (r *Renderer) sample(b *documents.Bundle, name string) *sample {
	record, _ := b.File(name)
	if len(record) > maxSample {
		return nil
	}
	p, err := b.Prepare(record)
	if err != nil {
		return nil
	}
	used, err := r.fonts.need(p.Texts)
	if err != nil || len(used) > 0 {
		return nil
	}
	p.Texts = nil
	return &sample{name, b.Locale, p}
}

// trial says whether making images of a bundle, for documents of one manner, is known to be harmless.
type trial int

const (
	untried trial = iota
	trying        // one document is on the way that tries it
	sound
	unsound
)

// offer returns the sample that goes with a document, and whether that is the first time; nil for none. A sample that runs
// away takes a child with it, so that one document tries it, and those of a bundle in doubt do not.
func (m *conducts) offer(c *conduct, s *sample, as manner) (offered *sample, first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s == nil || !c.proven || c.failing {
		return nil, false
	}
	switch c.trials[as] {
	case sound:
		return s, false
	case untried:
		c.trials[as] = trying
		return s, true
	}
	return nil, false
}

// tried takes in how a document ended that a sample went with, the first time or later. Without an answer there is no telling
// what the child did last: when a child is lost later, the next document tries the sample again.
func (m *conducts) tried(c *conduct, as manner, first bool, answer worker.Frame, err error) trial {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case first:
		c.trials[as] = outcome(answer, err)
	case c.trials[as] == sound && costly(err) && !trapped(err):
		c.trials[as] = untried
	}
	return c.trials[as]
}

func outcome(answer worker.Frame, err error) trial {
	var remote *worker.RemoteError
	switch {
	case errors.As(err, &remote): // the document's, before the sample's turn
		return untried
	case err != nil:
		return unsound
	}
	var r reply
	if err := json.Unmarshal(answer.Header, &r); err != nil {
		return unsound
	}
	switch r.Sample {
	case sampleKept:
		return sound
	case sampleUnfit:
		return unsound
	}
	return untried
}
