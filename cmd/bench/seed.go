package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io/fs"
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

// seed fills a fresh state directory with deals that a daemon could have sealed over three years.
func seed(ctx context.Context, args []string) error {
	var o seedOptions
	flags := flag.NewFlagSet("bench seed", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "the state `directory`, which must not exist or be empty")
	flags.StringVar(&o.key, "key", "", "the `file` of the master key, made if it does not exist (default: DIR.master-key)")
	flags.IntVar(&o.deals, "deals", 1_000_000, "how many deals")
	flags.IntVar(&o.full, "full", 30_000, "how many of the newest have every audit entry and intent; the others have four entries")
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

func (o seedOptions) fill(ctx context.Context) (err error) {
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
		if _, err := s.Activate(ctx, h.tenant, h.account, h.watch(), now.AddDate(-3, 0, -1)); err != nil {
			return err
		}
		if err := s.SetPoll(ctx, deal.PollState{Tenant: h.tenant, Account: h.account, Kind: h.kind(), Name: h.name, At: now, Budget: deal.Budget{Used: 1234, Max: 100_000, At: now}}); err != nil {
			return err
		}
	}
	return s.Fill(ctx, newPasts(o, now).all)
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
