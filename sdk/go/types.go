package fsdatasink

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// node is a field as Arrow's schema message has it; facts are the numbers of its type.
type node struct {
	nullable bool
	kind     byte
	facts    [3]int32
	zone     string
	children []Field
	metadata [][2]string
}

// Arrow's types by their number.
const (
	kindInt       = 2
	kindFloat     = 3
	kindBinary    = 4
	kindUtf8      = 5
	kindBool      = 6
	kindDecimal   = 7
	kindDate      = 8
	kindTime      = 9
	kindTimestamp = 10
	kindDuration  = 18
)

type fact struct {
	bytes     int
	otherwise int32
}

// Name and facts of each.
var types = map[byte]struct {
	name  string
	facts []fact
}{
	kindInt: {"int", []fact{{4, 0}, {1, 0}}}, kindFloat: {"float", []fact{{2, 0}}}, kindBinary: {"binary", nil}, kindUtf8: {"utf8", nil},
	kindBool: {"bool", nil}, kindDecimal: {"decimal", []fact{{4, 0}, {4, 0}, {4, 128}}}, kindDate: {"date", []fact{{2, 1}}},
	kindTime: {"time", []fact{{2, 1}, {4, 32}}}, kindTimestamp: {"timestamp", []fact{{2, 0}}}, 11: {"interval", []fact{{2, 0}}},
	12: {"list", nil}, 13: {"struct", nil}, 15: {"fixed_size_binary", []fact{{4, 0}}}, 16: {"fixed_size_list", []fact{{4, 0}}},
	17: {"map", []fact{{1, 0}}}, kindDuration: {"duration", []fact{{2, 1}}}, 19: {"large_binary", nil}, 20: {"large_utf8", nil},
	21: {"large_list", nil},
}

var units = []string{"s", "ms", "us", "ns"}

func unit(number int32) string {
	if number < 0 || int(number) >= len(units) {
		return "?"
	}
	return units[number]
}

// The type in words.
func (n *node) words() string {
	switch n.kind {
	case kindInt:
		if n.facts[1] == 0 {
			return fmt.Sprintf("uint%d", n.facts[0])
		}
		return fmt.Sprintf("int%d", n.facts[0])
	case kindFloat:
		return fmt.Sprintf("float%d", 16<<(n.facts[0]&3))
	case kindDate:
		return [...]string{"date32", "date64"}[n.facts[0]&1]
	case kindTime, kindDuration:
		return types[n.kind].name + "(" + unit(n.facts[0]) + ")"
	case kindDecimal:
		return fmt.Sprintf("decimal(%d, %d)", n.facts[0], n.facts[1])
	case kindTimestamp:
		if n.zone != "" {
			return "timestamp(" + unit(n.facts[0]) + ", " + n.zone + ")"
		}
		return "timestamp(" + unit(n.facts[0]) + ")"
	}
	return types[n.kind].name
}

var (
	integerWords   = regexp.MustCompile(`^(u?)int(8|16|32|64)$`)
	timestampWords = regexp.MustCompile(`^timestamp\((s|ms|us|ns)(?:, ?(.+))?\)$`)
	timeWords      = regexp.MustCompile(`^(time|duration)\((s|ms|us|ns)\)$`)
	decimalWords   = regexp.MustCompile(`^decimal\((\d{1,2}), ?(-?\d{1,2})\)$`)
)

// A field by its words, with its type in the notation of Arrow's C data interface.
func (f Field) parsed() (*node, string, error) {
	made := &node{nullable: true}
	number := func(words string) int32 {
		parsed, _ := strconv.Atoi(words)
		return int32(parsed)
	}
	simple := map[string]struct {
		kind   byte
		fact   int32
		format string
	}{
		"bool": {kindBool, 0, "b"}, "utf8": {kindUtf8, 0, "u"}, "string": {kindUtf8, 0, "u"}, "binary": {kindBinary, 0, "z"},
		"float32": {kindFloat, 1, "f"}, "float64": {kindFloat, 2, "g"}, "date32": {kindDate, 0, "tdD"}, "date64": {kindDate, 1, "tdm"},
	}
	if known, is := simple[f.Type]; is {
		made.kind, made.facts[0] = known.kind, known.fact
		return made, known.format, nil
	}
	if match := integerWords.FindStringSubmatch(f.Type); match != nil {
		made.kind, made.facts[0] = kindInt, number(match[2])
		letters := map[string]string{"8": "c", "16": "s", "32": "i", "64": "l"}
		if match[1] == "" {
			made.facts[1] = 1
			return made, letters[match[2]], nil
		}
		return made, string(letters[match[2]][0] - 'a' + 'A'), nil
	}
	if match := timestampWords.FindStringSubmatch(f.Type); match != nil {
		made.kind, made.facts[0], made.zone = kindTimestamp, int32(slices.Index(units, match[1])), match[2]
		return made, "ts" + match[1][:1] + ":" + match[2], nil
	}
	if match := timeWords.FindStringSubmatch(f.Type); match != nil {
		made.kind, made.facts[0] = kindDuration, int32(slices.Index(units, match[2]))
		if match[1] == "duration" {
			return made, "tD" + match[2][:1], nil
		}
		made.kind, made.facts[1] = kindTime, 32
		if made.facts[0] > 1 {
			made.facts[1] = 64
		}
		return made, "tt" + match[2][:1], nil
	}
	if match := decimalWords.FindStringSubmatch(f.Type); match != nil && number(match[1]) > 0 && number(match[1]) <= 18 {
		made.kind, made.facts = kindDecimal, [3]int32{number(match[1]), number(match[2]), 128}
		return made, "d:" + match[1] + "," + match[2], nil
	}
	return nil, "", UnsupportedSchema("column %q: %q is no type that this SDK writes", f.Name, f.Type)
}
