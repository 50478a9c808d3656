package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// run serves until ctx ends and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(stderr, "mockcrm:", err)
		return exitUsage
	}
	if err := o.serve(ctx, stdout); err != nil {
		fmt.Fprintln(stderr, "mockcrm:", err)
		return exitError
	}
	return exitOK
}

func (o *options) serve(ctx context.Context, stdout io.Writer) error {
	var c credentials
	org, sf, err := o.org()
	if err != nil {
		return err
	}
	portal, hs, err := o.portal()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	c.Salesforce, c.HubSpot = sf, hs
	for _, s := range []struct {
		addr    string
		url     *string
		handler http.Handler
	}{
		{o.salesforce, &c.Salesforce.URL, org},
		{o.hubspot, &c.HubSpot.URL, portal},
		{o.admin, &c.Admin, newAdmin(org, portal, &c)},
	} {
		l, err := net.Listen("tcp", s.addr)
		if err != nil {
			return err
		}
		*s.url = "http://" + l.Addr().String()
		defer l.Close() // when a later address is taken; otherwise the server has closed it
		g.Go(func() error { return listen(ctx, l, s.handler) })
	}
	enc := json.NewEncoder(stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(c); err != nil {
		return fmt.Errorf("printing the credentials: %w", err)
	}
	return g.Wait()
}

// grace is how long calls in flight may take to end after a signal.
const grace = 2 * time.Second

// listen serves l until ctx ends.
func listen(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if s.Shutdown(shut) != nil {
			s.Close()
		}
	})
	err := s.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
