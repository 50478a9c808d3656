package webhooks

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
)

// Diagnosis is why a request is taken or refused, for whoever has to find out. Nothing in it is of the body, the secrets or the
// signature.
type Diagnosis struct {
	// Refused is why a request that came now would be refused, nil if it would be taken.
	Refused error
	// Cause is what would have to be otherwise for the signature to be right; empty if that is not known. It is right already
	// where only the time is wrong.
	Cause string
}

// Diagnose says why Verify refuses a request, by trying what commonly becomes of bodies, secrets and signatures on their way. Of
// that, as of a dialect that was not meant, nothing is ever taken: it is only named. An error is about our own keys.
func (d *Dialect) Diagnose(r Request, keys Keys, now time.Time) (Diagnosis, error) {
	_, err := d.Verify(r, keys, now)
	var refused *RefusedError
	if err == nil {
		return Diagnosis{}, nil
	}
	if !errors.As(err, &refused) {
		return Diagnosis{}, err
	}
	out := Diagnosis{Refused: refused}
	then := now
	c, unread := d.headers.read(r.Header)
	if unread == nil && d.unit > 0 {
		if at, err := parseStamp(c.stamp, d.unit); err == nil {
			then = at
		}
	}
	proves := func(d *Dialect, r Request, keys Keys) bool {
		_, err := d.Verify(r, keys, then)
		return err == nil
	}
	switch {
	case proves(d, r, keys):
		out.Cause = "the signature is right: only the time is not, so a clock is wrong, or the request was kept back or is an old one"
		return out, nil
	case unread != nil:
		out.Cause = d.otherHeaders(r)
		return out, nil
	case refused.Refusal == Malformed:
		out.Cause = d.otherUnit(c.stamp)
		return out, nil
	}
	for _, v := range bodies(r.Body) {
		other := r
		other.Body = v.body
		if proves(d, other, keys) {
			out.Cause = v.cause
			return out, nil
		}
	}
	for _, v := range spellings(keys) {
		if proves(d, r, v.keys) {
			out.Cause = v.cause
			return out, nil
		}
	}
	for _, other := range dialects {
		if other != d && proves(other, r, keys) {
			out.Cause = "it is signed as dialect " + other.Name + " says: " + other.Says
			return out, nil
		}
	}
	return out, nil
}

// otherUnit says that a time is written in another unit than the dialect's.
func (d *Dialect) otherUnit(stamp string) string {
	words := map[time.Duration]string{time.Second: "seconds", time.Millisecond: "milliseconds"}
	for unit, word := range words {
		if _, err := parseStamp(stamp, unit); err == nil && unit != d.unit {
			return "the time is in " + word + ", and the dialect has " + words[d.unit]
		}
	}
	return ""
}

// otherHeaders names the dialects whose headers a request has.
func (d *Dialect) otherHeaders(r Request) string {
	var found []string
	for _, other := range dialects {
		if other == d {
			continue
		}
		if _, err := other.headers.read(r.Header); err == nil {
			found = append(found, other.Name)
		}
	}
	if found == nil {
		return ""
	}
	return "its headers are those of dialect " + strings.Join(found, " or ")
}

type otherBody struct {
	cause string
	body  []byte
}

// bodies are what a body may have been when it was signed. Those that are the same as it is are left out.
func bodies(is []byte) (list []otherBody) {
	mark := []byte("\xef\xbb\xbf")
	add := func(cause string, was []byte) {
		if !bytes.Equal(was, is) {
			list = append(list, otherBody{cause, was})
		}
	}
	add("the signature is of the body without the byte order mark in front of it", bytes.TrimPrefix(is, mark))
	add("the signature is of a body with a byte order mark in front, which this one has lost", append(bytes.Clone(mark), is...))
	add("the signature is of the body without the line break at its end", bytes.TrimRight(is, "\r\n"))
	add("the signature is of a body with a line break at its end, which this one has lost", append(bytes.Clone(is), '\n'))
	add("the signature is of a body with a line break (CR LF) at its end, which this one has lost", append(bytes.Clone(is), '\r', '\n'))
	add("the signature is of the body without the white space around it", bytes.TrimSpace(is))
	lines := bytes.ReplaceAll(is, []byte("\r\n"), []byte("\n"))
	add("the signature is of a body whose lines end in LF, and this one's end in CR LF", lines)
	add("the signature is of a body whose lines end in CR LF, and this one's end in LF", bytes.ReplaceAll(lines, []byte("\n"), []byte("\r\n")))
	add("the signature is of nothing: whoever has signed it did not have the body", nil)
	if plain, err := url.QueryUnescape(string(is)); err == nil {
		add("the signature is of the body before it was escaped as in URLs", []byte(plain))
	}
	for _, v := range encodings(is) {
		add("the body was decoded and encoded again: the signature is of "+v.cause, v.body)
	}
	return list
}

// encodings are other ways to write the same JSON.
func encodings(is []byte) (list []otherBody) {
	var b bytes.Buffer
	if json.Compact(&b, bytes.TrimPrefix(is, []byte("\xef\xbb\xbf"))) != nil {
		return nil
	}
	compact := b.Bytes()
	list = append(list, otherBody{"the JSON without white space", compact}, otherBody{"the JSON with a space behind each comma and colon", spaced(compact)})
	for _, indent := range []string{"  ", "    ", "\t"} {
		var b bytes.Buffer
		if json.Indent(&b, compact, "", indent) == nil {
			list = append(list, otherBody{"the JSON with indented lines", b.Bytes()})
		}
	}
	var escaped bytes.Buffer
	json.HTMLEscape(&escaped, compact)
	return append(list, otherBody{`the JSON with <, > and & written as \u003c, \u003e and \u0026`, escaped.Bytes()},
		otherBody{"the JSON with its slashes escaped", bytes.ReplaceAll(compact, []byte("/"), []byte(`\/`))})
}

// spaced puts a space behind each comma and colon that stands between values.
func spaced(compact []byte) (out []byte) {
	quoted := false
	for i := 0; i < len(compact); i++ {
		c := compact[i]
		out = append(out, c)
		switch {
		case quoted && c == '\\' && i+1 < len(compact):
			i++
			out = append(out, compact[i])
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == ':'):
			out = append(out, ' ')
		}
	}
	return out
}

type otherKeys struct {
	cause string
	keys  Keys
}

// spellings are what a secret may be for whoever has signed.
func spellings(keys Keys) (list []otherKeys) {
	for _, s := range keys.Secrets {
		text := s.Reveal()
		add := func(cause string, other []byte) {
			if len(other) > 0 && !bytes.Equal(other, text) {
				list = append(list, otherKeys{cause, Keys{Secrets: []secret.Secret{secret.New(other)}}})
			}
		}
		bare := bytes.TrimPrefix(text, []byte(standardPrefix))
		add("the signer's secret has no white space at its ends, as ours has", bytes.TrimSpace(text))
		add("the signer's secret ends in a line break: it was read from a file together with it", append(bytes.Clone(text), '\n'))
		add("the signer uses the secret without "+standardPrefix, bare)
		add("the signer uses the text of the secret, "+standardPrefix+" included, and not what it says in base64", append([]byte(standardPrefix), base64.StdEncoding.EncodeToString(text)...))
		if raw, err := base64.StdEncoding.DecodeString(string(bare)); err == nil {
			add("the signer uses what the secret says in base64, and we its text", raw)
		}
		if raw, err := hex.DecodeString(string(text)); err == nil {
			add("the signer uses what the secret says in hexadecimal, and we its text", raw)
		}
		add("the signer uses the secret in base64", []byte(base64.StdEncoding.EncodeToString(text)))
		add("the signer uses the secret in hexadecimal", []byte(hex.EncodeToString(text)))
	}
	return list
}
