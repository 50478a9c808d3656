package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	mock "github.com/dealseal/dealseal/mocks/crm/salesforce"
)

func TestLinesBearWhatTheirContextSaysOnce(t *testing.T) {
	var b bytes.Buffer
	plain := slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}})
	log := slog.New(LogHandler(plain))
	ctx := logged(t.Context(), slog.String("tx", "abc"), slog.String("step", "gather"))
	inner := logged(ctx, slog.String("step", "seal"))
	_ = logged(ctx, slog.String("step", "another")) // does not touch its sibling
	for want, say := range map[string]func(){
		"msg=m\n":                            func() { log.Info("m") },
		"msg=m a=1 tx=abc step=gather\n":     func() { log.InfoContext(ctx, "m", "a", 1) },
		"msg=m tx=abc step=seal\n":           func() { log.InfoContext(inner, "m") },
		"msg=m tx=xyz step=seal\n":           func() { log.InfoContext(inner, "m", "tx", "xyz") },
		"msg=m tx=xyz a=1 step=seal\n":       func() { log.With("tx", "xyz").InfoContext(inner, "m", "a", 1) },
		"msg=m g.a=1 g.tx=abc g.step=seal\n": func() { log.WithGroup("g").InfoContext(inner, "m", "a", 1) },
	} {
		b.Reset()
		say()
		if b.String() != want {
			t.Errorf("logged %q, want %q", b.String(), want)
		}
	}
}

// lines are the lines of a daemon's log that speak of a deal.
func (d *daemon) lines(tx deal.TxID, level string) (lines []string) {
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(line, "tx="+string(tx)) && strings.Contains(line, "level="+level) {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestEveryStateOfADealIsOneLineUnderItsTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	w.won()
	tx := d.notice()
	d.finish()
	d.wantDone(d.load(tx))
	var said []string
	for _, line := range d.lines(tx, "INFO") {
		_, msg, _ := strings.Cut(line, "msg=")
		msg, _, _ = strings.Cut(msg, " ")
		said = append(said, msg)
		if msg != "noticed" && (!strings.Contains(line, "tenant=acme") || !strings.Contains(line, "step=") || !strings.Contains(line, "took=")) {
			t.Errorf("without tenant, step or duration: %s", line)
		}
	}
	want := []string{"noticed", "gathered", "rendered", "sealed", "checked", "kept", "attached", "reported", "done"}
	if !slices.Equal(said, want) {
		t.Errorf("logged are %q, want %q", said, want)
	}
	calls := d.lines(tx, "DEBUG")
	for _, call := range []string{"call=record", "call=redeem", "call=tsa", "call=verify", "call=files", "call=write-back"} {
		if !slices.ContainsFunc(calls, func(line string) bool { return strings.Contains(line, call) && strings.Contains(line, "took=") }) {
			t.Errorf("no line at debug says %s", call)
		}
	}
}

func TestStepsAreToldWithWhatBecameOfThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.daemon()
	told := map[string]int{}
	d.Stepped = func(step, result string, took time.Duration) {
		if took <= 0 || !slices.Contains(StepResults, result) {
			t.Errorf("%s took %s and is %q", step, took, result)
		}
		told[step+" "+result]++
	}
	w.won()
	tx := d.notice()
	w.fault(mock.Fault{Kind: mock.KindUpdate, Effect: mock.APIError, Status: http.StatusServiceUnavailable, Code: "SERVER_UNAVAILABLE", Times: 3}) // what gathering tells, the claim before the seal, and the report
	d.finish()
	d.wantDone(d.load(tx))
	for _, s := range flow {
		if told[s.name+" ok"] != 1 {
			t.Errorf("%s was told %d times as gone well", s.name, told[s.name+" ok"])
		}
	}
	if told["report retrying"] != 1 {
		t.Errorf("told was %v, want one step that is tried again", told)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &run{Engine: d.Engine, s: &deal.Sealing{Condition: deal.Running}}
	for err, want := range map[error]string{nil: "ok", deal.ErrStale: "interrupted"} {
		if got := r.result(ctx, err); got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
	}
	for _, c := range []deal.Condition{deal.Retrying, deal.Held, deal.Dead} {
		r.s.Condition = c
		if got := r.result(ctx, errors.New("no")); got != string(c) {
			t.Errorf("%s is %q", c, got)
		}
	}
	r.s.Condition = deal.Ended
	if got := r.result(ctx, nil); got != "ended" {
		t.Errorf("ended is %q", got)
	}
	cancel()
	if got := r.result(ctx, errors.New("no")); got != "interrupted" {
		t.Errorf("a stop is %q", got)
	}
}
