package pkcs11

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/miekg/pkcs11"
	"golang.org/x/sys/unix"

	"github.com/dealseal/dealseal/worker"
)

// Program is the hsm-agent: it loads the module, logs in, finds the key, and
// signs what it is sent. To be handed to worker.Main as [ProgramName].
func Program(_ context.Context, text []byte) (worker.Handler, error) {
	var s setup
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("setup: %w", err)
	}
	out, err := hush()
	if err != nil {
		return nil, err
	}
	a, err := newAgent(s, out)
	if err != nil {
		return nil, err
	}
	return a.handle, nil
}

// hush takes stdout and stderr away from the module, which may print PINs when
// it traces, and returns what was stderr. The report of a crash, which has code
// addresses and no data, still goes there.
func hush() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(unix.Stderr), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("stderr: %w", err)
	}
	out := os.NewFile(uintptr(fd), "stderr")
	if err := debug.SetCrashOutput(out, debug.CrashOptions{}); err != nil {
		return nil, fmt.Errorf("crash output: %w", err)
	}
	// The sandbox allows to read it only, so that writing fails, which is as
	// good.
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	for _, taken := range []int{unix.Stdout, unix.Stderr} {
		if err := unix.Dup3(int(null.Fd()), taken, 0); err != nil {
			return nil, fmt.Errorf("descriptor %d: %w", taken, err)
		}
	}
	return out, nil
}

// agent serves one key with a fixed number of sessions. A session is with one
// call at a time: two on the same one crash modules.
type agent struct {
	token       *token
	description description
	idle        chan *session // has room for all of them
}

// job is a signature that is wanted.
type job struct {
	key       []byte            // see request
	mechanism *pkcs11.Mechanism // nil: nothing is signed, only the session is tried
	data      []byte
}

func newAgent(s setup, out io.Writer) (*agent, error) {
	t, err := openToken(s, out)
	if err != nil {
		return nil, err
	}
	// This session only keeps the login alive, which ends with the last
	// session. Nothing else is ever done with it.
	spare, err := t.ctx.OpenSession(t.slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil, escalated("a session", err)
	}
	if err := t.ensureLogin(spare); err != nil {
		return nil, err
	}
	a := &agent{token: t, idle: make(chan *session, s.Sessions)}
	for i := range s.Sessions {
		session, err := openSession(t)
		if i > 0 && errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)) {
			break // the token allows fewer than we hoped for
		}
		if err != nil {
			return nil, escalated("a session", err)
		}
		if i == 0 {
			if err := a.describe(session); err != nil {
				return nil, escalated("the certificates", err)
			}
		}
		a.idle <- session
	}
	return a, nil
}

func (a *agent) describe(s *session) error {
	certificates, err := a.token.certificates(s.handle)
	if err != nil {
		return err
	}
	a.description = description{PublicKey: s.key.public, Certificates: certificates}
	return nil
}

func (a *agent) handle(_ context.Context, f worker.Frame) (worker.Frame, error) {
	switch f.Op {
	case opDescribe:
		header, err := json.Marshal(a.description)
		return worker.Frame{Header: header}, err
	case opSign:
		signature, err := a.sign(f)
		return worker.Frame{Body: signature}, err
	case opTouch:
		return worker.Frame{}, a.touch(f)
	}
	return worker.Frame{}, fmt.Errorf("unknown op %q", f.Op)
}

func (a *agent) sign(f worker.Frame) ([]byte, error) {
	r, err := decodeRequest(f.Header)
	if err != nil {
		return nil, err
	}
	mechanism, err := r.mechanism()
	if err != nil {
		return nil, err
	}
	session := <-a.idle
	defer func() { a.idle <- session }()
	return session.sign(job{r.Key, mechanism, f.Body})
}

// touch has each session that is idle ask the token for the key, and mends those that cannot. One that signs needs no
// proof that it lives.
func (a *agent) touch(f worker.Frame) error {
	r, err := decodeRequest(f.Header)
	if err != nil {
		return err
	}
	idle := a.takeIdle()
	results := make(chan error, len(idle))
	for _, s := range idle {
		go func() {
			_, err := s.sign(job{key: r.Key})
			a.idle <- s
			results <- err
		}()
	}
	var worst error
	for range idle {
		err := <-results
		if e := new(agentError); worst == nil || errors.As(err, &e) && e.fatal {
			worst = cmp.Or(err, worst)
		}
	}
	return worst
}

// takeIdle takes all sessions that nobody has now.
func (a *agent) takeIdle() (idle []*session) {
	for {
		select {
		case s := <-a.idle:
			idle = append(idle, s)
		default:
			return idle
		}
	}
}

func (r request) mechanism() (*pkcs11.Mechanism, error) {
	switch r.Scheme {
	case schemePKCS1:
		return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil), nil
	case schemeECDSA:
		return pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil), nil
	case schemePSS:
		var hash, mgf uint
		switch crypto.Hash(r.Hash) {
		case crypto.SHA256:
			hash, mgf = pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256
		case crypto.SHA384:
			hash, mgf = pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384
		case crypto.SHA512:
			hash, mgf = pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512
		default:
			return nil, configError("PSS with hash %v is not supported", crypto.Hash(r.Hash))
		}
		return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_PSS, pkcs11.NewPSSParams(hash, mgf, uint(r.Salt))), nil
	}
	return nil, configError("scheme %d is not supported", r.Scheme)
}

// session is one PKCS#11 session and the key as it sees it.
type session struct {
	token  *token
	handle pkcs11.SessionHandle
	key    key
}

func openSession(t *token) (*session, error) {
	s := &session{token: t}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

// open gets another session and the key in it.
func (s *session) open() error {
	handle, err := s.token.ctx.OpenSession(s.token.slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return err
	}
	s.handle = handle
	return s.refresh()
}

// refresh logs in, if need be, and finds the key again. A login that ends meanwhile, in whichever session, is a reason to
// look once more and not a finding.
func (s *session) refresh() error {
	for cures := 0; ; cures++ {
		if err := s.token.ensureLogin(s.handle); err != nil {
			return err
		}
		logins := s.token.logins.Load()
		err := s.findKey()
		if err == nil || cures == maxCures || cureOf(err) == cureSession || s.token.stayedLoggedIn(s.handle, logins) {
			return err
		}
	}
}

// findKey finds the key. Another key under the same name is not ours to use: what was described has gone.
func (s *session) findKey() error {
	found, err := s.token.findKey(s.handle)
	if err != nil {
		return err
	}
	if s.key.public != nil && !bytes.Equal(s.key.public, found.public) {
		return &agentError{text: "the token holds another key now", code: codeDevice, fatal: true}
	}
	s.key = found
	return nil
}

// holds reports whether the session's key is the one of a request. A token that does not give public keys leaves that to
// the daemon, which verifies every signature.
func (s *session) holds(key []byte) bool {
	sum := sha256.Sum256(s.key.public)
	return s.key.public == nil || bytes.Equal(sum[:], key)
}

// maxCures bounds the steps of the ladder that one signature may take.
const maxCures = 2

// sign signs, and climbs the ladder when the module fails.
func (s *session) sign(j job) ([]byte, error) {
	for cures := 0; ; cures++ {
		if !s.holds(j.key) {
			return nil, &agentError{text: "the token holds another key under this name now: it signs nothing", code: codeKey}
		}
		signature, err := s.trySign(j)
		if err == nil {
			return signature, nil
		}
		step := cureOf(err)
		if cures == maxCures && (step == cureSession || step == cureLogin) {
			return nil, &agentError{text: "the session cannot be mended", code: codeDevice, fatal: true, cause: err}
		}
		switch step {
		case cureSession:
			_ = s.token.ctx.CloseSession(s.handle) // it may be gone already
			err = s.open()
		case cureLogin:
			err = s.refresh()
		default:
			return nil, s.spoilt(err)
		}
		if err != nil {
			return nil, hopeless(err)
		}
	}
}

func (s *session) trySign(j job) ([]byte, error) {
	if j.mechanism == nil {
		return nil, s.refresh()
	}
	ctx := s.token.ctx
	if err := ctx.SignInit(s.handle, []*pkcs11.Mechanism{j.mechanism}, s.key.handle); err != nil {
		return nil, err
	}
	if s.key.always {
		if err := s.token.authenticateOperation(s.handle); err != nil {
			return nil, err
		}
	}
	return ctx.Sign(s.handle, j.data)
}

// spoilt is for an error that no step of the ladder cures. The operation may
// have been left open, so that the next job gets another session.
func (s *session) spoilt(err error) error {
	err = escalated("signing", err)
	if e, ok := err.(*agentError); ok && e.fatal {
		return err
	}
	_ = s.token.ctx.CloseSession(s.handle) // the next job notices, if opening fails now
	if openErr := s.open(); openErr != nil && cureOf(openErr) == cureAgent {
		return hopeless(openErr)
	}
	return err
}

// hopeless is for an error while mending: only a new process helps, except
// against a PIN that is wrong.
func hopeless(err error) error {
	err = escalated("restoring a session", err)
	if e, ok := err.(*agentError); ok && e.code != codePIN {
		return &agentError{text: e.text, code: codeDevice, fatal: true, cause: e.cause}
	}
	return err
}
