package deal

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

// subject is a record as connectors give it: Salesforce's numbers and flags, HubSpot's texts.
var subject = Record{Values: map[string]any{
	"Amount": json.Number("12500.50"), "StageName": "Closed Won", "IsPrivate": false, "CloseDate": "2026-11-30", "Signed__c": "2026-11-30T10:00:00.000+0000",
	"RecordType": map[string]any{"DeveloperName": "New"}, "Empty__c": nil, "amount": "12500.50", "closedate": "2026-11-30T00:00:00Z", "archived": "true", "Huge": json.Number("1e999999999"),
}}

func TestFilters(t *testing.T) {
	for text, want := range map[string]bool{
		"Amount > 10000": true,
		"Amount > 10000 AND RecordType.DeveloperName = 'New'": true,
		"amount >= 12500.5 and amount <= 12500.500":           true,
		"Amount = 12500.5":         true,
		"Amount < 12500.5":         false,
		"Amount != 12500.50":       false,
		"StageName = 'closed won'": true, // as SOQL has it
		"StageName LIKE 'Closed%' AND StageName LIKE '%_on'":                         true,
		"StageName LIKE 'Won%'":                                                      false,
		"StageName LIKE 'Closed.Won'":                                                false,
		"StageName IN ('Open', 'Closed Won')":                                        true,
		"StageName NOT IN ('Open', 'Closed Won')":                                    false,
		"IsPrivate = FALSE AND archived = TRUE":                                      true,
		"Empty__c = NULL AND Absent__c = NULL AND RecordType.Nothing = NULL":         true,
		"Amount != NULL":                                                             true,
		"Empty__c != 'x'":                                                            true, // as SOQL has it
		"Empty__c < 5 OR Empty__c >= 5":                                              false,
		"Empty__c LIKE '%'":                                                          false,
		"CloseDate >= 2026-11-30 AND CloseDate < 2026-12-01":                         true,
		"closedate = 2026-11-30":                                                     true,
		"Signed__c > 2026-11-30T09:59:59Z AND Signed__c = 2026-11-30T11:00:00+01:00": true,
		"NOT Amount > 10000":                                                         false,
		"NOT (Amount > 20000 OR StageName = 'Open')":                                 true,
		"(Amount > 20000 OR StageName = 'Closed Won') AND (IsPrivate = TRUE)":        false,
		`StageName != 'it\'s \\ here'`:                                               true,
	} {
		f, err := ParseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := f.Matches(subject); err != nil || got != want {
			t.Errorf("%s is %t, %v", text, got, err)
		}
		if f.String() != text {
			t.Errorf("%s is shown as %s", text, f)
		}
	}
	if ok, err := (*Filter)(nil).Matches(subject); !ok || err != nil {
		t.Error("no filter does not match everything")
	}
}

func TestFiltersThatMeanNothingAreRefusedWithTheirColumn(t *testing.T) {
	for text, want := range map[string]FilterError{
		"":                                   {1, "the end stands where the name of a field"},
		"Amount":                             {7, "a comparison is expected"},
		"Amount > ":                          {10, "the end stands where a value"},
		"Amount > 10k":                       {10, "goes on with"},
		"Amount > 1 Name = 'x'":              {12, "AND or OR"},
		"A = 1 AND B = 2 OR C = 3":           {17, "parentheses"},
		"Name = \"x\"":                       {8, "single quotes"},
		"Name = 'x":                          {8, "no end"},
		`Name = 'a\n'`:                       {8, "stands before"},
		"CloseDate = TODAY":                  {13, "TODAY"},
		"CloseDate = 2026-02-30":             {13, "no day"},
		"Näme = 1":                           {1, "goes on with"},
		"Ä = 1":                              {1, "nothing that a filter knows"},
		"'ü' = Amount":                       {1, "the name of a field"},
		"Name = 'ü' AND ; = 1":               {16, "nothing that a filter knows"},
		"Name LIKE 5":                        {11, "LIKE takes a text"},
		"Name IN ('a', 5)":                   {9, "different types"},
		"Name IN 'a'":                        {9, `"(" is expected`},
		"Name NOT LIKE 'a'":                  {10, "IN is expected"},
		"IsWon > TRUE":                       {9, "takes a number"},
		"Amount < NULL":                      {10, "takes a number"},
		"(Amount > 1":                        {12, `")" is expected`},
		"AND = 1":                            {1, "the name of a field"},
		strings.Repeat("(", 30) + "A = 1":    {22, "deep"},
		strings.Repeat("NOT ", 30) + "A = 1": {81, "deep"},
		"A IN (" + strings.Repeat("1,", 201) + "1)": {407, "more than 200"},
		strings.Repeat("A", 3000):                   {1, "at most 2000"},
	} {
		_, err := ParseFilter(text)
		var e *FilterError
		if !errors.As(err, &e) || e.Column != want.Column || !strings.Contains(e.What, want.What) {
			t.Errorf("%.40s: %v, want column %d and %q", text, err, want.Column, want.What)
		}
	}
}

func TestAFilterNamesItsFieldsWithColumnAndType(t *testing.T) {
	f, err := ParseFilter("Amount > 1 AND (Name = 'a' OR Name IN ('b', NULL)) AND Empty__c = NULL")
	if err != nil {
		t.Fatal(err)
	}
	want := []FilterField{{"Amount", 1, FilterNumber}, {"Name", 17, FilterText}, {"Name", 31, ""}, {"Empty__c", 56, ""}}
	if got := f.Fields(); !slices.Equal(got, want) {
		t.Errorf("the fields are %v, want %v", got, want)
	}
	if got := f.Paths(); !slices.Equal(got, []string{"Amount", "Name", "Empty__c"}) {
		t.Errorf("the paths are %v", got)
	}
}

func TestAValueOfTheWrongTypeIsNamedAndNotQuoted(t *testing.T) {
	for _, text := range []string{"StageName > 5", "StageName = TRUE", "StageName = 2026-11-30", "StageName < 2026-11-30T00:00:00Z", "Huge > 1", "StageName IN (5, 6)", "NOT StageName > 5"} {
		f, err := ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := f.Matches(subject); ok || err == nil || strings.Contains(err.Error(), "Won") || !strings.Contains(err.Error(), f.Paths()[0]) {
			t.Errorf("%s is %t, %v", text, ok, err)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, text := range []string{"Amount > 10000 AND RecordType.DeveloperName = 'New'", "A IN (1, 2.5) OR NOT (B LIKE 'x%_' OR C != NULL)", `N = 'it\'s'`, "D >= 2026-11-30 AND E < 2026-11-30T10:00:00.5+01:00", "((((A=1", "A<>TRUE"} {
		f.Add(text, "12.5")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		filter, err := ParseFilter(text)
		if err != nil {
			var e *FilterError
			if !errors.As(err, &e) || e.Column < 1 || e.Column > len(text)+1 {
				t.Errorf("the error is %v", err)
			}
			return
		}
		values := map[string]any{}
		for _, path := range filter.Paths() {
			values[path] = value
		}
		r := Record{Values: values}
		ok, err := filter.Matches(r)
		not, parseErr := ParseFilter("NOT (" + text + ")")
		if parseErr != nil { // too deep or too long now
			return
		}
		if opposite, notErr := not.Matches(r); (err == nil) != (notErr == nil) || err == nil && opposite == ok {
			t.Errorf("it matches %t, its opposite %t; %v, %v", ok, opposite, err, notErr)
		}
	})
}
