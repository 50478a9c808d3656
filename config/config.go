// Package config reads dealseal.yaml and the tenant files into plain structs. It knows spelling, not meaning: unknown
// keys, second documents, duplicates, dangling names and plain-text secrets are errors with file, line and cure; whether
// a template, key or CRM is any good is for those who use them to say.
//
// The structs are the manual: every field says its default, its unit and when an edit takes effect. A reload (SIGHUP, or
// "dealseal reload") takes everything in tenant files, and what says so in dealseal.yaml; all else there takes a restart,
// and so do the files that it names, such as certificates and roots. Secrets of CRMs are read at each login.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/dealseal/dealseal/pins"
	"github.com/dealseal/dealseal/secret"
)

// Config is dealseal.yaml with the tenant files that it names.
type Config struct {
	// StateDir holds the database, the archive and the renderer's cache. Required. One daemon at a time.
	StateDir string `yaml:"state_dir"`
	// DiskFloor is the free space in StateDir, such as 256MiB or 2GiB, below which no new deals are noticed. Below a
	// quarter of it deals that are under way wait too. All go on by themselves once there is room. Default 256MiB, at
	// least 16MiB.
	DiskFloor Size `yaml:"disk_floor"`
	// MasterKey wraps the keys of all stored personal data: at least 32 random bytes, in base64 or raw ("dealseal
	// keygen master FILE" makes one). Required. Without it nothing that is stored can be read: back it up apart.
	MasterKey secret.Ref `yaml:"master_key"`
	Listen    Listen     `yaml:"listen"`
	API       API        `yaml:"api"`
	// Templates is the folder of template bundles. Default: templates beside dealseal.yaml. A reload takes this key and
	// what is in the folder: for deals that are noticed from then on.
	Templates string `yaml:"templates"`
	// Tenants is the folder of tenant files (*.yaml). Default: tenants beside dealseal.yaml. A reload takes this key and
	// what is in the folder.
	Tenants  string   `yaml:"tenants"`
	Renderer Renderer `yaml:"renderer"`
	Signing  Signing  `yaml:"signing"`
	Log      Log      `yaml:"log"`
	Retry    Retry    `yaml:"retry"`
	Outbound Outbound `yaml:"outbound"`
	Notify   Notify   `yaml:"notify"`
	// SignIn is an OpenID provider at which people sign in to the status page, beside the links of "dealseal admin login".
	// Default: none.
	SignIn *SignIn `yaml:"sign_in"`

	// LoginKeys are RSA keys in an HSM with which tenants log in to their CRM (auth.hsm_key), apart from those that seal: no
	// limit, certificate or pause of a sealing key touches them. Default: none.
	LoginKeys map[string]LoginKey `yaml:"login_keys"`

	// File is the path that was read; Loaded are the tenants, by file name.
	File   string   `yaml:"-"`
	Loaded []Tenant `yaml:"-"`

	root *yaml.Node
	file *Config // during Reload: the file as it is now
}

// Listen says where the daemon answers.
type Listen struct {
	// Admin is the address of the status page, /healthz, /readyz and /metrics. Default 127.0.0.1:8484.
	Admin string `yaml:"admin"`
	// Public is the address at which CRMs and other senders reach the daemon from outside, such as ":8443". It answers the
	// paths of tenants' push and nothing else. Without tls it must be on a loopback interface, behind a proxy. Default: none.
	Public string `yaml:"public"`
	// URL is the public listener as senders are told of it, without a path of ours, such as https://seal.example.com. Some sign
	// the address that they post to.
	URL string `yaml:"url"`
	// TLS is the certificate of the public listener.
	TLS *TLS `yaml:"tls"`
	// Hosts are further Host headers that the status page answers to, besides the listening address and localhost.
	Hosts []string `yaml:"hosts"`
}

// TLS is a certificate for a listener. Its files are read again when they change.
type TLS struct {
	// Certificate is a PEM file with the chain, the listener's own certificate first. Required.
	Certificate string `yaml:"certificate"`
	// Key is the private key in PEM: file: or credential:. Required.
	Key secret.Ref `yaml:"key"`
	// MinVersion is 1.3 or, for senders that cannot do better, 1.2. Default 1.3.
	MinVersion string `yaml:"min_version"`
}

// Renderer says how documents are made.
type Renderer struct {
	// WASM is the path of the renderer ("make renderer" fetches it). Default: typst.wasm beside the executable, then
	// /usr/lib/dealseal/typst.wasm.
	WASM string `yaml:"wasm"`
	// Fonts are folders with further fonts (Noto), used when a document needs them. Default: /usr/share/fonts
	// where it exists.
	Fonts []string `yaml:"fonts"`
	// Children is the number of renderer processes. Default: the number of processors, at most 4.
	Children int `yaml:"children"`
	// Timeout ends one document; a template that never ends is given up after three. 200 pages take 2 to 6 seconds.
	// Default 20s.
	Timeout time.Duration `yaml:"timeout"`
}

// Signing says with which keys and how documents are sealed.
type Signing struct {
	Keys map[string]Key `yaml:"keys"`
	// TSA are asked in this order.
	TSA []TSA `yaml:"tsa"`
	// Trust are PEM files with the roots that seals and time-stamps must chain to. Required.
	Trust    []string           `yaml:"trust"`
	Profiles map[string]Profile `yaml:"profiles"`
}

// Key is a signing key.
type Key struct {
	// Kind is pkcs11, vault-transit, aws-kms, gcp-kms, azure-keyvault or soft. A soft key is refused for tenants of environment production.
	Kind string `yaml:"kind"`
	// Module is the path of the PKCS#11 library; Token and Label (or ID, hex) name token and key.
	Module string `yaml:"module"`
	Token  string `yaml:"token"`
	Label  string `yaml:"label"`
	ID     string `yaml:"id"`
	// PIN is resolved by the process that holds the HSM only: file: or credential:.
	PIN secret.Ref `yaml:"pin"`
	// Certificates is a PEM file with the chain, the key's certificate first. Default: the token's own certificate; a key at
	// a service on the network has none by itself. It is for the first start: once the registry has an active certificate of the key,
	// that one counts ("dealseal certs").
	Certificates string `yaml:"certificates"`
	// Sessions is the number of parallel sessions. Default 4.
	Sessions int `yaml:"sessions"`
	// Timeout is the deadline of one operation. Default 10s.
	Timeout time.Duration `yaml:"timeout"`
	// Env are variables that the PKCS#11 library needs (SOFTHSM2_CONF).
	Env map[string]string `yaml:"env"`
	// Read and Write are further paths that the library may use: configuration elsewhere, token folders, device files.
	Read  []string `yaml:"read"`
	Write []string `yaml:"write"`
	// LocalSockets lets the library speak to a daemon on this machine (pcscd, p11-kit server), Network to an HSM on the
	// network. Default false.
	LocalSockets bool `yaml:"local_sockets"`
	Network      bool `yaml:"network"`
	// FallBack are keys of this file with the same key pair and certificate, on other tokens or elsewhere: while this key
	// fails, the next attempt is made with them, in this order. Each of them names its certificates, the first of which is
	// how it is proven that the key pair is the same. Default: none.
	FallBack []string `yaml:"fall_back"`
	// KeepAlive is how long a key may be idle before it is asked whether it is still there, so that no deal finds a session
	// that has ended. It is not used for that. 10s to 1h. Default 1m.
	KeepAlive time.Duration `yaml:"keep_alive"`
	// Vault is where a vault-transit key is.
	Vault *Vault `yaml:"vault"`
	// AWS is where an aws-kms key is.
	AWS *AWS `yaml:"aws"`
	// Azure is where an azure-keyvault key is.
	Azure *Azure `yaml:"azure"`
	// GCP is where a gcp-kms key is.
	GCP *GCP `yaml:"gcp"`
	// MaxUses is how many documents this key pair may seal in all, MaxUsesPerDay on one day (UTC), counted in the database
	// of this state_dir. Deals beyond that are held; they go on when the limit is raised, or the day has ended. Keys of its
	// fall_back count with it. Default 0: no limit.
	MaxUses       int64 `yaml:"max_uses"`
	MaxUsesPerDay int64 `yaml:"max_uses_per_day"`
	// File and Passphrase are those of a soft key ("dealseal keygen soft FILE").
	File       string     `yaml:"file"`
	Passphrase secret.Ref `yaml:"passphrase"`
}

// LoginKey is an RSA key in an HSM. Its fields are those of a Key of kind pkcs11.
type LoginKey struct {
	Module       string            `yaml:"module"`
	Token        string            `yaml:"token"`
	Label        string            `yaml:"label"`
	ID           string            `yaml:"id"`
	PIN          secret.Ref        `yaml:"pin"`
	Timeout      time.Duration     `yaml:"timeout"`
	Env          map[string]string `yaml:"env"`
	Read         []string          `yaml:"read"`
	Write        []string          `yaml:"write"`
	LocalSockets bool              `yaml:"local_sockets"`
	Network      bool              `yaml:"network"`
}

// Vault is a key in the transit engine of HashiCorp Vault or OpenBao.
type Vault struct {
	// Address is that of the server, such as https://vault.example.com:8200; http only for an agent on this machine.
	Address string `yaml:"address"`
	// Mount is the path of the engine. Default transit.
	Mount string `yaml:"mount"`
	// Key is the name of the key, Version the number of the version that the certificate was issued for. Required.
	Key     string `yaml:"key"`
	Version int    `yaml:"version"`
	// Token is read anew for each call: the file: in which an agent keeps it, or a credential:. Its policy needs "read" on
	// MOUNT/keys/KEY and "update" on MOUNT/sign/KEY.
	Token secret.Ref `yaml:"token"`
	// Login is in the place of Token where no agent keeps one.
	Login *VaultLogin `yaml:"login"`
	// Namespace is that of the engine. Default: the root.
	Namespace string `yaml:"namespace"`
	// CA is a PEM file with the roots of the server's certificate. Default: the system's.
	CA string `yaml:"ca"`
}

// VaultLogin is how the daemon gets a token by itself.
type VaultLogin struct {
	// Method is approle or kubernetes, and Mount where that is. Default: under its own name.
	Method string `yaml:"method"`
	Mount  string `yaml:"mount"`
	// Role is the ID of the role (approle) or its name (kubernetes). Required.
	Role string `yaml:"role"`
	// Secret is the file: or credential: with the secret ID (approle) or with the token of the pod's service account
	// (kubernetes), read anew for each call. Required.
	Secret secret.Ref `yaml:"secret"`
}

// AWS is an asymmetric key of AWS KMS.
type AWS struct {
	// Region is that of the key, such as eu-central-1. Required.
	Region string `yaml:"region"`
	// Key is the ARN or ID of the key, no alias. Required.
	Key string `yaml:"key"`
	// Credentials is a file in the form of AWS's shared credentials, section [default], read anew for each call. They need
	// kms:GetPublicKey and kms:Sign on the key. Required without InstanceRole.
	Credentials secret.Ref `yaml:"credentials"`
	// InstanceRole uses the role of the EC2 instance instead of Credentials.
	InstanceRole bool `yaml:"instance_role"`
	// Endpoint is used instead of the region's own: that of a VPC, or a FIPS endpoint.
	Endpoint string `yaml:"endpoint"`
}

// Azure is a version of a key in Azure Key Vault or Managed HSM.
type Azure struct {
	// Key is its identifier, https://NAME.vault.azure.net/keys/KEY/VERSION. Required.
	Key string `yaml:"key"`
	// Tenant and ClientID name an application that may read and sign with the key, and ClientSecret is its secret, read anew
	// for each login: file: or credential:. Required unless ManagedIdentity is set.
	Tenant       string     `yaml:"tenant"`
	ClientID     string     `yaml:"client_id"`
	ClientSecret secret.Ref `yaml:"client_secret"`
	// ManagedIdentity logs in as the virtual machine that the daemon runs on; ClientID chooses one of several identities.
	ManagedIdentity bool `yaml:"managed_identity"`
	// Authority is used instead of https://login.microsoftonline.com, in other clouds than the public one.
	Authority string `yaml:"authority"`
}

// GCP is a version of an asymmetric key of Google Cloud KMS.
type GCP struct {
	// Version is its resource name, projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1. Its algorithm has the
	// scheme and hash of the profile. Required.
	Version string `yaml:"version"`
	// Credentials is the JSON file of a service account's key, read anew for each call. The account needs the role
	// roles/cloudkms.signerVerifier on the key. Required.
	Credentials secret.Ref `yaml:"credentials"`
	// AttachedAccount uses the service account that is attached to the machine instead of Credentials.
	AttachedAccount bool `yaml:"attached_account"`
	// Endpoint is used instead of https://cloudkms.googleapis.com.
	Endpoint string `yaml:"endpoint"`
}

// TSA is an RFC 3161 time-stamping authority.
type TSA struct {
	URL string `yaml:"url"`
	// Timeout of one request. Default 10s.
	Timeout time.Duration `yaml:"timeout"`
	// Policy is the policy OID that tokens must state. Default: any.
	Policy string `yaml:"policy"`
	// Quota is how many requests a day (UTC) it may be sent; then the others are asked, and if there is none, deals wait.
	// The daemon counts in its database, and for "dealseal sign" and "extend" too while it runs. Default 0: any number.
	Quota int `yaml:"quota"`
	// Pins are keys one of which has to be in the chain of certificates that the server presents, sha256/BASE64 of their public
	// key (RFC 7469); two at least are advised. Only with https. A reload takes them. Default: any key that the machine trusts.
	Pins pins.Set `yaml:"pins"`
}

// Profile is how a document is sealed.
type Profile struct {
	// Key is a name under signing.keys. Required.
	Key string `yaml:"key"`
	// Level is the level to reach: B-B; B-T, with a time-stamp; B-LT, with the certificates and the evidence that none of
	// them was revoked; or B-LTA, with a time-stamp over these. Default B-T.
	Level string `yaml:"level"`
	// Reason, Location and Name go into the signature dictionary. "{tx}" in Reason becomes the transaction ID.
	Reason   string `yaml:"reason"`
	Location string `yaml:"location"`
	Name     string `yaml:"name"`
	// OnDowngrade says what happens when the level cannot be reached: fail, hold or accept-and-flag. Default hold.
	OnDowngrade string `yaml:"on_downgrade"`
	// Hash is SHA-256, SHA-384 or SHA-512. Default SHA-256.
	Hash string `yaml:"hash"`
	// PSS signs with RSA-PSS instead of PKCS#1 v1.5. Default false.
	PSS bool `yaml:"pss"`
	// VRI says in the document's security store for which signature its evidence is, which some validators look at first; for
	// levels B-LT and B-LTA. Default false: all evidence is for all signatures.
	VRI bool `yaml:"vri"`
	// MinValidity is how long the key's certificate has to be valid yet, such as 30d; with less, deals are held before
	// they are sealed. Default: 14d, or a third of the certificate's life if that is less.
	MinValidity time.Duration `yaml:"min_validity"`
	// MinRSA, MinCurve and MinHash are the weakest that is taken of the certificates of seal and time-stamp. Defaults 2048
	// (bits), 256 (bits of the curve) and SHA-256; nothing weaker can be asked for.
	MinRSA   int    `yaml:"min_rsa"`
	MinCurve int    `yaml:"min_curve"`
	MinHash  string `yaml:"min_hash"`
	// Certify makes a certification signature that allows: 1 no changes, 2 form filling, 3 also annotations. Default 0:
	// an approval signature.
	Certify int `yaml:"certify"`
	// DualSeal gives documents a second seal while a rollover says so ("dealseal certs rollover --dual-until"), with the
	// certificate that was followed. Not with certify: 1, which lets nothing be added. Default false.
	DualSeal bool `yaml:"dual_seal"`
}

// Log says how the daemon logs to standard error.
type Log struct {
	// Format is text or json. Default text.
	Format string `yaml:"format"`
	// Level is debug, info, warn or error. Default info. A reload takes it.
	Level string `yaml:"level"`
}

// Retry says how often a failing step is tried.
type Retry struct {
	// First is the wait after the first failure, doubled up to Max. Defaults 2s and 30m.
	First time.Duration `yaml:"first"`
	Max   time.Duration `yaml:"max"`
	// Attempts is how often a step is tried before it waits for a person. Default 12.
	Attempts int `yaml:"attempts"`
}

// leastDiskFloor leaves a database that has no room any more a little to tell so.
const leastDiskFloor = 16 << 20

// SystemFonts is the default of renderer.fonts.
func SystemFonts() []string {
	const dir = "/usr/share/fonts"
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	return []string{dir}
}

// Load reads the file and all tenant files beside it, and checks everything that can be checked without opening anything
// else. All complaints are returned, joined.
func Load(path string) (*Config, error) {
	c, err := read(path)
	if err != nil {
		return nil, err
	}
	errs := c.check()
	tenants, err := loadTenants(c.Tenants)
	if err != nil {
		errs = append(errs, err)
	}
	c.Loaded = tenants
	errs = append(errs, c.checkTenants()...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// LoadWithoutTenants is Load for what has nothing to do with a CRM: it neither needs tenant files nor looks at them.
func LoadWithoutTenants(path string) (*Config, error) {
	c, err := read(path)
	if err != nil {
		return nil, err
	}
	if errs := c.check(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// StateDir returns state_dir alone, from a file that may be wrong in every other way: a running daemon is found by it, and
// the daemon is who says what is wrong with the file. Where there is no state_dir that could be meant, the error is that of
// LoadWithoutTenants.
func StateDir(path string) (string, error) {
	b, err := readFile(path)
	if err != nil {
		return "", err
	}
	if dir := stateDirIn(path, b); dir != "" {
		return dir, nil
	}
	if _, err := LoadWithoutTenants(path); err != nil {
		return "", err
	}
	return "", &Error{File: path, Msg: "has changed while it was read: try again"}
}

// stateDirIn is empty where there is no state_dir that could be meant.
func stateDirIn(path string, text []byte) string {
	root, err := parse(path, text)
	if err != nil {
		root, err = parse(path, topLevel(text, "state_dir"))
	}
	if err != nil {
		return ""
	}
	if dir := scalar(root, "state_dir"); filepath.IsAbs(dir) {
		return dir
	}
	return ""
}

// topLevel is the line of a key that stands at the top level of text that is not YAML as a whole.
func topLevel(text []byte, key string) []byte {
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(line, []byte(key+":")) {
			return line
		}
	}
	return nil
}

// scalar is the value of a top-level key, empty if it is not a single value.
func scalar(root *yaml.Node, key string) string {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == key && root.Content[i+1].Kind == yaml.ScalarNode {
			return root.Content[i+1].Value
		}
	}
	return ""
}

// read reads the file alone and fills in the defaults.
func read(path string) (*Config, error) {
	root, err := parseFile(path)
	if err != nil {
		return nil, err
	}
	c := &Config{File: path, root: root}
	if err := Decode(path, root, c); err != nil {
		return nil, err
	}
	c.defaults()
	return c, nil
}

func parseFile(path string) (*yaml.Node, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parse(path, b)
}

// readFile reads a configuration file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{File: path, Msg: errors.Unwrap(err).Error(), cause: err}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, &Error{File: path, Msg: err.Error(), cause: err}
	}
	if len(b) > maxFile {
		return nil, &Error{File: path, Msg: "is larger than 1 MiB: that is not a configuration file"}
	}
	return b, nil
}

func (c *Config) defaults() {
	dir := filepath.Dir(c.File)
	beside := func(p *string, name string) {
		if *p == "" {
			*p = name
		}
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	beside(&c.Templates, "templates")
	beside(&c.Tenants, "tenants")
	orDefault(&c.DiskFloor, 256<<20)
	orDefault(&c.Listen.Admin, "127.0.0.1:8484")
	if c.Listen.TLS != nil {
		orDefault(&c.Listen.TLS.MinVersion, "1.3")
	}
	c.API.defaults()
	orDefault(&c.Log.Format, "text")
	orDefault(&c.Log.Level, "info")
	if c.Renderer.Fonts == nil {
		c.Renderer.Fonts = SystemFonts()
	}
	for name, k := range c.Signing.Keys {
		orDefault(&k.Sessions, 4)
		orDefault(&k.Timeout, 10*time.Second)
		orDefault(&k.KeepAlive, time.Minute)
		c.Signing.Keys[name] = k
	}
	for i := range c.Signing.TSA {
		orDefault(&c.Signing.TSA[i].Timeout, 10*time.Second)
	}
	for name, p := range c.Signing.Profiles {
		orDefault(&p.Level, "B-T")
		orDefault(&p.OnDowngrade, "hold")
		orDefault(&p.Hash, "SHA-256")
		orDefault(&p.MinHash, "SHA-256")
		orDefault(&p.MinRSA, 2048)
		orDefault(&p.MinCurve, 256)
		c.Signing.Profiles[name] = p
	}
	orDefault(&c.Retry.First, 2*time.Second)
	orDefault(&c.Retry.Max, 30*time.Minute)
	orDefault(&c.Retry.Attempts, 12)
	c.Notify.defaults()
	c.SignIn.defaults()
}

func orDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// At returns an error at the line where the dotted path stands, or at its nearest ancestor that exists.
func (c *Config) At(path, format string, args ...any) error {
	return &Error{File: c.File, Line: lineOf(c.root, path), Msg: fmt.Sprintf(format, args...)}
}

// says reports whether something stands at a dotted path.
func (c *Config) says(path string) bool {
	n := c.root
	for part := range strings.SplitSeq(path, ".") {
		var next *yaml.Node
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == part {
				next = n.Content[i+1]
			}
		}
		if next == nil {
			return false
		}
		n = next
	}
	return true
}

// lineOf finds the line of a dotted path; numbers are positions in lists.
func lineOf(n *yaml.Node, path string) int {
	line := n.Line
	for part := range strings.SplitSeq(path, ".") {
		next := (*yaml.Node)(nil)
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == part {
					line, next = n.Content[i].Line, n.Content[i+1]
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(part); err == nil && i < len(n.Content) {
				next = n.Content[i]
				line = next.Line
			}
		}
		if next == nil {
			return line
		}
		n = next
	}
	return line
}

// check looks for what is missing or contradicts itself in dealseal.yaml.
func (c *Config) check() (errs []error) {
	fail := func(path, format string, args ...any) { errs = append(errs, c.At(path, format, args...)) }
	if c.StateDir == "" {
		fail("state_dir", "state_dir is missing: name the folder that holds database and archive, such as /var/lib/dealseal")
	} else if !filepath.IsAbs(c.StateDir) {
		fail("state_dir", "state_dir must be an absolute path")
	}
	if c.DiskFloor < leastDiskFloor {
		fail("disk_floor", "disk_floor is %d KiB: at least 16MiB are needed to finish what is under way", c.DiskFloor>>10)
	}
	if c.MasterKey.IsZero() {
		fail("master_key", "master_key is missing: make one with \"dealseal keygen master FILE\" and name it, such as credential:master-key")
	}
	oneOf := func(path, got string, valid ...string) {
		if !slices.Contains(valid, got) {
			fail(path, "%s is %q: it must be one of %s", path, got, strings.Join(valid, ", "))
		}
	}
	if _, port, err := net.SplitHostPort(c.Listen.Admin); err != nil || port == "" {
		fail("listen.admin", "listen.admin is %q: it must be an address with a port, such as 127.0.0.1:8484", c.Listen.Admin)
	}
	errs = append(errs, c.checkListen()...)
	errs = append(errs, c.checkAPI()...)
	oneOf("log.format", c.Log.Format, "text", "json")
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	if c.Retry.Max > 12*time.Hour || c.Retry.First > c.Retry.Max || c.Retry.First < 0 {
		fail("retry.max", "retry.first is %s and retry.max %s: first must not be above max, and max at most 12h", c.Retry.First, c.Retry.Max)
	}
	if len(c.Signing.Trust) == 0 {
		fail("signing.trust", "signing.trust is missing: name the PEM files of the roots that seals and time-stamps must chain to")
	}
	for name, k := range c.Signing.Keys {
		errs = append(errs, c.checkKey("signing.keys."+name, k)...)
	}
	errs = append(errs, c.checkFallBacks()...)
	errs = append(errs, c.checkLoginKeys()...)
	errs = append(errs, c.checkOutbound()...)
	errs = append(errs, c.checkNotify()...)
	errs = append(errs, c.checkSignIn()...)
	for name, p := range c.Signing.Profiles {
		path := "signing.profiles." + name
		if _, ok := c.Signing.Keys[p.Key]; !ok {
			fail(path+".key", "profile %q names the key %q, which is not under signing.keys%s", name, p.Key, Nearest(p.Key, keysOf(c.Signing.Keys)))
		}
		oneOf(path+".level", p.Level, "B-B", "B-T", "B-LT", "B-LTA")
		oneOf(path+".on_downgrade", p.OnDowngrade, "fail", "hold", "accept-and-flag")
		oneOf(path+".hash", p.Hash, "SHA-256", "SHA-384", "SHA-512")
		oneOf(path+".min_hash", p.MinHash, "SHA-256", "SHA-384", "SHA-512")
		if p.MinHash > p.Hash { // by their names
			fail(path+".hash", "profile %q seals with %s, which is below its own min_hash %s", name, p.Hash, p.MinHash)
		}
		if p.MinRSA < 2048 {
			fail(path+".min_rsa", "min_rsa is %d: less than 2048 bits are never taken", p.MinRSA)
		}
		if p.MinCurve != 256 && p.MinCurve != 384 && p.MinCurve != 521 {
			fail(path+".min_curve", "min_curve is %d: it must be 256, 384 or 521", p.MinCurve)
		}
		if p.VRI && p.Level != "B-LT" && p.Level != "B-LTA" {
			fail(path+".vri", "profile %q has vri and asks for %s, which has no security store: ask for B-LT or B-LTA, or take vri out", name, p.Level)
		}
		if p.MinValidity < 0 {
			fail(path+".min_validity", "min_validity is negative")
		}
		if p.Certify < 0 || p.Certify > 3 {
			fail(path+".certify", "certify is %d: it must be 0 (approval), 1, 2 or 3", p.Certify)
		}
		if p.DualSeal && p.Certify == 1 {
			fail(path+".dual_seal", "profile %q has dual_seal and certify: 1, which lets nothing be added to a document, and a second seal is something added: certify with 2 or 3, or take dual_seal out", name)
		}
		if p.Level != "B-B" && len(c.Signing.TSA) == 0 {
			fail(path+".level", "profile %q asks for %s and signing.tsa is empty: name a TSA, or ask for B-B", name, p.Level)
		}
	}
	for i, t := range c.Signing.TSA {
		if !strings.HasPrefix(t.URL, "http://") && !strings.HasPrefix(t.URL, "https://") {
			fail(fmt.Sprintf("signing.tsa.%d.url", i), "signing.tsa[%d].url must start with http:// or https://", i)
		}
		if len(t.Pins) > 0 && !strings.HasPrefix(t.URL, "https://") {
			fail(fmt.Sprintf("signing.tsa.%d.pins", i), "signing.tsa[%d].pins needs an https address: nothing is presented on others that could be pinned", i)
		}
		for j, other := range c.Signing.TSA[:i] {
			if hostOf(t.URL) == hostOf(other.URL) && !slices.Equal(t.Pins, other.Pins) {
				fail(fmt.Sprintf("signing.tsa.%d", i), "signing.tsa[%d] has other pins than signing.tsa[%d], and the same host: name the same ones for both", i, j)
			}
		}
		if t.Quota < 0 {
			fail(fmt.Sprintf("signing.tsa.%d.quota", i), "signing.tsa[%d].quota is negative: it is a number of requests a day", i)
		}
	}
	return errs
}

// hostOf is the host of an address; empty if it has none.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

func (c *Config) checkKey(path string, k Key) (errs []error) {
	need := func(name, value string) {
		if value == "" {
			errs = append(errs, c.At(path+"."+name, "%s.%s is missing: a %s key needs it", path, name, k.Kind))
		}
	}
	switch k.Kind {
	case "pkcs11":
		need("module", k.Module)
		need("token", k.Token)
		if k.Label == "" && k.ID == "" {
			need("label", "")
		}
		need("pin", k.PIN.String())
	case "soft":
		need("file", k.File)
		need("passphrase", k.Passphrase.String())
	case KindVault:
		if k.Vault == nil {
			need("vault", "")
		}
	case KindAWS:
		if k.AWS == nil {
			need("aws", "")
		}
	case KindGoogle:
		if k.GCP == nil {
			need("gcp", "")
		}
	case KindAzure:
		if k.Azure == nil {
			need("azure", "")
		}
	default:
		errs = append(errs, c.At(path+".kind", "%s.kind is %q: it must be pkcs11, vault-transit, aws-kms, gcp-kms, azure-keyvault or soft", path, k.Kind))
		return errs
	}
	errs = append(errs, c.alien(path, k)...)
	if k.MaxUses < 0 || k.MaxUsesPerDay < 0 {
		errs = append(errs, c.At(path+".max_uses", "%s: max_uses and max_uses_per_day must not be negative", path))
	}
	if k.KeepAlive < 10*time.Second || k.KeepAlive > time.Hour {
		errs = append(errs, c.At(path+".keep_alive", "%s.keep_alive is %s: it must be 10s to 1h", path, k.KeepAlive))
	}
	return errs
}

// Kinds of keys that services on the network keep.
const (
	KindVault  = "vault-transit"
	KindAWS    = "aws-kms"
	KindGoogle = "gcp-kms"
	KindAzure  = "azure-keyvault"
)

// kindOfField names the kind that alone takes a field of a key. What stands under fields of any other kind would mean
// nothing there.
var kindOfField = map[string]string{
	"module": "pkcs11", "token": "pkcs11", "label": "pkcs11", "id": "pkcs11", "pin": "pkcs11", "env": "pkcs11", "read": "pkcs11", "write": "pkcs11",
	"local_sockets": "pkcs11", "network": "pkcs11", "file": "soft", "passphrase": "soft", "vault": KindVault, "aws": KindAWS, "gcp": KindGoogle, "azure": KindAzure,
}

// alien finds what is said of a key and belongs to another kind.
func (c *Config) alien(path string, k Key) (errs []error) {
	for _, field := range slices.Sorted(maps.Keys(kindOfField)) {
		if kind := kindOfField[field]; kind != k.Kind && c.says(path+"."+field) {
			errs = append(errs, c.At(path+"."+field, "%s.%s is for keys of kind %s, and this one is %s: take it out", path, field, kind, k.Kind))
		}
	}
	return errs
}

// checkFallBacks sees to it that each key stands in for one other at most, and that the key pair can be proven.
func (c *Config) checkFallBacks() (errs []error) {
	standsInFor := map[string]string{}
	for _, name := range keysOf(c.Signing.Keys) {
		k := c.Signing.Keys[name]
		for i, other := range k.FallBack {
			fail := func(format string, args ...any) {
				path := fmt.Sprintf("signing.keys.%s.fall_back", name)
				errs = append(errs, c.At(fmt.Sprintf("%s.%d", path, i), "%s[%d]: "+format, append([]any{path, i}, args...)...))
			}
			o, known := c.Signing.Keys[other]
			before, twice := standsInFor[other]
			switch {
			case !known:
				fail("the key %q is not under signing.keys%s", other, Nearest(other, keysOf(c.Signing.Keys)))
			case other == name:
				fail("a key cannot stand in for itself")
			case twice:
				fail("the key %q stands in for %q already: a key stands in for one other", other, before)
			case len(o.FallBack) > 0:
				fail("the key %q has a fall_back of its own: name all of them here", other)
			case k.Kind == "soft" || o.Kind == "soft":
				fail("a soft key is for evaluation: it neither stands in nor has others stand in")
			case k.Certificates == "" || o.Certificates == "":
				fail("both keys must name their certificates, by which it is proven that the key pair is the same")
			}
			standsInFor[other] = name
		}
	}
	return errs
}

// checkLoginKeys sees to it that no key is used for both: an assertion is signed as often as the CRM asks for one. One that is
// named by its label there and by its ID here cannot be told apart, and is refused.
func (c *Config) checkLoginKeys() (errs []error) {
	for _, name := range keysOf(c.LoginKeys) {
		k, path := c.LoginKeys[name], "login_keys."+name
		for _, f := range []struct{ name, value string }{{"module", k.Module}, {"token", k.Token}, {"label", k.Label + k.ID}, {"pin", k.PIN.String()}} {
			if f.value == "" {
				errs = append(errs, c.At(path+"."+f.name, "%s.%s is missing: a key in an HSM needs it", path, f.name))
			}
		}
		for _, seals := range keysOf(c.Signing.Keys) {
			s := c.Signing.Keys[seals]
			switch {
			case s.Kind != "pkcs11" || filepath.Clean(s.Module) != filepath.Clean(k.Module) || s.Token != k.Token || differ(s.Label, k.Label) || differ(strings.ToLower(s.ID), strings.ToLower(k.ID)):
			case s.Label == k.Label && s.Label != "" || strings.EqualFold(s.ID, k.ID) && s.ID != "":
				errs = append(errs, c.At(path, "%s is the key signing.keys.%s, which seals: make one of its own for logins", path, seals))
			default:
				errs = append(errs, c.At(path, "%s may be the key signing.keys.%s, which seals: name both by their label, or both by their id", path, seals))
			}
		}
	}
	return errs
}

// differ reports whether both are given and are not the same.
func differ(a, b string) bool { return a != "" && b != "" && a != b }

func keysOf[T any](m map[string]T) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
