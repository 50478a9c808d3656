package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

var atTheTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// issued is a certificate and its key.
type issued struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// issue makes a certificate that by has signed; by itself if that is nil.
func issue(t testing.TB, by *issued, change func(*x509.Certificate)) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "crm-integration-client"}, NotBefore: atTheTime.Add(-time.Hour), NotAfter: atTheTime.Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true}
	if change != nil {
		change(c)
	}
	made := &issued{key: key}
	if by == nil {
		by = &issued{c, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.Certificate, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	if made.Certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return made
}

// withRSA is a certificate for an RSA key of so many bits that nobody has.
func withRSA(t testing.TB, by *issued, bits int) *issued {
	t.Helper()
	modulus := new(big.Int).Lsh(big.NewInt(1), uint(bits))
	c := &x509.Certificate{SerialNumber: big.NewInt(8), Subject: by.Subject, NotBefore: by.NotBefore, NotAfter: by.NotAfter, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, by.Certificate, &rsa.PublicKey{N: modulus.Sub(modulus, big.NewInt(1)), E: 65537}, by.key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{Certificate: made}
}

func ca(c *x509.Certificate) { c.IsCA, c.ExtKeyUsage = true, nil }

func escaped(certs ...*issued) string {
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return url.PathEscape(string(text))
}

func sequence(c *issued) string { return ":" + base64.StdEncoding.EncodeToString(c.Raw) + ":" }

func TestAForwardedCertificateIsReadInBothForms(t *testing.T) {
	t.Parallel()
	root := issue(t, nil, ca)
	between := issue(t, root, ca)
	client, deep := issue(t, root, nil), issue(t, between, nil)
	over := issue(t, root, func(c *x509.Certificate) { c.NotAfter = atTheTime.Add(-time.Minute) })
	early := issue(t, root, func(c *x509.Certificate) { c.NotBefore = atTheTime.Add(time.Minute) })
	server := issue(t, root, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	stranger := issue(t, nil, nil)
	usual, huge := withRSA(t, root, largestRSA), withRSA(t, root, largestRSA+8)
	roots := x509.NewCertPool()
	roots.AddCert(root.Certificate)
	const ok = http.StatusOK
	for name, c := range map[string]struct {
		header string
		values []string
		chain  []string
		want   int
		is     *issued
	}{
		"PEM":                        {HeaderPEM, []string{escaped(client)}, nil, ok, client},
		"PEM without the last line":  {HeaderPEM, []string{strings.TrimSuffix(escaped(client), "%0A")}, nil, ok, client},
		"none":                       {HeaderPEM, nil, nil, ok, nil},
		"an empty one":               {HeaderPEM, []string{""}, nil, ok, nil},
		"two headers":                {HeaderPEM, []string{escaped(client), escaped(client)}, nil, 400, nil},
		"an empty and a good one":    {HeaderPEM, []string{"", escaped(client)}, nil, 400, nil},
		"two certificates":           {HeaderPEM, []string{escaped(client, client)}, nil, 400, nil},
		"text before it":             {HeaderPEM, []string{"x" + escaped(client)}, nil, 400, nil},
		"text behind it":             {HeaderPEM, []string{escaped(client) + "x"}, nil, 400, nil},
		"half of it":                 {HeaderPEM, []string{escaped(client)[:300]}, nil, 400, nil},
		"a broken escape":            {HeaderPEM, []string{escaped(client) + "%0"}, nil, 400, nil},
		"no certificate":             {HeaderPEM, []string{url.PathEscape("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n")}, nil, 400, nil},
		"a key":                      {HeaderPEM, []string{strings.ReplaceAll(escaped(client), "CERTIFICATE", "PRIVATE%20KEY")}, nil, 400, nil},
		"too long":                   {HeaderPEM, []string{escaped(client) + strings.Repeat("%0A", longestForwarded/3)}, nil, 400, nil},
		"DER in the header for PEM":  {HeaderPEM, []string{sequence(client)}, nil, 400, nil},
		"out of date":                {HeaderPEM, []string{escaped(over)}, nil, 401, nil},
		"not yet good":               {HeaderPEM, []string{escaped(early)}, nil, 401, nil},
		"of another CA":              {HeaderPEM, []string{escaped(stranger)}, nil, 401, nil},
		"for servers":                {HeaderPEM, []string{escaped(server)}, nil, 401, nil},
		"without those between":      {HeaderPEM, []string{escaped(deep)}, nil, 401, nil},
		"DER":                        {HeaderDER, []string{sequence(client)}, nil, ok, client},
		"DER and spaces":             {HeaderDER, []string{" " + sequence(client) + " "}, nil, ok, client},
		"DER with those between":     {HeaderDER, []string{sequence(deep)}, []string{sequence(between) + ", " + sequence(root)}, ok, deep},
		"a chain in two headers":     {HeaderDER, []string{sequence(deep)}, []string{sequence(root), sequence(between)}, ok, deep},
		"DER without those between":  {HeaderDER, []string{sequence(deep)}, nil, 401, nil},
		"DER of another CA":          {HeaderDER, []string{sequence(stranger)}, []string{sequence(stranger)}, 401, nil},
		"a broken chain":             {HeaderDER, []string{sequence(client)}, []string{sequence(root) + ",, "}, 400, nil},
		"a long chain":               {HeaderDER, []string{sequence(client)}, []string{strings.Repeat(sequence(root)+",", mostBetween) + sequence(root)}, 400, nil},
		"DER with a parameter":       {HeaderDER, []string{sequence(client) + ";a=1"}, nil, 400, nil},
		"DER without colons":         {HeaderDER, []string{strings.Trim(sequence(client), ":")}, nil, 400, nil},
		"DER in base64 for URLs":     {HeaderDER, []string{":" + base64.URLEncoding.EncodeToString(client.Raw) + "-_:"}, nil, 400, nil},
		"a list of DER":              {HeaderDER, []string{sequence(client) + ", " + sequence(client)}, nil, 400, nil},
		"two headers of DER":         {HeaderDER, []string{sequence(client), sequence(client)}, nil, 400, nil},
		"something behind DER":       {HeaderDER, []string{":" + base64.StdEncoding.EncodeToString(append(client.Raw[:len(client.Raw):len(client.Raw)], 0)) + ":"}, nil, 400, nil},
		"nothing":                    {HeaderDER, []string{"::"}, nil, 400, nil},
		"one colon":                  {HeaderDER, []string{":"}, nil, 400, nil},
		"PEM in the header for DER":  {HeaderDER, []string{escaped(client)}, nil, 400, nil},
		"a key as large as in TLS":   {HeaderDER, []string{sequence(deep)}, []string{sequence(usual) + "," + sequence(between)}, ok, deep},
		"a larger key":               {HeaderDER, []string{sequence(huge)}, nil, 400, nil},
		"a larger key in a chain":    {HeaderDER, []string{sequence(deep)}, []string{sequence(huge) + "," + sequence(between)}, 400, nil},
		"a larger key in PEM":        {HeaderPEM, []string{escaped(huge)}, nil, 400, nil},
		"a chain that belongs to no": {HeaderDER, nil, []string{sequence(client)}, ok, nil},
	} {
		h := http.Header{c.header: c.values, headerChain: c.chain}
		p := &Proxies{Header: c.header, Roots: roots}
		got, err := p.forwarded(h, atTheTime)
		var refused *refusedCertificate
		switch {
		case c.want == ok && (err != nil || (got == nil) != (c.is == nil) || got != nil && !got.Equal(c.is.Certificate)):
			t.Errorf("%s: %v, %v", name, got, err)
		case c.want != ok && (!errors.As(err, &refused) || refused.status != c.want || got != nil || strings.Contains(refused.reason, "crm-integration")):
			t.Errorf("%s: %v, %v, want %d", name, got, err, c.want)
		}
	}
}

// TestOnlyAProxyIsBelieved, and what a proxy is shown takes the place of what it has itself.
func TestOnlyAProxyIsBelieved(t *testing.T) {
	t.Parallel()
	client, own, direct := issue(t, nil, nil), issue(t, nil, nil), issue(t, nil, nil)
	over := issue(t, nil, func(c *x509.Certificate) { c.NotAfter = atTheTime.Add(-time.Minute) })
	roots := x509.NewCertPool()
	roots.AddCert(client.Certificate)
	alone := &Proxies{Header: HeaderPEM, Roots: roots, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/28"), netip.MustParsePrefix("2001:db8::7/128")}}
	known := *alone
	known.Certificates = []string{Fingerprint(own.Raw), Fingerprint(over.Raw)}
	const there, mapped, six, elsewhere = "10.1.2.15:4711", "[::ffff:10.1.2.15]:4711", "[2001:db8::7]:4711", "10.1.2.16:4711"
	for name, c := range map[string]struct {
		proxies   *Proxies
		from      string
		peer      *issued
		forwarded bool
		is        *issued
		via       string
	}{
		"no proxies":                              {nil, there, nil, true, nil, ""},
		"no proxies, a certificate":               {nil, there, direct, true, direct, ""},
		"from the address":                        {alone, there, nil, true, client, "10.1.2.15"},
		"from the address, in the form of IPv6":   {alone, mapped, nil, true, client, "10.1.2.15"},
		"from the address of IPv6":                {alone, six, nil, true, client, "2001:db8::7"},
		"from the address beside it":              {alone, elsewhere, nil, true, nil, ""},
		"from elsewhere, with a certificate":      {alone, elsewhere, direct, true, direct, ""},
		"from no address":                         {alone, "@", direct, true, direct, ""},
		"a proxy's certificate is no caller's":    {alone, there, direct, false, nil, "10.1.2.15"},
		"a proxy shown a caller's":                {alone, there, direct, true, client, "10.1.2.15"},
		"known by both":                           {&known, there, own, true, client, "10.1.2.15 (" + Fingerprint(own.Raw)[:16] + ")"},
		"known by both, shown none":               {&known, there, own, false, nil, "10.1.2.15 (" + Fingerprint(own.Raw)[:16] + ")"},
		"its address alone":                       {&known, there, nil, true, nil, ""},
		"another program at its address":          {&known, there, direct, true, direct, ""},
		"its certificate alone":                   {&known, elsewhere, own, true, nil, ""},
		"its certificate alone, without a header": {&known, elsewhere, own, false, nil, ""},
		"its certificate is out of date":          {&known, there, over, true, nil, "refused"},
	} {
		r := &http.Request{RemoteAddr: c.from, Header: http.Header{}, TLS: &tls.ConnectionState{}}
		if c.peer != nil {
			r.TLS.PeerCertificates = []*x509.Certificate{c.peer.Certificate}
		}
		if c.forwarded {
			r.Header.Set(HeaderPEM, escaped(client))
		}
		got, err := c.proxies.shownBy(r, atTheTime)
		var refused *refusedCertificate
		if errors.As(err, &refused) {
			got.via = "refused"
		}
		if got.via != c.via || (got.certificate == nil) != (c.is == nil) || c.is != nil && !got.certificate.Equal(c.is.Certificate) {
			t.Errorf("%s: %v via %q, %v", name, got.certificate, got.via, err)
		}
	}
}

// FuzzForwardedCertificate: whatever stands in the headers, it is a certificate that the client CA knows, none, or refused; and
// what is read means the same when it is written again.
func FuzzForwardedCertificate(f *testing.F) {
	root := issue(f, nil, ca)
	client := issue(f, root, nil)
	roots := x509.NewCertPool()
	roots.AddCert(root.Certificate)
	for _, value := range []string{escaped(client), sequence(client), "", "::", ":=:", "%", "-----BEGIN CERTIFICATE-----", escaped(client, client), sequence(client) + ";q"} {
		f.Add(true, value, "")
		f.Add(false, value, sequence(root))
	}
	f.Fuzz(func(t *testing.T, asPEM bool, value, chain string) {
		p := &Proxies{Header: HeaderDER, Roots: roots}
		if asPEM {
			p.Header = HeaderPEM
		}
		c, err := p.forwarded(http.Header{p.Header: {value}, headerChain: {chain}}, atTheTime)
		var refused *refusedCertificate
		switch {
		case err != nil && (!errors.As(err, &refused) || c != nil || refused.status != 400 && refused.status != 401 || len(refused.reason) > 100):
			t.Fatalf("%v, %v", c, err)
		case err == nil && c == nil && value != "":
			t.Fatalf("%q is nothing", value)
		case c != nil && !c.Equal(client.Certificate) && c.CheckSignatureFrom(root.Certificate) != nil:
			t.Fatalf("%q is believed", value)
		}
		if c == nil {
			return
		}
		for header, again := range map[string]string{HeaderPEM: escaped(&issued{Certificate: c}), HeaderDER: sequence(&issued{Certificate: c})} {
			p := &Proxies{Header: header, Roots: roots}
			if d, err := p.forwarded(http.Header{header: {again}}, atTheTime); err != nil || !d.Equal(c) {
				t.Fatalf("written again: %v", err)
			}
		}
	})
}
