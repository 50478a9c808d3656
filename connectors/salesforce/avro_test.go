package salesforce

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/linkedin/goavro/v2"

	"github.com/dealseal/dealseal/mocks/hostile"
)

// changeSchema has a header like Salesforce's, with what its fields might be one day.
const changeSchema = `{"type":"record","name":"OpportunityChangeEvent","namespace":"com.sforce.eventbus","fields":[
 {"name":"ChangeEventHeader","type":{"type":"record","name":"ChangeEventHeader","fields":[
  {"name":"entityName","type":"string"},{"name":"recordIds","type":{"type":"array","items":"string"}},
  {"name":"changeType","type":{"type":"enum","name":"ChangeType","symbols":["CREATE","UPDATE"]}},
  {"name":"changeOrigin","type":["null","string"]},{"name":"urgent","type":"boolean"},{"name":"weight","type":["double","float"]},
  {"name":"sequenceNumber","type":"int"},{"name":"commitTimestamp","type":{"type":"long","logicalType":"timestamp-millis"}},
  {"name":"changedFields","type":["null",{"type":"array","items":"string"}]}]}},
 {"name":"Name","type":["null","string"],"default":null},{"name":"StageName","type":["null","string"],"default":null}]}`

func changeEvent(t testing.TB) (codec *goavro.Codec, payload []byte) {
	t.Helper()
	codec, err := goavro.NewCodec(changeSchema)
	if err != nil {
		t.Fatal(err)
	}
	payload, err = codec.BinaryFromNative(nil, map[string]any{
		"ChangeEventHeader": map[string]any{
			"entityName": "Opportunity", "recordIds": []any{"006000000000001AAA", "006000000000002AAA"}, "changeType": "UPDATE",
			"changeOrigin": goavro.Union("string", "com/salesforce/api"), "urgent": true, "weight": goavro.Union("float", 1.5), "sequenceNumber": -3,
			"commitTimestamp": time.UnixMilli(1795210471123), "changedFields": goavro.Union("array", []any{"0x4"}),
		},
		"Name": goavro.Union("string", "Acme"), "StageName": goavro.Union("string", "Closed Won"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return codec, payload
}

func TestTheHeaderOfAnEventIsRead(t *testing.T) {
	s, err := parseEventSchema([]byte(changeSchema))
	if err != nil || s.object != Object || s.stage != 2 {
		t.Fatalf("the schema: %+v, %v", s, err)
	}
	_, payload := changeEvent(t)
	got, err := s.readHeader(payload)
	want := changeHeader{entity: "Opportunity", kind: "UPDATE", origin: "com/salesforce/api", records: []string{"006000000000001AAA", "006000000000002AAA"}, changed: []string{"0x4"}, committed: time.UnixMilli(1795210471123).UTC()}
	if err != nil || !cmp.Equal(got, want, cmp.AllowUnexported(changeHeader{})) {
		t.Errorf("the header: %+v, %v; want %+v", got, err, want)
	}
	head := bytes.Index(payload, []byte("Acme")) - 2
	for n := range head {
		if _, err := s.readHeader(payload[:n]); err == nil {
			t.Errorf("%d of %d bytes are taken for a header", n, head)
		}
	}
	blocks := slices.Clone(payload) // the same list, as a block with its size
	at := bytes.IndexByte(blocks, 4)
	blocks = slices.Concat(blocks[:at], []byte{3, 76}, blocks[at+1:])
	if again, err := s.readHeader(blocks); err != nil || !cmp.Equal(again, want, cmp.AllowUnexported(changeHeader{})) {
		t.Errorf("with sizes of blocks: %+v, %v", again, err)
	}
}

func TestOtherSchemasAreNone(t *testing.T) {
	for text, ours := range map[string]bool{
		`{"type":"record","name":"Order_Event__e","fields":[{"name":"CreatedDate","type":"long"}]}`:    true, // a platform event: known, and nobody's
		`{"type":"record","name":"OpportunityChangeEvent","fields":[{"name":"Name","type":"string"}]}`: true,
		``: false, `7`: false, `{}`: false, `{"name":"OpportunityChangeEvent","fields":[{"name":"ChangeEventHeader","type":"string"}]}`: false,
		strings.Replace(changeSchema, `"type":"boolean"`, `"type":"Other"`, 1):                       false,
		strings.Replace(changeSchema, `"type":"boolean"`, `"type":["null",["null",["null"]]]`, 1):    false,
		strings.Replace(changeSchema, `"type":"boolean"`, `"type":{"type":"array"}`, 1):              false,
		strings.Replace(changeSchema, `"type":"boolean"`, `"type":{"type":"enum","name":"E"}`, 1):    false,
		strings.Replace(changeSchema, `"type":"boolean"`, `"type":{"type":"map","values":"int"}`, 1): false,
	} {
		if s, err := parseEventSchema([]byte(text)); (err == nil) != ours || err == nil && s.object == Object && len(s.header) > 0 {
			t.Errorf("%.80s: %+v, %v", text, s, err)
		}
	}
}

// FuzzChangeEvent compares what is read with what a library makes of the same bytes, and reads any schema and message.
func FuzzChangeEvent(f *testing.F) {
	codec, payload := changeEvent(f)
	f.Add([]byte(changeSchema), payload)
	f.Add([]byte(`{"type":"record","name":"OpportunityChangeEvent","fields":[{"name":"ChangeEventHeader","type":{"fields":[{"name":"entityName","type":{"type":"array","items":"string"}}]}}]}`), []byte{0xfe, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte("\x0a\x09\x0a\x07\x12\x01a\x1a\x02bc\x12\x01r"), []byte("\x01\x02"))
	ours, err := parseEventSchema([]byte(changeSchema))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, schema, payload []byte) {
		hostile.Budget(t)
		if len(schema)+len(payload) > 64<<10 {
			return
		}
		if s, err := parseEventSchema(schema); err == nil {
			_, _ = s.readHeader(payload)
		}
		var m fetchResponse
		if m.decode(schema) == nil {
			for _, e := range m.events {
				_, _ = ours.readHeader(e.payload)
			}
		}
		h, err := ours.readHeader(payload)
		theirs, _, err2 := codec.NativeFromBinary(payload)
		if err2 != nil {
			return // they read the values behind the header, too
		}
		header := theirs.(map[string]any)["ChangeEventHeader"].(map[string]any)
		if entity, _ := header["entityName"].(string); entity == "" {
			return
		}
		var records []string
		for _, r := range header["recordIds"].([]any) {
			records = append(records, r.(string))
		}
		if err != nil || h.entity != header["entityName"] || h.kind != header["changeType"] || !slices.Equal(h.records, records) {
			t.Fatalf("we read %+v (%v), they %s", h, err, must(json.Marshal(header)))
		}
	})
}

func must[T any](v T, _ error) T { return v }
