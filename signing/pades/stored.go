package pades

import (
	"bytes"
	"encoding/json"
)

// The place for the value is most of a tail, holds zeros, and is stored again with every commit of a deal. JSON has what
// stands before and after it instead.
type stored struct {
	fields
	Tail          []byte `json:",omitempty"` // as a whole, where the place is not as it was made
	Before, After []byte `json:",omitempty"`
}

// fields is Prepared without its methods.
type fields Prepared

// maxPlace bounds in bytes what a stored number is believed.
const maxPlace = 1 << 20

// emptyPlace is what stands where a value will be.
func emptyPlace(length int) []byte {
	place := bytes.Repeat([]byte{'0'}, length)
	place[0], place[length-1] = '<', '>'
	return place
}

// MarshalJSON is what UnmarshalJSON reads.
func (p Prepared) MarshalJSON() ([]byte, error) {
	s := stored{fields: fields(p), Tail: p.Tail}
	if p.checkPlace() == nil && p.ContentsLength <= maxPlace {
		end := p.ContentsOffset + p.ContentsLength
		if bytes.Equal(p.Tail[p.ContentsOffset:end], emptyPlace(p.ContentsLength)) {
			s.Tail, s.Before, s.After = nil, p.Tail[:p.ContentsOffset], p.Tail[end:]
		}
	}
	return json.Marshal(s)
}

// UnmarshalJSON reads what MarshalJSON wrote, and a tail that was stored as a whole.
func (p *Prepared) UnmarshalJSON(text []byte) error {
	var s stored
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	*p = Prepared(s.fields)
	p.Tail = s.Tail
	if p.Tail != nil {
		return nil
	}
	if p.ContentsOffset != len(s.Before) || p.ContentsLength < 2 || p.ContentsLength > maxPlace {
		return refuse("the staged signature has its place outside of its bytes")
	}
	p.Tail = append(append(s.Before, emptyPlace(p.ContentsLength)...), s.After...)
	return nil
}
