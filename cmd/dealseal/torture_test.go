package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/mocks/pki"
	"github.com/dealseal/dealseal/signing"
)

// TestTortureLosesAndDoublesNothing kills the daemon at random moments under a steady load of deals in both CRMs, while
// CRMs, TSA and HSM fail at random. In the end every stage entry must have its contract, once. What became of the deals is
// judged by what the CRMs hold, what the key has signed and what lies in the archive.
//
// KILLS says how often (6 here; "make torture" kills for minutes), SEED repeats a choice of faults, moments and deals,
// though not how the processes interleave.
func TestTortureLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	x := newTorture(t, number(t, "KILLS", 6), uint64(number(t, "SEED", rand.Uint32N(1<<31))))
	fmt.Printf("torture: %d kills, SEED=%d\n", x.kills, x.seed)
	x.run()
	v := x.judge()
	slices.Sort(x.recoveries)
	fmt.Printf("torture: %d kills, %d deals, %d lost, %d doubled\n", x.kills, len(x.entries), len(v.lost), len(v.doubled))
	fmt.Printf("torture: recovery, from the kill to the first progress: p50 %s, p95 %s, max %s (%d measured)\n",
		percentile(x.recoveries, 50), percentile(x.recoveries, 95), percentile(x.recoveries, 100), len(x.recoveries))
	fmt.Printf("torture: %d digests signed, %d of them again after a kill or a failure; %d deals given up; %d faults; SoftHSM lost its token %d times\n",
		v.digests, v.again, len(v.givenUp), x.faults, x.mended)
	if len(v.lost)+len(v.doubled)+len(v.givenUp) > 0 || t.Failed() {
		x.keepEvidence(v)
		t.Errorf("SEED=%d\nlost:\n%s\ndoubled:\n%s\ngiven up:\n%s", x.seed, strings.Join(v.lost, "\n"), strings.Join(v.doubled, "\n"), strings.Join(v.givenUp, "\n"))
	}
}

// number reads an environment variable.
func number[N uint32 | int](t *testing.T, name string, otherwise N) N {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		t.Fatalf("%s=%s: it must be a number", name, text)
	}
	return N(n)
}

func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*p/100)].Round(time.Millisecond)
}

// torture is a world whose daemon never gets old.
type torture struct {
	*world
	key    *faultyToken
	kills  int
	seed   uint64
	rnd    *rand.Rand // of the killer; the load has its own
	faults int
	token  map[string][]byte // the software token's files, by name
	mended int               // how often SoftHSM lost its token in a kill

	// progress gets the time of a file's arrival at a CRM, or of a receipt's, if nobody has taken the last one.
	progress   chan time.Time
	recoveries []time.Duration

	mu       sync.Mutex
	entries  []*entered
	byRecord map[string]*entered
}

// entered is a deal that has entered a stage.
type entered struct {
	c        crm
	record   string
	rule     string
	sequence int64    // of the newest receipt that the record has shown
	receipts []string // shown after a newer one
}

func newTorture(t *testing.T, kills int, seed uint64) *torture {
	x := &torture{kills: kills, seed: seed, rnd: rand.New(rand.NewPCG(seed, 1)), progress: make(chan time.Time, 1), byRecord: map[string]*entered{}}
	x.world = newWorld(t, worldOptions{attempts: 40, keep: true, key: func(w *world) string {
		x.key = newFaultyToken(w)
		x.key.extra = ", timeout: 5s"
		return x.key.config()
	}})
	x.answered = x.observe
	x.saveToken()
	return x
}

// saveToken remembers the files of the software token. SoftHSM writes its counters into them at each login, in place: a
// process that is killed over that leaves an empty token, which no HSM would.
func (x *torture) saveToken() {
	files, err := filepath.Glob(x.path("token/tokens/*/*.object"))
	must(x.t, err)
	x.token = map[string][]byte{}
	for _, name := range files {
		content, err := os.ReadFile(name)
		must(x.t, err)
		x.token[name] = content
	}
	if len(x.token) == 0 {
		x.t.Fatal("the token has no files")
	}
}

// mendToken puts back what SoftHSM has lost of itself in a kill.
func (x *torture) mendToken() {
	x.t.Helper()
	for name, content := range x.token {
		info, err := os.Stat(name)
		must(x.t, err)
		if info.Size() < int64(len(content)) {
			must(x.t, os.WriteFile(name, content, 0o600))
			x.mended++
		}
	}
}

// run kills and restarts, then lets all deals come to their end.
func (x *torture) run() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var load sync.WaitGroup
	for i, c := range x.crms {
		load.Go(func() { x.load(ctx, c, rand.New(rand.NewPCG(x.seed, uint64(i)+2))) })
	}
	d := x.start(x.t)
	x.awaitProgress(d, time.Time{})
	for i := range x.kills {
		x.fail()
		d = x.killAndRestart(d)
		if (i+1)%50 == 0 {
			fmt.Printf("torture: %d kills\n", i+1)
		}
	}
	stop()
	load.Wait()
	x.heal()
	d.kill()
	x.mendToken()
	d = x.start(x.t)
	ops := x.control(x.t, x.stateDir)
	x.settle(ops)
	auditIsWhole(x.t, ops, nil)
	d.stop(x.t)
}

// killAndRestart kills at a moment of the daemon's start, or at one of its work.
func (x *torture) killAndRestart(d *process) *process {
	if x.rnd.IntN(4) == 0 {
		x.wait(d, time.Duration(x.rnd.Int64N(int64(time.Second))))
	} else {
		x.wait(d, time.Duration(x.rnd.Int64N(int64(400*time.Millisecond))))
	}
	d.kill()
	killed := time.Now()
	x.mendToken()
	d = x.launch(x.t, x.config)
	if x.rnd.IntN(4) > 0 {
		took := x.awaitProgress(d, killed).Sub(killed)
		x.recoveries = append(x.recoveries, took)
		if took > slow {
			fmt.Printf("torture: %s passed before the first progress:\n%s\n", took.Round(time.Millisecond), tail(d.log()))
		}
	}
	return d
}

// slow is when the log of a recovery is worth reading: a CRM that says it is unavailable is asked again half a minute later.
const slow = 10 * time.Second

// wait lets the daemon be for a while, in which it must not end by itself.
func (x *torture) wait(d *process, a time.Duration) {
	x.t.Helper()
	select {
	case <-time.After(a):
	case <-d.ended:
		x.t.Fatalf("SEED=%d: the daemon ended by itself (%v):\n%s", x.seed, d.err, tail(d.log()))
	}
}

// awaitProgress waits for a sign of life of a daemon that was started after the one before it was killed: what that one
// has sent may still be on its way.
func (x *torture) awaitProgress(d *process, killed time.Time) time.Time {
	x.t.Helper()
	enough := time.After(patience)
	for {
		select {
		case at := <-x.progress:
			if at.After(killed) {
				return at
			}
		case <-d.ended:
			x.t.Fatalf("SEED=%d: the daemon ended by itself (%v):\n%s", x.seed, d.err, tail(d.log()))
		case <-enough:
			x.t.Fatalf("SEED=%d: no deal moves after a restart:\n%s", x.seed, tail(d.log()))
		}
	}
}

// crowd is how many deals of a CRM are on their way while there is load.
const crowd = 6

// load keeps deals coming.
func (x *torture) load(ctx context.Context, c crm, rnd *rand.Rand) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if x.underWay(c) < crowd {
			x.enter(c, []string{ruleMemo, ruleMemo, ruleQuote, ruleContract}[rnd.IntN(4)])
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (x *torture) enter(c crm, rule string) {
	s := sale{}
	if rule != ruleContract {
		s.quote = quotation(1)
	}
	e := &entered{c: c, rule: rule, record: c.open(s)}
	x.mu.Lock()
	x.entries = append(x.entries, e)
	x.byRecord[e.record] = e
	x.mu.Unlock()
	c.move(e.record, rule)
}

func (x *torture) underWay(c crm) (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.entries[max(0, len(x.entries)-200):] {
		if e.c == c && e.status() != deal.StatusSigned {
			n++
		}
	}
	return n
}

func (e *entered) status() deal.Status {
	shown := e.c.shown(e.record)["status"]
	for _, s := range deal.Statuses {
		if s.Word == shown {
			return s.Status
		}
	}
	return deal.Status(shown)
}

// observe takes note of what the daemon has done to a record.
func (x *torture) observe(r *http.Request, came time.Time) {
	write := r.Method == http.MethodPatch
	if write || slices.ContainsFunc(x.crms, func(c crm) bool { return c.uploads(r) }) {
		select {
		case x.progress <- came:
		default:
		}
	}
	if !write {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.byRecord[filepath.Base(r.URL.Path)]
	if e == nil {
		return
	}
	a, ok := deal.ReadAuditRecord(e.c.shown(e.record)["audit"])
	if !ok {
		return
	}
	if a.Sequence < e.sequence {
		e.receipts = append(e.receipts, fmt.Sprintf("receipt %d after %d", a.Sequence, e.sequence))
	}
	e.sequence = max(e.sequence, a.Sequence)
}

// fail lets something go wrong, or not.
func (x *torture) fail() {
	once := 1 + x.rnd.IntN(2)
	choice := x.rnd.IntN(10)
	if choice < 8 {
		x.faults++
	}
	switch choice {
	case 0, 1, 2:
		effects := []salesforce.Effect{salesforce.LockRow, salesforce.SessionInvalid, salesforce.HTMLUnavailable, salesforce.EmptyList, salesforce.EmptyBody, salesforce.APIError,
			salesforce.CutBefore, salesforce.CutAfter, salesforce.TruncatedJSON, salesforce.UnavailableAfter, salesforce.Slow}
		kinds := []salesforce.Kind{"", salesforce.KindQuery, salesforce.KindUpdate, salesforce.KindUpload, salesforce.KindGet}
		f := salesforce.Fault{Kind: kinds[x.rnd.IntN(len(kinds))], Effect: effects[x.rnd.IntN(len(effects))], Times: once}
		if f.Effect == salesforce.Slow {
			f.Delay = 300 * time.Millisecond
		}
		x.crms[0].(*salesforceCRM).fault(f)
	case 3, 4, 5:
		effects := []hubspot.Effect{hubspot.EffectUnauthorized, hubspot.EffectBadGateway, hubspot.EffectTenSecondLimit, hubspot.EffectSecondLimit, hubspot.EffectMigrating,
			hubspot.EffectTimeoutCommitted, hubspot.EffectReset, hubspot.EffectResetCommitted, hubspot.EffectSlow, hubspot.EffectTruncated}
		kinds := []hubspot.Kind{"", hubspot.KindGet, hubspot.KindPatch, hubspot.KindSearch, hubspot.KindUpload}
		x.crms[1].(*hubspotCRM).fault(hubspot.Fault{Kind: kinds[x.rnd.IntN(len(kinds))], Effect: effects[x.rnd.IntN(len(effects))], Times: once,
			Delay: time.Duration(1+x.rnd.IntN(300)) * time.Millisecond, RetryAfter: time.Second})
	case 6:
		faults := []pki.Fault{pki.Down, pki.Garbage, pki.OtherData, pki.WrongNonce, pki.BadSignature, pki.Slow}
		x.authority.SetFault(pki.ServiceTSA, faults[x.rnd.IntN(len(faults))], once)
	case 7:
		faults := []string{"crash", "hang", "device", "session", "handle", "logged-out", "wrong"}
		x.key.order(faults[x.rnd.IntN(len(faults))] + " once")
	}
}

func (x *torture) heal() {
	for _, c := range x.crms {
		c.heal()
	}
	x.authority.SetFault(pki.ServiceTSA, "", 0)
	x.key.order("")
}

// settle waits until every deal shows that it is sealed, or that a person is needed. Nothing fails any more, so that a deal
// that waits for half a minute because a CRM was unavailable is told to go on.
func (x *torture) settle(ops operations) {
	x.t.Helper()
	for _, e := range x.entries {
		eventually(x.t, fmt.Sprintf("SEED=%d: %s has come to its end", x.seed, e.record), func() (bool, string) {
			for _, m := range sealings(x.t, ops, e.record) {
				if m.Condition == deal.Retrying {
					_ = ops.Decide(context.Background(), decision{Verb: "retry", Tx: m.Tx, Why: "nothing fails any more"}) // it may be on its way by now
				}
			}
			s := e.status()
			return slices.Contains([]deal.Status{deal.StatusSigned, deal.StatusHeld, deal.StatusFailed}, s), string(s)
		})
	}
}

// verdict is what became of all deals.
type verdict struct {
	lost, doubled, givenUp []string
	digests, again         int
}

// judge compares CRMs, key and archive with each other.
func (x *torture) judge() (v verdict) {
	state := x.openState(x.t)
	uses := map[string]int{} // of the key, by digest
	for _, digest := range x.key.signatures() {
		if digest == hex.EncodeToString(signing.Trial(crypto.SHA256)) {
			continue // each start tries the key
		}
		if uses[digest]++; uses[digest] > 1 {
			v.again++
		}
	}
	v.digests = len(uses)
	for _, e := range x.entries {
		var contracts, trails []stored
		for _, f := range e.c.files(e.record) {
			switch {
			case f.trail():
				trails = append(trails, f)
			case f.sealed():
				contracts = append(contracts, f)
			}
		}
		kept, err := filepath.Glob(filepath.Join(x.stateDir, "archive", e.c.tenant(), "*", "*", cmp.Or(e.c.shown(e.record)["transaction_id"], "none"), "contract.pdf.age"))
		must(x.t, err)
		where := fmt.Sprintf("%s %s (%s): it shows %q and bears %d contracts and %d trails, the archive has %d", e.c.tenant(), e.record, e.rule, e.status(), len(contracts), len(trails), len(kept))
		wantTrails := 1
		if e.rule == ruleMemo {
			wantTrails = 0
		}
		switch {
		case len(contracts) > 1 || len(trails) > wantTrails || len(kept) > 1:
			v.doubled = append(v.doubled, where)
		case e.status() == deal.StatusHeld || e.status() == deal.StatusFailed:
			v.givenUp = append(v.givenUp, where)
		case e.status() != deal.StatusSigned || len(contracts) < 1 || len(trails) < wantTrails || len(kept) < 1:
			v.lost = append(v.lost, where)
		}
		for _, f := range contracts {
			digest := signedDigest(x.t, f.content)
			if uses[digest] == 0 {
				v.lost = append(v.lost, where+": the key has never signed the contract's digest "+digest)
			}
			delete(uses, digest)
			x.verifies(x.t, f.content)
		}
		for _, r := range e.receipts {
			v.doubled = append(v.doubled, where+": "+r)
		}
		if o := sealings(x.t, &local{Store: state}, e.record); len(o) == 1 && len(contracts) == 1 {
			x.sameAsKept(x.t, state, storyOf(x.t, &local{Store: state}, o[0].Tx).Sealing, "contract.pdf", contracts[0].content)
		}
	}
	if len(uses) > len(v.givenUp) { // a deal that was given up may have a digest without a contract; no other
		for digest := range uses {
			v.doubled = append(v.doubled, "the key has signed "+digest+", which is in no contract")
		}
	}
	folders, err := filepath.Glob(filepath.Join(x.stateDir, "archive", "*", "*", "*", "*"))
	must(x.t, err)
	if len(folders) > len(x.entries) {
		v.doubled = append(v.doubled, fmt.Sprintf("the archive has %d transactions of %d deals", len(folders), len(x.entries)))
	}
	return v
}

var signatureValue = regexp.MustCompile(`/Contents\s*<([0-9A-Fa-f]+)>`)

// signedDigest is what the key was given for the seal of a file: the SHA-256 of the DER of the signed attributes as a SET
// (RFC 5652, section 5.4).
func signedDigest(t *testing.T, file []byte) string {
	t.Helper()
	found := signatureValue.FindAllSubmatch(file, -1)
	if len(found) != 1 {
		t.Fatalf("a contract has %d signatures", len(found))
	}
	der := make([]byte, hex.DecodedLen(len(found[0][1])))
	_, err := hex.Decode(der, found[0][1])
	must(t, err)
	signedData := elements(t, elements(t, elements(t, der)[1])[0])
	signer := elements(t, elements(t, signedData[len(signedData)-1])[0])
	for _, e := range signer {
		if e[0] == 0xa0 { // signedAttrs [0] IMPLICIT
			set := append([]byte{0x31}, e[1:]...)
			sum := sha256.Sum256(set)
			return hex.EncodeToString(sum[:])
		}
	}
	t.Fatal("a seal has no signed attributes")
	return ""
}

// elements returns the elements within the first one of der.
func elements(t *testing.T, der []byte) (list [][]byte) {
	t.Helper()
	var outer asn1.RawValue
	_, err := asn1.Unmarshal(der, &outer)
	must(t, err)
	for rest := outer.Bytes; len(rest) > 0; {
		var e asn1.RawValue
		rest, err = asn1.Unmarshal(rest, &e)
		must(t, err)
		list = append(list, e.FullBytes)
	}
	return list
}

// keepEvidence writes down what the CRMs hold, beside state, log and signatures.
func (x *torture) keepEvidence(v verdict) {
	type evidence struct {
		Tenant, Record, Rule string
		Shown                map[string]string
		Files                []string
	}
	var all []evidence
	for _, e := range x.entries {
		ev := evidence{Tenant: e.c.tenant(), Record: e.record, Rule: e.rule, Shown: e.c.shown(e.record)}
		for _, f := range e.c.files(e.record) {
			ev.Files = append(ev.Files, fmt.Sprintf("%s (%x)", f.name, sha256.Sum256(f.content)))
		}
		all = append(all, ev)
	}
	b, err := json.MarshalIndent(map[string]any{"seed": x.seed, "lost": v.lost, "doubled": v.doubled, "given_up": v.givenUp, "records": all}, "", "\t")
	must(x.t, errors.Join(err, os.WriteFile(x.path("evidence.json"), bytes.TrimSpace(b), 0o600)))
}
