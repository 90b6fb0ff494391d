package fsdatasink

import (
	"slices"
	"strings"
)

// Field is a column: its name, and its type in words: bool, int8 to uint64, float32, float64, utf8, binary, date32, date64,
// timestamp(us), timestamp(us, UTC), time(us), duration(s), decimal(10, 2).
type Field struct {
	Name, Type string
	node       *node
}

// Schema is the columns of rows.
type Schema struct {
	Fields   []Field
	replaced bool
}

// Position is the number of a column, -1 where there is none.
func (s *Schema) Position(name string) int {
	return slices.IndexFunc(s.Fields, func(field Field) bool { return field.Name == name })
}

// Require answers an error where a column is not there, or of none of some types where they are named.
func (s *Schema) Require(name string, types ...string) error {
	at := s.Position(name)
	if at < 0 {
		return UnsupportedSchema("%s", s.lacks(name))
	}
	if is := s.Fields[at].Type; len(types) > 0 && !slices.Contains(types, is) {
		return UnsupportedSchema("column %q is of type %s; expected %s", name, is, strings.Join(types, " or "))
	}
	return nil
}

// Replace says, in Open, that nothing comes out but what Open answers: the rows that the plugin writes take the place of the batch. Then
// dead letters cannot show the record behind a row any more.
func (s *Schema) Replace() { s.replaced = true }

func (s *Schema) lacks(name string) string {
	names := make([]string, len(s.Fields))
	for at, field := range s.Fields {
		names[at] = field.Name
	}
	return "the rows have no column \"" + name + "\"; they have: " + strings.Join(names, ", ")
}

// What comes out.
func (s *Schema) extended(added []Field) *Schema {
	if s.replaced {
		return &Schema{Fields: added}
	}
	fields := slices.Clone(s.Fields)
	for _, field := range added {
		if at := s.Position(field.Name); at >= 0 {
			fields[at] = field
		} else {
			fields = append(fields, field)
		}
	}
	return &Schema{Fields: fields}
}
