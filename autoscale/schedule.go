package autoscale

import (
	"fmt"
	"strings"
	"time"

	"github.com/adhocore/gronx"

	"github.com/zarpa-dev/zarpa"
)

// Bounds are the least and the most replicas at a moment: those of the schedule whose moment was last,
// or the deployment's own. s has its defaults filled in. A schedule that cannot be read, because the
// machine lost its time zones, say, changes nothing.
func Bounds(s *zarpa.ScaleSpec, now time.Time) (least, most int) {
	least, most = *s.Min, s.Max
	var last time.Time
	for _, sc := range s.Schedules {
		at, err := previous(sc, now)
		// The later one of the list wins where two have the same moment.
		if err != nil || at.Before(last) {
			continue
		}
		last, least, most = at, *s.Min, s.Max
		if sc.Min != nil {
			least = *sc.Min
		}
		if sc.Max != nil {
			most = *sc.Max
		}
	}
	return least, most
}

// previous is the last moment of a schedule that is not after now.
func previous(sc zarpa.ScaleSchedule, now time.Time) (time.Time, error) {
	zone, err := time.LoadLocation(sc.TimeZone)
	if err != nil {
		return time.Time{}, err
	}
	return gronx.PrevTickBefore(sc.Cron, now.In(zone), true)
}

// cronFields is how many fields a cron line has; the library would take seconds and years, too.
const cronFields = 5

// Validate checks what zarpa.ScaleSpec cannot: cron lines and time zones. The error names the schedule.
func Validate(s *zarpa.ScaleSpec) error {
	if s == nil {
		return nil
	}
	for i, sc := range s.Schedules {
		field := fmt.Sprintf("scale.schedules[%d]", i)
		if sc.TimeZone == "Local" {
			return zarpa.Errorf(zarpa.Invalid, "%s.time_zone: %q is another one on every machine", field, sc.TimeZone).
				WithHint("name it: Europe/Madrid, or leave it out for UTC")
		}
		if _, err := time.LoadLocation(sc.TimeZone); err != nil {
			return zarpa.Errorf(zarpa.Invalid, "%s.time_zone: %.60q is not known", field, sc.TimeZone).
				WithHint("use an IANA name: Europe/Madrid, America/New_York, or leave it out for UTC")
		}
		if len(strings.Fields(sc.Cron)) != cronFields || !gronx.IsValid(sc.Cron) {
			return zarpa.Errorf(zarpa.Invalid, "%s.cron: %.60q is not a cron line", field, sc.Cron).
				WithHint(`write minute, hour, day of month, month and day of week: "0 8 * * 1-5" is 8:00 from Monday to Friday`)
		}
		// The 29th of February was at most eight years ago.
		if _, err := previous(sc, time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)); err != nil {
			return zarpa.Errorf(zarpa.Invalid, "%s.cron: %.60q names a moment that never comes", field, sc.Cron).
				WithHint("see that the month has such a day")
		}
	}
	return nil
}
