package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/documents/typst"
)

// template checks a bundle, or renders a record with it under a watermark.
func template(ctx context.Context, c *call) error {
	if len(c.args) != 2 || c.args[0] != "validate" && c.args[0] != "preview" {
		return usagef("say what to do with which folder")
	}
	if c.args[0] == "preview" && (c.record == "" || c.out == "") {
		return usagef("name the record and the output")
	}
	b, err := documents.Load(c.args[1])
	if err != nil {
		return err
	}
	r, err := c.renderer()
	if err != nil {
		return err
	}
	defer r.Close()
	if c.args[0] == "validate" {
		return validateTemplate(ctx, c, r, b)
	}
	out, err := documents.Preview(ctx, r, b, c.record)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.out, out.PDF, 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s: %d bytes, watermarked\n", c.out, len(out.PDF))
	return err
}

func validateTemplate(ctx context.Context, c *call, r documents.Renderer, b *documents.Bundle) error {
	notes, err := documents.Check(ctx, r, b)
	for _, n := range notes {
		fmt.Fprintln(c.stdout, "note:", n)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s is good: %d samples rendered, hash %s\n", b.Name(), len(b.Samples()), b.Hash())
	return err
}

// renderer takes what the configuration says if there is one: templates are also written where no daemon is installed.
func (c *call) renderer() (*typst.Renderer, error) {
	log := newLogQuiet(c.stderr)
	h := &house{cfg: &config.Config{File: c.config}}
	if _, err := os.Stat(c.config); err == nil {
		if h.cfg, err = config.LoadWithoutTenants(c.config); err != nil {
			return nil, err
		}
		return h.newRendererFor(filepath.Join(h.cfg.StateDir, rendererCache), log)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	h.cfg.StateDir = filepath.Join(cache, "dealseal")
	h.cfg.Renderer.Fonts = config.SystemFonts()
	return h.newRendererFor(filepath.Join(h.cfg.StateDir, rendererCache), log)
}
