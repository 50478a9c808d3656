package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/web"
)

// longestKey is as long as a key of a request may be.
const longestKey = 255

var idempotencyKey = param{name: "Idempotency-Key", pattern: keyForm.String(), doc: "names the request, for ever: asked again with it, a request is the same one; printable ASCII"}

// NewSignature asks for a contract. Of the tenants that the token sees, tenant, rule and template_id have to leave one rule.
type NewSignature struct {
	Tenant   deal.TenantID `json:"tenant,omitempty"`
	Rule     string        `json:"rule,omitempty"`
	Template string        `json:"template_id,omitempty" doc:"ID or ID@VERSION, as in /v1/templates"`
	Record   string        `json:"record_id" doc:"its ID in the CRM, from where all that the contract says is read" pattern:"^[A-Za-z0-9]{1,32}$"`
	Signer   *Signer       `json:"signer,omitempty" doc:"the person for whom the contract is, whom the record has to name; refused where the rule does not say where. What is made is the house's own seal: this person is not asked to sign"`
	Callback string        `json:"callback_url,omitempty" doc:"where events of this contract are sent, signed: at or below the address of a webhook that is there for callbacks"`
	Options  *SealOptions  `json:"options,omitempty" doc:"what the seal must be; refused where the rule's profile makes another one"`
}

// Signer is the person for whom a contract is.
type Signer struct {
	Name  string `json:"name,omitempty"`
	Email string `json:"email"`
}

// SealOptions are what is asked of the seal.
type SealOptions struct {
	PAdES     *bool `json:"pades,omitempty" doc:"true: every seal is one"`
	Timestamp *bool `json:"timestamp,omitempty" doc:"whether it has a time-stamp"`
}

// Signature is a contract that was asked for.
type Signature struct {
	ID       string        `json:"signature_id"`
	Status   string        `json:"status" doc:"action_required: it has ended without a contract" enum:"processing,awaiting_signature,signed,refused,held,failed,action_required"`
	Reason   string        `json:"reason,omitempty" doc:"why it waits or has ended"`
	Paused   bool          `json:"paused,omitempty" doc:"it waits because a person has its tenant wait"`
	Tx       deal.TxID     `json:"transaction" doc:"also for /v1/deals/{tx}"`
	Tenant   deal.TenantID `json:"tenant"`
	Rule     string        `json:"rule"`
	Record   string        `json:"record_id"`
	Template string        `json:"template_id,omitempty"`
	Level    string        `json:"level,omitempty" doc:"the level that the seal has reached"`
	SealedAt time.Time     `json:"sealed_at,omitzero"`
	Document string        `json:"document_url,omitempty" doc:"where the signed PDF is, on this host, for tokens that may see contracts"`
}

// signaturePrefix makes a signature_id of a transaction ID.
const signaturePrefix = "sig_"

// statusWord is how a signature is doing, by what the CRM shows.
func statusWord(s deal.Status) string {
	if s == deal.StatusQueued {
		return "processing"
	}
	return string(s)
}

var (
	keyForm    = regexp.MustCompile(`^[!-~](?:[ -~]*[!-~])?$`)
	recordForm = regexp.MustCompile(`^[A-Za-z0-9]{1,32}$`)
)

func (a *API) requestSignature(ctx context.Context, r *request) (any, error) {
	key := r.Header.Values(idempotencyKey.name)
	if len(key) != 1 || len(key[0]) > longestKey || !keyForm.MatchString(key[0]) {
		return nil, problem(http.StatusBadRequest, fmt.Sprintf("the header Idempotency-Key must be there once, with 1 to %d printable ASCII characters: ask again with the same one when no answer comes", longestKey))
	}
	s, err := decode[NewSignature](r)
	if err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.Tenant != "" && !r.sees(s.Tenant) {
		return nil, nothing()
	}
	asked, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	q := SignatureRequest{Tenants: r.tenants, Tenant: s.Tenant, Rule: s.Rule, Template: s.Template, Record: s.Record,
		Request: deal.Request{Key: key[0], Asked: string(asked), Who: r.who(), Callback: s.Callback}}
	if p := s.Signer; p != nil {
		q.Signer = &deal.Person{Name: p.Name, Email: p.Email}
	}
	if s.Options != nil {
		q.Timestamp = s.Options.Timestamp
	}
	tx, err := a.House.Request(ctx, q)
	if err != nil {
		return nil, err
	}
	return a.signatureOf(ctx, tx)
}

// check refuses what no rule could do.
func (s NewSignature) check() error {
	switch {
	case !recordForm.MatchString(s.Record):
		return problem(http.StatusUnprocessableEntity, "record_id must be the CRM's ID of a record: at most 32 letters and digits")
	case s.Tenant == "" && s.Rule == "" && s.Template == "":
		return problem(http.StatusUnprocessableEntity, "say which contract, with template_id or rule")
	case s.Signer != nil && strings.TrimSpace(s.Signer.Email) == "":
		return problem(http.StatusUnprocessableEntity, "signer.email is missing: persons are known by their addresses")
	case s.Options != nil && s.Options.PAdES != nil && !*s.Options.PAdES:
		return problem(http.StatusUnprocessableEntity, "options.pades is false: every seal here is a PAdES signature")
	}
	return nil
}

func (a *API) showSignature(ctx context.Context, r *request) (any, error) {
	text, ok := strings.CutPrefix(r.PathValue("id"), signaturePrefix)
	if !ok {
		return nil, nothing()
	}
	tx, err := a.dealNamed(ctx, r, text)
	if err != nil {
		return nil, err
	}
	return a.signatureOf(ctx, tx)
}

func (a *API) signatureOf(ctx context.Context, tx deal.TxID) (any, error) {
	d, err := a.House.Deal(ctx, tx)
	if err != nil {
		return nil, err
	}
	pauses, err := a.House.Pauses(ctx)
	if err != nil {
		return nil, err
	}
	v := viewSignature(d)
	v.Paused = v.Status == statusWord(deal.StatusQueued) && slices.ContainsFunc(pauses, func(p deal.Pause) bool { return p.Tenant == v.Tenant })
	return v, nil
}

func viewSignature(d *web.Deal) Signature {
	s, f := d.Sealing, d.Sealing.Facts
	v := Signature{ID: signaturePrefix + string(s.Tx), Status: statusWord(deal.Shown(s.Step, s.Condition, s.Reason)), Reason: s.Reason, Tx: s.Tx, Tenant: s.Tenant, Rule: s.Change.Rule, Record: s.Change.Ref.ID,
		Template: s.Plan.Template, Level: f.Level, SealedAt: f.SealedAt}
	if slices.ContainsFunc(d.Kept, func(k deal.FileFact) bool { return k.Name == contractName }) && !d.Erased && !d.Damaged {
		v.Document = "/v1/deals/" + string(s.Tx) + "/documents/" + contractName
	}
	return v
}

// contractName is the contract's among the files of a deal.
const contractName = "contract.pdf"
