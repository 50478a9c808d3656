package pkcs11

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/worker"
)

const (
	defaultSessions = 4
	maxSessions     = 64
	defaultTimeout  = 10 * time.Second
	// loginTime is what starting an agent may take: network HSMs are slow to
	// log in to.
	loginTime = 30 * time.Second
)

// Config describes one key.
type Config struct {
	// Module is the absolute path of the vendor's PKCS#11 library.
	Module string
	// Token is the label and Serial the serial number of the token. At least
	// one is needed; both must fit if both are given.
	Token, Serial string
	// Label is the CKA_LABEL and ID the CKA_ID, in hexadecimal digits, of the
	// private key. At least one is needed; both must fit if both are given.
	Label, ID string
	// PIN of the normal user: file: or credential:. An env: reference cannot
	// reach the child, whose environment is empty. No PIN is for tokens that
	// need no login.
	PIN secret.Ref
	// Certificates is a PEM file with the signer's certificate and its
	// issuers, in any order. It is used besides those on the token.
	Certificates string
	// Sessions is the number of operations at once, 1 to 64; default 4.
	Sessions int
	// Timeout of one operation; default 10 s. A module that takes longer is
	// killed.
	Timeout time.Duration
	// StateDir is a directory of the daemon's own, in which PINs that a token
	// refused are remembered as salted hashes. It is made if it is missing.
	StateDir string
	// Env is the environment of the module, such as SOFTHSM2_CONF. No secrets.
	Env map[string]string
	// Read and Write are further paths that the module uses, which has the
	// system's libraries, its own directory and /etc without /etc/dealseal to
	// read: configuration elsewhere, device files (Write), token directories (Write). They must
	// exist.
	Read, Write []string
	// LocalSockets allows the module to speak to a daemon on this machine
	// (pcscd, p11-kit server), Network to speak to one elsewhere.
	LocalSockets, Network bool
}

// ConfigError says what is wrong with a Config.
type ConfigError struct {
	Key    string // the name it is configured under
	Field  string
	Reason string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("pkcs11: key %q: %s %s", e.Key, e.Field, e.Reason)
}

// Permanent is true.
func (e *ConfigError) Permanent() bool { return true }

// withDefaults fills in what zero values stand for.
func (c Config) withDefaults() Config {
	if c.Sessions == 0 {
		c.Sessions = defaultSessions
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	return c
}

// check returns a *ConfigError if c, with its defaults, cannot work.
func (c Config) check(name string) error {
	bad := func(field, reason string) error { return &ConfigError{name, field, reason} }
	_, idErr := hex.DecodeString(c.ID)
	switch {
	case !filepath.IsAbs(c.Module):
		return bad("module", "must be the absolute path of the PKCS#11 library")
	case c.Token == "" && c.Serial == "":
		return bad("token", "is missing: give the token's label, or its serial number")
	case c.Label == "" && c.ID == "":
		return bad("label", "is missing: give the key's label, or its id")
	case idErr != nil:
		return bad("id", "must be hexadecimal digits, two for each byte")
	case c.Sessions < 1 || c.Sessions > maxSessions:
		return bad("sessions", fmt.Sprintf("must be 1 to %d", maxSessions))
	case c.Timeout < 0:
		return bad("timeout", "must be positive")
	case !filepath.IsAbs(c.StateDir):
		return bad("state directory", "must be an absolute path")
	}
	if _, ok := c.PIN.Env(); ok {
		return bad("pin", c.PIN.String()+" cannot be used: the process that logs in to the HSM starts with an empty environment; use credential: or file:")
	}
	if c.PIN.IsZero() {
		return nil
	}
	if _, err := c.PIN.Path(); err != nil {
		return bad("pin", err.Error())
	}
	return nil
}

// spec returns the worker for c.
func (c Config) spec(name string) (worker.Spec, error) {
	if info, err := os.Stat(c.Module); err != nil {
		return worker.Spec{}, &ConfigError{name, "module", err.Error()}
	} else if !info.Mode().IsRegular() {
		return worker.Spec{}, &ConfigError{name, "module", "is not a file"}
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return worker.Spec{}, fmt.Errorf("pkcs11: key %q: %w", name, err)
	}
	setup, err := json.Marshal(setup{
		Module: c.Module, Token: c.Token, Serial: c.Serial, Label: c.Label, ID: c.ID, PIN: c.PIN,
		Sessions: c.Sessions, StateDir: c.StateDir,
	})
	if err != nil {
		return worker.Spec{}, err
	}
	env := map[string]string{}
	for k, v := range c.Env {
		env[k] = v
	}
	read, err := c.readable(name)
	if err != nil {
		return worker.Spec{}, err
	}
	if !c.PIN.IsZero() {
		path, err := c.PIN.Path()
		if err != nil {
			return worker.Spec{}, &ConfigError{name, "pin", err.Error()}
		}
		if strings.HasPrefix(c.PIN.String(), "credential:") {
			env["CREDENTIALS_DIRECTORY"] = filepath.Dir(path)
		}
		read = append(read, path)
	}
	return worker.Spec{
		Name: ProgramName, Setup: setup, Env: env, Concurrency: c.Sessions,
		Limits: worker.Limits{Frame: maxFrame, Start: loginTime},
		Sandbox: worker.Sandbox{
			Read: read, Write: append([]string{c.StateDir}, c.Write...),
			LocalSockets: c.LocalSockets, Network: c.Network,
		},
	}, nil
}

// readable returns what the module may read, without the PIN.
func (c Config) readable(name string) ([]string, error) {
	for _, path := range append(append([]string(nil), c.Read...), c.Write...) {
		if _, err := os.Stat(path); err != nil || !filepath.IsAbs(path) {
			return nil, &ConfigError{name, "read or write path", path + " is not an absolute path of something that exists"}
		}
	}
	target, err := filepath.EvalSymlinks(c.Module)
	if err != nil {
		return nil, &ConfigError{name, "module", err.Error()}
	}
	paths := append([]string{filepath.Dir(c.Module), filepath.Dir(target)}, c.Read...)
	// Vendors keep their configuration in all manner of places below /etc. Our
	// own is none of a module's business: it may lie beside secrets.
	entries, err := os.ReadDir("/etc")
	if err != nil {
		return nil, fmt.Errorf("pkcs11: key %q: %w", name, err)
	}
	for _, e := range entries {
		if e.Name() != "dealseal" {
			paths = append(paths, filepath.Join("/etc", e.Name()))
		}
	}
	return paths, nil
}
