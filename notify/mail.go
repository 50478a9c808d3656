package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/dealseal/dealseal/secret"
)

// How a mail server is spoken to.
const (
	StartTLS    = "starttls" // begun in the clear and encrypted before anything is said; without it nothing is sent
	ImplicitTLS = "tls"
	Plain       = "none" // on this machine only
)

// Mailbox is a channel that is sent mail.
type Mailbox struct {
	// Host and Port are those of the mail server, Security is StartTLS, ImplicitTLS or Plain.
	Host     string
	Port     int
	Security string
	// User and Password are read for each message; no user: no login.
	User     string
	Password secret.Ref
	// From and To are addresses as in a header.
	From, To string
	// Roots are those that the server's certificate must lead to; nil: the system's.
	Roots *x509.CertPool
}

// Digest has all incidents in one message.
func (b *Mailbox) Digest() int { return 0 }

// Send sends a message and returns once the server has taken it.
func (b *Mailbox) Send(ctx context.Context, m Message) error {
	msg, err := b.compose(m)
	if err != nil {
		return err
	}
	return b.with(ctx, func(c *mail.Client) error { return c.Send(msg) })
}

// Probe connects, encrypts and logs in, and sends nothing.
func (b *Mailbox) Probe(ctx context.Context) error {
	return b.with(ctx, func(*mail.Client) error { return nil })
}

func (b *Mailbox) compose(m Message) (*mail.Msg, error) {
	text, err := m.Text()
	if err != nil {
		return nil, err
	}
	html, err := m.HTML()
	if err != nil {
		return nil, err
	}
	msg := mail.NewMsg()
	if err := errors.Join(msg.From(b.From), msg.To(b.To)); err != nil {
		return nil, &problemError{words: "from or to is no address"}
	}
	domain := "dealseal.invalid"
	if _, at, ok := strings.Cut(msg.GetAddrHeader(mail.HeaderFrom)[0].Address, "@"); ok {
		domain = at
	}
	msg.SetMessageIDWithValue(m.ID + "@" + domain)
	msg.SetDate()
	msg.Subject(shorten(m.Subject))
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody who is away answers
	msg.SetBodyString(mail.TypeTextPlain, text)
	msg.AddAlternativeString(mail.TypeTextHTML, html)
	return msg, nil
}

// with does something over a connection that is encrypted and logged in.
func (b *Mailbox) with(ctx context.Context, do func(*mail.Client) error) error {
	limit := 30 * time.Second
	if end, ok := ctx.Deadline(); ok {
		limit = max(time.Until(end), time.Second)
	}
	o := []mail.Option{
		mail.WithPort(b.Port), mail.WithTimeout(limit), mail.WithHELO("localhost"), mail.WithoutNoop(),
		mail.WithTLSConfig(&tls.Config{ServerName: b.Host, MinVersion: tls.VersionTLS12, RootCAs: b.Roots}),
	}
	switch b.Security {
	case StartTLS:
		o = append(o, mail.WithTLSPolicy(mail.TLSMandatory))
	case ImplicitTLS:
		o = append(o, mail.WithSSL(), mail.WithTLSPolicy(mail.NoTLS)) // no STARTTLS within
	case Plain:
		o = append(o, mail.WithTLSPolicy(mail.NoTLS), mail.WithDialContextFunc(dialHere))
	default:
		return fmt.Errorf("a mail server cannot be spoken to as %q", b.Security)
	}
	if b.User != "" {
		password, err := b.Password.Resolve()
		if err != nil {
			return &problemError{words: "the password cannot be read: " + err.Error()}
		}
		o = append(o, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(b.User), mail.WithPassword(password.RevealString()))
	}
	c, err := mail.NewClient(b.Host, o...)
	if err != nil {
		return err
	}
	if err := c.DialWithContext(ctx); err != nil {
		return mailProblem(err, "")
	}
	err = do(c)
	closed := c.Close()
	if err != nil {
		return mailProblem(err, "the message was not taken: ")
	}
	_ = closed // the message was taken: what comes after changes nothing
	return nil
}

// dialHere connects to this machine only, wherever names lead.
func dialHere(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		if to, err := netip.ParseAddrPort(address); err != nil || !to.Addr().Unmap().IsLoopback() {
			return &problemError{words: "security: none is for a mail server on this machine"}
		}
		return nil
	}}
	return d.DialContext(ctx, network, address)
}

// mailProblem says what is wrong, of what a server answers its code and first words: they name recipients, no secrets.
func mailProblem(err error, before string) error {
	var own *problemError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &certificate):
		return &problemError{words: "the mail server's certificate: " + certificate.Err.Error()}
	case strings.Contains(err.Error(), "STARTTLS"):
		return &problemError{words: "the mail server offers no STARTTLS: nothing is sent in the clear"}
	}
	return &problemError{words: shorten(before + err.Error())}
}
