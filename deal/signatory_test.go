package deal

import "testing"

func TestASignatoryIsWhomTheRecordNames(t *testing.T) {
	t.Parallel()
	person := func(first, last, email string) map[string]any {
		return map[string]any{"firstname": first, "lastname": last, "email": email}
	}
	rec := Record{Values: map[string]any{
		"contacts": []any{person("Zofia", "Nowak", "zofia@example.com"), person("Ansgar  Emil", "Ström", "a@example.com"), person("", "", "")},
		"Roles":    []any{map[string]any{"Contact": map[string]any{"Name": "Li Wei", "Email": "li@example.com"}}, map[string]any{"Contact": nil}},
		"Email__c": "own@example.com",
	}}
	list := &Signatory{Email: "contacts.email", Name: []string{"contacts.firstname", "contacts.lastname"}}
	nested := &Signatory{Email: "Roles.Contact.Email", Name: []string{"Roles.Contact.Name"}}
	own := &Signatory{Email: "Email__c"}
	for _, c := range []struct {
		what  string
		where *Signatory
		who   Person
		want  bool
	}{
		{"both", list, Person{"Zofia Nowak", "zofia@example.com"}, true},
		{"in other letters", list, Person{"ansgar emil  STRÖM", "A@Example.com"}, true},
		{"the address alone", list, Person{"", "zofia@example.com"}, true},
		{"the name alone", list, Person{"Zofia Nowak", ""}, true},
		{"the name of one and the address of another", list, Person{"Zofia Nowak", "a@example.com"}, false},
		{"somebody else", list, Person{"Zofia Nowak", "zofia@example.org"}, false},
		{"a part of a name", list, Person{"Zofia", "zofia@example.com"}, false},
		{"spaces", list, Person{"", " "}, false},
		{"in a list of others", nested, Person{"Li Wei", "li@example.com"}, true},
		{"not in a list of others", nested, Person{"Zofia Nowak", "zofia@example.com"}, false},
		{"on the record itself", own, Person{"", "OWN@example.com"}, true},
		{"another on the record itself", own, Person{"", "li@example.com"}, false},
		{"where there is nobody", &Signatory{Email: "company.email"}, Person{"", "li@example.com"}, false},
		{"in the middle of a path", &Signatory{Email: "Email__c.x"}, Person{"", "own@example.com"}, false},
	} {
		if got := c.where.Names(rec, c.who); got != c.want {
			t.Errorf("%s: %t", c.what, got)
		}
	}
	if (*Signatory)(nil).Paths() != nil {
		t.Error("no signatory has paths")
	}
}
