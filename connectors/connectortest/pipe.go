package connectortest

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
)

// Pipe is a listener whose connections are those of net.Pipe: in a bubble of testing/synctest time goes on while somebody
// waits for one, as it does not for a socket of the loopback device.
type Pipe struct {
	name  string
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewPipe makes a pipe that nobody has to reach by its name: it is for messages.
func NewPipe(name string) *Pipe {
	return &Pipe{name: name, conns: make(chan net.Conn), done: make(chan struct{})}
}

// Dial makes a connection to whoever accepts it.
func (p *Pipe) Dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Transport reaches the pipe under any address.
func (p *Pipe) Transport() *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return p.Dial(ctx) }}
}

// Accept implements net.Listener.
func (p *Pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *Pipe) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// Addr implements net.Listener.
func (p *Pipe) Addr() net.Addr { return &net.UnixAddr{Name: p.name, Net: "pipe"} }

// Serve serves h over the pipe until the test ends.
func (p *Pipe) Serve(t testing.TB, h http.Handler) {
	s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(p) // ends with http.ErrServerClosed
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
}
