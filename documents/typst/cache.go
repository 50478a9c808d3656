package typst

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/dealseal/dealseal/worker"
)

// cache is the folder with the module's machine code. It is filled by a child of its own, which alone may write there,
// and appears under its name only when it is complete. It is used by one goroutine at a time.
type cache struct {
	wasm     string
	dir      string // complete, or absent
	progress func(elapsed time.Duration)
	log      *slog.Logger
}

// fillingPrefix marks a cache that is being made.
const fillingPrefix = ".filling-"

// compileLimit ends a compilation that hangs; on a slow machine it takes a minute.
const compileLimit = 10 * time.Minute

// ready fills the cache if it is not there.
func (c *cache) ready(ctx context.Context) error {
	if _, err := os.Stat(c.dir); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("typst: compile cache: %w", err)
	}
	return c.fill(ctx)
}

// rebuild replaces a cache that a child could not use.
func (c *cache) rebuild(ctx context.Context) error {
	c.log.Warn("the renderer's compile cache is damaged; making it again", "dir", c.dir)
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("typst: compile cache: %w", err)
	}
	return c.fill(ctx)
}

func (c *cache) fill(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(c.dir), 0o700); err != nil {
		return fmt.Errorf("typst: compile cache: %w", err)
	}
	c.sweep()
	filling, err := os.MkdirTemp(filepath.Dir(c.dir), fillingPrefix)
	if err != nil {
		return fmt.Errorf("typst: compile cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(filling) }()
	started := time.Now()
	c.log.Info("compiling the renderer, once", "dir", c.dir)
	stop := c.tell(started)
	err = c.compile(ctx, filling)
	stop()
	if err != nil {
		return err
	}
	if err := os.Rename(filling, c.dir); err != nil {
		if _, there := os.Stat(c.dir); there != nil {
			return fmt.Errorf("typst: compile cache: %w", err)
		}
		// Another process was faster; its cache is as good.
	}
	c.log.Info("compiled the renderer", "seconds", int(time.Since(started).Seconds()))
	return nil
}

// sweep removes what a compilation that was killed has left behind. One that still runs is younger.
func (c *cache) sweep() {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(c.dir), fillingPrefix+"*"))
	if err != nil {
		return // only for a malformed pattern
	}
	for _, dir := range left {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > compileLimit {
			_ = os.RemoveAll(dir)
		}
	}
}

// tell reports progress every second until the returned function is called.
func (c *cache) tell(started time.Time) (stop func()) {
	if c.progress == nil {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		c.progress(0)
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				c.progress(time.Since(started))
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

func (c *cache) compile(ctx context.Context, into string) error {
	s, err := json.Marshal(setup{WASM: c.wasm, Cache: into, Compile: true})
	if err != nil {
		return err
	}
	pool := worker.NewPool(worker.Spec{
		Name:    WorkerName,
		Setup:   s,
		Limits:  worker.Limits{Procs: compileWorkers},
		Sandbox: worker.Sandbox{Read: []string{c.wasm}, Write: []string{into}},
	}, 1, c.log)
	defer func() { _ = pool.Close() }()
	ctx, cancel := context.WithTimeout(ctx, compileLimit)
	defer cancel()
	if _, err := pool.Call(ctx, worker.Frame{Op: opCompile}); err != nil {
		return fmt.Errorf("compile the renderer: %w", err)
	}
	return nil
}

// sizeFile says how long the machine code is, in a cache that is complete.
const sizeFile = "size"

// machineCode lists the files of code in a folder of wazero's, which keeps them in another one for each of its releases.
func machineCode(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("typst: compile cache: %w", err)
	}
	return files, nil
}

// adopt gives the only other file the name of the one that was there before, and notes its size.
func adopt(dir string, before []string) error {
	files, err := machineCode(dir)
	if err != nil {
		return err
	}
	added := slices.DeleteFunc(files, func(f string) bool { return slices.Contains(before, f) })
	if len(before) != 1 || len(added) != 1 {
		return fmt.Errorf("typst: compile cache: two modules made %d and %d files", len(before), len(added))
	}
	info, err := os.Stat(added[0])
	if err == nil {
		err = os.Rename(added[0], before[0])
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, sizeFile), strconv.AppendInt(nil, info.Size(), 10), 0o600)
	}
	if err != nil {
		return fmt.Errorf("typst: compile cache: %w", err)
	}
	return nil
}

// soundCache checks that there is the code of one module and nothing else, as far as names and sizes tell. wazero checks
// the code itself, but where it finds none it makes some, of what it was given.
func soundCache(dir string) error {
	files, err := machineCode(dir)
	if err != nil {
		return err
	}
	noted, err := os.ReadFile(filepath.Join(dir, sizeFile))
	if err != nil {
		return fmt.Errorf("typst: compile cache: %w", err)
	}
	if len(files) != 1 {
		return fmt.Errorf("typst: compile cache: %d files of code", len(files))
	}
	info, err := os.Stat(files[0])
	if err != nil {
		return fmt.Errorf("typst: compile cache: %w", err)
	}
	if size := strconv.FormatInt(info.Size(), 10); size != string(noted) {
		return fmt.Errorf("typst: compile cache: %s bytes of code, expected %.20s", size, noted)
	}
	return nil
}
