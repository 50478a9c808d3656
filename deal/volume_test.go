package deal

import (
	"testing"
	"time"
)

// weeks are the volumes of the weeks before a Friday, the last one first.
func weeks(volumes ...int64) (sealed map[string]int64, first string) {
	sealed = map[string]int64{}
	for i, n := range volumes {
		first = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC).AddDate(0, 0, -7*(i+1)).Format(time.DateOnly)
		if n > 0 {
			sealed[first] = n
		}
	}
	return sealed, first
}

func TestWhatIsUsualIsAroundTheMedianOfTheSameWeekday(t *testing.T) {
	for _, c := range []struct {
		weeks []int64
		want  Usual
		known bool
	}{
		{[]int64{200, 210, 190}, Usual{}, false},
		{[]int64{200, 210, 190, 205}, Usual{102, 303}, true},                      // half the median
		{[]int64{200, 210, 190, 205, 200, 9000, 195, 200}, Usual{100, 300}, true}, // one bad day changes nothing
		{[]int64{100, 300, 100, 300, 100, 300, 100, 300}, Usual{0, 644}, true},    // they differ anyway
		{[]int64{4, 4, 4, 4}, Usual{0, 10}, true},                                 // chance
		{[]int64{0, 0, 0, 0, 0}, Usual{0, 3}, true},
	} {
		sealed, first := weeks(c.weeks...)
		if got, known := UsualVolume(sealed, first, "2026-11-20"); got != c.want || known != c.known {
			t.Errorf("%v: %+v, %t; want %+v, %t", c.weeks, got, known, c.want, c.known)
		}
	}
}

func TestOnlyDaysThatCouldBeKnownCount(t *testing.T) {
	sealed, _ := weeks(200, 210, 190, 205)
	for first, known := range map[string]bool{"": false, "2026-10-23": true, "2026-10-24": false, "2020-01-01": true} {
		if _, got := UsualVolume(sealed, first, "2026-11-20"); got != known {
			t.Errorf("known since %q: %t", first, got)
		}
	}
	if _, known := UsualVolume(sealed, "2020-01-01", "yesterday"); known {
		t.Error("a day that is none is judged")
	}
	if u, _ := UsualVolume(sealed, "2020-01-01", "2026-11-19"); u != (Usual{0, 3}) {
		t.Errorf("a Thursday is judged by Fridays: %+v", u)
	}
}
