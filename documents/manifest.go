package documents

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
	"golang.org/x/text/language"
)

// ManifestFile is the name of the manifest in a bundle's folder.
const ManifestFile = "template.yaml"

// Manifest is template.yaml. Every key is required unless its comment says otherwise.
type Manifest struct {
	ID      string `yaml:"id"`      // lower-case name, never reused for another kind of document
	Version int    `yaml:"version"` // 1 and up; a rule names both: order-form@1
	Title   string `yaml:"title"`   // for people, and the title of the PDF

	Schema  string   `yaml:"schema"`  // JSON Schema of the document record, a .json file beside the manifest
	Signers []Signer `yaml:"signers"` // the signature boxes that contract.typ draws; optional
	Locale  string   `yaml:"locale"`  // BCP 47 tag of the document's language: decides how numbers and dates are written

	Signature   Signature   `yaml:"signature"`
	Approval    Approval    `yaml:"approval"`
	Retention   string      `yaml:"retention"` // name of the retention class in the archive
	FilePattern string      `yaml:"file_name"` // pattern ending in .pdf: {tx}, {date}, {template} or a record path such as {customer.name}
	AmountCheck AmountCheck `yaml:"amount_check"`
	// AttachRecord puts the record that was merged into the PDF as a file for machines, as far as the template used it;
	// optional, true when left out.
	AttachRecord *bool                        `yaml:"attach_record"`
	Fields       map[string]map[string]Source `yaml:"fields"` // by CRM kind, then by path in the document record; optional for a bundle whose records dealseal makes itself
}

// Signer is one signature box.
type Signer struct {
	Name string `yaml:"name"` // name of the form field in the PDF
	Role string `yaml:"role"` // seal: filled by the house's seal; signer: left for a person
	Who  string `yaml:"who"`  // who signs here, for people; optional

	// What a seal shows beside its text, both optional: a PNG or JPEG below assets/, and the address of a page as a QR code,
	// in which {tx} stands for the transaction.
	Logo string `yaml:"logo"`
	QR   string `yaml:"qr"`
}

// Link is what the QR code of a seal leads to; empty if it has none.
func (s Signer) Link(tx string) string { return strings.ReplaceAll(s.QR, "{tx}", tx) }

// Roles of a signature box.
const (
	RoleSeal   = "seal"
	RoleSigner = "signer"
)

// Signature documents which legal level of electronic signature this kind of document needs, and why.
type Signature struct {
	Level         string `yaml:"level"` // SES, AES or QES
	Justification string `yaml:"justification"`
}

// Approval says whether the template may make real contracts.
type Approval struct {
	State string `yaml:"state"` // draft or approved
	By    string `yaml:"by"`    // who approved it; required when approved
	On    string `yaml:"on"`    // day of the approval, YYYY-MM-DD; required when approved
}

// AmountCheck says how the totals computed for the document are compared with the amount in the CRM. In YAML it is
// the word exact, {tolerance: "0.05"} or {off: "the reason why not"}.
type AmountCheck struct {
	tolerance decimal // greatest accepted difference, in the currency of the record; zero for exact
	Off       string  // the reason why nothing is compared; empty when something is
	set       bool
}

// UnmarshalYAML reads the three spellings.
func (c *AmountCheck) UnmarshalYAML(n *yaml.Node) error {
	const want = `amount_check is exact, {tolerance: "0.05"} or {off: "the reason"}`
	c.set = true
	if n.Kind == yaml.ScalarNode {
		if n.Value != "exact" {
			return errors.New(want)
		}
		return nil
	}
	if n.Kind != yaml.MappingNode || len(n.Content) != 2 || n.Content[1].Kind != yaml.ScalarNode {
		return errors.New(want)
	}
	value := strings.TrimSpace(n.Content[1].Value)
	switch n.Content[0].Value {
	case "tolerance":
		d, err := parseDecimal(value)
		if err != nil || d.sign() < 0 {
			return errors.New("amount_check.tolerance is a decimal of zero or more, for example \"0.05\"")
		}
		c.tolerance = d
	case "off":
		if value == "" {
			return errors.New("amount_check.off needs the reason why totals are not compared")
		}
		c.Off = value
	default:
		return errors.New(want)
	}
	return nil
}

// Kinds of CRM that fields may be mapped from.
var kinds = []string{"hubspot", "salesforce"}

var (
	idPattern      = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)
	signerPattern  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)
	holdingPattern = regexp.MustCompile(`\{([^{}]*)\}`)
)

// parseManifest reads template.yaml strictly: an unknown or doubled key and a second document are errors with lines.
func parseManifest(text []byte) (*Manifest, error) {
	var m Manifest
	err := yaml.Load(text, &m, yaml.WithKnownFields(), yaml.WithUniqueKeys())
	if err != nil {
		return nil, manifestError(err)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return &m, nil
}

// manifestError turns the YAML library's errors into ours, so that file and line stand where a person looks for them.
func manifestError(err error) error {
	var load *yaml.LoadError
	if !errors.As(err, &load) {
		return &BundleError{File: ManifestFile, Reason: err.Error()}
	}
	reason := load.Message
	if reason == "" {
		reason = err.Error()
	}
	return &BundleError{File: ManifestFile, Line: load.Mark.Line, Reason: reason}
}

// check finds what the types cannot say.
func (m *Manifest) check() error {
	fault := func(format string, a ...any) error {
		return &BundleError{File: ManifestFile, Reason: fmt.Sprintf(format, a...)}
	}
	required := []struct{ key, value string }{
		{"id", m.ID}, {"title", m.Title}, {"schema", m.Schema}, {"locale", m.Locale}, {"signature.level", m.Signature.Level},
		{"signature.justification", m.Signature.Justification}, {"approval.state", m.Approval.State},
		{"retention", m.Retention}, {"file_name", m.FilePattern},
	}
	for _, r := range required {
		if isBlank(r.value) {
			return fault("%s is missing", r.key)
		}
	}
	if !m.AmountCheck.set {
		return fault("amount_check is missing: exact, {tolerance: …} or {off: reason}")
	}
	switch {
	case !idPattern.MatchString(m.ID):
		return fault("id %q must be lower-case letters, digits and hyphens, at most 64", m.ID)
	case m.Version < 1:
		return fault("version must be a whole number of 1 or more")
	case !idPattern.MatchString(m.Retention):
		return fault("retention %q must be lower-case letters, digits and hyphens", m.Retention)
	case !slices.Contains([]string{"SES", "AES", "QES"}, m.Signature.Level):
		return fault("signature.level %q must be SES, AES or QES", m.Signature.Level)
	case strings.ContainsAny(m.Schema, `/\`) || !strings.HasSuffix(m.Schema, ".json"):
		return fault("schema %q must be a .json file beside template.yaml", m.Schema)
	}
	if _, err := language.Parse(m.Locale); err != nil {
		return fault("locale %q is not a BCP 47 language tag such as en-GB", m.Locale)
	}
	if err := m.Approval.check(); err != nil {
		return fault("%v", err)
	}
	if err := m.checkSigners(); err != nil {
		return fault("%v", err)
	}
	if err := m.checkFields(); err != nil {
		return err
	}
	return m.checkFileName()
}

func (a Approval) check() error {
	switch a.State {
	case "draft":
		return nil
	case "approved":
	default:
		return fmt.Errorf("approval.state %q must be draft or approved", a.State)
	}
	if isBlank(a.By) {
		return errors.New("approval.by is missing: who approved the template")
	}
	if _, err := time.Parse(time.DateOnly, a.On); err != nil {
		return errors.New("approval.on must be the day of the approval, YYYY-MM-DD")
	}
	return nil
}

func (m *Manifest) checkSigners() error {
	seen := make(map[string]bool)
	seals := 0
	for _, s := range m.Signers {
		switch {
		case !signerPattern.MatchString(s.Name):
			return fmt.Errorf("signer name %q must be lower-case letters, digits and hyphens, at most 40", s.Name)
		case seen[s.Name]:
			return fmt.Errorf("signer %q is listed twice", s.Name)
		case s.Role != RoleSeal && s.Role != RoleSigner:
			return fmt.Errorf("signer %q: role %q must be seal or signer", s.Name, s.Role)
		case s.Role != RoleSeal && (s.Logo != "" || s.QR != ""):
			return fmt.Errorf("signer %q: logo and qr are for the box with the role seal", s.Name)
		case s.QR != "" && !isLink(s.QR):
			return fmt.Errorf("signer %q: qr must be an address such as https://contracts.example.com/{tx}", s.Name)
		}
		seen[s.Name] = true
		if s.Role == RoleSeal {
			seals++
		}
	}
	if seals > 1 {
		return errors.New("signers: at most one box can have the role seal")
	}
	return nil
}

// isLink accepts the address of a web page, of at most 200 bytes, or its code would have too many modules.
func isLink(s string) bool {
	u, err := url.Parse(strings.ReplaceAll(s, "{tx}", "tx"))
	return err == nil && u.Scheme == "https" && u.Host != "" && len(s) <= 200
}

func (m *Manifest) checkFields() error {
	for kind, fields := range m.Fields {
		if !slices.Contains(kinds, kind) {
			return &BundleError{File: ManifestFile, Reason: fmt.Sprintf("fields: %q is not a CRM kind; known are %s", kind, strings.Join(kinds, ", "))}
		}
		if err := checkPaths(fields); err != nil {
			return &BundleError{File: ManifestFile, Reason: fmt.Sprintf("fields.%s: %v", kind, err)}
		}
		if m.AmountCheck.Off == "" && !slices.ContainsFunc(sortedKeys(fields), func(p string) bool { return fields[p].equals != "" }) {
			return &BundleError{File: ManifestFile, Reason: fmt.Sprintf("fields.%s: amount_check needs a total such as "+
				"{sum: lines.amount, equals: Amount}; or switch it off with a reason", kind)}
		}
	}
	return nil
}

// checkFileName accepts placeholders that every CRM kind can fill.
func (m *Manifest) checkFileName() error {
	fault := func(format string, a ...any) error {
		return &BundleError{File: ManifestFile, Reason: "file_name: " + fmt.Sprintf(format, a...)}
	}
	if !strings.HasSuffix(m.FilePattern, ".pdf") {
		return fault("must end in .pdf")
	}
	if strings.ContainsAny(holdingPattern.ReplaceAllString(m.FilePattern, ""), "{}"+unsafeInNames) {
		return fault("holds a character that file names cannot have, or an unpaired brace")
	}
	for _, hit := range holdingPattern.FindAllStringSubmatch(m.FilePattern, -1) {
		if slices.Contains([]string{"tx", "date", "template"}, hit[1]) {
			continue
		}
		for kind, fields := range m.Fields {
			if _, ok := fields[hit[1]]; !ok {
				return fault("{%s} is neither tx, date or template nor a field mapped for %s", hit[1], kind)
			}
		}
	}
	return nil
}
