package vault

import (
	"strings"
	"testing"

	"github.com/dealseal/dealseal/mocks/hostile"
)

// FuzzDecode reads what a server may call a signature, and a key.
func FuzzDecode(f *testing.F) {
	s := &Service{config: Config{Version: 1}, base: "https://x/v1/transit"}
	f.Add("vault:v1:AAAA")
	f.Add("vault:v2:")
	f.Add("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		hostile.Budget(t)
		if value, err := s.decode(text); err == nil && !strings.Contains(text, ":v1:") {
			t.Fatalf("%x of %q", value, text)
		}
		_, _ = s.parse(text)
	})
}
