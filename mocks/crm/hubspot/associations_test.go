package hubspot_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
)

func number(t *testing.T, id string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(id, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAssociationsShowLabelsInBothDialects(t *testing.T) {
	p := start(t, nil)
	deal := p.deal(nil)
	signer, err := p.AddContact(deal, map[string]string{"email": "s@example.com"}, "Signer")
	p.ok(err)
	plain, err := p.AddContact(deal, map[string]string{"email": "p@example.com"}, "")
	p.ok(err)
	defined := map[string]any{"category": "HUBSPOT_DEFINED", "typeId": 3., "label": nil}
	want := []any{
		map[string]any{"toObjectId": number(t, signer), "associationTypes": []any{
			defined, map[string]any{"category": "USER_DEFINED", "typeId": 37., "label": "Signer"},
		}},
		map[string]any{"toObjectId": number(t, plain), "associationTypes": []any{defined}},
	}
	for _, path := range []string{
		"/crm/objects/2026-03/deals/" + deal + "/associations/contacts?limit=500", "/crm/v4/objects/deal/" + deal + "/associations/contact",
	} {
		if diff := cmp.Diff(any(want), p.must(200, "GET", path, "").path("results")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	page := p.must(200, "GET", "/crm/v4/objects/deals/"+deal+"/associations/contacts?limit=1", "")
	if page.text("paging", "next", "after") != signer {
		t.Errorf("%s", page.raw)
	}
	rest := p.must(200, "GET", "/crm/v4/objects/deals/"+deal+"/associations/contacts?limit=1&after="+signer, "")
	if rest.path("results", 0, "toObjectId") != number(t, plain) || rest.path("paging") != nil {
		t.Errorf("%s", rest.raw)
	}
	labels := p.must(200, "GET", "/crm/v4/associations/deals/contacts/labels", "")
	if labels.text("results", 1, "label") != "Signer" {
		t.Errorf("%s", labels.raw)
	}
	batch := p.must(207, "POST", "/crm/associations/2026-03/deals/contacts/batch/read", fmt.Sprintf(`{"inputs":[{"id":%q},{"id":"99"}]}`, deal))
	if diff := cmp.Diff(any(want), batch.path("results", 0, "to")); diff != "" || batch.text("errors", 0, "subCategory") != "crm.associations.NO_ASSOCIATIONS_FOUND" {
		t.Errorf("%s\n%s", diff, batch.raw)
	}
}

func TestAssociationsAreWrittenAndRemovedFromBothEnds(t *testing.T) {
	p := start(t, nil)
	deal := p.deal(nil)
	contact, err := p.Create("contacts", map[string]string{"email": "c@example.com"})
	p.ok(err)
	from := func() int {
		return len(p.must(200, "GET", "/crm/v4/objects/contacts/"+contact+"/associations/deals", "").list("results"))
	}
	put := p.must(200, "PUT", "/crm/objects/2026-03/deals/"+deal+"/associations/default/contacts/"+contact, "")
	if put.path("results", 0, "associationSpec", "associationTypeId") != 3. || from() != 1 {
		t.Errorf("default: %s", put.raw)
	}
	p.must(204, "DELETE", "/crm/v4/objects/deals/"+deal+"/associations/contacts/"+contact, "")
	if from() != 0 {
		t.Error("the other end is still there")
	}
	const spec = `{"associationCategory":"HUBSPOT_DEFINED","associationTypeId":%d}`
	p.must(400, "PUT", "/crm/v4/objects/deals/"+deal+"/associations/contacts/"+contact, fmt.Sprintf("["+spec+"]", 214))
	p.must(201, "PUT", "/crm/v4/objects/deals/"+deal+"/associations/contacts/"+contact, fmt.Sprintf("["+spec+"]", 3))
	p.must(204, "POST", "/crm/v4/associations/deals/contacts/batch/archive", fmt.Sprintf(`{"inputs":[{"from":{"id":%q},"to":[{"id":%q}]}]}`, deal, contact))
	if from() != 0 {
		t.Error("batch/archive left the association")
	}
	pair := fmt.Sprintf(`"from":{"id":%q},"to":{"id":%q}`, deal, contact)
	p.must(201, "POST", "/crm/v4/associations/deals/contacts/batch/create", `{"inputs":[{`+pair+`,"types":[`+fmt.Sprintf(spec, 3)+`]}]}`)
	p.must(200, "POST", "/crm/v4/associations/deals/contacts/batch/associate/default", `{"inputs":[{`+pair+`}]}`)
	if from() != 1 {
		t.Error("batch/create made no association")
	}
	p.must(404, "PUT", "/crm/v4/objects/deals/"+deal+"/associations/default/contacts/999", "")
}

func TestADealIsReadWithItsAssociations(t *testing.T) {
	p := start(t, nil)
	deal := p.deal(nil)
	company, err := p.AddCompany(deal, map[string]string{"name": "Acme"})
	p.ok(err)
	item, err := p.AddLineItem(deal, map[string]string{"name": "Seat", "quantity": "3"})
	p.ok(err)
	got := p.must(200, "GET", "/crm/objects/2026-03/deals/"+deal+"?associations=companies,line_items,contacts", "").path("associations")
	want := map[string]any{
		"companies":  map[string]any{"results": []any{map[string]any{"id": company, "type": "deal_to_company"}, map[string]any{"id": company, "type": "deal_to_company_unlabeled"}}},
		"line items": map[string]any{"results": []any{map[string]any{"id": item, "type": "deal_to_line_item"}}},
	}
	if diff := cmp.Diff(any(want), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOwnersAreFoundByBothOfTheirIDs(t *testing.T) {
	p := start(t, nil)
	id := p.AddOwner(hubspot.Owner{Email: "a@example.com", FirstName: "Ada", UserID: 777})
	p.AddOwner(hubspot.Owner{Email: "b@example.com"})
	for _, path := range []string{"/crm/owners/2026-03/" + id, "/crm/v3/owners/777?idProperty=userId"} {
		if a := p.must(200, "GET", path, ""); a.text("email") != "a@example.com" || a.text("id") != id || a.path("userId") != 777. {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
	p.must(404, "GET", "/crm/v3/owners/777", "")
	if a := p.must(200, "GET", "/crm/v3/owners/?email=b@example.com", ""); len(a.list("results")) != 1 {
		t.Errorf("%s", a.raw)
	}
}

func TestPipelinesNameTheirStages(t *testing.T) {
	p := start(t, nil)
	a := p.must(200, "GET", "/crm/pipelines/2026-09/deals", "")
	if a.text("results", 0, "stages", 5, "id") != "closedwon" || a.text("results", 0, "stages", 5, "metadata", "isClosed") != "true" ||
		a.text("results", 1, "id") != "94001" {
		t.Errorf("%s", a.raw)
	}
	if a := p.must(200, "GET", "/crm/v3/pipelines/deals/94001/stages/940012", ""); a.text("label") != "Contract Sent" {
		t.Errorf("%s", a.raw)
	}
	p.must(404, "GET", "/crm/v3/pipelines/deals/1", "")
}

func TestPropertiesAreProvisioned(t *testing.T) {
	p := start(t, nil)
	const base = "/crm/properties/2026-03/deals"
	p.must(404, "GET", base+"/dealseal_status", "")
	const definition = `{"groupName":"dealseal","name":"dealseal_status","label":"Status","type":"enumeration","fieldType":"select",
		"options":[{"label":"Queued","value":"queued","displayOrder":0,"hidden":false}]}`
	p.must(400, "POST", base, definition) // no such group yet
	p.must(201, "POST", base+"/groups", `{"name":"dealseal","label":"DealSeal","displayOrder":-1}`)
	p.must(409, "POST", base+"/groups", `{"name":"dealseal","label":"DealSeal"}`)
	p.must(201, "POST", base, definition)
	if a := p.must(409, "POST", base, definition); a.text("category") != "OBJECT_ALREADY_EXISTS" {
		t.Errorf("%s", a.raw)
	}
	deal := p.deal(nil)
	p.must(400, "PATCH", "/crm/v3/objects/deals/"+deal, `{"properties":{"dealseal_status":"signed"}}`)
	p.must(200, "PATCH", base+"/dealseal_status", `{"options":[{"label":"Queued","value":"queued"},{"label":"Signed","value":"signed"}]}`)
	p.must(200, "PATCH", "/crm/v3/objects/deals/"+deal, `{"properties":{"dealseal_status":"signed"}}`)
	a := p.must(200, "GET", base+"/hs_is_closed", "")
	if a.path("modificationMetadata", "readOnlyValue") != true || a.path("hubspotDefined") != true {
		t.Errorf("%s", a.raw)
	}
	for name, bad := range map[string]string{
		"upper case":     `{"groupName":"dealseal","name":"Status","label":"S","type":"string","fieldType":"text"}`,
		"wrong control":  `{"groupName":"dealseal","name":"s","label":"S","type":"string","fieldType":"select"}`,
		"nothing at all": `{}`,
	} {
		if a := p.do("POST", base, bad); a.status != 400 {
			t.Errorf("%s: status %d", name, a.status)
		}
	}
}
