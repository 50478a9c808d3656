package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"strings"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/webhooks"
)

// Most bytes of what was received, as it was kept in files.
const (
	debugHeaders = 64 << 10
	debugBody    = 4 << 20
)

// debugHook says why the signature of a request that somebody has received does not fit. It asks nobody, and shows nothing of the
// body, the secret or the signature: what it prints can be sent to whoever signs.
func debugHook(c *call, dialect, headersFile, bodyFile string) error {
	d := webhooks.Find(dialect)
	if d == nil {
		return usagef("dialect %q is not known%s", dialect, config.Nearest(dialect, webhooks.Names()))
	}
	if strings.HasPrefix(d.Name, "hubspot") && c.hooks.url == "" {
		return usagef("HubSpot signs the address: name it as HubSpot has it, with --url")
	}
	keys, err := c.debugKeys()
	if err != nil {
		return err
	}
	at := time.Now()
	if c.hooks.at != "" {
		if at, err = moment("--at", c.hooks.at); err != nil {
			return err
		}
	}
	head, err := readUpTo(headersFile, debugHeaders)
	if err != nil {
		return err
	}
	body, err := readUpTo(bodyFile, debugBody)
	if err != nil {
		return err
	}
	header, err := parseHeaders(head)
	if err != nil {
		return fmt.Errorf("%s: %w", headersFile, err)
	}
	found, err := d.Diagnose(webhooks.Request{Method: http.MethodPost, URL: c.hooks.url, Header: header, Body: body}, keys, at)
	if err != nil {
		return err
	}
	said := debugged{Dialect: d.Name, Bytes: len(body), Taken: found.Refused == nil, Cause: found.Cause}
	if !said.Taken {
		said.Refused = found.Refused.Error()
		said.Cause = cmp.Or(said.Cause, "none of what commonly happens explains it: compare the secret, and have the very bytes signed that are sent")
		err = &exitError{exitFailed}
	}
	if c.json {
		return errors.Join(printJSON(c.stdout, said), err)
	}
	fmt.Fprintf(c.stdout, "dialect %s: %s\nthe body has %d bytes\n", d.Name, d.Says, said.Bytes)
	if said.Taken {
		fmt.Fprintln(c.stdout, "taken: the signature fits, and the time with it")
		return nil
	}
	fmt.Fprintf(c.stdout, "refused: %s\ncause: %s\n", said.Refused, said.Cause)
	return err
}

// debugged is what is said of a request.
type debugged struct {
	Dialect string `json:"dialect"`
	Bytes   int    `json:"bytes"` // of the body
	Taken   bool   `json:"taken"`
	Refused string `json:"refused,omitempty"`
	Cause   string `json:"cause,omitempty"`
}

// debugKeys are what the request is to be verified with.
func (c *call) debugKeys() (keys webhooks.Keys, err error) {
	if c.hooks.secret == "" && c.hooks.publicKey == "" {
		return keys, usagef("name what it is verified with: --secret file:/PATH or --public-key FILE.pem")
	}
	if c.hooks.secret != "" {
		ref, err := secret.ParseRef(c.hooks.secret)
		if err != nil {
			return keys, usagef("--secret: %v", err)
		}
		s, err := ref.Resolve()
		if err != nil {
			return keys, err
		}
		keys.Secrets = []secret.Secret{s}
	}
	if c.hooks.publicKey != "" {
		if keys.Public, err = readPublicKeys(c.hooks.publicKey); err != nil {
			return keys, err
		}
	}
	return keys, nil
}

// readUpTo reads a file that may not be larger.
func readUpTo(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return b, err
}

// parseHeaders reads headers as they are written in HTTP/1.1 or by curl -D: one in a line. A request or status line
// before them is passed over.
func parseHeaders(text []byte) (http.Header, error) {
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	words := strings.Fields(string(first))
	if len(words) == 3 && strings.HasPrefix(words[2], "HTTP/") || len(words) > 1 && strings.HasPrefix(words[0], "HTTP/") {
		text = rest
	}
	text = append(bytes.TrimRight(text, "\r\n"), "\r\n\r\n"...)
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(text))).ReadMIMEHeader()
	if err != nil {
		return nil, errors.New("these are no headers, one in a line such as X-Signature: hmac=…") // what textproto says would show a line
	}
	return http.Header(h), nil
}
