package typst

import (
	"context"
	"time"
)

const (
	// maxSprings is how many kinds of documents a child keeps images of, each of which takes 3 to 6 MB.
	maxSprings     = 4
	maxSampleImage = 16 << 20
	// slowSample is how long a document may take for an image to be made after it, and its sample for the image to be kept.
	slowSample = 5 * time.Second
	// restDocuments is after how many documents of others an image makes room: one that is made again and again costs more
	// than it gains.
	restDocuments = 50
	// maxMet bounds what a child remembers of kinds without an image.
	maxMet = 200
	// tried stands for the number of documents of a kind whose image is not tried again: it counts to no two.
	tried = -1 << 30
)

// spring is where instances come from that all begin in the same way. The next one is made while the reply to the last
// document travels.
type spring struct {
	warmed *warmed
	next   chan prepared
	used   int // when it was used last, counted in documents
}

type prepared struct {
	instance *instance
	err      error
}

func newSpring(e *engine, w *warmed) *spring {
	s := &spring{warmed: w, next: make(chan prepared, 1)}
	go s.prepare(e)
	return s
}

// prepare outlives the call that started it: the instance is for the next one.
func (s *spring) prepare(e *engine) {
	x, err := e.freshInstance(context.Background(), s.warmed)
	s.next <- prepared{x, err}
}

func (s *spring) take(e *engine) (*instance, error) {
	ready := <-s.next
	go s.prepare(e)
	return ready.instance, ready.err
}

func (s *spring) close() {
	if ready := <-s.next; ready.err == nil {
		ready.instance.close()
	}
	s.warmed.image.close()
}

// springs are those of one child: one for all documents, and some for documents of one kind.
type springs struct {
	plain     *spring
	own       map[string]*spring // by kind of document
	met       map[string]int     // how many documents were made of kinds without their own
	documents int
}

// of returns where the next document of a kind begins.
func (s *springs) of(kind string) *spring {
	s.documents++
	if from := s.own[kind]; from != nil {
		from.used = s.documents
		return from
	}
	if len(s.met) >= maxMet {
		clear(s.met)
	}
	s.met[kind]++
	return s.plain
}

// worth reports whether an image for the kind should be made now: once, after its second document. A child that makes
// but one of them, as most do where little is signed, has no use for it.
func (s *springs) worth(kind string) bool {
	if s.own[kind] != nil || s.met[kind] < 2 {
		return false
	}
	if len(s.own) >= maxSprings && s.documents-s.own[s.oldest()].used < restDocuments {
		return false
	}
	s.met[kind] = tried
	return true
}

func (s *springs) oldest() (kind string) {
	for k, o := range s.own {
		if kind == "" || o.used < s.own[kind].used {
			kind = k
		}
	}
	return kind
}

func (s *springs) add(kind string, own *spring) {
	if len(s.own) >= maxSprings {
		old := s.oldest()
		s.own[old].close()
		delete(s.own, old)
	}
	delete(s.met, kind)
	own.used = s.documents
	s.own[kind] = own
}
