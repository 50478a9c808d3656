package main

import (
	"bufio"
	"bytes"
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
	fmt.Fprintf(c.stdout, "dialect %s: %s\nthe body has %d bytes\n", d.Name, d.Says, len(body))
	if found.Refused == nil {
		fmt.Fprintf(c.stdout, "taken: the signature fits, and the time with it\n")
		return nil
	}
	fmt.Fprintf(c.stdout, "refused: %v\n", found.Refused)
	if found.Cause == "" {
		found.Cause = "none of what commonly happens explains it: compare the secret, and have the very bytes signed that are sent"
	}
	fmt.Fprintf(c.stdout, "cause: %s\n", found.Cause)
	return &exitError{exitFailed}
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

// parseHeaders reads headers as they are written in HTTP/1.1 or by curl -D: one in a line. A request line before them is passed
// over.
func parseHeaders(text []byte) (http.Header, error) {
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	if words := strings.Fields(string(first)); len(words) == 3 && strings.HasPrefix(words[2], "HTTP/") {
		text = rest
	}
	text = append(bytes.TrimRight(text, "\r\n"), "\r\n\r\n"...)
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(text))).ReadMIMEHeader()
	if err != nil {
		return nil, errors.New("these are no headers, one in a line such as X-Signature: hmac=…") // what textproto says would show a line
	}
	return http.Header(h), nil
}
