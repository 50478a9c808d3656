package hubspot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// A custom workflow action: HubSpot posts which deal has come to it, is answered that the workflow is to stand still, and is
// told later what has become of the deal.

// AutomationScope lets an app finish workflow actions. Nothing else needs it.
const AutomationScope = "automation"

var (
	callbackForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
	ruleForm     = regexp.MustCompile(`^[A-Za-z0-9_-]{0,63}$`)
)

// ErrOtherPortal is about an action that another account has called: its workflow could not be finished.
var ErrOtherPortal = errors.New("it is of another HubSpot account")

// ReadAction reads the call of a custom workflow action. portal is ours, empty when it is not known yet.
func ReadAction(body []byte, portal string) (Push, error) {
	var e struct {
		CallbackID string `json:"callbackId"`
		Origin     struct {
			PortalID number `json:"portalId"`
		} `json:"origin"`
		Object struct {
			ID   number `json:"objectId"`
			Type string `json:"objectType"`
		} `json:"object"`
		InputFields struct {
			Rule *string `json:"rule"`
		} `json:"inputFields"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return Push{}, errPush
	}
	rule := ""
	if e.InputFields.Rule != nil {
		rule = *e.InputFields.Rule
	}
	switch {
	case !callbackForm.MatchString(e.CallbackID):
		return Push{}, errors.New("it has no callbackId: it is no call of a custom workflow action")
	case portal != "" && string(e.Origin.PortalID) != portal:
		return Push{}, ErrOtherPortal
	case e.Object.Type != "DEAL" || e.Object.ID == "":
		return Push{}, errors.New("it is about no deal: use the action in workflows of deals")
	case !ruleForm.MatchString(rule):
		return Push{}, errors.New("its rule is no id of a rule")
	}
	ref := deal.Ref{Object: Object, ID: string(e.Object.ID)}
	return Push{
		Events:    []deal.PushedEvent{{Key: e.CallbackID, Ref: ref, Wakes: true}},
		Callbacks: []deal.Callback{{ID: e.CallbackID, Ref: ref, Rule: rule}},
	}, nil
}

// Blocked is the answer that has a workflow stand still for so many hours.
func Blocked(hours int) string {
	return fmt.Sprintf(`{"outputFields":{"hs_execution_state":"BLOCK","hs_expiration_duration":"PT%dH"}}`, hours)
}

// Complete implements connectors.Completer. A workflow goes on whatever the outcome, which its branches can look at.
func (c *Connector) Complete(ctx context.Context, callback string, outcome deal.CallbackOutcome, tx deal.TxID) error {
	if !callbackForm.MatchString(callback) {
		return fmt.Errorf("hubspot: finish a workflow action: %w", refuse("its name has not the form of one"))
	}
	state := "FAIL_CONTINUE"
	if outcome.Succeeded() {
		state = "SUCCESS"
	}
	said := map[string]string{"hs_execution_state": state, outputOutcome: string(outcome), outputTransaction: string(tx)}
	_, err := c.send(ctx, http.MethodPost, "/automation/actions/callbacks/"+c.cfg.APIVersion+"/"+callback+"/complete", withToken,
		map[string]any{"outputFields": said, "typedOutputs": map[string]string{}})
	var e *Error
	if errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Status == http.StatusGone || e.Status == http.StatusConflict) {
		err = connectors.NoCallback(err)
	}
	if err != nil {
		return fmt.Errorf("hubspot: finish a workflow action: %w", c.later(err))
	}
	return nil
}

// Output fields of the action.
const (
	outputOutcome     = "dealseal_outcome"
	outputTransaction = "dealseal_transaction_id"
)

// action is the definition of the custom workflow action, posted to an address of ours.
func action(address string) map[string]any {
	var options []map[string]any
	for _, o := range outcomes() {
		options = append(options, map[string]any{"value": o, "label": titleOf(o)})
	}
	return map[string]any{"uid": "dealseal_wait", "type": "workflow-action", "config": map[string]any{
		"actionUrl": address, "isPublished": true, "supportedClients": []map[string]string{{"client": "WORKFLOWS"}}, "objectTypes": []string{"DEAL"},
		"inputFields": []map[string]any{{"typeDefinition": map[string]any{"name": "rule", "type": "string", "fieldType": "text"},
			"supportedValueTypes": []string{"STATIC_VALUE"}, "isRequired": false}},
		"outputFields": []map[string]any{
			{"typeDefinition": map[string]any{"name": outputOutcome, "type": "enumeration", "options": options}},
			{"typeDefinition": map[string]any{"name": outputTransaction, "type": "string"}},
		},
		"labels": map[string]any{"en": map[string]any{
			"actionName": "Wait for the sealed contract", "actionCardContent": "Wait for the sealed contract",
			"actionDescription": "Goes on when the deal's contract is sealed and on the deal, or when that came to nothing",
			"inputFieldLabels":  map[string]string{"rule": "Rule (empty: the newest transaction of the deal)"},
			"outputFieldLabels": map[string]string{outputOutcome: "Outcome", outputTransaction: "Transaction ID"},
		}},
	}}
}

// outcomes are all that a workflow may be told.
func outcomes() (all []string) {
	for _, s := range deal.Statuses {
		all = append(all, string(s.Status))
	}
	return append(all, string(deal.OutcomeNothing), string(deal.OutcomeUnread))
}
