package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/store"
)

// seedOptions say what a seeded state directory holds.
type seedOptions struct {
	dir, key string
	deals    int
	full     int // of the newest, how many have their whole history
	open     int // of the newest, how many are held, dead, retrying or running
	seed     uint64
}

// block is how many deals are made up of a ledger that has many: the oldest, and the newest. What is between them are copies
// of the oldest, because making up each of a million takes a quarter of an hour, and copying a minute or two.
const block = 2000

// seed fills a fresh state directory with deals that a daemon could have sealed over three years.
func seed(ctx context.Context, args []string) error {
	var o seedOptions
	flags := flag.NewFlagSet("bench seed", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "the state `directory`, which must not exist or be empty")
	flags.StringVar(&o.key, "key", "", "the `file` of the master key, made if it does not exist (default: DIR.master-key)")
	flags.IntVar(&o.deals, "deals", 1_000_000, "how many deals")
	flags.IntVar(&o.full, "full", block, "how many of the newest have every audit entry and intent; the others have four entries")
	flags.IntVar(&o.open, "open", 60, "how many of the newest are held, dead, retrying or running")
	flags.Uint64Var(&o.seed, "seed", 1, "where the random choices begin")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.dir == "" || flags.NArg() > 0 {
		return errors.New(usage)
	}
	var err error
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if o.key == "" {
		o.key = o.dir + ".master-key"
	}
	begun := time.Now()
	if err := o.fill(ctx); err != nil {
		return err
	}
	fmt.Printf("%d deals are in %s after %s; the master key is in %s\n", o.deals, o.dir, time.Since(begun).Round(100*time.Millisecond), o.key)
	return nil
}

// years is the time in which the deals were sealed, in days.
const years = 3 * 365

func (o seedOptions) fill(ctx context.Context) error {
	if there, err := os.ReadDir(o.dir); len(there) > 0 {
		return fmt.Errorf("%s is not empty: only a fresh state directory can be filled", o.dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	p := &pasts{rand: mathrand.New(mathrand.NewPCG(o.seed, 0)), deals: o.deals, full: o.full, open: o.open}
	if o.deals < 4*block {
		return o.write(ctx, p, now, years)
	}
	blocks := o.deals / block
	days := max(1, years/blocks)
	oldest := &pasts{rand: p.rand, deals: block}
	if err := o.write(ctx, oldest, now.AddDate(0, 0, -days*(blocks-1)), days); err != nil {
		return err
	}
	if err := store.Multiply(ctx, o.dir, blocks-2, days); err != nil {
		return err
	}
	p.from, p.deals = 2*block, block+o.deals%block
	return o.write(ctx, p, now, days)
}

// write adds deals of the days before a moment to the ledger.
func (o seedOptions) write(ctx context.Context, p *pasts, until time.Time, days int) (err error) {
	master, err := masterKey(o.key)
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, store.Options{Dir: o.dir, MasterKey: master})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	now := time.Now().UTC().Truncate(time.Millisecond)
	for _, h := range houses {
		if _, err := s.Activate(ctx, h.tenant, h.account, h.watch(), now.AddDate(0, 0, -years-1)); err != nil {
			return err
		}
		if err := s.SetPoll(ctx, deal.PollState{Tenant: h.tenant, Account: h.account, Kind: h.kind(), Name: h.name, At: now, Budget: deal.Budget{Used: 1234, Max: 100_000, At: now}}); err != nil {
			return err
		}
	}
	p.first, p.span = until.AddDate(0, 0, -days), time.Duration(days)*24*time.Hour-time.Minute
	return s.Fill(ctx, p.all)
}

// size is that of the database, in bytes.
func (o seedOptions) size() (n int64, err error) {
	files, err := filepath.Glob(filepath.Join(o.dir, "*.db*"))
	for _, file := range files {
		info, failed := os.Stat(file)
		if err = errors.Join(err, failed); failed == nil {
			n += info.Size()
		}
	}
	return n, err
}

// masterKey reads a master key as "dealseal keygen master" makes it, and makes it where there is none.
func masterKey(file string) (secret.Secret, error) {
	_, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		rand.Read(key)
		if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600); err != nil {
			return secret.Secret{}, err
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return secret.Secret{}, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return secret.Secret{}, fmt.Errorf("%s: %w", file, err)
	}
	return secret.New(key), nil
}
