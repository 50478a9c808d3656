package web

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// state is how a deal is doing, for people: a shape, a word, and a second word where the first is not the condition.
type state struct {
	Mark string // names the shape in style.css
	Word string
	Also string
}

// notTold is what a deal is called whose contract exists and whose record does not show it. It is never called failed.
const notTold = "sealed, CRM not told"

func stateOf(s deal.Step, c deal.Condition) state {
	switch {
	case s == deal.Done:
		return state{Mark: "done", Word: "done"}
	case c == deal.Running || c == deal.Ended || s.Before(deal.Sealed) || !s.Before(deal.Reported):
		return state{Mark: string(c), Word: string(c)}
	case s.Before(deal.Kept):
		return state{Mark: string(c), Word: "sealed, not released", Also: string(c)}
	default:
		return state{Mark: string(c), Word: notTold, Also: string(c)}
	}
}

// commands are those with which a person lets a deal go on, or ends it.
func commands(tx deal.TxID, s deal.Step, c deal.Condition) []string {
	drop := fmt.Sprintf(`dealseal jobs drop %s --why "…"`, tx)
	switch {
	case s == deal.Done:
		return nil
	case c == deal.Held:
		return []string{fmt.Sprintf(`dealseal jobs release %s --why "…"`, tx), drop}
	case c == deal.Dead:
		return []string{fmt.Sprintf("dealseal jobs retry %s", tx), drop}
	}
	return nil
}

// prepare is the command that makes the document of a waiting deal anew: its key can sign no more, or a file that was found on
// the record, or that a vendor has given, may not be what it should. It is empty once that cannot be.
func prepare(s *deal.Sealing) string {
	anew := s.Facts.Digest != "" && !s.Facts.Signature || s.Condition == deal.Held && (s.Facts.Adopted || s.Plan.Delegated != nil && s.Step == deal.Sealed)
	if s.Step == deal.Done || s.Condition != deal.Held && s.Condition != deal.Dead || !anew {
		return ""
	}
	return fmt.Sprintf(`dealseal jobs prepare %s --why "…"`, s.Tx)
}

// moment is a point in time as pages show it; nil shows nothing.
type moment struct {
	ISO string // for <time datetime>
	UTC string
	Age string // "5 min ago", "in 3 d"
}

func at(t, now time.Time) *moment {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	m := &moment{ISO: t.Format("2006-01-02T15:04:05.000Z"), UTC: t.Format("2006-01-02 15:04:05") + " UTC"}
	switch d := now.Sub(t); {
	case d <= -time.Second:
		m.Age = "in " + age(-d)
	case d < time.Second:
		m.Age = "just now"
	default:
		m.Age = age(d) + " ago"
	}
	return m
}

// age is a duration to one unit, as people say it.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d < 2*365*24*time.Hour:
		return fmt.Sprintf("%d d", int(d.Hours()/24))
	default:
		return fmt.Sprintf("%d years", int(d.Hours()/24/365))
	}
}

// took is a duration as a measurement.
func took(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d d %d h", int(d.Hours()/24), int(d.Hours())%24)
	}
}

// number groups the digits of n by three, with a thin space that does not break.
func number(n int64) string {
	if n < 0 {
		return "−" + number(-n)
	}
	digits := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, r := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteRune('\u202f')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// short cuts a text that another side wrote, and that may be a whole page of HTML.
func short(s string, most int) string {
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most]) + "…"
}

// link returns u if a browser may follow it, or "": a CRM's page is reached over HTTP and nothing else.
func link(u string) string {
	p, err := url.Parse(u)
	if err != nil || p.Host == "" || p.Scheme != "https" && p.Scheme != "http" {
		return ""
	}
	return u
}

// crmName is the CRM's name as its maker writes it.
func crmName(k deal.Kind) string {
	switch k {
	case deal.Salesforce:
		return "Salesforce"
	case deal.HubSpot:
		return "HubSpot"
	}
	return string(k)
}
