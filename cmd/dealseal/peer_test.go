package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

func TestWhoBecameRootIsReadFromTheKernel(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "", "0": "", "4294967295": "", "-1": "", "x": "", "99999999999": "", "1": userName(1), "3999999999\n": "uid 3999999999"} {
		if got := loginName(text); got != want {
			t.Errorf("loginuid %q: %q, want %q", text, got, want)
		}
	}
}

func TestOnlyRootIsBelievedWhoItIs(t *testing.T) {
	t.Parallel()
	root := peer{known: true}
	for _, c := range []struct {
		peer   peer
		person string
		want   string
	}{
		{root, "alice", "root (alice)"},
		{root, "uid 1000", "root (uid 1000)"},
		{root, "", "root"},
		{root, "alice) (bob", "root"},
		{root, "a\nb", "root"},
		{root, "\xff\u202e", "root"},
		{root, strings.Repeat("a", maxPerson+1), "root"},
		{peer{true, 3999999999}, "alice", "uid 3999999999"},
		{peer{}, "alice", ""},
	} {
		if got := c.peer.name(c.person); got != c.want {
			t.Errorf("%+v as %q: %q, want %q", c.peer, c.person, got, c.want)
		}
	}
}

func TestTheControlSocketHearsWhoBecameRoot(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "dealseal-") // a socket's path must be short
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := listenControl(dir)
	must(t, err)
	var served errgroup.Group
	ctx, stop := context.WithCancel(t.Context())
	served.Go(func() error {
		return serveControl(ctx, slog.New(slog.DiscardHandler), l, nil, nil, func(mux *http.ServeMux) {
			mux.HandleFunc("GET /who", func(w http.ResponseWriter, r *http.Request) { answer(w, peerOf(r.Context()), nil) })
		})
	})
	r, err := dialControl(t.Context(), dir)
	must(t, err)
	r.person = "alice"
	me := peer{true, os.Geteuid()}
	var who string
	must(t, r.ask(t.Context(), "GET", "/who", nil, &who))
	if want := me.name("alice"); who != want {
		t.Errorf("%q asks, want %q", who, want)
	}
	must(t, r.Close())
	stop()
	must(t, served.Wait())
}
