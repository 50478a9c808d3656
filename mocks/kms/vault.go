package kms

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Vault is the transit engine of HashiCorp Vault and OpenBao, mounted at transit, as their API documentation has it.
func (s *Store) Vault() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/transit/keys/{name}", s.vault("read", (*Store).vaultKey))
	mux.HandleFunc("POST /v1/transit/sign/{name}", s.vault("sign", (*Store).vaultSign))
	mux.HandleFunc("POST /v1/auth/{mount}/login", s.vaultLogin)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.arrive(Call{What: "stray " + r.URL.Path, Login: r.Header.Get("X-Vault-Token"), Header: r.Header})
		vaultError(w, http.StatusNotFound, "no handler for route")
	})
	return mux
}

func (s *Store) vault(what string, serve func(*Store, http.ResponseWriter, *http.Request, []byte, Fault)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20)) // what is missing is no JSON
		token := r.Header.Get("X-Vault-Token")
		fault := s.arrive(Call{What: what, Login: token, Header: r.Header, Body: string(body)})
		switch {
		case fault == Down:
			vaultError(w, http.StatusServiceUnavailable, "Vault is sealed")
		case fault == Busy:
			w.Header().Set("Retry-After", "7")
			vaultError(w, http.StatusTooManyRequests, "request path \"transit/sign\": rate limit quota exceeded")
		case fault == Forbidden || !s.loginIs(token):
			vaultError(w, http.StatusForbidden, "permission denied")
		case fault == Disabled:
			vaultError(w, http.StatusBadRequest, "cannot use key version: version is too old (disallowed by policy)")
		case fault != Lost && suffer(w, r, fault):
		case len(s.versions(r.PathValue("name"))) == 0 && what == "read":
			vaultError(w, http.StatusNotFound)
		case len(s.versions(r.PathValue("name"))) == 0:
			vaultError(w, http.StatusBadRequest, "signing key not found")
		default:
			serve(s, w, r, body, fault)
		}
	}
}

// What a role logs in with.
const (
	VaultRole   = "2d5c8f3e-role-of-the-mock"
	VaultSecret = "9b1a7c4d-secret-of-the-mock"
)

// vaultLogin is AppRole at approle, and the login of pods at kubernetes.
func (s *Store) vaultLogin(w http.ResponseWriter, r *http.Request) {
	var q map[string]string
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&q)
	role, secret := q["role_id"], q["secret_id"]
	if r.PathValue("mount") == "kubernetes" {
		role, secret = q["role"], q["jwt"]
	}
	if err != nil || role != VaultRole || secret != VaultSecret {
		vaultError(w, http.StatusBadRequest, "invalid role or secret ID: "+secret)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	googleAnswer(w, http.StatusOK, map[string]any{"auth": map[string]any{"client_token": s.token, "lease_duration": 3600, "renewable": true}})
}

func vaultError(w http.ResponseWriter, status int, messages ...string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": append([]string{}, messages...)}) // whoever asked may have gone
}

func vaultData(w http.ResponseWriter, data any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"request_id": "6b0f2c6e-0000-4000-8000-000000000000", "lease_id": "", "renewable": false, "lease_duration": 0, "data": data, "wrap_info": nil, "warnings": nil, "auth": nil})
}

func (s *Store) vaultKey(w http.ResponseWriter, r *http.Request, _ []byte, _ Fault) {
	versions := map[string]any{}
	all := s.versions(r.PathValue("name"))
	for i, key := range all {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			vaultError(w, http.StatusInternalServerError, err.Error())
			return
		}
		versions[strconv.Itoa(i+1)] = map[string]any{"creation_time": "2026-01-02T03:04:05Z", "name": vaultType(key), "public_key": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}
	}
	vaultData(w, map[string]any{"name": r.PathValue("name"), "type": vaultType(all[0]), "keys": versions, "latest_version": len(all), "min_decryption_version": 1, "min_encryption_version": 0,
		"supports_signing": true, "supports_encryption": false, "exportable": false})
}

func vaultType(key crypto.Signer) string {
	isRSA, bits := kindOf(key)
	if isRSA {
		return fmt.Sprintf("rsa-%d", bits)
	}
	return fmt.Sprintf("ecdsa-p%d", bits)
}

func (s *Store) vaultSign(w http.ResponseWriter, r *http.Request, body []byte, fault Fault) {
	var q struct {
		Input      []byte `json:"input"`
		Prehashed  bool   `json:"prehashed"`
		Hash       string `json:"hash_algorithm"`
		Algorithm  string `json:"signature_algorithm"`
		Salt       string `json:"salt_length"`
		Marshaling string `json:"marshaling_algorithm"`
		Version    int    `json:"key_version"`
	}
	if err := json.Unmarshal(body, &q); err != nil {
		vaultError(w, http.StatusBadRequest, "failed to parse JSON input")
		return
	}
	hash, known := map[string]crypto.Hash{"sha2-256": crypto.SHA256, "sha2-384": crypto.SHA384, "sha2-512": crypto.SHA512}[q.Hash]
	all := s.versions(r.PathValue("name"))
	version := q.Version
	if version == 0 {
		version = len(all)
	}
	if fault == OtherVersion {
		version = version%len(all) + 1
	}
	if !known || !q.Prehashed || len(q.Input) != hash.Size() || version > len(all) {
		vaultError(w, http.StatusBadRequest, "error signing: input, hash or version do not fit")
		return
	}
	key, opts := all[version-1], crypto.SignerOpts(hash)
	isRSA, _ := kindOf(key)
	switch {
	case isRSA && q.Algorithm != "pkcs1v15": // pss is the default
		opts = &rsa.PSSOptions{Hash: hash, SaltLength: rsa.PSSSaltLengthAuto}
		if q.Salt == "hash" {
			opts = &rsa.PSSOptions{Hash: hash, SaltLength: rsa.PSSSaltLengthEqualsHash}
		}
	case !isRSA && q.Marshaling != "" && q.Marshaling != "asn1":
		vaultError(w, http.StatusBadRequest, "this mock marshals asn1 only")
		return
	}
	value, err := s.sign(key, q.Input, opts, fault)
	if err != nil {
		vaultError(w, http.StatusInternalServerError, err.Error())
		return
	}
	if fault == Lost {
		suffer(w, r, Lost)
	}
	vaultData(w, map[string]any{"signature": strings.Join([]string{"vault", "v" + strconv.Itoa(version), base64.StdEncoding.EncodeToString(value)}, ":"), "key_version": version})
}
