package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/store"
)

// The control socket is HTTP over a unix socket in the state directory, for the daemon's own user and root. The peer's
// credentials are the "who" of the audit log, not what it says; see peer.name for what root may add.

var (
	errNoDaemon = errors.New("no daemon is running")
	errNoPeer   = errors.New("the control socket does not tell who is asking")
)

// maxControl bounds what either side reads.
const maxControl = 16 << 20

// listenControl opens the control socket. Whoever holds the lock on the state directory may remove what a daemon that
// was killed has left there.
func listenControl(stateDir string) (net.Listener, error) {
	path := controlSocket(stateDir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// serveControl answers the commands until ctx ends. more adds what only a daemon can answer.
func serveControl(ctx context.Context, log *slog.Logger, l net.Listener, ops operations, examine func(context.Context) *doctor.Report, more ...func(*http.ServeMux)) error {
	mux := controlHandler(log, ops, examine)
	for _, add := range more {
		add(mux)
	}
	server := &http.Server{
		Handler:           naming(mux),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnContext:       withPeer,
	}
	return serveUntil(ctx, server, l)
}

func controlHandler(log *slog.Logger, ops operations, examine func(context.Context) *doctor.Report) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /jobs", func(w http.ResponseWriter, r *http.Request) {
		var f store.Filter
		if err := json.Unmarshal([]byte(r.URL.Query().Get("filter")), &f); err != nil {
			answer(w, nil, err)
			return
		}
		list, err := ops.List(r.Context(), f)
		answer(w, list, err)
	})
	mux.HandleFunc("GET /tenants", func(w http.ResponseWriter, r *http.Request) {
		list, err := ops.Tenants(r.Context())
		answer(w, list, err)
	})
	mux.HandleFunc("GET /deals/{tx}", func(w http.ResponseWriter, r *http.Request) {
		story, err := ops.Story(r.Context(), deal.TxID(r.PathValue("tx")))
		answer(w, story, err)
	})
	mux.HandleFunc("POST /decide", func(w http.ResponseWriter, r *http.Request) {
		var d decision
		if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&d); err != nil {
			answer(w, nil, err)
			return
		}
		if d.Who = peerOf(r.Context()); d.Who == "" {
			answer(w, nil, errNoPeer)
			return
		}
		err := ops.Decide(r.Context(), d)
		if err == nil {
			log.Info("decided by a person", "tx", d.Tx, "verb", d.Verb, "who", d.Who) // why is for the audit log only
		}
		answer(w, struct{}{}, err)
	})
	mux.HandleFunc("GET /guard", func(w http.ResponseWriter, r *http.Request) {
		holds, err := ops.Guards(r.Context())
		answer(w, holds, err)
	})
	mux.HandleFunc("POST /guard", func(w http.ResponseWriter, r *http.Request) {
		var d guardDecision
		if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&d); err != nil {
			answer(w, nil, err)
			return
		}
		if d.Who = peerOf(r.Context()); d.Who == "" {
			answer(w, nil, errNoPeer)
			return
		}
		n, err := ops.DecideGuarded(context.WithoutCancel(r.Context()), d) // thousands of deals may take longer than a person waits
		if err == nil {
			log.Info("decided by a person about all that the guard holds", "of", d.GuardScope.String(), "verb", d.Verb, "deals", n, "who", d.Who)
		}
		answer(w, n, err)
	})
	mux.HandleFunc("GET /quarantine", func(w http.ResponseWriter, r *http.Request) {
		rows, err := ops.Quarantined(r.Context(), maxRows)
		answer(w, rows, err)
	})
	mux.HandleFunc("POST /quarantine", func(w http.ResponseWriter, r *http.Request) {
		var d dealtWith
		if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&d); err != nil {
			answer(w, nil, err)
			return
		}
		if peerOf(r.Context()) == "" {
			answer(w, nil, errNoPeer)
			return
		}
		n, err := ops.DealWith(r.Context(), d.Row, d.Why)
		answer(w, n, err)
	})
	mux.HandleFunc("GET /filtered", func(w http.ResponseWriter, r *http.Request) {
		var q store.FilteredQuery
		if err := json.Unmarshal([]byte(r.URL.Query().Get("query")), &q); err != nil {
			answer(w, nil, err)
			return
		}
		list, err := ops.Filtered(r.Context(), q)
		answer(w, list, err)
	})
	mux.HandleFunc("GET /discrepancies", func(w http.ResponseWriter, r *http.Request) {
		list, err := ops.Discrepancies(r.Context(), deal.TenantID(r.URL.Query().Get("tenant")), maxListed)
		answer(w, list, err)
	})
	mux.HandleFunc("POST /discrepancies", func(w http.ResponseWriter, r *http.Request) {
		var d decision
		if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&d); err != nil {
			answer(w, nil, err)
			return
		}
		who := peerOf(r.Context())
		if who == "" {
			answer(w, nil, errNoPeer)
			return
		}
		n, err := ops.DealWithDiscrepancies(r.Context(), d.Tx, who, d.Why)
		answer(w, n, err)
	})
	mux.HandleFunc("GET /certificates", func(w http.ResponseWriter, r *http.Request) {
		all, err := ops.Certificates(r.Context())
		answer(w, all, err)
	})
	mux.HandleFunc("POST /certificates", func(w http.ResponseWriter, r *http.Request) {
		var c certChange
		if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&c); err != nil {
			answer(w, nil, err)
			return
		}
		if c.Who = peerOf(r.Context()); c.Who == "" {
			answer(w, nil, errNoPeer)
			return
		}
		after, err := ops.ChangeCertificate(r.Context(), c)
		if err == nil {
			log.Info("decided about a certificate", "verb", c.Verb, "key", after.Key, "certificate", after.SHA256, "state", after.State, "who", c.Who)
		}
		answer(w, after, err)
	})
	mux.HandleFunc("POST /certificates/request", func(w http.ResponseWriter, r *http.Request) {
		var c certRequest
		if err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&c); err != nil {
			answer(w, nil, err)
			return
		}
		if c.Who = peerOf(r.Context()); c.Who == "" {
			answer(w, nil, errNoPeer)
			return
		}
		csr, err := ops.RequestCertificate(r.Context(), c)
		if err == nil {
			log.Info("a key has signed a request for a certificate", "key", c.Key, "who", c.Who)
		}
		answer(w, csr, err)
	})
	mux.HandleFunc("GET /audit/log", func(w http.ResponseWriter, r *http.Request) {
		var q store.AuditQuery
		if err := json.Unmarshal([]byte(r.URL.Query().Get("query")), &q); err != nil {
			answer(w, nil, err)
			return
		}
		list, err := ops.AuditLog(r.Context(), q)
		answer(w, list, err)
	})
	mux.HandleFunc("POST /audit/verify", func(w http.ResponseWriter, r *http.Request) {
		checkpoint, err := io.ReadAll(io.LimitReader(r.Body, maxControl))
		if err != nil {
			answer(w, nil, err)
			return
		}
		if len(checkpoint) == 0 {
			checkpoint = nil // none was given; an empty one would be a forged one
		}
		report, err := ops.VerifyAudit(r.Context(), checkpoint)
		answer(w, report, err)
	})
	mux.HandleFunc("POST /audit/proof/{tx}", func(w http.ResponseWriter, r *http.Request) {
		who := peerOf(r.Context())
		if who == "" {
			answer(w, nil, errNoPeer)
			return
		}
		proof, err := ops.Proof(r.Context(), deal.TxID(r.PathValue("tx")), who)
		answer(w, proof, err)
	})
	mux.HandleFunc("POST /audit/checkpoint", func(w http.ResponseWriter, r *http.Request) {
		signed, err := ops.Checkpoint(r.Context())
		answer(w, signed, err)
	})
	mux.HandleFunc("POST /recover", func(w http.ResponseWriter, r *http.Request) {
		recovered, err := ops.Recover(r.Context())
		answer(w, recovered, err)
	})
	mux.HandleFunc("POST /backup", func(w http.ResponseWriter, r *http.Request) { streamBackup(w, r, ops) })
	mux.HandleFunc("POST /backup/done", func(w http.ResponseWriter, r *http.Request) {
		var info store.BackupInfo
		err := json.NewDecoder(io.LimitReader(r.Body, maxControl)).Decode(&info)
		if err == nil {
			err = ops.NoteBackup(r.Context(), info)
		}
		answer(w, struct{}{}, err)
	})
	mux.HandleFunc("POST /doctor", func(w http.ResponseWriter, r *http.Request) {
		answer(w, examine(r.Context()), nil)
	})
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		report, err := ops.Reload(context.WithoutCancel(r.Context())) // begun is done, whether or not anyone waits for it
		answer(w, report, err)
	})
	return mux
}

// dealtWith is what a person says of a quarantined row; an empty one stands for all.
type dealtWith struct {
	Row string `json:"row"`
	Why string `json:"why"`
}

// A backup is as long as it is: what became of it stands behind it, in one of these trailers.
const (
	backupDone   = "Dealseal-Backup"
	backupFailed = "Dealseal-Error"
)

// streamBackup hands the backup to the command, which writes and encrypts it: the file belongs to whoever asked, and the
// daemon learns no passphrase.
func streamBackup(w http.ResponseWriter, r *http.Request, ops operations) {
	if peerOf(r.Context()) == "" {
		answer(w, nil, errNoPeer)
		return
	}
	w.Header().Set("Trailer", backupDone+", "+backupFailed)
	info, err := ops.Backup(r.Context(), w, r.URL.Query().Get("archive") == "true")
	if err != nil {
		w.Header().Set(backupFailed, url.QueryEscape(err.Error()))
		return
	}
	text, err := json.Marshal(backupReport{info, info.Files, info.Bytes})
	if err == nil {
		w.Header().Set(backupDone, string(text))
	}
}

// backupReport adds to what a backup says of itself what was counted while it was written.
type backupReport struct {
	store.BackupInfo
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// answer writes a value, or an error as text.
func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // the reader is gone if this fails
}

// remote asks the running daemon.
type remote struct {
	client *http.Client
	person string // who runs the command, for personHeader
}

// findDaemon connects to the daemon of a configuration file. A daemon runs with what it has read, so a mistake that is in the
// file now keeps nobody from it.
func findDaemon(ctx context.Context, configFile string) (r *remote, stateDir string, err error) {
	stateDir, err = config.StateDir(configFile)
	if lost := err; errors.Is(lost, fs.ErrNotExist) && filepath.IsAbs(os.Getenv(givenStateDir)) {
		// The file was deleted: the daemon has to know of that, too.
		if r, err = dialControl(ctx, os.Getenv(givenStateDir)); err != nil {
			return nil, "", lost
		}
		return r, os.Getenv(givenStateDir), nil
	}
	if err != nil {
		return nil, "", err
	}
	r, err = dialControl(ctx, stateDir)
	return r, stateDir, err
}

// givenStateDir is where systemd names the state directory of a service, to its ExecReload as well.
const givenStateDir = "STATE_DIRECTORY"

func dialControl(ctx context.Context, stateDir string) (*remote, error) {
	path := controlSocket(stateDir)
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return nil, errNoDaemon
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%s may be used by the daemon's user and root only: try sudo", path)
	case err != nil:
		return nil, err
	}
	c.Close()
	return &remote{person: myPerson(), client: &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
	}}}, nil
}

func (r *remote) Close() error {
	r.client.CloseIdleConnections()
	return nil
}

func (r *remote) request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://dealseal"+path, bytes.NewReader(body))
	if err == nil && r.person != "" {
		req.Header.Set(personHeader, r.person)
	}
	return req, err
}

// ask sends one request and decodes the answer.
func (r *remote) ask(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := r.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return &lostReplyError{err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxControl))
	if err != nil {
		return &lostReplyError{err}
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(string(bytes.TrimSpace(text)))
	}
	return json.Unmarshal(text, into)
}

// lostReplyError is of a request of which nobody knows whether the daemon has carried it out.
type lostReplyError struct{ err error }

func (e *lostReplyError) Error() string { return "the daemon does not answer: " + e.err.Error() }
func (e *lostReplyError) Unwrap() error { return e.err }

func (r *remote) List(ctx context.Context, f store.Filter) (list []store.Summary, err error) {
	filter, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	return list, r.ask(ctx, "GET", "/jobs?filter="+url.QueryEscape(string(filter)), nil, &list)
}

func (r *remote) Tenants(ctx context.Context) (all []deal.TenantID, err error) {
	return all, r.ask(ctx, "GET", "/tenants", nil, &all)
}

func (r *remote) Story(ctx context.Context, tx deal.TxID) (*store.Story, error) {
	var story store.Story
	return &story, r.ask(ctx, "GET", "/deals/"+string(tx), nil, &story)
}

func (r *remote) Decide(ctx context.Context, d decision) error {
	body, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return r.ask(ctx, "POST", "/decide", body, &struct{}{})
}

func (r *remote) Guards(ctx context.Context) (holds []deal.GuardHold, err error) {
	return holds, r.ask(ctx, "GET", "/guard", nil, &holds)
}

func (r *remote) DecideGuarded(ctx context.Context, d guardDecision) (n int, err error) {
	body, err := json.Marshal(d)
	if err != nil {
		return 0, err
	}
	return n, r.ask(ctx, "POST", "/guard", body, &n)
}

func (r *remote) Quarantined(ctx context.Context, limit int) (rows []deal.Quarantine, err error) {
	err = r.ask(ctx, "GET", "/quarantine", nil, &rows)
	return rows[:min(limit, len(rows))], err
}

func (r *remote) DealWith(ctx context.Context, row, why string) (n int, err error) {
	body, err := json.Marshal(dealtWith{row, why})
	if err != nil {
		return 0, err
	}
	return n, r.ask(ctx, "POST", "/quarantine", body, &n)
}

func (r *remote) Certificates(ctx context.Context) (all []deal.Certificate, err error) {
	return all, r.ask(ctx, "GET", "/certificates", nil, &all)
}

func (r *remote) ChangeCertificate(ctx context.Context, c certChange) (after deal.Certificate, err error) {
	body, err := json.Marshal(c)
	if err != nil {
		return after, err
	}
	return after, r.ask(ctx, "POST", "/certificates", body, &after)
}

func (r *remote) RequestCertificate(ctx context.Context, c certRequest) (csr []byte, err error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return csr, r.ask(ctx, "POST", "/certificates/request", body, &csr)
}

func (r *remote) VerifyAudit(ctx context.Context, checkpoint []byte) (report store.AuditReport, err error) {
	return report, r.ask(ctx, "POST", "/audit/verify", checkpoint, &report)
}

// Proof leaves it to the daemon to know who asks.
func (r *remote) Proof(ctx context.Context, tx deal.TxID, _ string) (proof []byte, err error) {
	return proof, r.ask(ctx, "POST", "/audit/proof/"+string(tx), nil, &proof)
}

func (r *remote) Checkpoint(ctx context.Context) (signed []byte, err error) {
	return signed, r.ask(ctx, "POST", "/audit/checkpoint", nil, &signed)
}

// Examine has the daemon examine its house.
func (r *remote) Examine(ctx context.Context) (*doctor.Report, error) {
	var report doctor.Report
	return &report, r.ask(ctx, "POST", "/doctor", nil, &report)
}

func (r *remote) Recover(ctx context.Context) (recovered []recovery, err error) {
	return recovered, r.ask(ctx, "POST", "/recover", nil, &recovered)
}

// Backup takes as long as it takes: only ctx ends it.
func (r *remote) Backup(ctx context.Context, w io.Writer, archive bool) (info store.BackupInfo, err error) {
	req, err := r.request(ctx, "POST", "/backup?archive="+strconv.FormatBool(archive), nil)
	if err != nil {
		return info, err
	}
	patient := *r.client
	patient.Timeout = 0
	resp, err := patient.Do(req)
	if err != nil {
		return info, fmt.Errorf("the daemon does not answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // the status alone says enough
		return info, fmt.Errorf("the daemon refuses (%s): %s", resp.Status, bytes.TrimSpace(text))
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return info, fmt.Errorf("the backup broke off: %w", err)
	}
	if text, err := url.QueryUnescape(resp.Trailer.Get(backupFailed)); err != nil || text != "" {
		return info, fmt.Errorf("the daemon could not make the backup: %s", text)
	}
	var report backupReport
	if err := json.Unmarshal([]byte(resp.Trailer.Get(backupDone)), &report); err != nil {
		return info, errors.New("the backup broke off: the daemon did not say that it is complete")
	}
	report.BackupInfo.Files, report.BackupInfo.Bytes = report.Files, report.Bytes
	return report.BackupInfo, nil
}

func (r *remote) NoteBackup(ctx context.Context, info store.BackupInfo) error {
	body, err := json.Marshal(info)
	if err != nil {
		return err
	}
	return r.ask(ctx, "POST", "/backup/done", body, &struct{}{})
}

func (r *remote) Reload(ctx context.Context) (report reloadReport, err error) {
	return report, r.ask(ctx, "POST", "/reload", nil, &report)
}
