package api

import (
	"encoding/base64"
	"testing"

	"github.com/dealseal/dealseal/webhooks"
)

// TestAKeyIsCalledByItsThumbprint is the example of RFC 8037, appendix A.3.
func TestAKeyIsCalledByItsThumbprint(t *testing.T) {
	t.Parallel()
	raw, err := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	if k := viewKey(webhooks.PublicKey{PublicKey: raw}); k.ID != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("its kid is %s", k.ID)
	}
}
