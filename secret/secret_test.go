package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/secret"
)

const plain = "hunter2-correct-horse"

func TestSecretNeverPrints(t *testing.T) {
	type inner struct{ hidden secret.Secret }
	type outer struct {
		Open   secret.Secret
		Ptr    *secret.Secret
		nested inner
		list   []secret.Secret
		byName map[string]secret.Secret
	}
	s := secret.New([]byte(plain))
	o := outer{s, &s, inner{s}, []secret.Secret{s}, map[string]secret.Secret{"k": s}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p"} {
		for _, v := range []any{s, &s, o, &o, []any{o}, fmt.Errorf("with %v", s)} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "s", s, "p", &s, "o", o, "a", []any{s})
	}
	if err := json.NewEncoder(&out).Encode(o); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	for _, leak := range []string{plain, fmt.Sprintf("%x", plain), fmt.Sprintf("%X", plain), fmt.Sprint([]byte(plain)), strings.Trim(fmt.Sprint([]byte(plain)), "[]")} {
		if strings.Contains(got, leak) {
			t.Errorf("the secret was printed as %q", leak)
		}
	}
	if !strings.Contains(got, "[secret]") {
		t.Error("nothing shows that there is a secret")
	}
}

func TestRevealReturnsACopy(t *testing.T) {
	source := []byte(plain)
	s := secret.New(source)
	clear(source)
	clear(s.Reveal())
	if got := s.RevealString(); got != plain {
		t.Fatalf("the secret changed with a copy of it: %q", got)
	}
	if s.IsZero() || !(secret.Secret{}).IsZero() || (secret.Secret{}).Reveal() != nil || (secret.Secret{}).RevealString() != "" {
		t.Fatal("the zero Secret is not empty")
	}
}
