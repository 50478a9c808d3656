package hubspot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/connectors"
)

// Surplus implements connectors.Thrifty. HubSpot tells the scopes of an app's token, but perhaps not of every kind of key. It
// costs one call.
func (c *Connector) Surplus(ctx context.Context, p connectors.Probe) ([]connectors.Problem, bool, error) {
	granted, err := c.granted(ctx)
	var e *Error
	if errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Status == http.StatusBadRequest || e.Status == http.StatusForbidden) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("hubspot: see which scopes the app has: %w", err)
	}
	return surplus(granted, scopesFor(kindsOf(p)), p.Workflows), true, nil
}

func surplus(granted, needed []string, workflows bool) (problems []connectors.Problem) {
	if workflows {
		needed = append(slices.Clone(needed), AutomationScope)
		if !slices.Contains(granted, AutomationScope) {
			problems = append(problems, connectors.Problem{Aspect: connectors.AspectScopes, What: "workflows that wait for a contract cannot be told of it: the scope " + AutomationScope + " is missing",
				Cure: "give the app the scope, and install it again"})
		}
	}
	var more []string
	for _, scope := range granted {
		if !slices.Contains(needed, scope) && !slices.Contains([]string{"files.read", "files.write"}, scope) && nameForm.MatchString(scope) {
			more = append(more, scope)
		}
	}
	if more == nil {
		return problems
	}
	slices.Sort(more)
	cure := "take them from the app, or use a key of its own for dealseal"
	if slices.Contains(more, SetUpScope) {
		cure += "; " + SetUpScope + " is needed while dealseal provision makes properties, and not afterwards"
	}
	return append(problems, connectors.Problem{Aspect: connectors.AspectScopes, Warning: true, What: "it may do more than dealseal needs: " + strings.Join(more[:min(len(more), maxDetails)], ", "), Cure: cure})
}

// granted asks HubSpot for the scopes of the token that is in use. The token goes nowhere else than with every call.
func (c *Connector) granted(ctx context.Context) ([]string, error) {
	token, err := c.wire.session.get(ctx)
	if err != nil {
		return nil, err
	}
	x := exchange{method: http.MethodPost}
	var body []byte
	if c.cfg.Auth.Flow == FlowOAuth {
		secret, err := reveal(c.cfg.Auth.ClientSecret)
		if err != nil {
			return nil, err
		}
		body = []byte(url.Values{"client_id": {c.cfg.Auth.ClientID}, "client_secret": {secret}, "token_type_hint": {"access_token"}, "token": {token}}.Encode())
		x.url, x.access = c.wire.base+"/oauth/"+c.cfg.APIVersion+"/token/introspect", noToken
		x.header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	} else {
		if body, err = json.Marshal(map[string]string{"tokenKey": token}); err != nil {
			return nil, err
		}
		x.url, x.header = c.wire.base+"/oauth/v2/private-apps/get/access-token-info", http.Header{"Content-Type": {"application/json"}}
	}
	x.open, x.length = func() io.Reader { return bytes.NewReader(body) }, int64(len(body))
	r, err := c.wire.fetch(ctx, x)
	if err != nil {
		return nil, err
	}
	var said struct {
		Scopes []string `json:"scopes"`
	}
	if err := r.decode(&said); err != nil {
		return nil, err
	}
	if said.Scopes == nil {
		return nil, malformed("it names no scopes")
	}
	return said.Scopes, nil
}
