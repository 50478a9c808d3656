package deal

import (
	"slices"
	"strings"
)

// Person is somebody whom a request names.
type Person struct {
	Name, Email string
}

// Signatory says where records name the person for whom a contract is made: paths of fields as templates have them, all of
// one object, which may be a list, such as contacts.email.
type Signatory struct {
	// Email is the path of the address.
	Email string
	// Name are the paths that make the name, in their order; empty when names are not compared.
	Name []string
}

// Paths are what has to be read of a record to know its people; nil for nil.
func (s *Signatory) Paths() []string {
	if s == nil {
		return nil
	}
	return append([]string{s.Email}, s.Name...)
}

// Names reports whether a record names a person, by all that is said of them. The case of letters and the number of spaces do not count.
func (s *Signatory) Names(rec Record, p Person) bool {
	of, email := splitPath(s.Email)
	return slices.ContainsFunc(membersAt(rec.Values, of), func(one Record) bool {
		if p.Email != "" && !sameWords(one.Text(email), p.Email) {
			return false
		}
		var name []string
		for _, path := range s.Name {
			_, field := splitPath(path)
			name = append(name, one.Text(field))
		}
		return p.Name == "" || sameWords(strings.Join(name, " "), p.Name)
	})
}

// splitPath parts a path into that of the object and the name of the field.
func splitPath(path string) (of, field string) {
	i := strings.LastIndexByte(path, '.')
	return path[:max(i, 0)], path[i+1:]
}

// membersAt are the objects at a path, all of each list on the way.
func membersAt(v any, path string) (found []Record) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			found = append(found, membersAt(one, path)...)
		}
	case map[string]any:
		if path == "" {
			return []Record{{Values: v}}
		}
		key, rest, _ := strings.Cut(path, ".")
		return membersAt(v[key], rest)
	}
	return found
}

// sameWords compares what people write: an empty text is the same as none.
func sameWords(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	return len(x) > 0 && slices.EqualFunc(x, y, strings.EqualFold)
}
