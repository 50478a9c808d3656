package hubspot

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// A reply is an answer made under the lock and written without it.
type reply struct {
	status int
	header http.Header
	body   []byte
	cut    bool // the connection is closed in the middle of it
}

func respond(status int, v any) *reply {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("hubspot: answer cannot be encoded: %v", err)) // a mistake in this package
	}
	return &reply{status: status, header: http.Header{"Content-Type": {"application/json;charset=utf-8"}}, body: body}
}

func noContent() *reply { return &reply{status: http.StatusNoContent, header: http.Header{}} }

// detail is one element of the error envelope's errors.
type detail struct {
	Message string              `json:"message"`
	Code    string              `json:"code,omitempty"`
	In      string              `json:"in,omitempty"`
	Context map[string][]string `json:"context,omitempty"`
}

// envelope is HubSpot's error body.
type envelope struct {
	Status        string              `json:"status"`
	Message       string              `json:"message"`
	CorrelationID string              `json:"correlationId,omitempty"`
	Category      string              `json:"category,omitempty"`
	SubCategory   string              `json:"subCategory,omitempty"`
	Context       map[string][]string `json:"context,omitempty"`
	Links         map[string]string   `json:"links,omitempty"`
	Errors        []detail            `json:"errors,omitempty"`

	ErrorType  string `json:"errorType,omitempty"` // of 429 only, as are the two below
	PolicyName string `json:"policyName,omitempty"`
	RequestID  string `json:"requestId,omitempty"`
}

func fail(status int, e envelope) *reply {
	e.Status = "error"
	if e.CorrelationID == "" {
		e.CorrelationID = uuid()
	}
	r := respond(status, e)
	r.header.Set("X-HubSpot-Correlation-Id", e.CorrelationID)
	return r
}

func invalid(format string, args ...any) *reply {
	return fail(http.StatusBadRequest, envelope{Message: fmt.Sprintf(format, args...), Category: "VALIDATION_ERROR"})
}

func notFound(id string) *reply {
	return fail(http.StatusNotFound, envelope{
		Message:  "Object not found.  objectId are usually numeric.",
		Category: "OBJECT_NOT_FOUND",
		Context:  map[string][]string{"id": {id}},
	})
}

func noRoute() *reply {
	return fail(http.StatusNotFound, envelope{Message: "resource not found"})
}

func conflict(subCategory, format string, args ...any) *reply {
	return fail(http.StatusConflict, envelope{
		Message:     fmt.Sprintf(format, args...),
		Category:    "OBJECT_ALREADY_EXISTS",
		SubCategory: subCategory,
	})
}

func unauthenticated() *reply {
	return fail(http.StatusUnauthorized, envelope{
		Message: "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more details at " +
			"https://developers.hubspot.com/docs/methods/auth/oauth-overview",
		Category: "INVALID_AUTHENTICATION",
	})
}

func tokenExpired(minutes int) *reply {
	return fail(http.StatusUnauthorized, envelope{
		Message:  fmt.Sprintf("The OAuth token used to make this call expired %d minute(s) ago.", minutes),
		Category: "EXPIRED_AUTHENTICATION",
	})
}

func missingScopes(scopes []string) *reply {
	return fail(http.StatusForbidden, envelope{
		Message:  "This app hasn't been granted all required scopes to make this call. Read more about required scopes here: https://developers.hubspot.com/scopes.",
		Category: "MISSING_SCOPES",
		Links:    map[string]string{"scopes": "https://developers.hubspot.com/scopes"},
		Errors: []detail{{
			Message: "One or more of the following scopes are required.",
			Context: map[string][]string{"requiredGranularScopes": scopes},
		}},
	})
}

func rateLimited(policy string) *reply {
	return fail(http.StatusTooManyRequests, envelope{
		Message:    "You have reached your " + strings.ToLower(policy) + " limit.",
		ErrorType:  "RATE_LIMIT",
		PolicyName: policy,
		RequestID:  uuid(),
	})
}

// problem is what is wrong with the value of one property.
type problem struct {
	property, code, message string
}

// valuesInvalid answers a write with bad values: HubSpot puts a JSON array into
// the message and repeats it in errors.
func (p *Portal) valuesInvalid(problems []problem) *reply {
	type inMessage struct {
		IsValid   bool   `json:"isValid"`
		Message   string `json:"message"`
		Error     string `json:"error"`
		Name      string `json:"name"`
		Localized string `json:"localizedErrorMessage"`
		PortalID  int64  `json:"portalId"`
	}
	var list []inMessage
	e := envelope{Category: "VALIDATION_ERROR"}
	for _, pr := range problems {
		list = append(list, inMessage{Message: pr.message, Error: pr.code, Name: pr.property, Localized: pr.message, PortalID: p.opt.PortalID})
		e.Errors = append(e.Errors, detail{Message: pr.message, Code: pr.code, Context: map[string][]string{"propertyName": {pr.property}}})
	}
	text, err := json.Marshal(list)
	if err != nil {
		panic(fmt.Sprintf("hubspot: answer cannot be encoded: %v", err)) // strings and numbers only
	}
	e.Message = "Property values were not valid: " + string(text)
	return fail(http.StatusBadRequest, e)
}
