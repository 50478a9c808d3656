package salesforce

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
)

// metadataNamespace is that of all files of the Metadata API.
const metadataNamespace = "http://soap.sforce.com/2006/04/metadata"

type customFieldXML struct {
	XMLName     xml.Name     `xml:"CustomField"`
	Namespace   string       `xml:"xmlns,attr"`
	FullName    string       `xml:"fullName"`
	Description string       `xml:"description"`
	ExternalID  *bool        `xml:"externalId,omitempty"`
	Label       string       `xml:"label"`
	Length      int          `xml:"length,omitempty"`
	Required    bool         `xml:"required"`
	Type        string       `xml:"type"`
	Unique      *bool        `xml:"unique,omitempty"`
	Values      *valueSetXML `xml:"valueSet,omitempty"`
	Lines       int          `xml:"visibleLines,omitempty"`
}

type valueSetXML struct {
	Restricted bool       `xml:"restricted"`
	Sorted     bool       `xml:"valueSetDefinition>sorted"`
	Values     []valueXML `xml:"valueSetDefinition>value"`
}

type valueXML struct {
	FullName string `xml:"fullName"`
	Default  bool   `xml:"default"`
	Label    string `xml:"label"`
}

type permissionSetXML struct {
	XMLName   xml.Name              `xml:"PermissionSet"`
	Namespace string                `xml:"xmlns,attr"`
	Fields    []fieldPermissionXML  `xml:"fieldPermissions"`
	Label     string                `xml:"label"`
	Objects   []objectPermissionXML `xml:"objectPermissions"`
	Users     []userPermissionXML   `xml:"userPermissions"`
}

type userPermissionXML struct {
	Enabled bool   `xml:"enabled"`
	Name    string `xml:"name"`
}

type fieldPermissionXML struct {
	Editable bool   `xml:"editable"`
	Field    string `xml:"field"`
	Readable bool   `xml:"readable"`
}

type objectPermissionXML struct {
	Create  bool   `xml:"allowCreate"`
	Delete  bool   `xml:"allowDelete"`
	Edit    bool   `xml:"allowEdit"`
	Read    bool   `xml:"allowRead"`
	Modify  bool   `xml:"modifyAllRecords"`
	Object  string `xml:"object"`
	ViewAll bool   `xml:"viewAllRecords"`
}

// appFolder is where the source is that the integration works with; exampleFolder is for what an administrator may add to it.
const (
	appFolder     = "force-app/main/default/"
	exampleFolder = "examples/main/default/"
)

// folder is a source folder: the files by their paths in it.
type folder map[string][]byte

func (f folder) put(path string, v any) error {
	b, err := xml.MarshalIndent(v, "", "    ")
	f[path] = append(append([]byte(xml.Header), b...), '\n')
	return err
}

// SourceFolder is what "sf project deploy start" deploys: the fields, a permission set with the rights to them, to read
// accounts, to make tasks if some are wanted, and to read and edit all records of the objects that receipts are written to, and
// a panel for these records. page is the address of the status page that the panel links to, empty when browsers have none. It
// returns the files by their paths in the folder.
func SourceFolder(written []connectors.Written, txMarker, apiVersion, page string) (map[string][]byte, error) {
	files := folder{}
	if err := files.fields(written, txMarker); err != nil {
		return nil, err
	}
	if err := files.panel(written, page, apiVersion); err != nil {
		return nil, err
	}
	folders := `{"path": "force-app", "default": true}`
	if made, err := files.events(written, apiVersion); err != nil {
		return nil, err
	} else if made {
		folders += `, {"path": "examples"}`
	}
	files["sfdx-project.json"] = fmt.Appendf(nil, "{\n  \"packageDirectories\": [%s],\n  \"sourceApiVersion\": %q\n}\n", folders, apiVersion)
	return files, nil
}

func (f folder) fields(written []connectors.Written, txMarker string) error {
	set := permissionSetXML{Namespace: metadataNamespace, Label: "DealSeal integration", Objects: []objectPermissionXML{{Object: "Account", Read: true}}}
	of := func(name string) bool {
		return slices.ContainsFunc(written, func(w connectors.Written) bool { return w.Object == name })
	}
	if of("Quote") && !of(Object) { // nobody may read a quote who may not read its opportunity
		set.Objects = append(set.Objects, objectPermissionXML{Object: Object, Read: true, ViewAll: true})
	}
	for _, k := range kinds {
		if of(k.name) {
			set.Objects = append(set.Objects, objectPermissionXML{Object: k.name, Read: true, Edit: true, ViewAll: true})
		}
	}
	if wantsTasks(written) {
		set.Users = []userPermissionXML{{Enabled: true, Name: "EditTask"}}
	}
	for _, n := range NewFields(written, txMarker) {
		if err := f.put(appFolder+"objects/"+n.Object+"/fields/"+n.Name+".field-meta.xml", n.xml()); err != nil {
			return err
		}
		set.Fields = append(set.Fields, fieldPermissionXML{Editable: true, Field: n.full(), Readable: true})
	}
	sortPermissions(set.Fields)
	return f.put(appFolder+"permissionsets/"+PermissionSet+".permissionset-meta.xml", set)
}

func sortPermissions(fields []fieldPermissionXML) {
	slices.SortFunc(fields, func(a, b fieldPermissionXML) int { return strings.Compare(a.Field, b.Field) })
}

func (f NewField) xml() customFieldXML {
	x := customFieldXML{Namespace: metadataNamespace, FullName: f.Name, Description: "Written by dealseal", Label: f.Label, Length: f.Length, Type: f.Type}
	switch f.Type {
	case "Text":
		x.ExternalID, x.Unique = &f.External, &f.Unique
	case "LongTextArea":
		x.Lines = 3
	case "Picklist":
		x.Values = &valueSetXML{Restricted: true}
		for _, v := range f.Values {
			x.Values.Values = append(x.Values.Values, valueXML{FullName: v, Label: v})
		}
	}
	return x
}
