package salesforce

import (
	"strings"
	"time"
)

// updateReach and deleteReach are how far back the replication calls see.
const (
	updateReach = 30 * 24 * time.Hour
	deleteReach = 15 * 24 * time.Hour
)

func (c *call) replicable(def *object) bool {
	return def.byName["systemmodstamp"] != nil && def.byName["isdeleted"] != nil && def.name != "ContentDocumentLink"
}

// window reads the object, start and end of a replication call.
func (c *call) window(reach time.Duration) (def *object, start, end time.Time, err *Error) {
	if def, err = c.typeNamed(c.segs[1]); err != nil {
		return def, start, end, err
	}
	if !c.replicable(def) {
		return def, start, end, &Error{Status: 400, Code: "INVALID_TYPE", Message: "object type " + def.name + " is not replicable"}
	}
	start, ok := replicationTime(c.r.URL.Query().Get("start"))
	if !ok {
		return def, start, end, &Error{Status: 400, Code: "MISSING_ARGUMENT", Message: "start: a date-time is required"}
	}
	if end, ok = replicationTime(c.r.URL.Query().Get("end")); !ok {
		return def, start, end, &Error{Status: 400, Code: "MISSING_ARGUMENT", Message: "end: a date-time is required"}
	}
	if !start.Before(end) {
		return def, start, end, &Error{Status: 400, Code: "INVALID_REPLICATION_DATE", Message: "startDate before endDate required"}
	}
	if c.o.now().Sub(start) > reach {
		return def, start, end, &Error{Status: 400, Code: "INVALID_REPLICATION_DATE", Message: "startDate cannot be more than " + reach.String() + " ago"}
	}
	return def, start, end, nil
}

// replicationTime parses an argument; a plus sign that was not escaped has
// become a space. Seconds are dropped.
func replicationTime(s string) (time.Time, bool) {
	t, ok := parseTime(strings.ReplaceAll(s, " ", "+"))
	return t.Truncate(time.Minute), ok
}

// covered is the end of what is known to be complete: no transaction that is
// still open began before it.
func (o *Org) covered(def *object, end time.Time) time.Time {
	now := o.now()
	if end.After(now) {
		end = now.Truncate(time.Minute)
	}
	for _, r := range o.tables[def.name].rows {
		for _, v := range r.versions {
			if m := modified(v.values); v.visible.After(now) && m.Before(end) {
				end = m.Truncate(time.Minute)
			}
		}
	}
	return end
}

func (c *call) updatedIDs() reply {
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	def, start, end, err := c.window(updateReach)
	if err != nil {
		return err.reply()
	}
	ids := []string{}
	for _, r := range c.o.tables[def.name].rows {
		values := r.at(c.o.now())
		if m := modified(values); values != nil && values["IsDeleted"] != true && !m.Before(start) && m.Before(end) {
			ids = append(ids, r.id)
		}
	}
	return jsonReply(200, ordered{{"ids", ids}, {"latestDateCovered", c.o.covered(def, end).Format(timeLayout)}})
}

func (c *call) deletedIDs() reply {
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	def, start, end, err := c.window(deleteReach)
	if err != nil {
		return err.reply()
	}
	list := []any{}
	for _, r := range c.o.tables[def.name].rows {
		values := r.at(c.o.now())
		if m := modified(values); values["IsDeleted"] == true && !m.Before(start) && m.Before(end) {
			list = append(list, ordered{{"id", r.id}, {"deletedDate", m.Format(timeLayout)}})
		}
	}
	return jsonReply(200, ordered{{"deletedRecords", list}, {"earliestDateAvailable", c.o.now().Add(-deleteReach).Format(timeLayout)},
		{"latestDateCovered", c.o.covered(def, end).Format(timeLayout)}})
}
