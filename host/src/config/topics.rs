//! Topic names, and the patterns that begin with `^`: POSIX extended regular expressions, as librdkafka reads them.
//!
//! librdkafka says nothing about a pattern that does not mean what it looks like, so what other engines know and POSIX
//! does not is refused here.

use std::{iter::Peekable, str::Chars};

/// Whether a name or a pattern can be subscribed to.
pub(super) fn check(topic: &str) -> Result<(), String> {
    if topic.starts_with('^') {
        return check_pattern(topic).map_err(|message| format!("the pattern {topic:?} cannot be used: {message}"));
    }
    let is_legal = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if topic.is_empty() || topic.len() > 249 || matches!(topic, "." | "..") || !topic.chars().all(is_legal) {
        return Err(format!(
            "{topic:?} cannot be a topic: expected 1 to 249 letters, digits, `.`, `_` and `-`, or a pattern that begins \
             with ^, such as ^orders-.*"
        ));
    }
    Ok(())
}

/// A pattern.
fn check_pattern(pattern: &str) -> Result<(), String> {
    let mut characters = pattern.chars().peekable();
    // Whether something is there that can be repeated, and how many groups are open.
    let (mut is_repeatable, mut groups) = (false, 0usize);
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                None => return Err("it ends with a backslash".to_owned()),
                Some(letter @ ('d' | 'D')) => {
                    return Err(format!("POSIX has no \\{letter}; write [0-9] or [^0-9]"));
                }
                Some(_) => {}
            },
            '[' => set(&mut characters)?,
            '(' if characters.peek() == Some(&'?') => return Err("POSIX has no `(?`".to_owned()),
            '(' => groups += 1,
            ')' => groups = groups.checked_sub(1).ok_or("a `)` without `(`")?,
            '*' | '+' | '?' if !is_repeatable => {
                return Err(format!("`{character}` has nothing to repeat; `.*` stands for any text"));
            }
            '{' => repetition(&mut characters)?,
            _ => {}
        }
        is_repeatable = !matches!(character, '^' | '(' | '|');
    }
    if groups > 0 { Err("a `(` without `)`".to_owned()) } else { Ok(()) }
}

/// What follows `[`, up to and with `]`.
fn set(characters: &mut Peekable<Chars<'_>>) -> Result<(), String> {
    let missing = || "a `[` without `]`".to_owned();
    characters.next_if_eq(&'^');
    let mut before: Option<char> = None;
    let mut is_first = true;
    loop {
        let character = characters.next().ok_or_else(missing)?;
        if character == ']' && !is_first {
            return Ok(());
        }
        is_first = false;
        if character == '[' && characters.next_if_eq(&':').is_some() {
            // A class such as [:alpha:].
            while characters.next().ok_or_else(missing)? != ':' || characters.peek() != Some(&']') {}
            characters.next();
            before = None;
        } else if character == '-' && characters.peek().is_some_and(|next| *next != ']') {
            let Some(from) = before.take() else { continue };
            let to = characters.next().ok_or_else(missing)?;
            if from > to {
                return Err(format!("the range {from}-{to} runs backwards"));
            }
        } else {
            before = Some(character);
        }
    }
}

/// What follows `{`, up to and with `}`.
fn repetition(characters: &mut Peekable<Chars<'_>>) -> Result<(), String> {
    let wrong = || "`{` begins a count such as {2} or {1,3}; write \\{ for the character".to_owned();
    let inner: String = characters.by_ref().take_while(|character| *character != '}').collect();
    let (least, most) = inner.split_once(',').unwrap_or((&inner, &inner));
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let least = number(least)?;
    if most.is_empty() || least <= number(most)? { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_patterns() {
        for right in ["orders", "a.b_c-1", "^clicks-.*", "^(a|b)+[0-9]{2,4}$", "^[]a-z[:digit:]-]+", "^a{2,}", "^a\\.b"]
        {
            check(right).unwrap();
        }
        let wrong = |text: &str| check(text).unwrap_err();
        assert_eq!(
            wrong("clicks-*"),
            "\"clicks-*\" cannot be a topic: expected 1 to 249 letters, digits, `.`, `_` and `-`, or a pattern that \
             begins with ^, such as ^orders-.*"
        );
        assert!(wrong("..").contains("cannot be a topic") && wrong("").contains("cannot be a topic"));
        assert_eq!(wrong("^a(b"), "the pattern \"^a(b\" cannot be used: a `(` without `)`");
        assert_eq!(wrong("^a)b"), "the pattern \"^a)b\" cannot be used: a `)` without `(`");
        assert_eq!(wrong("^[a"), "the pattern \"^[a\" cannot be used: a `[` without `]`");
        assert_eq!(wrong("^[z-a]"), "the pattern \"^[z-a]\" cannot be used: the range z-a runs backwards");
        assert!(wrong("^*").contains("`*` has nothing to repeat; `.*` stands for any text"));
        assert!(wrong("^a\\").contains("it ends with a backslash"));
        assert!(wrong("^a\\d+").contains("POSIX has no \\d; write [0-9] or [^0-9]"));
        assert!(wrong("^(?i)a").contains("POSIX has no `(?`"));
        for count in ["^a{", "^a{x}", "^a{3,1}", "^a{}", "^a{99999}"] {
            assert!(wrong(count).contains("begins a count"), "{count}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\^?\\PC{0,30}|\\^[\\[\\](){}:^*+?|,0-9a-]{0,30}") {
            let _ = check(&text);
        }
    }
}
