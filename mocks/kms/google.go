package kms

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"hash/crc32"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// GoogleKey is the resource name of the only key, which is kept under the name "seal".
const GoogleKey = "projects/acme/locations/europe-west3/keyRings/contracts/cryptoKeys/seal"

// GoogleVersion is the resource name of one of its versions.
func GoogleVersion(n int) string { return GoogleKey + "/cryptoKeyVersions/" + strconv.Itoa(n) }

const googleAccount = "sealer@acme.iam.gserviceaccount.com"

var googleAccountKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// GoogleCredentials is the JSON file of a service account that logs in at address.
func GoogleCredentials(address string) string {
	der, err := x509.MarshalPKCS8PrivateKey(googleAccountKey())
	if err != nil {
		panic(err)
	}
	text, err := json.Marshal(map[string]string{"type": "service_account", "project_id": "acme", "private_key_id": "1", "client_email": googleAccount,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": address + "/token"})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// Google is Google Cloud KMS, as far as keys that sign go, and the login of service accounts, as their REST references have
// it. pss says that the algorithm of RSA keys is one of RSA_SIGN_PSS_….
func (s *Store) Google(pss bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.googleLogin)
	mux.HandleFunc("GET /computeMetadata/v1/instance/service-accounts/default/token", s.googleMachine)
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) { s.google(w, r, pss) })
	return mux
}

// googleLogin takes a signed assertion for a token (RFC 7523).
func (s *Store) googleLogin(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.FormValue("assertion"), ".")
	if r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || len(parts) != 3 {
		googleAnswer(w, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
		return
	}
	signed := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	value, _ := base64.RawURLEncoding.DecodeString(parts[2]) // what is no base64 verifies as nothing
	claims, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var c struct{ Iss, Scope string }
	if rsa.VerifyPKCS1v15(&googleAccountKey().PublicKey, crypto.SHA256, signed[:], value) != nil || json.Unmarshal(claims, &c) != nil || c.Iss != googleAccount || !strings.HasSuffix(c.Scope, "/auth/cloudkms") {
		googleAnswer(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant", "error_description": "Invalid JWT Signature: " + parts[1]})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	googleAnswer(w, http.StatusOK, map[string]any{"access_token": s.token, "token_type": "Bearer", "expires_in": 3599})
}

// googleMachine tells a machine the token of the service account that is attached to it.
func (s *Store) googleMachine(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata-Flavor") != "Google" {
		http.Error(w, "Missing Metadata-Flavor:Google header.", http.StatusForbidden)
		return
	}
	w.Header().Set("Metadata-Flavor", "Google")
	s.mu.Lock()
	defer s.mu.Unlock()
	googleAnswer(w, http.StatusOK, map[string]any{"access_token": s.token, "expires_in": 3599, "token_type": "Bearer"})
}

func (s *Store) google(w http.ResponseWriter, r *http.Request, pss bool) {
	body, _ := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20)) // what is missing is no JSON
	login := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	name, signs := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/v1/"), ":asymmetricSign")
	what := "sign"
	if !signs {
		name, what = strings.TrimSuffix(name, "/publicKey"), "read"
	}
	fault := s.arrive(Call{What: what, Login: login, Header: r.Header, Body: string(body)})
	all := s.versions("seal")
	n, err := strconv.Atoi(strings.TrimPrefix(name, GoogleKey+"/cryptoKeyVersions/"))
	switch {
	case !s.loginIs(login):
		googleError(w, http.StatusUnauthorized, "UNAUTHENTICATED", "Request had invalid authentication credentials: "+login)
	case fault == Forbidden:
		googleError(w, http.StatusForbidden, "PERMISSION_DENIED", "Permission 'cloudkms.cryptoKeyVersions.useToSign' denied")
	case fault == Down:
		googleError(w, http.StatusServiceUnavailable, "UNAVAILABLE", "The service is currently unavailable.")
	case fault == Busy:
		googleError(w, http.StatusTooManyRequests, "RESOURCE_EXHAUSTED", "Quota exceeded")
	case fault == Disabled:
		googleError(w, http.StatusBadRequest, "FAILED_PRECONDITION", name+" is not enabled, current state is: DISABLED.")
	case fault != Lost && suffer(w, r, fault):
	case err != nil || n < 1 || n > len(all):
		googleError(w, http.StatusNotFound, "NOT_FOUND", name+" not found.")
	case what == "read":
		der, err := x509.MarshalPKIXPublicKey(all[n-1].Public())
		if err != nil {
			googleError(w, http.StatusInternalServerError, "INTERNAL", err.Error())
			return
		}
		googleAnswer(w, http.StatusOK, map[string]any{"name": name, "protectionLevel": "HSM", "pem": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))})
	default:
		s.googleSign(w, r, body, n, pss, fault)
	}
}

func (s *Store) googleSign(w http.ResponseWriter, r *http.Request, body []byte, n int, pss bool, fault Fault) {
	var q struct {
		Digest       map[string][]byte
		DigestCrc32c string
	}
	if err := json.Unmarshal(body, &q); err != nil || len(q.Digest) != 1 {
		googleError(w, http.StatusBadRequest, "INVALID_ARGUMENT", "digest is missing")
		return
	}
	hashes := map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}
	all := s.versions("seal")
	if fault == OtherVersion {
		n = n%len(all) + 1
	}
	key := all[n-1]
	isRSA, bits := kindOf(key)
	for name, digest := range q.Digest {
		hash, known := hashes[name]
		if !known || len(digest) != hash.Size() || !isRSA && hash.Size()*8 != bits {
			googleError(w, http.StatusBadRequest, "INVALID_ARGUMENT", "the digest does not fit the algorithm of the key")
			return
		}
		opts := crypto.SignerOpts(hash)
		if isRSA && pss {
			opts = &rsa.PSSOptions{Hash: hash, SaltLength: rsa.PSSSaltLengthEqualsHash}
		}
		value, err := s.sign(key, digest, opts, fault)
		if err != nil {
			googleError(w, http.StatusInternalServerError, "INTERNAL", err.Error())
			return
		}
		if fault == Lost {
			suffer(w, r, Lost)
		}
		googleAnswer(w, http.StatusOK, map[string]any{"name": GoogleVersion(n), "protectionLevel": "HSM", "signature": value, "signatureCrc32c": crc32c(value),
			"verifiedDigestCrc32c": crc32c(slices.Clone(digest)) == q.DigestCrc32c})
	}
}

func crc32c(b []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))), 10)
}

func googleAnswer(w http.ResponseWriter, status int, data any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(data) // whoever asked may have gone
}

func googleError(w http.ResponseWriter, status int, code, message string) {
	googleAnswer(w, status, map[string]any{"error": map[string]any{"code": status, "message": message, "status": code}})
}
