package verify

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	pdfsign "github.com/digitorus/pdfsign/verify"

	"github.com/dealseal/dealseal/signing/pades"
	"github.com/dealseal/dealseal/signing/verify/cms"
	"github.com/dealseal/dealseal/worker"
)

// Opinion is what a reader that others wrote says of the same document. It speaks of the mathematics of the signatures only: whom to trust and what came
// after them is beyond it.
type Opinion struct {
	Reader  string         `json:"reader"`
	Verdict OpinionVerdict `json:"verdict"`
	Detail  string         `json:"detail,omitempty"`
}

// OpinionVerdict is one of five words. Only an explicit OpinionInvalid speaks against a document.
type OpinionVerdict string

const (
	OpinionValid         OpinionVerdict = "valid"
	OpinionInvalid       OpinionVerdict = "invalid"
	OpinionNotApplicable OpinionVerdict = "not applicable" // the reader cannot judge such a document
	OpinionCrashed       OpinionVerdict = "crashed"
	OpinionTimedOut      OpinionVerdict = "timed out"
)

const secondReader = "digitorus/pdfsign"

// maxSecondRead is the size in bytes of what the second reader is asked about at most.
const maxSecondRead = 50e6

// maxDetail bounds what is kept of the other reader's words.
const maxDetail = 200

func opinion(v OpinionVerdict, detail string) *Opinion {
	printable := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(detail, ""))
	if runes := []rune(printable); len(runes) > maxDetail {
		printable = string(runes[:maxDetail]) + "…"
	}
	return &Opinion{Reader: secondReader, Verdict: v, Detail: printable}
}

// question is what the second reader is asked about: the document up to its newest signature. It takes everything that it does
// not know for invalid, document time-stamps among them, so that what stands behind the signatures is cut off.
type question struct {
	size       int64 // of the beginning of the document
	signatures int   // that are to be found in it
}

// questionOf returns why there is nothing to be asked, or why not.
func questionOf(r *Report) (q question, why string) {
	last := 0 // revision
	for _, s := range r.Signatures {
		if s.Kind == KindSignature {
			last = max(last, s.Revision)
			q.signatures++
		}
	}
	if q.signatures == 0 {
		return q, "the document has no signature"
	}
	q.size = r.Size
	for _, s := range r.Signatures {
		switch {
		case s.Kind == KindDocumentTimestamp && s.Revision <= last:
			return q, "the document has a document time-stamp before a signature"
		case s.Kind == KindDocumentTimestamp && last <= len(r.History) && last > 0:
			q.size = r.History[last-1].End
		case s.Kind == KindDocumentTimestamp:
			return q, "the document has a document time-stamp"
		case s.Algorithm == cms.AlgorithmPSS:
			return q, "the document has an RSA-PSS signature"
		}
	}
	if q.size > maxSecondRead {
		return q, fmt.Sprintf("it would have to read more than %d MB, and it holds all of it in memory", int(maxSecondRead/1e6))
	}
	return q, ""
}

// secondOpinion runs the second reader in this process, which it may take down or never return to. Signatures is how many there are to be found.
func secondOpinion(doc pades.Document, signatures int) *Opinion {
	options := pdfsign.DefaultVerifyOptions()
	options.AllowUntrustedRoots = true // trust is decided by the first reader
	resp, err := pdfsign.VerifyWithOptions(doc, doc.Size(), options)
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "failed to verify file ("): // its own recovered panic
		return opinion(OpinionCrashed, err.Error())
	case err != nil:
		return opinion(OpinionNotApplicable, "it cannot read the document: "+err.Error())
	case len(resp.Signers) < signatures:
		return opinion(OpinionNotApplicable, fmt.Sprintf("it reads %d of %d signatures", len(resp.Signers), signatures))
	}
	for _, s := range resp.Signers {
		if !s.ValidSignature {
			return opinion(OpinionInvalid, resp.Error)
		}
	}
	return opinion(OpinionValid, "")
}

// opinionFailure is what remains to be said when the child did not answer.
func opinionFailure(err error) *Opinion {
	var late *worker.DeadlineError
	var remote *worker.RemoteError
	switch {
	case errors.As(err, &late):
		return opinion(OpinionTimedOut, "")
	case errors.As(err, &remote):
		return opinion(OpinionNotApplicable, remote.Message)
	}
	return opinion(OpinionCrashed, err.Error())
}
