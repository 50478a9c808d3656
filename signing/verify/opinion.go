package verify

// Opinion is what a reader that others wrote says of the same document.
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
