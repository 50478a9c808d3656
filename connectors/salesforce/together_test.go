package salesforce

import (
	"testing"

	"github.com/dealseal/dealseal/mocks/hostile"
)

// FuzzComposite is for the replies that several deals share: each call has its own answer, or there is none.
func FuzzComposite(f *testing.F) {
	f.Add([]byte(`{"compositeResponse":[{"body":{"id":"068Ws0000000012IAA","success":true},"httpStatusCode":201,"referenceId":"r0"},{"body":[{"errorCode":"UNABLE_TO_LOCK_ROW"}],"httpStatusCode":400,"referenceId":"r1"}]}`))
	f.Add([]byte(`{"compositeResponse":[{"body":null,"httpStatusCode":204,"referenceId":"r1"},{"httpStatusCode":0,"referenceId":"r0"}]}`))
	f.Add([]byte(`{"compositeResponse":[null,null]}`))
	c, err := New(newWorld(f, "").config(), Deps{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		hostile.Budget(t)
		if len(body) > 64<<10 {
			return
		}
		replies, err := parseComposite(body, 2)
		if err != nil {
			return
		}
		if len(replies) != 2 {
			t.Fatalf("%d answers to 2 calls", len(replies))
		}
		shown := c.readBack(replies[1])
		for id, file := range shown {
			if id == "" || file.ID != id {
				t.Errorf("file %q is kept as %q", file.ID, id)
			}
		}
		if a := storedPiece(replies[0], shown); a.Err == nil && a.Value.ID == "" {
			t.Error("a file that was stored has no ID")
		}
	})
}
