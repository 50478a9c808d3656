package deal

import (
	"math"
	"slices"
	"time"
)

// VolumeWeeks is how many weeks before a day say what is usual for it.
const VolumeWeeks = 8

// fewestWeeks is how many of them have to be known.
const fewestWeeks = 4

// Usual are the least and the most contracts of a day that is like others.
type Usual struct{ Least, Most int64 }

// UsualVolume says what is usual for a day, of which sealed has the contracts by day (YYYY-MM-DD) and first is the earliest
// that anything is known of: days from then on that are not in sealed had none. A day is compared with those of the same
// weekday, so that a weekend is one anywhere. What is usual is around their median: within three robust standard deviations
// of them, three of chance itself (Poisson), half the median, or three contracts, whichever is most. It is not known before
// four such days were seen.
func UsualVolume(sealed map[string]int64, first, day string) (u Usual, known bool) {
	at, err := time.Parse(time.DateOnly, day)
	if err != nil || first == "" {
		return u, false
	}
	var like []float64
	for week := range VolumeWeeks {
		before := at.AddDate(0, 0, -7*(week+1)).Format(time.DateOnly)
		if before < first {
			break
		}
		like = append(like, float64(sealed[before]))
	}
	if len(like) < fewestWeeks {
		return u, false
	}
	middle := median(like)
	for i, n := range like {
		like[i] = math.Abs(n - middle)
	}
	const sigma = 1.4826 // of a normal distribution, by its median absolute deviation
	spread := max(3*sigma*median(like), 3*math.Sqrt(middle), middle/2, 3)
	return Usual{Least: int64(math.Ceil(max(middle-spread, 0))), Most: int64(math.Floor(middle + spread))}, true
}

// median sorts what it is given, of which there is some.
func median(of []float64) float64 {
	slices.Sort(of)
	n := len(of)
	return (of[(n-1)/2] + of[n/2]) / 2
}
