package hubspot

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dealseal/dealseal/deal"
)

// stampForm is RFC 3339 with milliseconds, HubSpot's own form and that of occurrences.
const stampForm = "2006-01-02T15:04:05.000Z"

// history is a deal with what its stage and its pipeline were, oldest first.
type history struct {
	kind      kind
	id        int64
	aliases   []string
	pipeline  string // now
	modified  string // hs_lastmodifieddate
	stages    []version
	pipelines []version
}

// version is one value that a property had.
type version struct {
	value string
	// at is when it was set. When that cannot be read err says why, and at is the time of the version before it.
	at     time.Time
	err    error
	by     string
	merged bool // written by a merge of two deals
	number int  // from the oldest, 1
}

// parseHistory reads one deal of a batch. A version that cannot be read keeps its place and its reason.
func (k kind) parseHistory(raw json.RawMessage) (*history, error) {
	var said struct {
		ID         string                       `json:"id"`
		Properties map[string]*string           `json:"properties"`
		History    map[string][]json.RawMessage `json:"propertiesWithHistory"`
	}
	if err := json.Unmarshal(raw, &said); err != nil {
		return nil, malformed("a %s of the batch is none", k.one)
	}
	id, ok := parseID(said.ID)
	if !ok {
		return nil, malformed("a %s of the batch has no ID", k.one)
	}
	return &history{
		kind:      k,
		id:        id,
		aliases:   splitIDs(value(said.Properties, mergedProperty)),
		pipeline:  value(said.Properties, "pipeline"),
		modified:  value(said.Properties, modifiedProperty),
		stages:    parseVersions(said.History[k.stage]),
		pipelines: parseVersions(said.History["pipeline"]),
	}, nil
}

// entered is when the deal entered the stage that it is in; zero if that is not known.
func (h *history) entered() time.Time {
	if len(h.stages) == 0 {
		return time.Time{}
	}
	return h.stages[len(h.stages)-1].at
}

func value(properties map[string]*string, name string) string {
	if v := properties[name]; v != nil {
		return *v
	}
	return ""
}

// parseVersions brings a history into the order of time. HubSpot lists the newest first, though it does not promise to;
// the order of the list decides between equal stamps, and where a version belongs whose stamp cannot be read.
func parseVersions(list []json.RawMessage) []version {
	versions := make([]version, 0, len(list))
	for _, raw := range list {
		versions = append(versions, parseVersion(raw))
	}
	if !oldestFirst(versions) {
		slices.Reverse(versions)
	}
	var at time.Time
	for i := range versions {
		if versions[i].err != nil {
			versions[i].at = at
		}
		at = versions[i].at
	}
	slices.SortStableFunc(versions, func(a, b version) int { return a.at.Compare(b.at) })
	for i := range versions {
		versions[i].number = i + 1
	}
	return versions
}

func oldestFirst(versions []version) bool {
	readable := slices.DeleteFunc(slices.Clone(versions), func(v version) bool { return v.err != nil })
	return len(readable) > 1 && readable[0].at.Before(readable[len(readable)-1].at)
}

func parseVersion(raw json.RawMessage) version {
	var said struct {
		Value      *string         `json:"value"`
		Timestamp  json.RawMessage `json:"timestamp"`
		SourceType string          `json:"sourceType"`
		SourceID   string          `json:"sourceId"`
	}
	if json.Unmarshal(raw, &said) != nil || said.Value == nil {
		return version{err: errors.New("an entry has no value")}
	}
	v := version{value: *said.Value, by: said.SourceID, merged: strings.HasPrefix(said.SourceType, "MERGE")}
	stamp := string(said.Timestamp)
	if bytes.HasPrefix(said.Timestamp, []byte(`"`)) {
		stamp = text(said.Timestamp)
	}
	if v.at, v.err = parseTime(stamp); v.err != nil {
		v.err = fmt.Errorf("the timestamp of an entry %w", v.err)
	}
	return v
}

// judge finds the entries into watched stages, oldest first, and what a person must look at. Entries from before notBefore
// were returned long ago, unless the deal was merged and has got the entries of others.
func (h *history) judge(by map[string][]deal.Watch, notBefore time.Time) (entries []deal.Change, quarantined []deal.Quarantine) {
	ref := deal.Ref{Object: h.kind.name, ID: strconv.FormatInt(h.id, 10)}
	for i, v := range h.stages {
		if v.value == "" && v.err != nil {
			quarantined = append(quarantined, v.quarantine(ref, h.kind.stage))
			continue
		}
		watches := by[v.value]
		if len(watches) == 0 || v.merged || i > 0 && h.stages[i-1].value == v.value {
			continue
		}
		if v.err != nil {
			quarantined = append(quarantined, v.quarantine(ref, h.kind.stage))
			continue
		}
		if len(h.aliases) == 0 && v.at.Before(notBefore) {
			continue
		}
		for _, w := range watches {
			if v.at.Before(w.Since) || !h.inPipeline(w.Pipeline, v.at) {
				continue
			}
			entries = append(entries, deal.Change{
				Rule: w.Rule, Ref: ref, Stage: v.value, Occurrence: v.value + "@" + v.at.Format(stampForm), At: v.at, By: v.by, Aliases: h.aliases,
			})
		}
	}
	return entries, quarantined
}

func (v version) quarantine(ref deal.Ref, stage string) deal.Quarantine {
	return deal.Quarantine{
		Ref: ref, Row: fmt.Sprintf("%s/%s/%d", ref.ID, stage, v.number), Reason: "history of " + stage + ": " + v.err.Error(), At: v.at,
	}
}

// pipelineSlack is how much later than the stage the pipeline may be stamped when both are set by one write.
const pipelineSlack = 5 * time.Second

// inPipeline reports whether the deal was in the pipeline when it entered the stage: IDs of stages are unique within a
// pipeline only. An empty pipeline is any. Where the history does not tell, the pipeline of today counts.
func (h *history) inPipeline(pipeline string, at time.Time) bool {
	if pipeline == "" {
		return true
	}
	was := ""
	for _, v := range h.pipelines {
		if v.err == nil && !v.at.After(at) {
			was = v.value
		}
	}
	for _, v := range h.pipelines {
		if v.err == nil && v.at.After(at) && !v.at.After(at.Add(pipelineSlack)) && v.value == pipeline {
			return true
		}
	}
	return cmp.Or(was, h.pipeline) == pipeline
}

// parseTime reads HubSpot's two spellings of a time, ISO 8601 and milliseconds since 1970, cut to the millisecond. The
// error never quotes the text.
func parseTime(s string) (time.Time, error) {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		return inRange(time.UnixMilli(ms))
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, errors.New("is no time")
	}
	return inRange(t)
}

func inRange(t time.Time) (time.Time, error) {
	t = t.UTC().Truncate(time.Millisecond)
	if t.Year() < 1990 || t.Year() > 9999 {
		return time.Time{}, errors.New("is out of range")
	}
	return t, nil
}

// parseID reads the ID of an object: a positive number in its shortest form.
func parseID(s string) (int64, bool) {
	id, err := strconv.ParseInt(s, 10, 64)
	return id, err == nil && id > 0 && strconv.FormatInt(id, 10) == s
}

// splitIDs reads IDs joined by semicolons, dropping what is none.
func splitIDs(s string) []string {
	var ids []string
	for id := range strings.SplitSeq(s, ";") {
		if _, ok := parseID(strings.TrimSpace(id)); ok && !slices.Contains(ids, strings.TrimSpace(id)) {
			ids = append(ids, strings.TrimSpace(id))
		}
	}
	return ids
}
