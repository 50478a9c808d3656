package salesforce

import (
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// sourceOf is the source folder of an org with two objects, whose orders have two rules that tell of one contract and one that
// tells of another.
func sourceOf(t *testing.T, page string) map[string][]byte {
	t.Helper()
	german := map[deal.Status]string{deal.StatusSigned: "Fertig"}
	files, err := SourceFolder([]connectors.Written{
		{Object: "Order", WriteBack: deal.WriteBack{Status: "State__c", Words: german}},
		{Object: "Order", WriteBack: deal.WriteBack{Status: "State__c", TransactionID: "Tx__c", Drift: "Drift__c"}},
		{Object: "Order", WriteBack: deal.WriteBack{Status: "pkg__Other__c", Audit: "Description"}},
		{Object: Object, WriteBack: deal.WriteBack{TransactionID: "Tx__c", SignedAt: "At__c"}},
		{Object: "Quote", WriteBack: deal.WriteBack{URL: "Link__c"}}, // says of no contract which it is
	}, "Key__c", "66.0", page)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestEveryFileOfTheSourceFolderIsWellFormed(t *testing.T) {
	seen := 0
	for name, content := range sourceOf(t, "") {
		if !strings.HasSuffix(name, ".xml") {
			continue
		}
		seen++
		d := xml.NewDecoder(strings.NewReader(string(content)))
		var err error
		for err == nil {
			_, err = d.Token()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if seen < 15 {
		t.Errorf("only %d files were read", seen)
	}
}

func TestThePanelIsForTheObjectsThatContractsAreToldOf(t *testing.T) {
	files := sourceOf(t, "https://seal.example.com")
	var meta struct {
		XMLName xml.Name `xml:"http://soap.sforce.com/2006/04/metadata LightningComponentBundle"`
		Version string   `xml:"apiVersion"`
		Exposed bool     `xml:"isExposed"`
		Target  []string `xml:"targets>target"`
		Config  struct {
			Targets string   `xml:"targets,attr"`
			Objects []string `xml:"objects>object"`
		} `xml:"targetConfigs>targetConfig"`
	}
	bundle := "force-app/main/default/lwc/dealsealPanel/"
	if err := xml.Unmarshal(files[bundle+"dealsealPanel.js-meta.xml"], &meta); err != nil {
		t.Fatal(err)
	}
	if meta.Version != "66.0" || !meta.Exposed || !slices.Equal(meta.Target, []string{"lightning__RecordPage"}) || meta.Config.Targets != "lightning__RecordPage" ||
		!slices.Equal(meta.Config.Objects, []string{Object, "Order"}) {
		t.Errorf("the panel is for %+v", meta)
	}
	const fields = `// From the configuration of dealseal, which writes this file anew.
export const PAGE = "https://seal.example.com";
export const CONTRACTS = {
    "Opportunity": [
        {
            "fields": {
                "signed_at": "At__c",
                "transaction_id": "Tx__c"
            },
            "words": {
                "Action Required": "action_required",
                "Awaiting Signature": "awaiting_signature",
                "Failed": "failed",
                "Held": "held",
                "Queued": "queued",
                "Refused": "refused",
                "Signed": "signed"
            }
        }
    ],
    "Order": [
        {
            "fields": {
                "drift": "Drift__c",
                "status": "State__c",
                "transaction_id": "Tx__c"
            },
            "words": {
                "Action Required": "action_required",
                "Awaiting Signature": "awaiting_signature",
                "Failed": "failed",
                "Fertig": "signed",
                "Held": "held",
                "Queued": "queued",
                "Refused": "refused",
                "Signed": "signed"
            }
        },
        {
            "fields": {
                "audit": "Description",
                "status": "pkg__Other__c"
            },
            "words": {
                "Action Required": "action_required",
                "Awaiting Signature": "awaiting_signature",
                "Failed": "failed",
                "Held": "held",
                "Queued": "queued",
                "Refused": "refused",
                "Signed": "signed"
            }
        }
    ]
};
`
	if got := string(files[bundle+"fields.js"]); got != fields {
		t.Errorf("the panel is told\n%s", got)
	}
	for _, part := range []string{"html", "js", "css"} {
		if len(files[bundle+"dealsealPanel."+part]) == 0 {
			t.Errorf("the panel has no %s", part)
		}
	}
	for _, outside := range []string{"@salesforce/apex", "fetch(", "XMLHttpRequest", "innerHTML"} {
		if strings.Contains(string(files[bundle+"dealsealPanel.js"]), outside) {
			t.Errorf("the panel uses %s", outside)
		}
	}
}

func TestWhoSeesThePanelMayReadItsFieldsAndChangeNone(t *testing.T) {
	var set struct {
		Fields []struct {
			Field    string `xml:"field"`
			Editable bool   `xml:"editable"`
			Readable bool   `xml:"readable"`
		} `xml:"fieldPermissions"`
		Objects []struct{} `xml:"objectPermissions"`
	}
	if err := xml.Unmarshal(sourceOf(t, "")["force-app/main/default/permissionsets/DealSeal_Panel.permissionset-meta.xml"], &set); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range set.Fields {
		names = append(names, f.Field)
		if f.Editable || !f.Readable {
			t.Errorf("%s may be changed: %t, read: %t", f.Field, f.Editable, f.Readable)
		}
	}
	want := []string{"Opportunity.At__c", "Opportunity.Tx__c", "Order.Drift__c", "Order.State__c", "Order.Tx__c", "Quote.Link__c"} // not those of packages, or of Salesforce
	if !slices.Equal(names, want) || len(set.Objects) > 0 {
		t.Errorf("rights to %v and %d objects, want %v", names, len(set.Objects), want)
	}
}

func TestEachStatusFieldHasADraftOfAFlowThatPublishesIt(t *testing.T) {
	files := sourceOf(t, "")
	if want := `"packageDirectories": [{"path": "force-app", "default": true}, {"path": "examples"}]`; !strings.Contains(string(files["sfdx-project.json"]), want) {
		t.Errorf("the project is\n%s", files["sfdx-project.json"])
	}
	event := "examples/main/default/objects/" + StatusEvent + "/"
	published := map[string]bool{}
	for _, field := range []string{"Object__c", "Record_ID__c", "Status__c", "Transaction_ID__c"} {
		published[field] = files[event+"fields/"+field+".field-meta.xml"] != nil
	}
	for name, want := range map[string]string{"Order": "State__c", "Order_2": "pkg__Other__c"} {
		var f struct {
			Status string `xml:"status"`
			Start  struct {
				Object   string `xml:"object"`
				Field    string `xml:"filters>field"`
				Operator string `xml:"filters>operator"`
				Value    string `xml:"filters>value>booleanValue"`
				Target   string `xml:"connector>targetReference"`
			} `xml:"start"`
			Create struct {
				Name   string `xml:"name"`
				Object string `xml:"object"`
				Assign []struct {
					Field string `xml:"field"`
					Value string `xml:"value>elementReference"`
				} `xml:"inputAssignments"`
			} `xml:"recordCreates"`
		}
		if err := xml.Unmarshal(files["examples/main/default/flows/DealSeal_Status_of_"+name+".flow-meta.xml"], &f); err != nil {
			t.Fatal(name, err)
		}
		if f.Status != "Draft" || f.Start.Object != "Order" || f.Start.Field != want || f.Start.Operator != "IsChanged" || f.Start.Value != "true" ||
			f.Start.Target != f.Create.Name || f.Create.Object != StatusEvent {
			t.Errorf("%s: %+v", name, f)
		}
		given := map[string]string{}
		for _, a := range f.Create.Assign {
			given[a.Field] = a.Value
			if !published[a.Field] {
				t.Errorf("%s gives %s, which the event does not have", name, a.Field)
			}
		}
		if given["Status__c"] != "$Record."+want || given["Record_ID__c"] != "$Record.Id" {
			t.Errorf("%s publishes %v", name, given)
		}
	}
	if files[event+StatusEvent+".object-meta.xml"] == nil {
		t.Error("the event is not made")
	}
	bare, err := SourceFolder([]connectors.Written{{Object: Object, WriteBack: deal.WriteBack{URL: "Link__c"}}}, "", "66.0", "")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range bare {
		if strings.HasPrefix(name, "examples/") || strings.Contains(name, "/lwc/") || name == "sfdx-project.json" && strings.Contains(string(content), "examples") {
			t.Errorf("without a status there is %s of\n%v", name, slices.Sorted(maps.Keys(bare)))
		}
	}
}
