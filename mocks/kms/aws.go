package kms

import (
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// AWSAccessKey is the access key whose secret is the Store's token.
const AWSAccessKey = "AKIDOFTHEMOCK"

// AWSKeyID is what the service calls the only key, which is kept under the name "seal".
const AWSKeyID = "1234abcd-12ab-34cd-56ef-1234567890ab"

// AWS is AWS KMS, as far as keys that sign go, as its API reference has it (JSON 1.1). Requests must be signed with
// Signature Version 4.
func (s *Store) AWS() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20)) // what is missing is no JSON
		operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
		what := map[string]string{"GetPublicKey": "read", "Sign": "sign"}[operation]
		fault := s.arrive(Call{What: what, Login: r.Header.Get("Authorization"), Header: r.Header, Body: string(body)})
		switch code := s.awsLogin(r, body); {
		case fault == Forbidden:
			awsError(w, http.StatusBadRequest, "AccessDeniedException", "User: arn:aws:iam::111122223333:user/x is not authorized to perform: kms:"+operation)
			return
		case code != "":
			awsError(w, http.StatusBadRequest, code, "The request signature we calculated does not match: "+string(body))
			return
		case fault == Down:
			awsError(w, http.StatusInternalServerError, "KMSInternalException", "")
			return
		case fault == Busy:
			awsError(w, http.StatusBadRequest, "ThrottlingException", "You have exceeded the rate at which you may call KMS.")
			return
		case fault == Disabled:
			awsError(w, http.StatusBadRequest, "DisabledException", AWSKeyID+" is disabled.")
			return
		case fault != Lost && suffer(w, r, fault):
			return
		}
		var q struct {
			KeyID            string `json:"KeyId"`
			Message          []byte
			MessageType      string
			SigningAlgorithm string
		}
		if err := json.Unmarshal(body, &q); err != nil || what == "" {
			awsError(w, http.StatusBadRequest, "SerializationException", "")
			return
		}
		all := s.versions("seal")
		if len(all) == 0 || q.KeyID != AWSKeyID {
			awsError(w, http.StatusBadRequest, "NotFoundException", "Key '"+q.KeyID+"' does not exist")
			return
		}
		if what == "read" {
			awsPublic(w, all[0])
			return
		}
		opts := awsOptions(all[0], q.SigningAlgorithm)
		if opts == nil || q.MessageType != "DIGEST" || len(q.Message) != opts.HashFunc().Size() {
			awsError(w, http.StatusBadRequest, "InvalidKeyUsageException", "algorithm, message type or digest do not fit the key")
			return
		}
		value, err := s.sign(all[0], q.Message, opts, fault)
		if err != nil {
			awsError(w, http.StatusInternalServerError, "KMSInternalException", err.Error())
			return
		}
		if fault == Lost {
			suffer(w, r, Lost)
		}
		awsAnswer(w, map[string]any{"KeyId": awsARN, "Signature": value, "SigningAlgorithm": q.SigningAlgorithm})
	})
}

const awsARN = "arn:aws:kms:eu-central-1:111122223333:key/" + AWSKeyID

func awsPublic(w http.ResponseWriter, key crypto.Signer) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		awsError(w, http.StatusInternalServerError, "KMSInternalException", err.Error())
		return
	}
	isRSA, bits := kindOf(key)
	spec := fmt.Sprintf("ECC_NIST_P%d", bits)
	if isRSA {
		spec = fmt.Sprintf("RSA_%d", bits)
	}
	awsAnswer(w, map[string]any{"KeyId": awsARN, "PublicKey": der, "KeySpec": spec, "CustomerMasterKeySpec": spec, "KeyUsage": "SIGN_VERIFY"})
}

// awsOptions are nil for what a key does not make: the hash of an ECDSA signature is the one of the curve.
func awsOptions(key crypto.Signer, algorithm string) crypto.SignerOpts {
	hashes := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}
	isRSA, bits := kindOf(key)
	hash := hashes[algorithm[max(len(algorithm)-3, 0):]]
	switch {
	case hash == 0:
	case isRSA && strings.HasPrefix(algorithm, "RSASSA_PKCS1_V1_5_SHA_"):
		return hash
	case isRSA && strings.HasPrefix(algorithm, "RSASSA_PSS_SHA_"):
		return &rsa.PSSOptions{Hash: hash, SaltLength: rsa.PSSSaltLengthEqualsHash}
	case !isRSA && strings.HasPrefix(algorithm, "ECDSA_SHA_") && map[int]crypto.Hash{256: crypto.SHA256, 384: crypto.SHA384, 521: crypto.SHA512}[bits] == hash:
		return hash
	}
	return nil
}

func awsAnswer(w http.ResponseWriter, data any) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(data) // whoever asked may have gone
}

func awsError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}

// awsLogin checks the signature of a request (Signature Version 4), and returns the code of what is wrong.
func (s *Store) awsLogin(r *http.Request, body []byte) (code string) {
	rest, ours := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ours {
		return "MissingAuthenticationTokenException"
	}
	part := map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		part[name] = value
	}
	scope := strings.Split(part["Credential"], "/") // key, day, region, service, "aws4_request"
	if len(scope) != 5 || scope[0] != AWSAccessKey || scope[3] != "kms" {
		return "UnrecognizedClientException"
	}
	names := strings.Split(part["SignedHeaders"], ";")
	var headers strings.Builder
	for _, name := range names {
		value := r.Header.Get(name)
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(r.ContentLength)
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.TrimSpace(value))
	}
	if !slices.Contains(names, "host") || !slices.Contains(names, "x-amz-date") {
		return "IncompleteSignature"
	}
	hash := func(b []byte) string { h := sha256.Sum256(b); return hex.EncodeToString(h[:]) }
	canonical := strings.Join([]string{r.Method, "/", "", headers.String(), part["SignedHeaders"], hash(body)}, "\n")
	text := strings.Join([]string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), strings.Join(scope[1:], "/"), hash([]byte(canonical))}, "\n")
	s.mu.Lock()
	key := []byte("AWS4" + s.token)
	s.mu.Unlock()
	for _, step := range append(slices.Clone(scope[1:]), text) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(step))
		key = mac.Sum(nil)
	}
	if hex.EncodeToString(key) != part["Signature"] {
		return "InvalidSignatureException"
	}
	return ""
}

// awsInstanceToken is what a question to the metadata service has to bear.
const awsInstanceToken = "the-token-of-one-question"

// AWSInstance is the metadata service of an EC2 instance, version 2, as far as the credentials of its role go.
func (s *Store) AWSInstance() http.Handler {
	const roles = "/latest/meta-data/iam/security-credentials/"
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "" {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, awsInstanceToken) // whoever asked may have gone
	})
	proven := func(answer func(w http.ResponseWriter)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-aws-ec2-metadata-token") != awsInstanceToken {
				http.Error(w, "", http.StatusUnauthorized)
				return
			}
			answer(w)
		}
	}
	mux.HandleFunc("GET "+roles+"{$}", proven(func(w http.ResponseWriter) { _, _ = io.WriteString(w, "sealer\n") }))
	mux.HandleFunc("GET "+roles+"sealer", proven(func(w http.ResponseWriter) {
		s.mu.Lock()
		defer s.mu.Unlock()
		awsAnswer(w, map[string]any{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": AWSAccessKey, "SecretAccessKey": s.token, "Token": "session",
			"Expiration": time.Now().Add(6 * time.Hour).UTC().Format(time.RFC3339)})
	}))
	return mux
}
