package salesforce

import (
	_ "embed"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"slices"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

const (
	// Panel is the Lightning web component that shows on a record what is known of its contract.
	Panel = "dealsealPanel"
	// PanelReaders is the permission set of those who see it.
	PanelReaders = "DealSeal_Panel"
)

var (
	//go:embed panel/dealsealPanel.html
	panelHTML []byte
	//go:embed panel/dealsealPanel.js
	panelJS []byte
	//go:embed panel/dealsealPanel.css
	panelCSS []byte
)

// shownContract is what the panel shows of one contract of an object's records: the fields by what they hold, and the
// status that each word stands for.
type shownContract struct {
	Fields map[string]string      `json:"fields"`
	Words  map[string]deal.Status `json:"words"`
}

// shownContracts are those of each object. Rules that write to a field in common tell of one contract.
func shownContracts(written []connectors.Written) map[string][]shownContract {
	all := map[string][]shownContract{}
	for _, w := range written {
		s := shownContract{map[string]string{}, map[string]deal.Status{}}
		for _, t := range targets(w.WriteBack, 0) {
			s.Fields[t.key] = t.field
		}
		if s.Fields["transaction_id"] == "" && s.Fields["status"] == "" && s.Fields["audit"] == "" {
			continue
		}
		for _, x := range deal.Statuses {
			s.Words[w.Word(x.Status)] = x.Status
		}
		if i := slices.IndexFunc(all[w.Object], s.sharesField); i >= 0 {
			all[w.Object][i].take(s)
		} else {
			all[w.Object] = append(all[w.Object], s)
		}
	}
	return all
}

func (s shownContract) sharesField(o shownContract) bool {
	for _, key := range []string{"transaction_id", "status", "audit"} {
		if s.Fields[key] != "" && s.Fields[key] == o.Fields[key] {
			return true
		}
	}
	return false
}

// take adds what another rule writes beside. What is there stays.
func (s shownContract) take(o shownContract) {
	for key, field := range o.Fields {
		if s.Fields[key] == "" {
			s.Fields[key] = field
		}
	}
	for word, status := range o.Words {
		if _, ok := s.Words[word]; !ok {
			s.Words[word] = status
		}
	}
}

type lightningXML struct {
	XMLName     xml.Name `xml:"LightningComponentBundle"`
	Namespace   string   `xml:"xmlns,attr"`
	APIVersion  string   `xml:"apiVersion"`
	Description string   `xml:"description"`
	Exposed     bool     `xml:"isExposed"`
	Label       string   `xml:"masterLabel"`
	Target      string   `xml:"targets>target"`
	Config      struct {
		Targets string   `xml:"targets,attr"`
		Objects []string `xml:"objects>object"`
	} `xml:"targetConfigs>targetConfig"`
}

// panel adds the component to a source folder, and a permission set for those who look at it: who may not read a field sees
// that in its place. page is the address of the status page, empty when browsers have none.
func (f folder) panel(written []connectors.Written, page, apiVersion string) error {
	contracts := shownContracts(written)
	if len(contracts) == 0 {
		return nil
	}
	bundle := appFolder + "lwc/" + Panel + "/"
	f[bundle+Panel+".html"], f[bundle+Panel+".js"], f[bundle+Panel+".css"] = panelHTML, panelJS, panelCSS
	at, err := json.Marshal(page)
	if err != nil {
		return err
	}
	fields, err := json.MarshalIndent(contracts, "", "    ")
	if err != nil {
		return err
	}
	f[bundle+"fields.js"] = fmt.Appendf(nil, "// From the configuration of dealseal, which writes this file anew.\nexport const PAGE = %s;\nexport const CONTRACTS = %s;\n", at, fields)

	meta := lightningXML{Namespace: metadataNamespace, APIVersion: apiVersion, Description: "Shows what dealseal has made of this record",
		Exposed: true, Label: "DealSeal contract", Target: "lightning__RecordPage"}
	meta.Config.Targets = meta.Target
	for _, k := range kinds {
		if len(contracts[k.name]) > 0 {
			meta.Config.Objects = append(meta.Config.Objects, k.name)
		}
	}
	readers := permissionSetXML{Namespace: metadataNamespace, Label: "DealSeal panel"}
	for _, n := range NewFields(written, "") {
		readers.Fields = append(readers.Fields, fieldPermissionXML{Field: n.full(), Readable: true})
	}
	sortPermissions(readers.Fields)
	if len(readers.Fields) > 0 {
		if err := f.put(appFolder+"permissionsets/"+PanelReaders+".permissionset-meta.xml", readers); err != nil {
			return err
		}
	}
	return f.put(appFolder+"lwc/"+Panel+"/"+Panel+".js-meta.xml", meta)
}
