package connectors

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
)

// NetworkError is a call that got no answer, or not the whole of it, in words for whoever has to find out why. Its text
// names no address, which changes from call to call; Unwrap leads to the network's own error.
type NetworkError struct {
	words string
	cause error
}

// Network puts the error of a call over the network into words. The error of a context that was cancelled, and what is
// not known to be the network's, keep their own.
func Network(err error) error {
	var name *net.DNSError
	var op *net.OpError
	var timeout net.Error
	words := ""
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		words = "it took longer than a call may take"
	case errors.As(err, &name):
		words = "the name " + name.Name + " cannot be resolved: check the machine's network and DNS"
	case errors.Is(err, syscall.ECONNREFUSED):
		words = "the connection was refused: check the machine's network, and the address in crm.with"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		words = "there is no way to the host: check the machine's network"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, net.ErrClosed): // a write that goes on while the transport hears of the end
		words = "the connection broke off"
	case errors.As(err, &timeout) && timeout.Timeout():
		words = "the connection stood still for too long"
	case errors.As(err, &op):
		for errors.As(op.Err, &op) { // a body that is copied to the connection fails as a write within a copy
		}
		words = op.Err.Error()
	default:
		return err
	}
	return &NetworkError{words, err}
}

func (e *NetworkError) Error() string { return e.words }

// Unwrap returns the network's own error.
func (e *NetworkError) Unwrap() error { return e.cause }

// Copy copies at most limit bytes of a reply to w. It tells apart who failed: the network (err) or the writer (ours),
// whose error must not be taken for the CRM's.
func Copy(w io.Writer, reply io.Reader, limit int64) (n int64, err, ours error) {
	sink := &sink{Writer: w}
	n, err = io.Copy(sink, io.LimitReader(reply, limit))
	if sink.err != nil {
		return n, nil, sink.err
	}
	return n, err, nil
}

// sink remembers the writer's error.
type sink struct {
	io.Writer
	err error
}

func (s *sink) Write(p []byte) (n int, err error) {
	n, err = s.Writer.Write(p)
	s.err = err
	return n, err
}
