package typst

import (
	"bytes"
	"context"
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/documents"
	"github.com/dealseal/dealseal/worker"
)

// A document that tries a sample is made whatever becomes of the sample, and no second one tries it when it failed.
func TestASampleCostsNoDocumentAndAtMostOneChild(t *testing.T) {
	for mood, want := range map[string]struct {
		trial trial
		dies  bool
	}{
		"good":    {sound, false},
		"faulty":  {unsound, false},
		"greedy":  {unsound, false},
		"endless": {unsound, true},
	} {
		t.Run(mood, func(t *testing.T) {
			others := children(t)
			r := renderer(t, func(o *Options) {
				if want.dies {
					o.Timeout = 4 * time.Second
				}
			})
			own := func() (pids []int) {
				return slices.DeleteFunc(children(t), func(pid int) bool { return slices.Contains(others, pid) })
			}
			b := sampled(t, moods, `{"mood":"`+mood+`"}`)
			c := r.bundles.of(b.Hash(), 0)
			var first documents.Output
			render := func() {
				t.Helper()
				out, err := r.Render(t.Context(), b, []byte(`{"mood":"calm"}`))
				if err != nil {
					t.Fatal(err)
				}
				if first.PDF == nil {
					first = out
				}
				if !bytes.Equal(out.PDF, first.PDF) {
					t.Error("another document")
				}
			}
			render()
			before := own()
			for i := 0; c.trials[manner{}] == untried && i < 10; i++ {
				render()
			}
			after := own()
			if got := c.trials[manner{}]; got != want.trial {
				t.Errorf("the sample is %d, not %d", got, want.trial)
			}
			if slices.Equal(before, after) == want.dies {
				t.Errorf("children %v, then %v", before, after)
			}
			for range 3 {
				render()
			}
			if last := own(); !slices.Equal(last, after) {
				t.Errorf("children %v, then %v: another one died", after, last)
			}
			if c.failing || c.runaways > 0 {
				t.Error("the sample is put down to the documents")
			}
		})
	}
}

func TestOneDocumentTriesASampleOfABundleThatIsNotInDoubt(t *testing.T) {
	s, plain, marked := &sample{}, manner{}, manner{mark: "TEST"}
	answer := func(fate sampleFate) worker.Frame {
		header, err := json.Marshal(reply{Sample: fate})
		if err != nil {
			t.Fatal(err)
		}
		return worker.Frame{Header: header}
	}
	for name, tc := range map[string]struct {
		answer worker.Frame
		err    error
		want   trial
	}{
		"kept":           {answer(sampleKept), nil, sound},
		"unfit":          {answer(sampleUnfit), nil, unsound},
		"not its turn":   {answer(sampleUnused), nil, untried},
		"a fault before": {worker.Frame{}, &worker.RemoteError{}, untried},
		"killed":         {worker.Frame{}, &worker.DeadlineError{Started: true}, unsound},
		"crashed":        {worker.Frame{}, &worker.CrashError{}, unsound},
		"nobody waits":   {worker.Frame{}, context.Canceled, unsound},
		"no sense in it": {worker.Frame{Header: []byte("{")}, nil, unsound},
	} {
		var m conducts
		c := m.of("one", 1)
		if got, _ := m.offer(c, s, plain); got != nil {
			t.Errorf("%s: offered before the bundle is proven", name)
		}
		m.note(c, nil, time.Second, false)
		if got, _ := m.offer(c, nil, plain); got != nil {
			t.Errorf("%s: no sample is offered", name)
		}
		if got, first := m.offer(c, s, plain); got != s || !first {
			t.Errorf("%s: not offered", name)
		}
		if got, _ := m.offer(c, s, plain); got != nil {
			t.Errorf("%s: offered twice at once", name)
		}
		if got, first := m.offer(c, s, marked); got != s || !first {
			t.Errorf("%s: not offered to documents of another manner", name)
		}
		if got := m.tried(c, plain, true, tc.answer, tc.err); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
		got, first := m.offer(c, s, plain)
		if (got == nil) != (tc.want == unsound) || first != (tc.want == untried) {
			t.Errorf("%s: then %v, %v", name, got, first)
		}
		m.note(c, &worker.CrashError{}, time.Second, false)
		if got, _ := m.offer(c, s, plain); got != nil {
			t.Errorf("%s: offered to a bundle that fails", name)
		}
	}
}

// A child may have room for a sample where another one has not: what was sound once is tried again when it may have cost one.
func TestASampleThatMayHaveCostAChildIsTriedAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want trial
	}{
		"made":          {nil, sound},
		"refused":       {&worker.RemoteError{}, sound},
		"nobody waits":  {context.Canceled, sound},
		"never started": {&worker.DeadlineError{}, sound},
		"killed":        {&worker.DeadlineError{Started: true}, untried},
		"crashed":       {&worker.CrashError{}, untried},
	} {
		c := &conduct{trials: map[manner]trial{{}: sound}}
		if got := new(conducts).tried(c, manner{}, false, worker.Frame{}, tc.err); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
	c := &conduct{trials: map[manner]trial{{}: trying}}
	if got := new(conducts).tried(c, manner{}, false, worker.Frame{}, &worker.CrashError{}); got != trying {
		t.Errorf("while another document tries it: %d", got)
	}
}

func TestTheSampleThatIsMostLikeDocumentsIsTaken(t *testing.T) {
	all, err := documents.LoadAll(templates)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"order-form@1": "samples/names.json", "nda@1": "samples/names.json", "audit-trail@1": "samples/sealed.json"} {
		if s := common(t).sampleOf(all[name], &conduct{}); s == nil || s.name != want {
			t.Errorf("%s: %v", name, s)
		}
	}
	for name, record := range map[string]string{
		"too long":        `{"a":"` + strings.Repeat("a ", maxSample) + `"}`,
		"further fonts":   `{"a":"東京"}`,
		"no record of it": `[]`,
	} {
		if s := common(t).sampleOf(sampled(t, "Hello", record), &conduct{}); s != nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// The conduct of a bundle is remembered for the life of the process, its files are not: templates come and go by reloading.
func TestWhatIsRememberedOfABundleHoldsNoneOfItsFiles(t *testing.T) {
	r, c, gone := common(t), &conduct{}, make(chan struct{})
	func() {
		b := sampled(t, "Hello", `{"a":"b"}`)
		runtime.AddCleanup(b, func(done chan struct{}) { close(done) }, gone)
		if r.sampleOf(b, c) == nil {
			t.Fatal("no sample")
		}
	}()
	for tries := 0; ; tries++ {
		runtime.GC()
		select {
		case <-gone:
			runtime.KeepAlive(c)
			return
		case <-time.After(10 * time.Millisecond): // what is cleaned up is told by another goroutine
		}
		if tries > 300 {
			t.Fatal("the bundle is still there")
		}
	}
}
