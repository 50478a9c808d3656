// Command demo shows the whole of dealseal on one machine: it starts mock CRMs and a mock certificate authority, makes a
// key in a software HSM, runs the real daemon as a child, and lets deals enter their stages.
//
// Everything is on loopback and below one folder; nothing of it is a part of the product.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	dealseal, renderer, templates, dir string
	once, softKey                      bool
	auto                               int
}

func main() {
	o := parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func parse() (o options) {
	flag.StringVar(&o.dealseal, "dealseal", "build/dealseal", "the daemon's binary")
	flag.StringVar(&o.renderer, "renderer", "build/typst.wasm", "the document renderer")
	flag.StringVar(&o.templates, "templates", "templates", "folder of template bundles")
	flag.StringVar(&o.dir, "dir", "", "keep everything in this `folder` (default: a temporary one)")
	flag.BoolVar(&o.once, "once", false, "seal one deal per CRM, write result.json and end")
	flag.BoolVar(&o.softKey, "soft-key", false, "use an encrypted key file in the place of a software HSM")
	flag.IntVar(&o.auto, "auto", 0, "make this many more deals per CRM without a key press")
	flag.Parse()
	return o
}

func run(ctx context.Context, o options) (err error) {
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "dealseal-demo-"); err != nil {
			return err
		}
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	// A demo is from scratch: what an earlier one left in the same folder would be taken for work to go on with.
	for _, name := range []string{"state", "config", "token", "sealed", "trust", "result.json"} {
		if err := os.RemoveAll(filepath.Join(o.dir, name)); err != nil {
			return err
		}
	}
	w, err := newWorld(ctx, o)
	if err != nil {
		return err
	}
	defer w.close()
	screen := newScreen(os.Stdout)
	screen.say("Two CRMs, a certificate authority and a time-stamping authority are up on loopback.")
	screen.say("The key is in %s.", w.keyPlace)
	d, err := startDaemon(ctx, w, screen)
	if err != nil {
		return err
	}
	defer d.stop()
	w.page = d.page
	results, err := round(ctx, w, d, screen, 1)
	if err != nil {
		return err
	}
	if err := w.writeResults(results); err != nil {
		return err
	}
	if o.once {
		screen.places(w, results, "")
		return d.stop()
	}
	link, err := d.login(ctx)
	if err != nil {
		return err
	}
	screen.places(w, results, link)
	return stay(ctx, o, w, d, screen)
}

// stay makes more deals on demand until the user leaves.
func stay(ctx context.Context, o options, w *world, d *dealsealDaemon, screen *screen) error {
	for i := range o.auto {
		if _, err := round(ctx, w, d, screen, i+2); err != nil {
			return err
		}
	}
	keys, raw, restore := keyPresses(ctx)
	defer restore()
	screen.raw = raw
	screen.say("\nPress any key for another pair of deals, Ctrl-C to end.")
	for n := o.auto + 2; ; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-d.ended:
			return fmt.Errorf("the daemon ended by itself (%w): its log is %s", err, d.logFile)
		case _, more := <-keys:
			if !more {
				<-ctx.Done()
				return ctx.Err()
			}
		}
		if _, err := round(ctx, w, d, screen, n); err != nil {
			return err
		}
	}
}

// round lets one deal enter its stage in each CRM and watches both the whole way.
func round(ctx context.Context, w *world, d *dealsealDaemon, screen *screen, n int) ([]result, error) {
	var watched []*watched
	for _, c := range w.crms {
		record, err := c.close(n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.tenant, err)
		}
		watched = append(watched, newWatched(c, record))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return d.watch(ctx, screen, watched)
}
