package webhooks

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/mocks/hostile"
	"github.com/dealseal/dealseal/secret"
)

// TestADiagnosisNamesWhatHasHappenedToARequest signs one thing and has another one judged.
func TestADiagnosisNamesWhatHasHappenedToARequest(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	body, raw := `{"name":"A/B & Søn","list":[1,2]}`, "sixteen bytes ok"
	for cause, c := range map[string]struct {
		dialect, signed, come string
		signs, ours           string // secrets, raw if empty
		late                  time.Duration
	}{
		"":                                    {dialect: "sdf", come: "%s another document"},
		"without the byte order mark":         {dialect: "sdf", come: "\xef\xbb\xbf%s"},
		"a byte order mark in front, which":   {dialect: "sdf", signed: "\xef\xbb\xbf%s"},
		"without the line break at its end":   {dialect: "github", come: "%s\r\n"},
		"with a line break at its end, which": {dialect: "certyneo", signed: "%s\n"},
		"white space around it":               {dialect: "sdf", come: " %s "},
		"of nothing":                          {dialect: "x-signature", signed: "\x00"},
		"without white space":                 {dialect: "sdf", come: `{"name": "A/B & Søn", "list": [1, 2]}`},
		"space behind each comma":             {dialect: "sdf", signed: `{"name": "A/B & Søn", "list": [1, 2]}`},
		"indented lines":                      {dialect: "sdf", signed: "{\n  \"name\": \"A/B & Søn\",\n  \"list\": [\n    1,\n    2\n  ]\n}"},
		`<, > and & written`:                  {dialect: "sdf", signed: `{"name":"A/B \u0026 Søn","list":[1,2]}`},
		"slashes escaped":                     {dialect: "sdf", signed: `{"name":"A\/B & Søn","list":[1,2]}`},
		"escaped as in URLs":                  {dialect: "sdf", come: "%%7B%%22name%%22%%3A%%22A%%2FB+%%26+S%%C3%%B8n%%22%%2C%%22list%%22%%3A%%5B1%%2C2%%5D%%7D"},
		"ends in a line break: it was read":   {dialect: "sdf", signs: raw + "\n"},
		"no white space at its ends, as ours": {dialect: "sdf", ours: raw + " "},
		"without whsec_":                      {dialect: "sdf", ours: "whsec_" + raw},
		"what the secret says in base64":      {dialect: "sdf", ours: base64.StdEncoding.EncodeToString([]byte(raw))},
		"only the time is not":                {dialect: "certyneo", late: time.Hour},
		"as dialect x-signature-dotted says":  {dialect: "x-signature-dotted"},
		"those of dialect certyneo":           {dialect: "certyneo"},
		"the time is in milliseconds":         {dialect: "x-signature-dotted"},
	} {
		d := Find(c.dialect)
		of := func(pattern string) []byte {
			switch {
			case pattern == "":
				return []byte(body)
			case pattern == "\x00":
				return nil
			}
			return []byte(strings.ReplaceAll(strings.ReplaceAll(pattern, "%%", "\x00"), "%s", body))
		}
		key := func(text string) secret.Secret {
			if text == "" {
				text = raw
			}
			return secret.New([]byte(text))
		}
		r := Request{Method: http.MethodPost, Header: http.Header{}, Body: of(c.signed)}
		if err := d.Sign(r, "msg_1", now, key(c.signs)); err != nil {
			t.Fatal(err)
		}
		r.Body = bytes.ReplaceAll(of(c.come), []byte{0}, []byte("%"))
		judge := d
		switch cause {
		case "as dialect x-signature-dotted says":
			judge = Find("x-signature")
		case "the time is in milliseconds":
			r.Header.Set("X-Timestamp", r.Header.Get("X-Timestamp")+"000")
		case "those of dialect certyneo":
			judge = Find("sdf")
		}
		found, err := judge.Diagnose(r, Keys{Secrets: []secret.Secret{key(c.ours)}}, now.Add(c.late))
		if err != nil || found.Refused == nil || !strings.Contains(found.Cause, cause) || cause == "" && found.Cause != "" {
			t.Errorf("%q: %+v, %v", cause, found, err)
		}
		if strings.Contains(found.Cause, "Søn") || strings.Contains(found.Cause, raw) {
			t.Errorf("%q shows what is hidden: %s", cause, found.Cause)
		}
	}
	good := Request{Method: http.MethodPost, Header: http.Header{}, Body: []byte(body)}
	if err := Find("sdf").Sign(good, "", now, secret.New([]byte(raw))); err != nil {
		t.Fatal(err)
	}
	if found, err := Find("sdf").Diagnose(good, Keys{Secrets: []secret.Secret{secret.New([]byte(raw))}}, now); err != nil || found != (Diagnosis{}) {
		t.Errorf("a good one: %+v, %v", found, err)
	}
}

func FuzzDiagnose(f *testing.F) {
	f.Add("x-signature", "hmac=00", []byte(`{"a":[1,"\"",{}]}`), "whsec_aGk=")
	f.Add("certyneo", "t=1790000000,v1=00", []byte("\xef\xbb\xbf%7B%22\r\n"), "6869")
	f.Fuzz(func(t *testing.T, name, value string, body []byte, key string) {
		hostile.Budget(t)
		d := Find(name)
		if d == nil || key == "" {
			return
		}
		h := http.Header{}
		for _, n := range []string{"X-SDF-Signature", "Certyneo-Signature", "X-Certyneo-Signature", "X-Signature", "X-Timestamp", "X-Signature-256", "X-Hub-Signature-256"} {
			h.Set(n, value)
		}
		_, _ = d.Diagnose(Request{Method: http.MethodPost, Header: h, Body: body}, Keys{Secrets: []secret.Secret{secret.New([]byte(key))}}, time.Unix(1_790_000_000, 0))
	})
}
