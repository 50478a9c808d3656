package hubspot

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/hostile"
)

func TestWhatHubSpotPostsNamesDeals(t *testing.T) {
	ref := func(id string) deal.Ref { return deal.Ref{Object: Object, ID: id} }
	wakes := func(id, key string) deal.PushedEvent { return deal.PushedEvent{Ref: ref(id), Key: key, Wakes: true} }
	action := func(body []byte) (Push, error) { return ReadAction(body, "33") }
	call := func(callback string, portal int, id, kind, input string) string {
		return fmt.Sprintf(`{"callbackId":%q,"origin":{"portalId":%d,"actionDefinitionId":10646377,"actionDefinitionVersion":1},"context":{"source":"WORKFLOWS","workflowId":192814114},"object":{"objectId":%s,"objectType":%q,"properties":{"dealname":"x"}},"inputFields":%s}`, callback, portal, id, kind, input)
	}
	webhook := func(body []byte) (Push, error) { return ReadWebhook(body, "33") }
	for name, c := range map[string]struct {
		read func([]byte) (Push, error)
		body string
		want []deal.PushedEvent // nil: refused
	}{
		"the older form":   {webhook, `[{"eventId":3816279480,"subscriptionId":22,"portalId":33,"appId":1,"occurredAt":1790000000000,"subscriptionType":"deal.propertyChange","attemptNumber":0,"objectId":901234567,"propertyName":"dealstage","propertyValue":"contractsent"}]`, []deal.PushedEvent{wakes("901234567", "33 deal.propertyChange 901234567 dealstage 1790000000000 3816279480")}},
		"the newer form":   {webhook, `[{"eventId":100,"portalId":33,"occurredAt":1790000002000,"subscriptionType":"object.propertyChange","attemptNumber":1,"objectId":42,"objectTypeId":"0-3","propertyName":"dealstage","propertyValue":"REDACTED","isSensitive":true}]`, []deal.PushedEvent{wakes("42", "33 object.propertyChange 42 dealstage 1790000002000 100")}},
		"its other name":   {webhook, `[{"eventType":"deal.creation","portalId":"33","objectId":"42","occurredAt":1,"eventId":2}]`, []deal.PushedEvent{wakes("42", "33 deal.creation 42  1 2")}},
		"a merge":          {webhook, `[{"subscriptionType":"deal.merge","portalId":33,"objectId":1,"newObjectId":9}]`, []deal.PushedEvent{wakes("9", "")}},
		"a quote":          {webhook, `[{"subscriptionType":"object.propertyChange","portalId":33,"objectId":42,"objectTypeId":"0-14","propertyName":"hs_status","occurredAt":1,"eventId":2}]`, []deal.PushedEvent{{Ref: deal.Ref{Object: Quotes, ID: "42"}, Key: "33 object.propertyChange 42 hs_status 1 2 0-14", Wakes: true}}},
		"a quote's stage":  {webhook, `[{"subscriptionType":"object.propertyChange","portalId":33,"objectId":42,"objectTypeId":"0-14","propertyName":"dealstage"}]`, []deal.PushedEvent{{Ref: deal.Ref{Object: Quotes, ID: "42"}}}},
		"another property": {webhook, `[{"subscriptionType":"deal.propertyChange","portalId":33,"objectId":42,"propertyName":"amount"}]`, []deal.PushedEvent{{Ref: ref("42")}}},
		"another account":  {webhook, `[{"subscriptionType":"deal.propertyChange","portalId":34,"objectId":42,"propertyName":"dealstage"}]`, []deal.PushedEvent{{Ref: ref("42")}}},
		"another object":   {webhook, `[{"subscriptionType":"contact.privacyDeletion","portalId":33,"objectId":42},{"subscriptionType":"object.propertyChange","objectTypeId":"0-1","objectId":42,"propertyName":"dealstage"}]`, []deal.PushedEvent{{}, {}}},
		"nonsense inside":  {webhook, `[7,{"objectId":-1},{"subscriptionType":"deal.creation","portalId":33,"objectId":42}]`, []deal.PushedEvent{{}, {}, wakes("42", "")}},
		"nothing":          {webhook, `[]`, []deal.PushedEvent{}},
		"no list":          {webhook, `{"objectId":42}`, nil},
		"a workflow":       {ReadWorkflow, `{"hs_object_id":"42","amount":"7"}`, []deal.PushedEvent{wakes("42", "")}},
		"all of a deal":    {ReadWorkflow, `{"objectId":42,"properties":{"dealname":{"value":"x"}}}`, []deal.PushedEvent{wakes("42", "")}},
		"nested":           {ReadWorkflow, `{"properties":{"hs_object_id":{"value":"42","timestamp":1}}}`, []deal.PushedEvent{wakes("42", "")}},
		"no deal":          {ReadWorkflow, `{"dealname":"x"}`, nil},
		"an action":        {action, call("ap-33-5-7-0", 33, "904", "DEAL", `{}`), []deal.PushedEvent{wakes("904", "ap-33-5-7-0")}},
		"of a rule":        {action, call("ap-33-5-7-0", 33, `"904"`, "DEAL", `{"rule":"memo","stage":"x"}`), []deal.PushedEvent{wakes("904", "ap-33-5-7-0")}},
		"of an account":    {action, call("ap-33-5-7-0", 34, "904", "DEAL", `{}`), nil},
		"of a quote":       {action, call("ap-33-5-7-0", 33, "904", "QUOTE", `{}`), nil},
		"of a contact":     {action, call("ap-33-5-7-0", 33, "904", "CONTACT", `{}`), nil},
		"of a path":        {action, call("../complete", 33, "904", "DEAL", `{}`), nil},
		"of a strange one": {action, call("ap-33-5-7-0", 33, "904", "DEAL", `{"rule":"a b"}`), nil},
		"without a name":   {action, `{"origin":{"portalId":33},"object":{"objectId":904,"objectType":"DEAL"}}`, nil},
	} {
		got, err := c.read([]byte(c.body))
		if (err != nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(append([]deal.PushedEvent{}, c.want...), append([]deal.PushedEvent{}, got.Events...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestTheBodiesOfHubSpotsSignatureVectorsAreRead(t *testing.T) {
	b, err := os.ReadFile("../../webhooks/testdata/hubspot.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct{ Body string }
	if err := json.Unmarshal(b, &vectors); err != nil || len(vectors) == 0 {
		t.Fatal(err)
	}
	p, err := ReadWebhook([]byte(vectors[0].Body), "33")
	if err != nil || len(p.Events) != 1 || !p.Events[0].Wakes {
		t.Errorf("%+v, %v", p, err)
	}
}

func FuzzPush(f *testing.F) {
	f.Add([]byte(`[{"subscriptionType":"deal.merge","portalId":33,"objectId":1,"newObjectId":9}]`))
	f.Add([]byte(`[{"subscriptionType":"object.propertyChange","portalId":33,"objectId":42,"objectTypeId":"0-14","propertyName":"hs_status"}]`))
	f.Add([]byte(`{"properties":{"hs_object_id":{"value":"7"}}}`))
	f.Add([]byte(`{"callbackId":"ap-33-1","origin":{"portalId":33},"object":{"objectId":904,"objectType":"DEAL"},"inputFields":{"rule":"memo"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		hostile.Budget(t)
		if len(body) > maxFuzz {
			return
		}
		for _, read := range []func() (Push, error){
			func() (Push, error) { return ReadWebhook(body, "33") }, func() (Push, error) { return ReadWorkflow(body) },
			func() (Push, error) { return ReadAction(body, "33") },
		} {
			p, err := read()
			if err != nil {
				continue
			}
			for _, c := range p.Callbacks {
				if !callbackForm.MatchString(c.ID) || len(c.Rule) > 63 || len(p.Events) != 1 || p.Events[0].Ref != c.Ref {
					t.Fatalf("it waits as %+v", c)
				}
			}
			for _, e := range p.Events {
				if e.Wakes && (!slices.Contains(Objects(), e.Ref.Object) || e.Ref.ID == "" || len(e.Ref.ID) > 30) {
					t.Fatalf("it wakes for %v", e.Ref)
				}
			}
		}
	})
}
