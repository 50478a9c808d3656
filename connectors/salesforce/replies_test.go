package salesforce

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/connectors/connectortest"
	"github.com/dealseal/dealseal/mocks/hostile"
)

func FuzzReplies(f *testing.F) {
	w := newWorld(f, "")
	over := func(transport http.RoundTripper) connectors.CRM {
		c, err := New(w.config(), Deps{HTTP: transport, Now: w.Now})
		if err != nil {
			panic(err)
		}
		return c
	}
	recorded := connectortest.RecordReplies(f, w, over)
	f.Add(bytes.Clone(recorded))
	for _, mutant := range hostile.Mutants(1, recorded, 300) {
		f.Add(mutant)
	}
	f.Fuzz(func(t *testing.T, replies []byte) {
		hostile.Budget(t)
		connectortest.Replay(t, w, replies, bytes.Equal(replies, recorded), over)
	})
}
