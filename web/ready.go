package web

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Check is one thing without which the daemon cannot do its work.
type Check struct {
	Name string
	// Run returns what is wrong, or nil. The text is shown to whoever asks: it names no secret. Run returns when ctx
	// ends; several requests may run it at once.
	Run func(ctx context.Context) error
	// Advisory means that the daemon does its work even so: the check is shown, and does not decide.
	Advisory bool
}

// checkLimit is how long all checks together may take.
const checkLimit = 5 * time.Second

// healthy says that the process is alive and answers.
func healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

type readiness struct {
	Ready  bool      `json:"ready"`
	Checks []finding `json:"checks"`
}

type finding struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Why  string `json:"why,omitempty"`
}

// ready answers 503 when any check fails that decides, and says which and why.
func (s *server) ready(w http.ResponseWriter, r *http.Request) {
	answer, status := s.check(r.Context()), http.StatusOK
	if !answer.Ready {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(answer) // the client has gone
}

func (s *server) check(ctx context.Context) readiness { return look(ctx, s.Checks) }

// look runs all checks at once.
func look(ctx context.Context, checks []Check) readiness {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	answer := readiness{Ready: true, Checks: make([]finding, len(checks))}
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { answer.Checks[i] = c.find(ctx) })
	}
	all.Wait()
	for i, f := range answer.Checks {
		answer.Ready = answer.Ready && (f.OK || checks[i].Advisory)
	}
	return answer
}

// Readiness returns the metric of what /readyz says, looked at anew at each scrape.
func Readiness(checks []Check) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dealseal_ready", Help: "1 when /readyz says that the daemon can do its work, else 0."}, func() float64 {
		if look(context.Background(), checks).Ready {
			return 1
		}
		return 0
	})
}

// trouble is what did not pass.
func (r readiness) trouble() (list []finding) {
	for _, f := range r.Checks {
		if !f.OK {
			list = append(list, f)
		}
	}
	return list
}

func (c Check) find(ctx context.Context) finding {
	if err := c.Run(ctx); err != nil {
		return finding{Name: c.Name, Why: err.Error()}
	}
	return finding{Name: c.Name, OK: true}
}
