package awskms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/dealseal/dealseal/signing/keyservice"
)

// instance gets the credentials of an EC2 instance's role from its metadata service, version 2: each question bears a token
// that was asked for first. It is safe for concurrent use.
type instance struct {
	base string
	http *http.Client
	kept keyservice.Logins[aws.Credentials]
}

func newInstance(metadata string) *instance {
	if metadata == "" {
		metadata = "http://169.254.169.254"
	}
	return &instance{base: metadata + "/latest/", http: keyservice.Machine()}
}

// roleError is what was answered in the place of credentials.
type roleError struct{ status int }

func (e *roleError) Error() string {
	return fmt.Sprintf("the instance's metadata service answers %d", e.status)
}

// Retrieve implements aws.CredentialsProvider.
func (i *instance) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, _, err := i.kept.Get(ctx, nil, i.ask)
	return c, err
}

var rolePattern = regexp.MustCompile(`^[A-Za-z0-9+=,.@_-]{1,128}$`)

func (i *instance) ask(ctx context.Context) (c aws.Credentials, life time.Duration, err error) {
	const roles = "meta-data/iam/security-credentials/"
	token, err := i.call(ctx, http.MethodPut, "api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
	if err != nil {
		return c, 0, err
	}
	const proof = "X-aws-ec2-metadata-token"
	role, err := i.call(ctx, http.MethodGet, roles, proof, token)
	if err != nil {
		return c, 0, err
	}
	if !rolePattern.MatchString(role) {
		return c, 0, errors.New("the instance's metadata service names no role")
	}
	text, err := i.call(ctx, http.MethodGet, roles+role, proof, token)
	if err != nil {
		return c, 0, err
	}
	var said struct {
		Code, AccessKeyID, SecretAccessKey, Token string
		Expiration                                time.Time
	}
	if err := json.Unmarshal([]byte(text), &said); err != nil || said.Code != "Success" || said.AccessKeyID == "" || said.SecretAccessKey == "" {
		return c, 0, errors.New("the instance's metadata service gives no credentials of the role")
	}
	return aws.Credentials{AccessKeyID: said.AccessKeyID, SecretAccessKey: said.SecretAccessKey, SessionToken: said.Token}, time.Until(said.Expiration), nil
}

// call asks one question.
func (i *instance) call(ctx context.Context, method, path, header, value string) (string, error) {
	q, err := http.NewRequestWithContext(ctx, method, i.base+path, nil)
	if err != nil {
		return "", err
	}
	q.Header.Set(header, value)
	resp, err := i.http.Do(q)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", &roleError{resp.StatusCode}
	}
	return strings.TrimSpace(string(text)), nil
}
