package connectortest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/dealseal/dealseal/connectors"
	"github.com/dealseal/dealseal/deal"
)

// probe asks, and holds that every problem says what it is and what to do.
func probe(t *testing.T, w World, p connectors.Probe) []connectors.Problem {
	t.Helper()
	p.Object = w.Traits().Object
	problems, err := prober(t, w).Probe(callContext(t), p)
	if err != nil {
		t.Fatalf("Probe: %v", err)
	}
	for _, problem := range problems {
		if problem.What == "" || problem.Cure == "" {
			t.Errorf("a problem has no name or no cure: %+v", problem)
		}
	}
	return problems
}

func prober(t *testing.T, w World) connectors.Prober {
	t.Helper()
	p, ok := w.Connector(quiet()).(connectors.Prober)
	if !ok {
		t.Skip("LEFT OUT: the connector has no Probe")
	}
	return p
}

// says holds that there is one problem for each of the lists, in order, whose texts contain all words of its list.
func says(t *testing.T, problems []connectors.Problem, want ...[]string) {
	t.Helper()
	if len(problems) != len(want) {
		t.Errorf("%d problems, want %d: %+v", len(problems), len(want), problems)
		return
	}
	for i, words := range want {
		text := problems[i].What + "\n" + problems[i].Cure
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("problem %d lacks %q: %+v", i+1, word, problems[i])
			}
		}
	}
}

func watchOf(w World, rule, stage string) deal.Watch {
	return deal.Watch{Rule: rule, Object: w.Traits().Object, Pipeline: w.Traits().Pipeline, Stage: stage, Since: w.Now()}
}

func testProbeOfWhatFits(t *testing.T, w World) {
	traits := w.Traits()
	says(t, probe(t, w, connectors.Probe{
		Watches: []deal.Watch{watchOf(w, "a", traits.Stage), watchOf(w, "b", traits.Other), watchOf(w, "c", traits.Third)},
		Read: []string{
			traits.Amount, traits.ReadOnlyTime,
			traits.Lines + "." + traits.LineName, traits.Lines + "." + traits.LineQuantity, traits.Lines + "." + traits.LinePrice,
		},
		WriteBack: []deal.WriteBack{traits.WriteBack, {Status: traits.WriteBack.Status, Words: traits.WriteBack.Words}, {}},
	}))
	for _, call := range []Call{ListCall, ReadCall, UploadCall, LinkCall, WriteCall} {
		if n := w.Requests(call); n != 0 {
			t.Errorf("Probe made %d %s calls", n, call)
		}
	}
}

func testProbeOfStages(t *testing.T, w World) {
	traits := w.Traits()
	foreign := watchOf(w, "foreign", traits.Stage)
	foreign.Object = "Nonsense__x"
	problems := probe(t, w, connectors.Probe{Watches: []deal.Watch{
		watchOf(w, "good", traits.Stage), watchOf(w, "typo", traits.NoSuchStage), foreign, watchOf(w, "far off", "zzzzzzzzzzzzzzzzzzzzzz"),
	}})
	says(t, problems, []string{traits.NoSuchStage, fmt.Sprintf("%q", traits.Stage)}, []string{"Nonsense__x", traits.Object}, []string{"zzzzzzzzzzzzzzzzzzzzzz"})
	for i, rule := range []string{"typo", "foreign", "far off"} {
		if i < len(problems) && problems[i].Rule != rule {
			t.Errorf("problem %d is that of rule %q, want %q", i+1, problems[i].Rule, rule)
		}
	}
}

func testProbeOfPaths(t *testing.T, w World) {
	traits := w.Traits()
	inList := traits.Lines + "." + traits.NoSuchField
	says(t, probe(t, w, connectors.Probe{Read: []string{traits.NoSuchField, traits.Amount, inList, "..", "Nonsense.Name"}}),
		[]string{traits.NoSuchField}, []string{inList}, []string{`".."`}, []string{"Nonsense.Name"})
}

func testProbeOfWriteBack(t *testing.T, w World) {
	traits := w.Traits()
	const word = "Besiegelt und verkündet"
	for name, tc := range map[string]struct {
		change func(*deal.WriteBack)
		want   []string
	}{
		"field that does not exist":    {func(b *deal.WriteBack) { b.Audit = traits.NoSuchField }, []string{"write_back.audit", traits.NoSuchField}},
		"field that nobody may write":  {func(b *deal.WriteBack) { b.SignedAt = traits.ReadOnlyTime }, []string{"write_back.signed_at", traits.ReadOnlyTime, "written"}},
		"number for the transaction":   {func(b *deal.WriteBack) { b.TransactionID = traits.Amount }, []string{"write_back.transaction_id", traits.Amount, "type"}},
		"number for the status":        {func(b *deal.WriteBack) { b.Status = traits.Amount }, []string{"write_back.status", traits.Amount, "type"}},
		"number for the time":          {func(b *deal.WriteBack) { b.SignedAt = traits.Amount }, []string{"write_back.signed_at", traits.Amount, "type"}},
		"number for the link":          {func(b *deal.WriteBack) { b.URL = traits.Amount }, []string{"write_back.url", traits.Amount, "type"}},
		"number for the audit record":  {func(b *deal.WriteBack) { b.Audit = traits.Amount }, []string{"write_back.audit", traits.Amount, "type"}},
		"word that is no option":       {func(b *deal.WriteBack) { b.Words = map[deal.Status]string{deal.StatusSigned: word} }, []string{"write_back.status", word, "write_back.status.values"}},
		"word of a status seldom seen": {func(b *deal.WriteBack) { b.Words = map[deal.Status]string{deal.StatusRefused: word} }, []string{"write_back.status", word}},
	} {
		t.Run(name, func(t *testing.T) {
			b := traits.WriteBack
			words := b.Words
			tc.change(&b)
			for status, w := range words { // those of the account, but for the one that is being tried
				if _, changed := b.Words[status]; !changed {
					b.Words[status] = w
				}
			}
			says(t, probe(t, w, connectors.Probe{WriteBack: []deal.WriteBack{b, traits.WriteBack, b}}), tc.want)
		})
	}
}

// testProbeThatCannotAsk holds that trouble on the way is not taken for a problem of the configuration.
func testProbeThatCannotAsk(t *testing.T, w World) {
	p := connectors.Probe{Watches: []deal.Watch{watchOf(w, "a", w.Traits().Stage)}, Read: []string{w.Traits().Amount}}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if problems, err := prober(t, w).Probe(cancelled, p); !errors.Is(err, context.Canceled) || problems != nil {
		t.Errorf("Probe with a cancelled context gives %v and %v", problems, err)
	}
	supported(t, w.Fail(LoginCall, Forbidden, -1))
	if problems, err := prober(t, w).Probe(callContext(t), p); !connectors.IsLogin(err) || problems != nil {
		t.Errorf("Probe without a login gives %v and %v, want trouble with the login", problems, err)
	}
}
