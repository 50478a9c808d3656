package salesforce

import (
	"encoding/xml"
	"fmt"

	"github.com/dealseal/dealseal/connectors"
)

// StatusEvent is the platform event of the example: one for each change of the status that a record shows.
const StatusEvent = "DealSeal_Status__e"

type eventXML struct {
	XMLName    xml.Name `xml:"CustomObject"`
	Namespace  string   `xml:"xmlns,attr"`
	Deployment string   `xml:"deploymentStatus"`
	EventType  string   `xml:"eventType"`
	Label      string   `xml:"label"`
	Plural     string   `xml:"pluralLabel"`
	Publish    string   `xml:"publishBehavior"`
}

type eventFieldXML struct {
	XMLName   xml.Name `xml:"CustomField"`
	Namespace string   `xml:"xmlns,attr"`
	FullName  string   `xml:"fullName"`
	Label     string   `xml:"label"`
	Length    int      `xml:"length"`
	Required  bool     `xml:"required"`
	Type      string   `xml:"type"`
}

// flowXML is a flow that a change of a record starts and that makes one other record.
type flowXML struct {
	XMLName     xml.Name      `xml:"Flow"`
	Namespace   string        `xml:"xmlns,attr"`
	APIVersion  string        `xml:"apiVersion"`
	Description string        `xml:"description"`
	Environment string        `xml:"environments"`
	Interview   string        `xml:"interviewLabel"`
	Label       string        `xml:"label"`
	ProcessType string        `xml:"processType"`
	Create      flowCreateXML `xml:"recordCreates"`
	Start       flowStartXML  `xml:"start"`
	Status      string        `xml:"status"`
}

type flowCreateXML struct {
	Name   string         `xml:"name"`
	Label  string         `xml:"label"`
	X      int            `xml:"locationX"`
	Y      int            `xml:"locationY"`
	Assign []flowValueXML `xml:"inputAssignments"`
	Object string         `xml:"object"`
}

type flowValueXML struct {
	Field     string `xml:"field"`
	Text      string `xml:"value>stringValue,omitempty"`
	Reference string `xml:"value>elementReference,omitempty"`
}

type flowStartXML struct {
	X        int    `xml:"locationX"`
	Y        int    `xml:"locationY"`
	Target   string `xml:"connector>targetReference"`
	Logic    string `xml:"filterLogic"`
	Field    string `xml:"filters>field"`
	Operator string `xml:"filters>operator"`
	Changed  bool   `xml:"filters>value>booleanValue"`
	Object   string `xml:"object"`
	On       string `xml:"recordTriggerType"`
	Trigger  string `xml:"triggerType"`
}

// events adds an example to a source folder: a platform event, and for each status field a draft of a flow that publishes it
// in the transaction of the write-back. It reports whether there is such a field.
func (f folder) events(written []connectors.Written, apiVersion string) (made bool, err error) {
	done, count := map[string]bool{}, map[string]int{}
	for _, w := range written {
		if w.Status == "" || done[w.Object+"."+w.Status] {
			continue
		}
		done[w.Object+"."+w.Status] = true
		count[w.Object]++
		name := "DealSeal_Status_of_" + w.Object
		if n := count[w.Object]; n > 1 {
			name += fmt.Sprintf("_%d", n)
		}
		if err := f.put(exampleFolder+"flows/"+name+".flow-meta.xml", statusFlow(w, name, apiVersion)); err != nil {
			return false, err
		}
	}
	if len(done) == 0 {
		return false, nil
	}
	at := exampleFolder + "objects/" + StatusEvent + "/"
	event := eventXML{Namespace: metadataNamespace, Deployment: "Deployed", EventType: "HighVolume", Label: "DealSeal Status", Plural: "DealSeal Statuses", Publish: "PublishAfterCommit"}
	if err := f.put(at+StatusEvent+".object-meta.xml", event); err != nil {
		return false, err
	}
	for _, x := range []struct {
		name, label string
		length      int
	}{{"Object__c", "Object", 40}, {"Record_ID__c", "Record ID", 18}, {"Status__c", "Status", 255}, {"Transaction_ID__c", "Transaction ID", 255}} {
		field := eventFieldXML{Namespace: metadataNamespace, FullName: x.name, Label: x.label, Length: x.length, Type: "Text"}
		if err := f.put(at+"fields/"+x.name+".field-meta.xml", field); err != nil {
			return false, err
		}
	}
	return true, nil
}

func statusFlow(w connectors.Written, name, apiVersion string) flowXML {
	const publish = "Publish_Status"
	assign := []flowValueXML{{Field: "Object__c", Text: w.Object}, {Field: "Record_ID__c", Reference: "$Record.Id"}, {Field: "Status__c", Reference: "$Record." + w.Status}}
	if w.TransactionID != "" {
		assign = append(assign, flowValueXML{Field: "Transaction_ID__c", Reference: "$Record." + w.TransactionID})
	}
	return flowXML{
		Namespace: metadataNamespace, APIVersion: apiVersion, Description: "Publishes " + StatusEvent + " when the status that dealseal writes changes",
		Environment: "Default", Interview: name + " {!$Flow.CurrentDateTime}", Label: "DealSeal: status of " + w.Object, ProcessType: "AutoLaunchedFlow",
		Create: flowCreateXML{Name: publish, Label: "Publish the status", X: 176, Y: 323, Assign: assign, Object: StatusEvent},
		Start: flowStartXML{X: 50, Target: publish, Logic: "and", Field: w.Status, Operator: "IsChanged", Changed: true, Object: w.Object,
			On: "Update", Trigger: "RecordAfterSave"},
		Status: "Draft",
	}
}
