package main

import (
	"log/slog"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
)

func TestAKeyThatCannotBeOpenedIsCountedAsAUseThatFailed(t *testing.T) {
	t.Parallel()
	p := newPatient(t, deal.Salesforce, func(p *patientHouse) { p.config["$DIR/passphrase"] = "$DIR/master-key" })
	p.build()
	h, err := loadHouse(p.path("dealseal.yaml"))
	must(t, err)
	keys, err := h.newKeys(slog.New(slog.DiscardHandler))
	must(t, err)
	defer keys.Close()
	var failed []string
	measured := measuredKeys{keys, func(key string, _ time.Duration, err error) {
		if err != nil {
			failed = append(failed, key)
		}
	}}
	if _, err := measured.Open(t.Context(), "house"); err == nil {
		t.Fatal("it opens with another passphrase")
	}
	if len(failed) != 1 || failed[0] != "house" {
		t.Errorf("uses that failed: %q", failed)
	}
}
