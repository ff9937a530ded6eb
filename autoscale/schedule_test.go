package autoscale_test

import (
	"strings"
	"testing"
	"time"

	"github.com/zarpa-dev/zarpa"
	"github.com/zarpa-dev/zarpa/autoscale"
)

// office is open from eight to six, in Madrid; for the 2nd of March it has a maximum of its own.
func office() *zarpa.ScaleSpec {
	return (&zarpa.ScaleSpec{Min: new(0), Max: 4, Schedules: []zarpa.ScaleSchedule{
		{Cron: "0 8 * * 1-5", TimeZone: "Europe/Madrid", Min: new(2), Max: new(20)},
		{Cron: "0 18 * * *", TimeZone: "Europe/Madrid", Min: new(0), Max: new(4)},
		{Cron: "0 12 2 3 *", Max: new(50)},
	}}).WithDefaults()
}

func TestTheScheduleWhoseMomentWasLastRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at          string
		least, most int
	}{
		{"2026-03-05T06:59:59Z", 0, 4},  // Thursday, 7:59:59 in Madrid
		{"2026-03-05T07:00:00Z", 2, 20}, // 8:00
		{"2026-03-05T16:59:59Z", 2, 20},
		{"2026-03-05T17:00:00Z", 0, 4},
		{"2026-03-07T12:00:00Z", 0, 4},  // Saturday
		{"2026-03-30T06:00:00Z", 2, 20}, // Monday at 8:00 of the first day of summer time
		{"2026-03-30T05:59:59Z", 0, 4},
		{"2026-03-02T12:00:00Z", 0, 50}, // the third one keeps the deployment's own min
		{"2026-03-02T17:00:00Z", 0, 4},
	} {
		now, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		if least, most := autoscale.Bounds(office(), now); least != c.least || most != c.most {
			t.Errorf("%s: %d to %d, expected %d to %d", c.at, least, most, c.least, c.most)
		}
	}
	own := (&zarpa.ScaleSpec{Min: new(1), Max: 3}).WithDefaults()
	if least, most := autoscale.Bounds(own, start()); least != 1 || most != 3 {
		t.Errorf("%d to %d without a schedule", least, most)
	}
}

func TestSchedulesAreChecked(t *testing.T) {
	t.Parallel()
	if err := autoscale.Validate(office()); err != nil {
		t.Errorf("a good one: %v", err)
	}
	if err := autoscale.Validate(nil); err != nil {
		t.Errorf("none: %v", err)
	}
	for _, c := range []struct{ cron, zone, want string }{
		{"0 8 * * 1-5", "Europe/Atlantis", "scale.schedules[0].time_zone"},
		{"0 8 * * 1-5", "Local", "scale.schedules[0].time_zone"},
		{"0 8 * * 1-5", "../../etc/passwd", "scale.schedules[0].time_zone"},
		{"", "", "scale.schedules[0].cron"},
		{"@daily", "", "scale.schedules[0].cron"},
		{"0 0 8 * * 1", "", "scale.schedules[0].cron"}, // with seconds
		{"61 * * * *", "", "scale.schedules[0].cron"},
		{"0 8 * * MON-XYZ", "", "scale.schedules[0].cron"},
		{"0 8 30 2 *", "", "names a moment that never comes"},
		{"0 8 31 4 *", "Europe/Madrid", "names a moment that never comes"},
	} {
		err := autoscale.Validate(&zarpa.ScaleSpec{Schedules: []zarpa.ScaleSchedule{{Cron: c.cron, TimeZone: c.zone, Min: new(1)}}})
		if err == nil || zarpa.AsError(err).Code != zarpa.Invalid || !strings.Contains(err.Error(), c.want) || zarpa.AsError(err).Hint == "" {
			t.Errorf("%q in %q: %v", c.cron, c.zone, err)
		}
	}
	for _, cron := range []string{"0 0 29 2 *", "*/15 8-18 * * MON-FRI", "0 0 L * *"} {
		if err := autoscale.Validate(&zarpa.ScaleSpec{Schedules: []zarpa.ScaleSchedule{{Cron: cron, Min: new(1)}}}); err != nil {
			t.Errorf("%q: %v", cron, err)
		}
	}
}
