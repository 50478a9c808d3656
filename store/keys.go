package store

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"

	"filippo.io/age"
	"github.com/dealseal/dealseal/deal"
	"golang.org/x/crypto/chacha20poly1305"
)

// minMasterKey is the least length of the master key in bytes.
const minMasterKey = 32

// master derives every other key. Keys of tenants depend on nothing but the master key and the tenant's id, so that an
// archive can be read without its database.
type master struct{ prk []byte }

func newMaster(key []byte) master { return master{extract(key)} }

func (m master) derive(purpose, name string) []byte {
	key, err := hkdf.Expand(sha256.New, m.prk, purpose+"\x00"+name, chacha20poly1305.KeySize)
	if err != nil {
		panic(err) // only for lengths beyond 255 hashes
	}
	return key
}

func extract(key []byte) []byte {
	prk, err := hkdf.Extract(sha256.New, key, []byte("dealseal/store/1"))
	if err != nil {
		panic(err) // only for unapproved hashes in FIPS mode
	}
	return prk
}

// tenant wraps the data keys of a tenant's sealings.
func (m master) tenant(id deal.TenantID) []byte { return m.derive("tenant", string(id)) }

// memory protects what a tenant's connector keeps.
func (m master) memory(id deal.TenantID) []byte { return m.derive("memory", string(id)) }

// manifest authenticates a tenant's manifests.
func (m master) manifest(id deal.TenantID) []byte { return m.derive("manifest", string(id)) }

// backup authenticates backups.
func (m master) backup() []byte { return m.derive("backup", "") }

// shared protects what belongs to no tenant: the checkpoint key, and who did what to the daemon as a whole.
func (m master) shared() []byte { return m.derive("shared", "") }

// box encrypts with XChaCha20-Poly1305 under a random nonce, which stands in front. The context is authenticated, so
// that a ciphertext cannot be moved to another row.
func box(key []byte, context string, plain []byte) []byte {
	aead := newAEAD(key)
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	rand.Read(nonce)
	return aead.Seal(nonce, nonce, plain, []byte(context))
}

// unbox is the reverse of box.
func unbox(key []byte, context string, boxed []byte) ([]byte, error) {
	aead := newAEAD(key)
	if len(boxed) < aead.NonceSize() {
		return nil, errDamaged
	}
	plain, err := aead.Open(nil, boxed[:aead.NonceSize()], boxed[aead.NonceSize():], []byte(context))
	if err != nil {
		return nil, errDamaged
	}
	return plain, nil
}

// errDamaged means that a ciphertext was altered, belongs elsewhere, or was made under another key.
var errDamaged = errors.New("encrypted value is damaged or belongs to another key")

func newAEAD(key []byte) cipher.AEAD {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic(err) // only for keys of another length
	}
	return aead
}

// dataKey protects one sealing: an age identity for its files, and what is derived from it for its rows. It is the recipient
// and the identity of these files itself, for it remembers the keys of those that it has met: a contract is read back four
// times on its way, and each agreement on a key costs as much as hashing 200 kB. What is on the disk is read all the same:
// a header is authenticated with the key of its file, and one that is not the same to the byte is agreed on anew.
type dataKey struct {
	identity *age.X25519Identity
	rows     []byte

	mu    sync.Mutex
	files map[string][]byte // by how they were wrapped
}

// maxFileKeys is how many keys of files are remembered: more than a deal has files. They are all forgotten when there would be more.
const maxFileKeys = 32

// Wrap implements age.Recipient.
func (k *dataKey) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	stanzas, err := k.identity.Recipient().Wrap(fileKey)
	if err == nil {
		k.remember(stanzas, fileKey)
	}
	return stanzas, err
}

// Unwrap implements age.Identity.
func (k *dataKey) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	k.mu.Lock()
	known := k.files[asWrapped(stanzas)]
	k.mu.Unlock()
	if known != nil {
		return bytes.Clone(known), nil
	}
	fileKey, err := k.identity.Unwrap(stanzas)
	if err == nil {
		k.remember(stanzas, fileKey)
	}
	return fileKey, err
}

func (k *dataKey) remember(stanzas []*age.Stanza, fileKey []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.files == nil || len(k.files) >= maxFileKeys {
		k.files = map[string][]byte{}
	}
	k.files[asWrapped(stanzas)] = bytes.Clone(fileKey)
}

// asWrapped is all that a file says of its key.
func asWrapped(stanzas []*age.Stanza) string {
	var b strings.Builder
	for _, s := range stanzas {
		fmt.Fprintf(&b, "%q %q %x\n", s.Type, s.Args, s.Body)
	}
	return b.String()
}

func newDataKey() (*dataKey, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make a data key: %w", err)
	}
	return asDataKey(id), nil
}

func asDataKey(id *age.X25519Identity) *dataKey {
	return &dataKey{identity: id, rows: newMaster([]byte(id.String())).derive("rows", "")}
}

// wrap encrypts the key for keeping. The transaction is authenticated with it.
func (k *dataKey) wrap(tenantKey []byte, tx deal.TxID) []byte {
	return box(tenantKey, "data-key/"+string(tx), []byte(k.identity.String()))
}

func unwrapDataKey(tenantKey []byte, tx deal.TxID, wrapped []byte) (*dataKey, error) {
	plain, err := unbox(tenantKey, "data-key/"+string(tx), wrapped)
	if err != nil {
		return nil, fmt.Errorf("%s: data key: %w", tx, err)
	}
	id, err := age.ParseX25519Identity(string(plain))
	if err != nil {
		return nil, fmt.Errorf("%s: data key: %w", tx, errDamaged)
	}
	return asDataKey(id), nil
}

// keyring remembers the data keys of the sealings that are being worked: to make one of its stored form costs an elliptic
// curve multiplication, and every commit of a sealing needs it. The stored form is read all the same, so that a key that
// was destroyed is found by nobody. The zero value is ready; it is safe for concurrent use.
type keyring struct {
	mu   sync.Mutex
	keys map[deal.TxID]ringKey
}

type ringKey struct {
	wrapped []byte
	key     *dataKey
}

// maxRing is how many keys are remembered; they are all forgotten when there would be more.
const maxRing = 200

func (k *keyring) unwrap(tenantKey []byte, tx deal.TxID, wrapped []byte) (*dataKey, error) {
	k.mu.Lock()
	known := k.keys[tx]
	k.mu.Unlock()
	if known.key != nil && bytes.Equal(known.wrapped, wrapped) {
		return known.key, nil
	}
	key, err := unwrapDataKey(tenantKey, tx, wrapped)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil || len(k.keys) >= maxRing {
		k.keys = map[deal.TxID]ringKey{}
	}
	k.keys[tx] = ringKey{wrapped, key}
	return key, nil
}

// forget is for a key that is destroyed.
func (k *keyring) forget(tx deal.TxID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, tx)
}
