package connectors_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/dealseal/dealseal/connectors"
)

func TestANetworkErrorIsSaidInWordsWithoutAddresses(t *testing.T) {
	here := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 38014}
	op := func(what string, cause error) error {
		return fmt.Errorf("round trip: %w", &net.OpError{Op: what, Net: "tcp", Source: here, Addr: here, Err: cause})
	}
	for want, err := range map[string]error{
		"it took longer":            fmt.Errorf("get: %w", context.DeadlineExceeded),
		"broke off":                 op("read", os.NewSyscallError("read", syscall.ECONNRESET)),
		"the connection broke off":  io.ErrUnexpectedEOF,
		"connection broke off":      op("readfrom", op("write", net.ErrClosed)),
		"message too long":          op("readfrom", op("write", syscall.EMSGSIZE)),
		"was refused":               op("dial", os.NewSyscallError("connect", syscall.ECONNREFUSED)),
		"no way to the host":        op("dial", os.NewSyscallError("connect", syscall.EHOSTUNREACH)),
		"crm.example cannot":        op("dial", &net.DNSError{Err: "no such host", Name: "crm.example"}),
		"stood still":               op("read", os.ErrDeadlineExceeded),
		"remote error: certificate": op("remote error", errors.New("remote error: certificate unknown")),
		"x509: unknown authority":   errors.New("x509: unknown authority"),
		"context canceled":          context.Canceled,
	} {
		got := connectors.Network(err)
		if !strings.Contains(got.Error(), want) || strings.Contains(got.Error(), "10.0.0.5") {
			t.Errorf("%v is said as %q, want %q and no address", err, got, want)
		}
		if !errors.Is(got, err) {
			t.Errorf("%q does not lead to its cause", got)
		}
	}
	if connectors.Network(nil) != nil {
		t.Error("no error became one")
	}
}

func TestCopyTellsTheWritersErrorFromTheNetworks(t *testing.T) {
	full := errors.New("full")
	broken := io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if n, err, ours := connectors.Copy(io.Discard, broken, 10); n != 3 || !errors.Is(err, io.ErrUnexpectedEOF) || ours != nil {
		t.Errorf("a reply that breaks off: %d, %v, %v", n, err, ours)
	}
	if _, err, ours := connectors.Copy(failing{full}, strings.NewReader("abc"), 10); err != nil || !errors.Is(ours, full) {
		t.Errorf("a writer that fails: %v, %v", err, ours)
	}
	var b bytes.Buffer
	if n, err, ours := connectors.Copy(&b, strings.NewReader("abcdef"), 4); n != 4 || err != nil || ours != nil || b.String() != "abcd" {
		t.Errorf("a limit: %d, %v, %v, %q", n, err, ours, b.String())
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
