use std::{fmt::Write as _, time::Instant};

use serde_json::json;

use super::*;

/// What is wrong with a config by a schema, a line each: `path: message`.
fn check(schema: &Value, config: &Value) -> Vec<String> {
    let checked = ConfigSchema::parse(&schema.to_string()).unwrap().check(config);
    assert!(checked.unchecked.is_empty(), "{:?}", checked.unchecked);
    let path = |at: &[Step]| {
        at.iter().fold(String::new(), |mut path, step| {
            let _ = match step {
                Step::Key(key) => write!(path, ".{key}"),
                Step::Item(number) => write!(path, "[{number}]"),
            };
            path
        })
    };
    checked.faults.iter().map(|fault| format!("{}: {}", path(&fault.at), fault.message)).collect()
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_is_right_is_not() {
    let schema = json!({
        "type": "object", "required": ["column", "values"], "additionalProperties": false,
        "properties": {
            "column": {"type": "string", "description": "the column looked at", "minLength": 1},
            "values": {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1, "uniqueItems": true},
            "mode": {"enum": ["keep", "drop"]},
            "share": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
            "at": {"type": "string", "pattern": "^[0-9]{2}:[0-9]{2}$"},
        },
    });
    let right = json!({"column": "x", "values": ["a", 1], "mode": "keep", "share": 0.5, "at": "12:30"});
    assert_eq!(check(&schema, &right), Vec::<String>::new());
    for (config, words) in [
        (json!([]), ": expected keys and values, found a list"),
        (json!({"values": [1]}), ": `column` is missing: the column looked at"),
        (json!({"column": "", "values": [1]}), ".column: has 0 letters; at least 1 are wanted"),
        (json!({"column": 1, "values": [1]}), ".column: expected a text, found the number 1"),
        (
            json!({"column": "x", "values": [1, 1.5]}),
            ".values[1]: expected a text or a whole number, found the number 1.5",
        ),
        (json!({"column": "x", "values": []}), ".values: has 0 items; at least 1 are wanted"),
        (json!({"column": "x", "values": [1, 2, 1]}), ".values: has 1 more than once"),
        (
            json!({"column": "x", "values": [1], "mode": "Keep"}),
            ".mode: expected one of \"keep\", \"drop\", found \"Keep\"",
        ),
        (json!({"column": "x", "values": [1], "share": 1}), ".share: is 1; expected less than 1"),
        (
            json!({"column": "x", "values": [1], "at": "1230"}),
            ".at: \"1230\" does not match the pattern ^[0-9]{2}:[0-9]{2}$",
        ),
        (
            json!({"column": "x", "values": [1], "colour": 1}),
            ".colour: unknown key; known here: column, values, mode, share, at",
        ),
    ] {
        assert_eq!(check(&schema, &config), [words], "{config}");
    }
    let both = check(&schema, &json!({"column": 1, "colour": 1}));
    assert_eq!(both.len(), 3, "{both:?}");
}

#[test]
fn forms_references_and_conditions_are_followed() {
    let schema = json!({
        "$ref": "#/$defs/place",
        "$defs": {
            "place": {"oneOf": [
                {"type": "object", "required": ["file"], "properties": {"file": {"type": "string"}}, "additionalProperties": false},
                {"type": "object", "required": ["url"], "properties": {"url": {"$ref": "#/$defs/url"}}, "additionalProperties": false},
            ]},
            "url": {"type": "string", "pattern": "^https://"},
        },
    });
    assert!(
        check(&schema, &json!({"file": "x"})).is_empty() && check(&schema, &json!({"url": "https://x"})).is_empty()
    );
    assert_eq!(
        check(&schema, &json!({"url": "http://x"})),
        [".url: \"http://x\" does not match the pattern ^https:// (in the form that fits best)"]
    );
    assert_eq!(
        check(&json!({"oneOf": [{"type": "number"}, {"type": "integer"}]}), &json!(1)),
        [": fits 2 forms, of which it may have one"]
    );
    assert_eq!(check(&json!({"anyOf": [false, false]}), &json!(1)).len(), 1);
    assert_eq!(check(&json!({"not": {"type": "null"}}), &json!(null)), [": is what the plugin's schema rules out"]);
    let condition = json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"maxProperties": 0}});
    assert_eq!(check(&condition, &json!({"a": 1})), [": `b` is missing"]);
    assert_eq!(check(&condition, &json!({"c": 1})), [": has 1 keys; at most 0 are allowed"]);
    assert_eq!(
        check(&json!({"dependentRequired": {"a": ["b"]}}), &json!({"a": 1})),
        [": `b` is missing, which `a` needs"]
    );
    assert_eq!(check(&json!({"contains": {"const": 1.0}}), &json!([2, 1])), Vec::<String>::new());
    assert_eq!(
        check(&json!({"prefixItems": [{"type": "string"}], "items": false}), &json!(["a", 1])),
        ["[1]: is not allowed here"]
    );
    assert_eq!(
        check(&json!({"propertyNames": {"maxLength": 1}}), &json!({"ab": 1})),
        [".ab: has 2 letters; at most 1 are allowed"]
    );
    assert_eq!(
        check(
            &json!({"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": false}),
            &json!({"x1": 2.0})
        ),
        Vec::<String>::new()
    );
    assert_eq!(check(&json!({"multipleOf": 0.1}), &json!(0.3)), Vec::<String>::new());
    assert_eq!(check(&json!({"multipleOf": 4}), &json!(6)), [": is 6, which is no multiple of 4"]);
}

/// Scenario: schemas that are made to hurt whoever checks with them.
/// Guarantees: each ends soon, refuses nothing that it could not check, and says that it could not.
#[test]
fn a_hostile_schema_costs_a_moment_and_says_what_was_not_checked() {
    let list: Value = (0..30_000).collect();
    let doubling = (0..60).fold(json!({"x": 1}), |inner, _| json!({"properties": {"a": inner}, "anyOf": [true, true]}));
    let doors = format!("({}){{200}}", "a|b?".repeat(100));
    for (schema, config, unchecked) in [
        (json!({"$ref": "#"}), json!(1), "what is left of it"),
        (json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}), json!(1), "what is left of it"),
        (
            json!({"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"allOf": vec![json!({"$ref": "#"}); 500]}}}),
            json!([[[1]], [[1]]]),
            "",
        ),
        (json!({"items": {"enum": list}}), list.clone(), "what is left of it"),
        (json!({"type": "string", "pattern": doors}), json!("a".repeat(10_000)), "the pattern"),
        (json!({"pattern": "(?=a)b"}), json!("ab"), "the pattern \"(?=a)b\""),
        (json!({"pattern": "^(a+)+$"}), json!(format!("{}b", "a".repeat(100_000))), ""),
        (json!({"unevaluatedProperties": false}), json!({}), "`unevaluatedProperties`"),
        (json!({"$ref": "https://example.com/schema.json"}), json!({}), "`$ref` to"),
        (json!({"properties": {"a": 7}}), json!({"a": 1}), "a part that is neither"),
        (
            json!({"type": 7, "required": 7, "enum": 7, "properties": [], "items": 7, "minimum": "x"}),
            json!({"a": 1}),
            "",
        ),
        (doubling, json!({"a": {"a": {"a": 1}}}), ""),
    ] {
        let began = Instant::now();
        let checked = ConfigSchema::parse(&schema.to_string()).unwrap().check(&config);
        assert!(began.elapsed().as_secs() < 5, "{} ms", began.elapsed().as_millis());
        assert!(checked.unchecked.iter().any(|words| words.contains(unchecked)) || unchecked.is_empty(), "{checked:?}");
        if !unchecked.is_empty() {
            assert!(checked.faults.is_empty(), "{checked:?}");
        }
    }
    for (text, words) in [
        ("{".to_owned(), "is not JSON"),
        ("[1]".to_owned(), "is neither an object"),
        ("[".repeat(200_000), "is not JSON"),
        (format!("{{\"title\": \"{}\"}}", "x".repeat(300_000)), "has 300013 bytes"),
    ] {
        let error = ConfigSchema::parse(&text).unwrap_err();
        assert!(error.starts_with(words), "{error}");
    }
}
