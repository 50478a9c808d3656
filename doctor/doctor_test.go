package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAnExaminationThatNeverAnswersDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		began := time.Now()
		got := Run(t.Context(), []Examination{
			{Group: Signing, Name: "tsa", Subject: "https://dead.example", Limit: 10 * time.Second, Run: func(_ context.Context, report func(Finding)) {
				report(Passed("name", "it has one"))
				<-stuck
			}},
			{Group: TenantGroup("acme"), Tenant: "acme", Name: "login", Limit: time.Minute, Run: func(_ context.Context, report func(Finding)) {
				report(Passed("login", "as ever"))
			}},
		})
		want := []Finding{
			{Group: Signing, Check: "name", Result: Pass, What: "it has one"},
			{Group: Signing, Check: "tsa", Subject: "https://dead.example", Result: Failure, What: "no answer within 12s", Cure: "see what it waits for; the other checks did not wait"},
			{Group: "tenant acme", Tenant: "acme", Check: "login", Result: Pass, What: "as ever"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("findings (-want +got):\n%s", diff)
		}
		if took := time.Since(began); took != 12*time.Second {
			t.Errorf("it took %s, want limit and grace", took)
		}
		close(stuck)
	})
}

func TestAnExaminationIsToldWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := Run(t.Context(), []Examination{{Group: Machine, Name: "x", Limit: time.Second, Run: func(ctx context.Context, report func(Finding)) {
			<-ctx.Done()
			report(Failed("x", "wait", "%v", ctx.Err()))
		}}})
		if len(got) != 1 || got[0].What != context.DeadlineExceeded.Error() {
			t.Errorf("findings %+v, want what the examination itself says", got)
		}
	})
}

func TestOnlyWhatIsNewsIsNews(t *testing.T) {
	trouble := Warned("certificate", "renew it", "59 days are left").On("house")
	other := Failed("login", "mend it", "refused")
	for name, tc := range map[string]struct {
		before, now    []Finding
		raised, mended int
	}{
		"the same":              {[]Finding{trouble}, []Finding{trouble}, 0, 0},
		"other figures":         {[]Finding{trouble}, []Finding{Warned("certificate", "renew it", "58 days are left").On("house")}, 0, 0},
		"worse":                 {[]Finding{trouble}, []Finding{Failed("certificate", "renew it", "0 days are left").On("house")}, 1, 0},
		"another key":           {[]Finding{trouble}, []Finding{trouble, trouble.On("spare")}, 1, 0},
		"mended":                {[]Finding{trouble, other}, []Finding{trouble, Passed("login", "fine")}, 0, 1},
		"only passes":           {[]Finding{Passed("a", "b")}, []Finding{Passed("c", "d")}, 0, 0},
		"other words":           {[]Finding{other}, []Finding{Failed("login", "mend it", "no answer")}, 1, 0},
		"first look of a house": {nil, []Finding{trouble, other, Passed("a", "b")}, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			raised, mended := Changes(tc.before, tc.now)
			if len(raised) != tc.raised || len(mended) != tc.mended {
				t.Errorf("raised %+v, mended %+v", raised, mended)
			}
		})
	}
}

func sample() *Report {
	f := []Finding{
		{Group: TenantGroup("acme"), Tenant: "acme", Check: "login", Result: Pass, What: "Acme Ltd"},
		{Group: TenantGroup("acme"), Tenant: "acme", Check: "stage", Subject: "order-form", Result: Failure, What: strings.Repeat("there is no such stage ", 6), Cure: "correct when.stage"},
		{Group: Signing, Check: "tsa", Subject: "https://a-very-long-name-of-a-time-stamp-server.example/tsa", Result: Warning, What: "slow\x1b[2J\u202e", Cure: "wait"},
	}
	r := NewReport("this command", time.Date(2026, 11, 20, 20, 0, 0, 0, time.UTC), 1500*time.Millisecond, f)
	r.Questions = []Answer{{"Are the keys protected?", "yes", "in an HSM"}, {"Are they renewed?", "not yet", "by hand"}}
	return r
}

func TestTheTableIsAlignedAndHarmless(t *testing.T) {
	var b bytes.Buffer
	if err := sample().Print(&b, Style{Width: 80}); err != nil {
		t.Fatal(err)
	}
	want := `tenant acme
  ok    login                               Acme Ltd
  FAIL  stage order-form                    there is no such stage there is no
                                            such stage there is no such stage
                                            there is no such stage there is no
                                            such stage there is no such stage
                                            -> correct when.stage

signing
  WARN  tsa https://a-very-long-name-of-a-time-stamp-server.example/tsa
                                            slow[2J
                                            -> wait

1 failure, 1 warning, 1 pass, in 1.5 s; asked by this command

1. Are the keys protected?
   yes: in an HSM
2. Are they renewed?
   not yet: by hand
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	b.Reset()
	if err := sample().Print(&b, Style{Width: 80, Colour: true}); err != nil {
		t.Fatal(err)
	}
	for _, coloured := range []string{"\x1b[32mok  \x1b[0m  login", "\x1b[1;31mFAIL\x1b[0m", "\x1b[33mWARN\x1b[0m", "\x1b[32myes\x1b[0m: in"} {
		if !strings.Contains(b.String(), coloured) {
			t.Errorf("the table lacks %q", coloured)
		}
	}
}

// The names of fields are a promise to whoever reads them with a program.
func TestTheJSONFormIsStable(t *testing.T) {
	got, err := json.MarshalIndent(sample(), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"schema": 1`, `"at": "2026-11-20T20:00:00Z"`, `"by": "this command"`, `"took_ms": 1500`, `"group": "tenant acme"`, `"tenant": "acme"`,
		`"check": "stage"`, `"subject": "order-form"`, `"result": "failure"`, `"cure": "correct when.stage"`, `"failure": 1`, `"question": "Are the keys protected?"`, `"answer": "not yet"`} {
		if !bytes.Contains(got, []byte(part)) {
			t.Errorf("the report lacks %s", part)
		}
	}
	var back Report
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), &back); diff != "" {
		t.Errorf("the report does not survive its JSON form (-want +got):\n%s", diff)
	}
	empty, err := json.Marshal(NewReport("x", time.Now(), 0, nil))
	if err != nil || !bytes.Contains(empty, []byte(`"findings":[]`)) {
		t.Errorf("a report without findings is %s, %v", empty, err)
	}
}
