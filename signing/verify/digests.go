package verify

import (
	"crypto"
	"encoding"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"slices"
)

// hash makes the digest of the file and those that the signatures are over. What signatures cover begins at the first byte, so that one pass over the
// file gives all digests of a kind: where a signature leaves its value out the state is copied, and only the copy goes on to the end of what it covers.
func (v *verifier) hash() error {
	byHash := map[crypto.Hash][]*check{crypto.SHA256: nil}
	for _, c := range v.checks {
		if c.hash != 0 {
			byHash[c.hash] = append(byHash[c.hash], c)
		}
	}
	for h, checks := range byHash {
		slices.SortFunc(checks, func(a, b *check) int { return int(a.covers.hole - b.covers.hole) })
		end := v.doc.Size()
		if h != crypto.SHA256 {
			end = checks[len(checks)-1].covers.hole
		}
		sum, err := v.hashWith(h, checks, end)
		if err != nil {
			return err
		}
		if h == crypto.SHA256 {
			v.report.SHA256 = hex.EncodeToString(sum)
		}
	}
	return nil
}

// hashWith makes one pass from the first byte to end.
func (v *verifier) hashWith(h crypto.Hash, checks []*check, end int64) ([]byte, error) {
	state, at, err := v.begin(h, checks, end)
	if err != nil {
		return nil, err
	}
	for _, c := range checks {
		if err := v.hashPart(state, at, c.covers.hole); err != nil {
			return nil, err
		}
		at = c.covers.hole
		cloner, ok := state.(hash.Cloner)
		if !ok {
			return nil, fmt.Errorf("verify: the state of %v cannot be copied", h)
		}
		branch, err := cloner.Clone()
		if err != nil {
			return nil, fmt.Errorf("verify: copy the state of %v: %w", h, err)
		}
		if err := v.hashPart(branch, c.covers.resume, c.covers.end); err != nil {
			return nil, err
		}
		c.digest = branch.Sum(nil)
	}
	if err := v.hashPart(state, at, end); err != nil {
		return nil, err
	}
	return state.Sum(nil), nil
}

// begin returns the hash as it is where the pass has to begin: behind what is known, unless a signature leaves something out of that.
func (v *verifier) begin(h crypto.Hash, checks []*check, end int64) (state hash.Hash, at int64, err error) {
	state = h.New()
	known := v.options.Known
	if known == nil || h != crypto.SHA256 || known.Size > end || len(checks) > 0 && checks[0].covers.hole < known.Size {
		return state, 0, nil
	}
	if err := state.(encoding.BinaryUnmarshaler).UnmarshalBinary(known.SHA256); err != nil {
		return nil, 0, fmt.Errorf("verify: the state of SHA-256 that is known: %w", err)
	}
	return state, known.Size, nil
}

func (v *verifier) hashPart(w io.Writer, from, to int64) error {
	return copyTo(v.ctx, w, io.NewSectionReader(v.doc, from, to-from))
}
