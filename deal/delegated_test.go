package deal

import (
	"testing"
	"time"
)

func TestWhatIsTrueOfAnEnvelopeDoesNotHangOnTheOrderOfEvents(t *testing.T) {
	at := func(news EnvelopeNews, second int) VendorEvent {
		return VendorEvent{News: news, At: time.Unix(int64(second), 0)}
	}
	for name, c := range map[string]struct {
		told []VendorEvent
		want EnvelopeNews
	}{
		"nothing":                   {nil, ""},
		"one after the other":       {[]VendorEvent{at(EnvelopeCreated, 1), at(EnvelopeSent, 2), at(EnvelopeViewed, 3)}, EnvelopeViewed},
		"the other way round":       {[]VendorEvent{at(EnvelopeViewed, 3), at(EnvelopeSent, 2), at(EnvelopeCreated, 1)}, EnvelopeViewed},
		"signed by two":             {[]VendorEvent{at(EnvelopeSigned, 3), at(EnvelopeSigned, 4)}, EnvelopeSigned},
		"an end, and what was late": {[]VendorEvent{at(EnvelopeDeclined, 3), at(EnvelopeViewed, 9)}, EnvelopeDeclined},
		"of two ends the newer":     {[]VendorEvent{at(EnvelopeExpired, 5), at(EnvelopeFailed, 3)}, EnvelopeExpired},
		"a completion in any case":  {[]VendorEvent{at(EnvelopeCompleted, 3), at(EnvelopeVoided, 9)}, EnvelopeCompleted},
		"at the same time the last": {[]VendorEvent{at(EnvelopeSent, 3), at(EnvelopeViewed, 3)}, EnvelopeViewed},
	} {
		got, ok := Newest(c.told)
		if got.News != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, %t; want %q", name, got.News, ok, c.want)
		}
	}
	urls := []VendorEvent{at(EnvelopeCompleted, 3), at(EnvelopeCompleted, 7)}
	urls[0].URL, urls[1].URL = "old", "new"
	if got, _ := Newest(urls); got.URL != "new" {
		t.Error("the address that was told last is not the one that counts")
	}
}

func TestOnlyADelegatedDealIsShownAsWaitingOrRefused(t *testing.T) {
	for _, c := range []struct {
		step      Step
		condition Condition
		reason    string
		want      Status
	}{
		{Gathered, Retrying, ReasonAwaiting + "x", StatusAwaiting},
		{Gathered, Retrying, "follow: x", StatusQueued},
		{Gathered, Running, "", StatusQueued},
		{Gathered, Ended, ReasonRefused + "x", StatusRefused},
		{Gathered, Ended, ReasonExpired + "x", StatusActionRequired},
		{Noticed, Ended, ReasonVoided + "x", StatusActionRequired},
		{Gathered, Held, ReasonAwaiting + "x", StatusHeld},
		{Done, Running, "", StatusSigned},
	} {
		if got := Shown(c.step, c.condition, c.reason); got != c.want {
			t.Errorf("%s, %s, %q is shown as %s, want %s", c.step, c.condition, c.reason, got, c.want)
		}
	}
}
