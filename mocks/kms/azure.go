package kms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strconv"
	"strings"
)

// What an application logs in with.
const (
	AzureTenant = "11111111-2222-3333-4444-555555555555"
	AzureClient = "66666666-7777-8888-9999-000000000000"
	AzureSecret = "the~secret.of-the_application"
)

// AzureVersion is the path of a version of the only key, which is kept under the name "seal".
func AzureVersion(n int) string { return fmt.Sprintf("/keys/seal/%032x", n) }

// Azure is Key Vault, as far as keys that sign go, the login of applications, and the address at which a machine asks for
// its identity, as their REST references have them.
func (s *Store) Azure() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /"+AzureTenant+"/oauth2/v2.0/token", s.azureLogin)
	mux.HandleFunc("GET /metadata/identity/oauth2/token", s.azureIdentity)
	mux.HandleFunc("/keys/", s.azure)
	return mux
}

func (s *Store) azureLogin(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "https://vault.azure.net/.default":
		googleAnswer(w, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
	case r.FormValue("client_id") != AzureClient || r.FormValue("client_secret") != AzureSecret:
		googleAnswer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided: " + r.FormValue("client_secret")})
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		googleAnswer(w, http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": s.token})
	}
}

func (s *Store) azureIdentity(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata") != "true" || r.FormValue("resource") != "https://vault.azure.net" || r.FormValue("client_id") != "" && r.FormValue("client_id") != AzureClient {
		googleAnswer(w, http.StatusBadRequest, map[string]string{"error": "invalid_request", "error_description": "Identity not found"})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	googleAnswer(w, http.StatusOK, map[string]any{"access_token": s.token, "expires_in": "86399", "resource": "https://vault.azure.net", "token_type": "Bearer"})
}

func (s *Store) azure(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20)) // what is missing is no JSON
	login := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	path, signs := strings.CutSuffix(r.URL.Path, "/sign")
	what := map[bool]string{true: "sign", false: "read"}[signs]
	fault := s.arrive(Call{What: what, Login: login, Header: r.Header, Body: string(body)})
	all := s.versions("seal")
	n, err := strconv.ParseUint(strings.TrimPrefix(path, "/keys/seal/"), 16, 31)
	switch {
	case r.URL.Query().Get("api-version") == "":
		azureError(w, http.StatusBadRequest, "BadParameter", "", "api-version must be specified")
	case !s.loginIs(login):
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/`+AzureTenant+`", resource="https://vault.azure.net"`)
		azureError(w, http.StatusUnauthorized, "Unauthorized", "", "AKV10032: Invalid issuer: "+login)
	case fault == Forbidden:
		azureError(w, http.StatusForbidden, "Forbidden", "ForbiddenByRbac", "Caller is not authorized to perform action on resource.")
	case fault == Disabled:
		azureError(w, http.StatusForbidden, "Forbidden", "KeyDisabled", "Operation sign is not allowed on a disabled key.")
	case fault == Down:
		azureError(w, http.StatusServiceUnavailable, "ServiceUnavailable", "", "")
	case fault == Busy:
		w.Header().Set("Retry-After", "7")
		azureError(w, http.StatusTooManyRequests, "Throttled", "", "Request was not processed because too many requests were received.")
	case fault != Lost && suffer(w, r, fault):
	case err != nil || n < 1 || int(n) > len(all):
		azureError(w, http.StatusNotFound, "KeyNotFound", "", "A key with (name/id) seal was not found in this key vault: "+path)
	case what == "read":
		googleAnswer(w, http.StatusOK, map[string]any{"key": azureKey(r, int(n), all[n-1]), "attributes": map[string]any{"enabled": true}})
	default:
		s.azureSign(w, r, body, int(n), fault)
	}
}

func azureID(r *http.Request, n int) string { return "https://" + r.Host + AzureVersion(n) }

// azureKey is the public half, as JSON has it.
func azureKey(r *http.Request, n int, key crypto.Signer) map[string]any {
	out := map[string]any{"kid": azureID(r, n), "key_ops": []string{"sign", "verify"}}
	text := base64.RawURLEncoding.EncodeToString
	switch public := key.Public().(type) {
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			panic(err)
		}
		half := len(point) / 2
		out["kty"], out["crv"], out["x"], out["y"] = "EC-HSM", public.Params().Name, text(point[1:1+half]), text(point[1+half:])
	case *rsa.PublicKey:
		out["kty"], out["n"], out["e"] = "RSA-HSM", text(public.N.Bytes()), text(big.NewInt(int64(public.E)).Bytes())
	}
	return out
}

func (s *Store) azureSign(w http.ResponseWriter, r *http.Request, body []byte, n int, fault Fault) {
	var q struct{ Alg, Value string }
	digest := []byte(nil)
	err := json.Unmarshal(body, &q)
	if err == nil {
		digest, err = base64.RawURLEncoding.DecodeString(q.Value)
	}
	all := s.versions("seal")
	if fault == OtherVersion {
		n = n%len(all) + 1
	}
	key := all[n-1]
	isRSA, bits := kindOf(key)
	hashes := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}
	scheme, size := "", ""
	if len(q.Alg) == 5 {
		scheme, size = q.Alg[:2], q.Alg[2:]
	}
	hash, known := hashes[size]
	curves := map[string]int{"256": 256, "384": 384, "512": 521}
	if err != nil || !known || len(digest) != hash.Size() || isRSA != (scheme == "RS" || scheme == "PS") || !isRSA && (scheme != "ES" || curves[size] != bits) {
		azureError(w, http.StatusBadRequest, "BadParameter", "", "Key and signing algorithm are incompatible, or the digest has another length.")
		return
	}
	opts := crypto.SignerOpts(hash)
	if scheme == "PS" {
		opts = &rsa.PSSOptions{Hash: hash, SaltLength: rsa.PSSSaltLengthEqualsHash}
	}
	value, err := s.sign(key, digest, opts, fault)
	if err == nil && !isRSA {
		value, err = twoNumbers(value, (bits+7)/8)
	}
	if err != nil {
		azureError(w, http.StatusInternalServerError, "InternalServerError", "", err.Error())
		return
	}
	if fault == Lost {
		suffer(w, r, Lost)
	}
	googleAnswer(w, http.StatusOK, map[string]any{"kid": azureID(r, n), "value": base64.RawURLEncoding.EncodeToString(value)})
}

// twoNumbers puts the numbers of an ECDSA value one behind the other, as JSON's signatures have them (RFC 7518).
func twoNumbers(der []byte, size int) ([]byte, error) {
	var v struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &v); err != nil {
		return nil, err
	}
	out := make([]byte, 2*size)
	v.R.FillBytes(out[:size])
	v.S.FillBytes(out[size:])
	return out, nil
}

func azureError(w http.ResponseWriter, status int, code, inner, message string) {
	e := map[string]any{"code": code, "message": message}
	if inner != "" {
		e["innererror"] = map[string]string{"code": inner}
	}
	googleAnswer(w, status, map[string]any{"error": e})
}
