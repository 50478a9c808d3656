package salesforce

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/hostile"
)

const (
	pushOrg  = "00D000000000001EAA"
	pushDeal = "006000000000001AAA"
)

func outbound(org string, notifications ...string) string {
	return `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>` +
		`<notifications xmlns="http://soap.sforce.com/2005/09/outbound"><OrganizationId>` + org + `</OrganizationId><ActionId>04k000000000001AAA</ActionId><SessionId xsi:nil="true"/>` +
		`<EnterpriseUrl>https://acme.my.salesforce.com/services/Soap/c/66.0</EnterpriseUrl>` + strings.Join(notifications, "") + `</notifications></soapenv:Body></soapenv:Envelope>`
}

func notificationOf(id, record string) string {
	return fmt.Sprintf(`<Notification><Id>%s</Id><sObject xsi:type="sf:Opportunity" xmlns:sf="urn:sobject.enterprise.soap.sforce.com"><sf:Id>%s</sf:Id><sf:StageName>Closed Won</sf:StageName></sObject></Notification>`, id, record)
}

func TestAnOutboundMessageNamesOpportunities(t *testing.T) {
	wakes := deal.PushedEvent{Key: "04l000000000001AAA", Ref: deal.Ref{Object: Object, ID: pushDeal}, Wakes: true}
	good := notificationOf("04l000000000001", "006000000000001") // the short forms
	for name, c := range map[string]struct {
		body, org string
		want      []deal.PushedEvent
		err       error
	}{
		"one":                  {outbound(pushOrg, good), pushOrg, []deal.PushedEvent{wakes}, nil},
		"two":                  {outbound(pushOrg, good, good), pushOrg, []deal.PushedEvent{wakes, wakes}, nil},
		"before we know ours":  {outbound(pushOrg, good), "", []deal.PushedEvent{wakes}, nil},
		"another object":       {outbound(pushOrg, notificationOf("04l000000000001AAA", "001000000000001AAA")), pushOrg, []deal.PushedEvent{{Key: wakes.Key}}, nil},
		"no ID":                {outbound(pushOrg, notificationOf("x", "y")), pushOrg, []deal.PushedEvent{{}}, nil},
		"another org":          {outbound("00D000000000002EAA", good), pushOrg, nil, ErrOtherOrg},
		"no org":               {outbound("", good), pushOrg, nil, ErrOtherOrg},
		"none":                 {outbound(pushOrg), pushOrg, nil, errPush},
		"too many":             {outbound(pushOrg, strings.Repeat(good, mostNotifications+1)), pushOrg, nil, errPush},
		"a document type":      {`<!DOCTYPE x [<!ENTITY e "e">]>` + outbound(pushOrg, good), pushOrg, nil, errPush},
		"cut":                  {outbound(pushOrg, good)[:600], pushOrg, nil, errPush},
		"of another namespace": {strings.ReplaceAll(outbound(pushOrg, good), "2005/09", "2005/10"), pushOrg, nil, errPush},
	} {
		got, err := ReadOutbound([]byte(c.body), c.org)
		if !errors.Is(err, c.err) || !cmp.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v, %v", name, got, err, c.want, c.err)
		}
	}
}

func TestACalloutNamesRecordsThatCanBeWatched(t *testing.T) {
	wakes := deal.PushedEvent{Ref: deal.Ref{Object: Object, ID: pushDeal}, Wakes: true}
	for body, want := range map[string][]deal.PushedEvent{
		`{"recordId":"006000000000001"}`:                               {wakes},
		`{"opportunityId":"006000000000001AAA","data":{"Amount":7}}`:   {wakes},
		`[{"Id":"006000000000001AAA"},{"recordId":"001000000000001"}]`: {wakes, {}},
		`[{"Id":"801000000000001AAA"},{"Id":"0Q0000000000001CAA"}]`: {
			{Ref: deal.Ref{Object: "Order", ID: "801000000000001AAA"}, Wakes: true}, {Ref: deal.Ref{Object: "Quote", ID: "0Q0000000000001CAA"}, Wakes: true}},
		`{"recordId":"'; DROP"}`: {{}},
		`{"amount":7}`:           nil, `[]`: nil, `7`: nil, ``: nil,
	} {
		got, err := ReadCallout([]byte(body))
		if (err != nil) != (want == nil) || !cmp.Equal(got, want) {
			t.Errorf("%s: %v, %v", body, got, err)
		}
	}
}

func FuzzPush(f *testing.F) {
	f.Add([]byte(outbound(pushOrg, notificationOf("04l000000000001AAA", pushDeal))))
	f.Add([]byte(`[{"Id":"006000000000001AAA"}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		hostile.Budget(t)
		if len(body) > 64<<10 {
			return
		}
		check := func(events []deal.PushedEvent, _ error) {
			for _, e := range events {
				if id, err := CanonicalID(e.Ref.ID); e.Wakes && (err != nil || id != e.Ref.ID || e.Ref.Object != Object) {
					t.Fatalf("it wakes for %v", e.Ref)
				}
			}
		}
		check(ReadOutbound(body, pushOrg))
		check(ReadCallout(body))
	})
}
