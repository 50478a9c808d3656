package awskms

import (
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// parseCredentials reads the section [default] of AWS's shared credentials, or lines before any section. Its errors repeat
// nothing of what it read.
func parseCredentials(text string) (c aws.Credentials, err error) {
	fields := map[string]*string{"aws_access_key_id": &c.AccessKeyID, "aws_secret_access_key": &c.SecretAccessKey, "aws_session_token": &c.SessionToken}
	ours := true
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			ours = line == "[default]"
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if field := fields[strings.ToLower(strings.TrimSpace(name))]; ours && found && field != nil {
			*field = strings.TrimSpace(value)
		}
	}
	if c.AccessKeyID == "" || c.SecretAccessKey == "" {
		return aws.Credentials{}, errors.New("has no aws_access_key_id and aws_secret_access_key under [default]")
	}
	return c, nil
}
