// Package smtp is a mail server for tests: it speaks the wire, with STARTTLS or TLS and a login, keeps what it is sent, and
// fails on demand.
package smtp

import (
	"crypto/tls"
	"io"
	"net"
	"net/mail"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Message is one that was taken.
type Message struct {
	From, To string
	Header   mail.Header
	Body     string
	// User is who was logged in, TLS whether the connection was encrypted.
	User string
	TLS  bool
}

// Server is a mail server on a loopback address.
type Server struct {
	// Address is where it listens.
	Address string

	server *smtp.Server
	ended  chan struct{}

	mu       sync.Mutex
	taken    []Message
	fail     int // so many messages are refused from now on; negative: all
	failWith *smtp.SMTPError
	lose     int // so many messages are taken, and the answer is lost
	logins   int
	arrived  chan struct{}
}

// Options say how a server is spoken to.
type Options struct {
	// TLS is its certificate; nil: it speaks in the clear only.
	TLS *tls.Config
	// Implicit encrypts from the first byte instead of STARTTLS.
	Implicit bool
	// User and Password are those it lets in; an empty user lets everybody in.
	User, Password string
}

// Start listens at an address, "127.0.0.1:0" for any port.
func Start(address string, o Options) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	s := &Server{Address: l.Addr().String(), ended: make(chan struct{}), arrived: make(chan struct{}, 1)}
	s.server = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &session{server: s, conn: c, o: o}, nil }))
	s.server.Domain, s.server.TLSConfig = "localhost", o.TLS
	s.server.ReadTimeout, s.server.WriteTimeout, s.server.MaxMessageBytes = time.Minute, time.Minute, 1<<20
	s.server.ErrorLog = silent{}
	if o.Implicit {
		s.server.TLSConfig = nil
		l = tls.NewListener(l, o.TLS)
	}
	go func() {
		defer close(s.ended)
		_ = s.server.Serve(l) // it ends with Close
	}()
	return s, nil
}

type silent struct{}

func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

// Close ends it, with all connections.
func (s *Server) Close() error {
	err := s.server.Close()
	<-s.ended
	return err
}

// Fail has so many messages refused with 451, which asks the sender to try again; all of them for a negative number.
func (s *Server) Fail(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.failWith = n, &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "no room for it"}
}

// LoseAnswer has so many messages taken without that the sender hears of it.
func (s *Server) LoseAnswer(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = n
}

// Taken are the messages so far.
func (s *Server) Taken() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.taken...)
}

// Logins counts those that were let in.
func (s *Server) Logins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// Arrived is signalled when a message was taken; it keeps one signal.
func (s *Server) Arrived() <-chan struct{} { return s.arrived }

type session struct {
	server   *Server
	conn     *smtp.Conn
	o        Options
	user     string
	from, to string
}

func (s *session) encrypted() bool {
	_, ok := s.conn.TLSConnectionState()
	return ok || s.o.Implicit
}

// AuthMechanisms offers a login over TLS only.
func (s *session) AuthMechanisms() []string {
	if s.o.User == "" || !s.encrypted() {
		return nil
	}
	return []string{sasl.Plain}
}

// Auth logs in.
func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if !s.encrypted() || user != s.o.User || password != s.o.Password {
			return smtp.ErrAuthFailed
		}
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		s.server.logins++
		s.user = user
		return nil
	}), nil
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.o.User != "" && s.user == "" {
		return smtp.ErrAuthRequired
	}
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = to
	return nil
}

// Data takes a message, or does what was asked for instead.
func (s *session) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m, err := mail.ReadMessage(strings.NewReader(string(text)))
	if err != nil {
		return &smtp.SMTPError{Code: 550, Message: "this is no message"}
	}
	body, err := io.ReadAll(m.Body)
	if err != nil {
		return err
	}
	srv := s.server
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.fail != 0 {
		srv.fail--
		return srv.failWith
	}
	srv.taken = append(srv.taken, Message{From: s.from, To: s.to, Header: m.Header, Body: string(body), User: s.user, TLS: s.encrypted()})
	select {
	case srv.arrived <- struct{}{}:
	default:
	}
	if srv.lose > 0 {
		srv.lose--
		_ = s.conn.Conn().Close()
	}
	return nil
}

func (s *session) Reset()        {}
func (s *session) Logout() error { return nil }
