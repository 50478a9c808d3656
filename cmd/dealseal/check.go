package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/dealseal/dealseal/config"
)

// checkCommand validates everything that needs no network: the files, what they name, soft keys, templates and field
// sources. With --online it goes on to ask all that the files name.
func checkCommand(ctx context.Context, c *call) error {
	if c.online {
		return c.consult(ctx, false)
	}
	if c.json {
		return usagef("--json is the form of what --online finds: give both")
	}
	h, err := loadHouse(c.config)
	if err != nil {
		return err
	}
	log := newLogQuiet(c.stderr)
	if err := errors.Join(h.checkMasterKey(), h.checkRenderer(), h.checkTimestampers(log), h.checkSoftKeys(ctx, log), h.checkWebhooks(), h.checkChannels(), h.checkProvider()); err != nil {
		return err
	}
	return h.printSummary(c.stdout)
}

func (h *house) checkMasterKey() error {
	if _, err := masterKey(h.cfg.MasterKey); err != nil {
		return h.cfg.At("master_key", "%v", err)
	}
	return nil
}

func (h *house) checkChannels() error {
	_, err := h.channels()
	return err
}

func (h *house) checkProvider() error {
	_, err := h.signIn()
	return err
}

func (h *house) checkRenderer() error {
	_, err := h.findRenderer()
	return err
}

func (h *house) checkTimestampers(log *slog.Logger) error {
	_, err := h.newTimestamper(log)
	return err
}

// checkSoftKeys opens them, which takes no more than their files. The keys of an HSM are looked at when the daemon starts.
func (h *house) checkSoftKeys(ctx context.Context, log *slog.Logger) error {
	keys, err := h.newKeys(log)
	if err != nil {
		return err
	}
	defer keys.Close()
	registry, err := h.readRegistry(ctx, keys, log)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(keys.kind)) {
		if keys.kind[name] != "soft" {
			continue
		}
		if err := h.checkKey(ctx, registry.alone(name), name); err != nil {
			errs = append(errs, h.cfg.At("signing.keys."+name, "key %q: %v", name, err))
		}
	}
	return errors.Join(errs...)
}

// markedInWords says of a sandbox whether its documents can be taken for contracts.
func markedInWords(t config.Identity) string {
	switch {
	case t.Environment == "production":
		return ""
	case t.Mark() == "":
		return " (its documents do not say that they are tests: tenant.test_mark is off)"
	}
	return fmt.Sprintf(" (its documents are marked %q)", t.Mark())
}

func (h *house) printSummary(w io.Writer) error {
	fmt.Fprintf(w, "%s is good\ntemplates: %s\n", h.cfg.File, strings.Join(slices.Sorted(maps.Keys(h.bundles)), ", "))
	for _, t := range h.tenants {
		fmt.Fprintf(w, "tenant %s: %s, %s%s\n", t.file.Tenant.ID, t.file.CRM.Kind, t.file.Tenant.Environment, markedInWords(t.file.Tenant))
		for _, r := range t.file.Rules {
			if d := r.Delegated; d != nil {
				fmt.Fprintf(w, "  rule %s: %s in %q -> signed at %s, its envelope in %s\n", r.ID, r.Object, r.When.Stage, d.Vendor, d.Envelope)
				continue
			}
			what := r.Document.Template
			if what == "" {
				what = "the newest file " + r.Document.Attachment
			}
			fmt.Fprintf(w, "  rule %s: %s in %q -> %s, sealed with profile %s\n", r.ID, r.Object, r.When.Stage, what, r.Seal)
		}
	}
	_, err := fmt.Fprintln(w, "Nothing was asked of a CRM, an HSM or a TSA: \"dealseal check --online\" does that.")
	return err
}
