package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/signing"
	"github.com/dealseal/dealseal/signing/tsa"
)

// stampRequest is a request to a time-stamp server that a command is about to make.
type stampRequest struct {
	Server string `json:"server"`
	Day    string `json:"day"`
	Limit  int    `json:"limit"`
}

// newCommandStamper is newTimestamper for a command. What servers with a quota are sent is counted with the daemon's
// requests while one runs; close says that no more are made.
func (h *house) newCommandStamper(ctx context.Context, stderr io.Writer) (stamper signing.Timestamper, close func(), err error) {
	log := newLogQuiet(stderr)
	counter, close := tsa.Counter(nil), func() {}
	if slices.ContainsFunc(h.cfg.Signing.TSA, func(t config.TSA) bool { return t.Quota > 0 }) {
		daemon, err := dialControl(ctx, h.cfg.StateDir)
		if err == nil {
			counter, close = daemon, func() { daemon.Close() }
		} else {
			log.Warn("the quota of time-stamp servers is counted for this command alone, and not with the daemon's requests", "err", err)
		}
	}
	c, err := h.newStampClient(counter, log)
	if c == nil {
		return nil, close, err // no interface that holds nil
	}
	return c, close, nil
}

// CountStamp implements tsa.Counter: the daemon's database counts.
func (r *remote) CountStamp(ctx context.Context, server, day string, limit int) (counted bool, err error) {
	body, err := json.Marshal(stampRequest{server, day, limit})
	if err != nil {
		return false, err
	}
	return counted, r.ask(ctx, "POST", "/stamps", body, &counted)
}

// stampRoutes are the daemon's side of it.
func (d *service) stampRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /stamps", func(w http.ResponseWriter, r *http.Request) {
		var s stampRequest
		if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&s); err != nil {
			answer(w, nil, err)
			return
		}
		counted, err := d.store.CountStamp(r.Context(), s.Server, s.Day, s.Limit)
		answer(w, counted, err)
	})
}
