package salesforce

import "net/http"

func (f *Field) soapType() string {
	switch f.Type {
	case TypeID, TypeReference:
		return "tns:ID"
	case TypeCurrency, TypeDouble, TypePercent:
		return "xsd:double"
	case TypeInt, TypeBoolean, TypeDate:
		return "xsd:" + string(f.Type)
	case TypeDateTime:
		return "xsd:dateTime"
	case TypeBase64:
		return "xsd:base64Binary"
	}
	return "xsd:string"
}

func (f *Field) apexType() string {
	switch f.Type {
	case TypeID, TypeReference:
		return "Id"
	case TypeCurrency, TypePercent:
		return "Decimal"
	case TypeDouble:
		return "Double"
	case TypeInt:
		return "Integer"
	case TypeBoolean:
		return "Boolean"
	case TypeDate:
		return "Date"
	case TypeDateTime:
		return "Datetime"
	}
	return "String"
}

func (c *call) globalDescribe() reply {
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	list := []any{}
	for _, def := range c.o.order {
		if c.o.object(def.name) != nil {
			list = append(list, c.summary(def))
		}
	}
	return jsonReply(200, ordered{{"encoding", "UTF-8"}, {"maxBatchSize", 200}, {"sobjects", list}})
}

func (c *call) summary(def *object) ordered {
	base := "/services/data/v" + c.version + "/sobjects/" + def.name
	return ordered{
		{"name", def.name}, {"label", def.label}, {"labelPlural", def.plural}, {"keyPrefix", def.prefix}, {"custom", false},
		{"createable", !def.fixed && def.name != "ContentDocument"}, {"updateable", !def.fixed},
		{"deletable", !def.fixed && def.name != "ContentVersion"}, {"queryable", true}, {"retrieveable", true},
		{"replicateable", c.replicable(def)}, {"searchable", false}, {"triggerable", !def.fixed}, {"undeletable", false},
		{"urls", ordered{{"sobject", base}, {"describe", base + "/describe"}, {"rowTemplate", base + "/{ID}"}}},
	}
}

// basicInfo answers GET /sobjects/X.
func (c *call) basicInfo() reply {
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	def, err := c.typeNamed(c.segs[1])
	if err != nil {
		return err.reply()
	}
	return jsonReply(200, ordered{{"objectDescribe", c.summary(def)}, {"recentItems", []any{}}})
}

func (c *call) describe() reply {
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	def, err := c.typeNamed(c.segs[1])
	if err != nil {
		return err.reply()
	}
	if h := c.r.Header.Get("If-Modified-Since"); h != "" {
		since, err := httpDate(h)
		if err != nil {
			return err.reply()
		}
		if !c.o.changed.After(since) {
			return reply{status: http.StatusNotModified}
		}
	}
	fields := []any{}
	for _, f := range def.fields {
		if c.o.field(def, f.Name) != nil {
			fields = append(fields, c.describeField(def, f))
		}
	}
	children := []any{}
	for _, rel := range def.children {
		if c.o.object(rel.object) != nil {
			children = append(children, ordered{{"childSObject", rel.object}, {"field", rel.field}, {"relationshipName", rel.name}, {"cascadeDelete", def.name == "Opportunity"}, {"deprecatedAndHidden", false}})
		}
	}
	master := ordered{{"active", true}, {"available", true}, {"defaultRecordTypeMapping", true}, {"developerName", "Master"}, {"master", true}, {"name", "Master"}, {"recordTypeId", ID18("012000000000000")}}
	return jsonReply(200, append(c.summary(def), member{"fields", fields}, member{"childRelationships", children}, member{"recordTypeInfos", []any{master}})).
		with("Last-Modified", c.o.changed.Format(http.TimeFormat))
}

func (c *call) describeField(def *object, f *Field) ordered {
	writable := c.o.editable(def, f)
	values := []any{}
	for _, v := range f.Picklist {
		values = append(values, ordered{{"active", true}, {"defaultValue", false}, {"label", v}, {"validFor", nil}, {"value", v}})
	}
	var precision, scale, digits int
	switch {
	case f.numeric():
		precision, scale = 18, 2
	case f.Type == TypeInt:
		digits = 9
	}
	references := []string{}
	if f.References != "" {
		references = append(references, f.References)
	}
	var relationship any
	if f.Relationship != "" {
		relationship = f.Relationship
	}
	return ordered{
		{"name", f.Name}, {"label", f.label()}, {"type", f.Type}, {"soapType", f.soapType()}, {"length", f.Length},
		{"byteLength", 3 * f.Length}, {"precision", precision}, {"scale", scale}, {"digits", digits}, {"custom", f.custom()},
		{"createable", writable}, {"updateable", writable && !f.CreateOnly}, {"nillable", !f.Required && f.Type != TypeID && f.Type != TypeBoolean},
		{"defaultedOnCreate", f.Type == TypeID || f.ReadOnly || f.Type == TypeBoolean || f.Name == "OwnerId"}, {"externalId", f.ExternalID}, {"idLookup", f.ExternalID || f.Type == TypeID},
		{"unique", f.Unique}, {"caseSensitive", false}, {"calculated", false}, {"filterable", f.filterable()}, {"sortable", f.filterable()},
		{"restrictedPicklist", f.Restricted}, {"picklistValues", values}, {"relationshipName", relationship}, {"referenceTo", references},
		{"deprecatedAndHidden", false}, {"permissionable", f.custom()},
	}
}
