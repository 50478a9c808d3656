package hubspot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// WorkflowAction is a custom action of an app that workflows of deals call.
type WorkflowAction struct {
	// ActionURL is where it is called, and what is signed of the address.
	ActionURL string
	// Secret is the app's client secret.
	Secret string
	// Client calls; nil means one with a limit of 30 s that follows no redirect.
	Client *http.Client
}

// Execution is one deal that has come to the action in a workflow.
type Execution struct {
	CallbackID string
	// State is BLOCK while the workflow stands still, then what it was told, EXPIRED when nobody did, FAILED when the action's
	// answer was a refusal, and empty while no answer could be used: then it is called again.
	State string
	// Output are the output fields that came with the state.
	Output map[string]string
	// Expires is when a workflow that stands still goes on by itself.
	Expires time.Time
	// Status is that of the last answer, 0 without one. Told is how often somebody has finished it with success.
	Status, Told int
	// Answered is the state that the first answer which could be used has given it, and Block for how long it was to stand still:
	// it may have been told how to go on by the time that somebody looks.
	Answered, Block string

	body []byte
}

// workflows are the actions that were called. Its lock is its own: calls are made without the portal's.
type workflows struct {
	mu     sync.Mutex
	action WorkflowAction
	n      int
	of     map[string]*Execution
}

// DefineAction takes the definition of an action as a project has it (…-hsmeta.json), and calls it from then on.
func (p *Portal) DefineAction(definition []byte, a WorkflowAction) error {
	var d struct {
		Type   string
		Config struct {
			ActionURL        string
			IsPublished      bool
			ObjectTypes      []string
			SupportedClients []struct{ Client string }
			OutputFields     []struct {
				TypeDefinition struct{ Name, Type string }
			}
			Labels map[string]struct{ ActionName string }
		}
	}
	if err := json.Unmarshal(definition, &d); err != nil {
		return fmt.Errorf("hubspot: the action's definition: %w", err)
	}
	c := d.Config
	switch {
	case d.Type != "workflow-action" || !c.IsPublished || len(c.SupportedClients) != 1 || c.SupportedClients[0].Client != "WORKFLOWS":
		return errors.New("hubspot: it defines no published action of workflows")
	case len(c.ObjectTypes) != 1 || c.ObjectTypes[0] != "DEAL":
		return errors.New("hubspot: the action is not for deals")
	case c.Labels["en"].ActionName == "":
		return errors.New("hubspot: the action has no name")
	case !strings.HasPrefix(c.ActionURL, "https://"):
		return errors.New("hubspot: the action has no https address")
	}
	a.ActionURL = c.ActionURL
	if a.Client == nil {
		a.Client = &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	p.flows.mu.Lock()
	defer p.flows.mu.Unlock()
	p.flows.action = a
	return nil
}

// Enrol has a deal come to the action, and calls it once. rule is the action's input; empty for none.
func (p *Portal) Enrol(ctx context.Context, dealID, rule string) (callbackID string) {
	f := &p.flows
	f.mu.Lock()
	if f.of == nil {
		f.of = map[string]*Execution{}
	}
	f.n++
	callbackID = fmt.Sprintf("ap-%d-56776413549-%d-0", p.opt.PortalID, f.n)
	input := map[string]string{}
	if rule != "" {
		input["rule"] = rule
	}
	id, err := strconv.ParseInt(dealID, 10, 64)
	if err != nil {
		panic("hubspot: " + dealID + " is no deal") // a mistake in the test
	}
	body, err := json.Marshal(map[string]any{
		"callbackId": callbackID, "origin": map[string]any{"portalId": p.opt.PortalID, "actionDefinitionId": 10646377, "actionDefinitionVersion": 1},
		"context": map[string]any{"source": "WORKFLOWS", "workflowId": 192814114},
		"object":  map[string]any{"objectId": id, "objectType": "DEAL", "properties": map[string]string{}}, "inputFields": input,
	})
	if err != nil {
		panic(err) // of plain values
	}
	f.of[callbackID] = &Execution{CallbackID: callbackID, body: body}
	f.mu.Unlock()
	p.CallAgain(ctx, callbackID)
	return callbackID
}

// CallAgain calls the action once more for a deal, as HubSpot does until it gets an answer that it can use, and by mistake
// afterwards.
func (p *Portal) CallAgain(ctx context.Context, callbackID string) {
	f := &p.flows
	f.mu.Lock()
	action, body := f.action, f.of[callbackID].body
	f.mu.Unlock()
	status, answer := callAction(ctx, action, body, p.now())
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.of[callbackID]
	e.Status = status
	if e.State != "" {
		return // it has an answer that counts
	}
	e.take(answer, p.now())
}

func callAction(ctx context.Context, a WorkflowAction, body []byte, at time.Time) (status int, answer []byte) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.ActionURL, strings.NewReader(string(body)))
	if err != nil {
		return 0, nil
	}
	Sign(r, a.ActionURL, a.Secret, body, at)
	resp, err := a.Client.Do(r)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil {
		return 0, nil
	}
	return resp.StatusCode, answer
}

// usualBlock is how long a workflow stands still that was not told for how long.
const usualBlock = 7 * 24 * time.Hour

var blockForm = regexp.MustCompile(`^P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?)?$`)

// take is what an answer makes of it.
func (e *Execution) take(answer []byte, now time.Time) {
	switch {
	case e.Status == 0 || e.Status >= 500 || e.Status == http.StatusTooManyRequests:
		return // it is called again
	case e.Status >= 400:
		e.State = "FAILED"
		return
	}
	defer func() { e.Answered, e.Block = e.State, e.Output["hs_expiration_duration"] }()
	var said struct {
		OutputFields map[string]string `json:"outputFields"`
	}
	if json.Unmarshal(answer, &said) != nil || said.OutputFields["hs_execution_state"] == "" {
		e.State = "SUCCESS"
		return
	}
	e.State, e.Output = said.OutputFields["hs_execution_state"], said.OutputFields
	if e.State != "BLOCK" {
		return
	}
	e.Expires = now.Add(usualBlock)
	if d := blockForm.FindStringSubmatch(said.OutputFields["hs_expiration_duration"]); d != nil {
		e.Expires = now
		for i, unit := range []time.Duration{7 * 24 * time.Hour, 24 * time.Hour, time.Hour, time.Minute} {
			n, _ := strconv.Atoi(d[i+1]) // what is not there is 0
			e.Expires = e.Expires.Add(time.Duration(n) * unit)
		}
	}
}

// Execution returns how a deal's workflow stands.
func (p *Portal) Execution(callbackID string) Execution {
	now := p.now()
	p.flows.mu.Lock()
	defer p.flows.mu.Unlock()
	e := p.flows.of[callbackID]
	e.expire(now)
	return *e
}

// expire lets a workflow go on that has stood still for too long.
func (e *Execution) expire(now time.Time) {
	if e.State == "BLOCK" && !now.Before(e.Expires) {
		e.State = "EXPIRED"
	}
}

// complete lets a workflow go on that stands still.
func (c *call) complete() *reply {
	var in struct {
		OutputFields map[string]string `json:"outputFields"`
	}
	if bad := c.decode(&in); bad != nil {
		return bad
	}
	id := c.r.PathValue("callback")
	f := &c.p.flows
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.of[id]
	if e != nil {
		e.expire(c.p.now())
	}
	state := in.OutputFields["hs_execution_state"]
	switch {
	case e == nil || e.State != "BLOCK":
		return notFound(id)
	case state != "SUCCESS" && state != "FAIL_CONTINUE":
		return invalid("hs_execution_state must be SUCCESS or FAIL_CONTINUE.")
	}
	e.State, e.Output = state, in.OutputFields
	e.Told++
	return noContent()
}
