package hubspot

import (
	"fmt"
	"time"
)

func (c *call) accountDetails() *reply {
	o := c.p.opt
	_, seconds := c.p.now().In(c.p.zone).Zone()
	sign := "+"
	if seconds < 0 {
		sign = "-"
	}
	d := (time.Duration(seconds) * time.Second).Abs()
	return respond(200, map[string]any{
		"portalId": o.PortalID, "accountType": o.AccountType, "timeZone": o.TimeZone, "companyCurrency": o.Currency,
		"additionalCurrencies": []string{}, "utcOffset": fmt.Sprintf("%s%02d:%02d", sign, int(d.Hours()), int(d.Minutes())%60),
		"utcOffsetMilliseconds": seconds * 1000, "uiDomain": o.UIDomain, "dataHostingLocation": "na1",
	})
}

func (c *call) apiUsage() *reply {
	now := c.p.now()
	y, m, d := now.In(c.p.zone).Date()
	return respond(200, map[string]any{"results": []any{map[string]any{
		"name": "private-apps-api-calls-daily", "usageLimit": figure(c.p.limits.set.Daily, 625_000), "currentUsage": c.p.limits.today,
		"collectedAt": stamp(now), "fetchStatus": "SUCCESS", "resetsAt": stamp(time.Date(y, m, d+1, 0, 0, 0, 0, c.p.zone)),
	}}})
}

// Owner is a person who may own records. Owner IDs are not user IDs.
type Owner struct {
	ID        string
	UserID    int64
	Email     string
	FirstName string
	LastName  string
	Archived  bool
}

func (p *Portal) ownerView(o Owner) map[string]any {
	return map[string]any{
		"id": o.ID, "email": o.Email, "type": "PERSON", "firstName": o.FirstName, "lastName": o.LastName, "userId": o.UserID,
		"userIdIncludingInactive": o.UserID, "teams": []any{}, "createdAt": "2025-01-01T00:00:00.000Z", "updatedAt": "2025-01-01T00:00:00.000Z",
		"archived": o.Archived,
	}
}

func (c *call) listOwners() *reply {
	limit, after, bad := c.page(100, 500)
	if bad != nil {
		return bad
	}
	email, archived := c.param("email"), c.param("archived") == "true"
	results := []any{}
	for _, o := range c.p.owners {
		id, _ := parseID(o.ID)
		if id <= after || o.Archived != archived || email != "" && o.Email != email {
			continue
		}
		if len(results) == limit {
			return respond(200, map[string]any{"results": results, "paging": c.next(formatID(after))})
		}
		results = append(results, c.p.ownerView(o))
		after = id
	}
	return respond(200, map[string]any{"results": results})
}

func (c *call) getOwner() *reply {
	id, byUser, archived := c.r.PathValue("id"), c.param("idProperty") == "userId", c.param("archived") == "true"
	for _, o := range c.p.owners {
		if (byUser && formatID(o.UserID) == id || !byUser && o.ID == id) && o.Archived == archived {
			return respond(200, c.p.ownerView(o))
		}
	}
	return notFound(id)
}
