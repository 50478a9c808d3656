package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// checkCommand validates everything that needs no network: the files, what they name, templates and field sources.
func checkCommand(_ context.Context, c *call) error {
	h, err := loadHouse(c.config)
	if err != nil {
		return err
	}
	if _, err := masterKey(h.cfg.MasterKey); err != nil {
		return h.cfg.At("master_key", "%v", err)
	}
	if _, err := h.findRenderer(); err != nil {
		return err
	}
	if _, err := h.newTimestamper(newLogQuiet(c.stderr)); err != nil {
		return err
	}
	keys, err := h.newKeys(newLogQuiet(c.stderr))
	if err != nil {
		return err
	}
	defer keys.Close()
	fmt.Fprintf(c.stdout, "%s is good\n", c.config)
	var names []string
	for name := range h.bundles {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(c.stdout, "templates  %s\n", strings.Join(names, ", "))
	for _, t := range h.tenants {
		fmt.Fprintf(c.stdout, "tenant     %s: %s, %s, %d rules\n", t.file.Tenant.ID, t.file.CRM.Kind, t.file.Tenant.Environment, len(t.rules))
	}
	fmt.Fprintln(c.stdout, "Nothing was asked of a CRM, an HSM or a TSA.")
	return nil
}
