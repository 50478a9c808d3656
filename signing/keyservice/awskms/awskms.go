// Package awskms signs with asymmetric keys of AWS KMS.
//
// The credentials are read anew for each call, from where a helper keeps them fresh, and are kept nowhere. The SDK's own
// search for them (environment, profiles, instance) is not used, and neither are its retries: whoever asks for a signature
// decides on the next attempt.
package awskms

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"github.com/dealseal/dealseal/secret"
	"github.com/dealseal/dealseal/signing/keyservice"
	"github.com/dealseal/dealseal/signing/pades"
)

// maxAnswer bounds an answer, which has some 2 kB.
const maxAnswer = 64 << 10

// Config is one key of AWS KMS.
type Config struct {
	// Region is that of the key, such as eu-central-1.
	Region string
	// Key is the ARN or ID of the key. An alias is refused: it can be pointed elsewhere.
	Key string
	// Credentials is a file in the form of AWS's shared credentials, read for each call: file: or credential:.
	Credentials secret.Ref
	// Instance uses the role of the EC2 instance, instead.
	Instance bool
	// Metadata is in the place of the address at which an instance asks who it is.
	Metadata string
	// Endpoint is in the place of the region's own, such as that of a VPC or a FIPS endpoint; https, or http on this machine.
	Endpoint string
}

// Service is one key. It implements keyservice.Service.
type Service struct {
	config   Config
	client   *kms.Client
	instance *instance // nil unless it logs in
}

var _ keyservice.Service = (*Service)(nil)

var (
	regionPattern = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]+$`)
	keyPattern    = regexp.MustCompile(`^(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/)?(mrk-[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$`)
)

// New checks a configuration and asks nothing. What is wrong is a *keyservice.ConfigError.
func New(c Config) (*Service, error) {
	bad := func(field, reason string) error { return &keyservice.ConfigError{Field: field, Reason: reason} }
	switch {
	case !regionPattern.MatchString(c.Region):
		return nil, bad("region", "must be that of the key, such as eu-central-1")
	case !keyPattern.MatchString(c.Key):
		return nil, bad("key", "must be the ARN or the ID of a key, such as 1234abcd-12ab-34cd-56ef-1234567890ab: an alias can be pointed at another key")
	}
	s := &Service{config: c}
	var provider aws.CredentialsProvider = credentials{c.Credentials}
	switch {
	case c.Instance && !c.Credentials.IsZero():
		return nil, bad("instance_role", "is the login of the machine: take credentials out, or instance_role")
	case c.Instance:
		s.instance = newInstance(c.Metadata)
		provider = s.instance
	default:
		if err := keyservice.CheckLogin("credentials", c.Credentials); err != nil {
			return nil, err
		}
	}
	o := kms.Options{Region: c.Region, Retryer: aws.NopRetryer{}, Credentials: provider, HTTPClient: newHTTP(), HTTPSignerV4: signer{}}
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !isLocal(u.Hostname())) {
			return nil, bad("endpoint", "must be an https address, such as https://kms-fips.eu-central-1.amazonaws.com")
		}
		o.BaseEndpoint = aws.String(c.Endpoint)
	}
	s.client = kms.New(o)
	return s, nil
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// newHTTP follows no redirection and bounds what it reads.
func newHTTP() *http.Client {
	return &http.Client{
		Transport:     bounded{http.DefaultTransport.(*http.Transport).Clone()},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded cuts answers that are too long: they are no JSON then.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(q *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(q)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// signer signs each request with what the credentials are then. The SDK's own keeps what it derived from a secret under the
// access key's ID, so that a secret that was corrected would stay refused.
type signer struct{}

func (signer) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, payloadHash, service, region string, at time.Time, options ...func(*v4.SignerOptions)) error {
	return v4.NewSigner().SignHTTP(ctx, c, r, payloadHash, service, region, at, options...)
}

// credentials reads them for each request.
type credentials struct{ ref secret.Ref }

// Retrieve implements aws.CredentialsProvider.
func (c credentials) Retrieve(context.Context) (aws.Credentials, error) {
	text, err := c.ref.Resolve()
	if err != nil {
		return aws.Credentials{}, &loginError{err}
	}
	found, err := parseCredentials(text.RevealString())
	if err != nil {
		return aws.Credentials{}, &loginError{fmt.Errorf("%s: %w", c.ref, err)}
	}
	return found, nil
}

// loginError is about the file of the credentials.
type loginError struct{ error }

// Place names region and key.
func (s *Service) Place() string { return fmt.Sprintf("AWS KMS %s, %s", s.config.Region, s.config.Key) }

// Public asks for the public key.
func (s *Service) Public(ctx context.Context) (crypto.PublicKey, error) {
	got, err := s.client.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: &s.config.Key})
	if err != nil {
		return nil, s.explain(err)
	}
	if got.KeyUsage != types.KeyUsageTypeSignVerify {
		return nil, s.lasting("the key is not for signing", "make one of usage SIGN_VERIFY: RSA_2048 to RSA_4096, or ECC_NIST_P256, P384 or P521")
	}
	public, err := x509.ParsePKIXPublicKey(got.PublicKey)
	if err != nil {
		return nil, s.lasting("the public key cannot be read", "make an RSA key or one on ECC_NIST_P256, P384 or P521")
	}
	return public, nil
}

// algorithms are those of the service.
var algorithms = map[pades.Algorithm]types.SigningAlgorithmSpec{
	{Scheme: pades.RSAPKCS1, Hash: crypto.SHA256}: types.SigningAlgorithmSpecRsassaPkcs1V15Sha256,
	{Scheme: pades.RSAPKCS1, Hash: crypto.SHA384}: types.SigningAlgorithmSpecRsassaPkcs1V15Sha384,
	{Scheme: pades.RSAPKCS1, Hash: crypto.SHA512}: types.SigningAlgorithmSpecRsassaPkcs1V15Sha512,
	{Scheme: pades.RSAPSS, Hash: crypto.SHA256}:   types.SigningAlgorithmSpecRsassaPssSha256,
	{Scheme: pades.RSAPSS, Hash: crypto.SHA384}:   types.SigningAlgorithmSpecRsassaPssSha384,
	{Scheme: pades.RSAPSS, Hash: crypto.SHA512}:   types.SigningAlgorithmSpecRsassaPssSha512,
	{Scheme: pades.ECDSA, Hash: crypto.SHA256}:    types.SigningAlgorithmSpecEcdsaSha256,
	{Scheme: pades.ECDSA, Hash: crypto.SHA384}:    types.SigningAlgorithmSpecEcdsaSha384,
	{Scheme: pades.ECDSA, Hash: crypto.SHA512}:    types.SigningAlgorithmSpecEcdsaSha512,
}

// Sign has the key sign digest.
func (s *Service) Sign(ctx context.Context, digest []byte, a pades.Algorithm) ([]byte, error) {
	algorithm, known := algorithms[a]
	if !known {
		return nil, s.lasting(fmt.Sprintf("it has no %s", a), "choose SHA-256, SHA-384 or SHA-512 in signing.profiles")
	}
	got, err := s.client.Sign(ctx, &kms.SignInput{KeyId: &s.config.Key, Message: digest, MessageType: types.MessageTypeDigest, SigningAlgorithm: algorithm})
	if err != nil {
		return nil, s.explain(err)
	}
	return got.Signature, nil
}

// What the codes of the service and of AWS's login mean (AWS KMS API reference, "Common Errors", and those of GetPublicKey
// and Sign). What is not listed is judged by its HTTP status.
var (
	passing = []string{"ThrottlingException", "KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException", "InternalFailure", "ServiceUnavailable",
		"RequestExpired", "RequestLimitExceeded", "LimitExceededException", "CustomKeyStoreInvalidStateException", "CloudHsmClusterNotActiveException"}
	logins = []string{"UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch", "ExpiredTokenException", "ExpiredToken",
		"IncompleteSignature", "MissingAuthenticationToken", "MissingAuthenticationTokenException", "OptInRequired", "AuthFailure"}
)

// explain makes of an error of the SDK one that says what to do. The words of the service are repeated only where they are
// not about the login, since those quote the request.
func (s *Service) explain(err error) error {
	var login *loginError
	var role *roleError
	if errors.As(err, &role) {
		return &keyservice.Error{Service: s.Place() + ", its login,", Status: role.status, Lasting: !keyservice.Passing(role.status), Cure: "attach a role to the instance, with kms:GetPublicKey and kms:Sign on the key"}
	}
	if errors.As(err, &login) {
		return s.lasting(login.Error(), "see that the helper writes the credentials, and that the daemon may read them")
	}
	e := &keyservice.Error{Service: s.Place()}
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		e.Status = answer.HTTPStatusCode()
	}
	var said smithy.APIError
	switch {
	case errors.As(err, &said) && e.Status >= 400:
		s.judge(e, said)
	case e.Status != 0:
		e.Message, e.Lasting = "the answer is not one of KMS", !keyservice.Passing(e.Status) && e.Status/100 != 2
		e.Cure = "see that the endpoint is one of KMS, and that no proxy answers in its place"
	default:
		return unreached(s.Place(), err)
	}
	return e
}

func (s *Service) judge(e *keyservice.Error, said smithy.APIError) {
	code := said.ErrorCode()
	e.Message, e.Lasting = keyservice.Printable(code), true
	switch {
	case slices.Contains(logins, code) && s.instance != nil:
		s.instance.kept.Forget()
		e.Lasting, e.Cure = false, "the credentials of the instance's role are not taken: the next attempt gets others; is this machine's clock right?"
	case slices.Contains(logins, code):
		e.Cure = fmt.Sprintf("the credentials of %s are refused: they are over, or wrong, or this machine's clock is", s.config.Credentials)
	case code == "AccessDeniedException":
		e.Cure = "allow kms:GetPublicKey and kms:Sign on the key, in its policy or the user's"
	case code == "DisabledException", code == "KMSInvalidStateException":
		e.Cure = "enable the key, or cancel its deletion"
	case code == "NotFoundException":
		e.Cure = "there is no such key in this region and account: correct region and key"
	case code == "InvalidKeyUsageException", code == "UnsupportedOperationException":
		e.Cure = "the key does not make such signatures: it must be of usage SIGN_VERIFY, and the profile's hash the one of its curve"
	case slices.Contains(passing, code):
		e.Lasting = false
	default:
		e.Message = keyservice.Printable(code + ": " + said.ErrorMessage())
		e.Lasting = !keyservice.Passing(e.Status)
	}
}

// unreached keeps the cause recognisable and leaves out the address.
func unreached(place string, err error) error {
	var u *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = context.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		err = context.Canceled
	case errors.As(err, &u):
		err = u.Err
	default:
		err = errors.New("the answer cannot be read")
	}
	return fmt.Errorf("%s cannot be reached: %w", place, err)
}

func (s *Service) lasting(message, cure string) error {
	return &keyservice.Error{Service: s.Place(), Message: message, Cure: cure, Lasting: true}
}
