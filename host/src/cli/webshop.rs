//! Believable web-shop events as JSON, for the demo and for benchmarks: about 300 bytes each, several types, a nested
//! device, lists, nulls. The same seed and number always give the same event.

use std::fmt::Write as _;

/// User agents of real browsers, phones and crawlers.
const USER_AGENTS: [&str; 10] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
];

/// Countries, the first ones more often.
const COUNTRIES: [&str; 12] = ["DE", "US", "FR", "GB", "DE", "US", "NL", "JP", "BR", "IN", "ES", "SE"];

/// Kinds of events, page views more often.
const KINDS: [&str; 8] =
    ["page_view", "page_view", "page_view", "page_view", "search", "add_to_cart", "add_to_cart", "purchase"];

/// 2026-11-01T00:00:00Z.
const START_S: u64 = 1_793_491_200;

/// Makes events.
#[derive(Clone, Copy, Debug)]
pub struct WebShop {
    /// Every so many events one is malformed; 0 is never.
    pub malformed_every: u64,
    /// Whether the user agent is there, which is half of the bytes.
    pub user_agent: bool,
}

impl WebShop {
    /// Writes event `number` into a buffer that is cleared first.
    pub fn event(&self, number: u64, text: &mut String) {
        text.clear();
        let random = mix(number);
        if self.malformed_every > 0 && mix(random).is_multiple_of(self.malformed_every) {
            malformed(number, random, text);
            return;
        }
        let pick = |shift: u32, count: usize| usize::try_from((random >> shift) % count as u64).unwrap_or(0);
        let country = COUNTRIES.get(pick(0, COUNTRIES.len())).copied().unwrap_or("DE");
        let kind = KINDS.get(pick(8, KINDS.len())).copied().unwrap_or("page_view");
        let (seconds, millis) = (START_S + number / 40, number % 40 * 25);
        let time = chrono::DateTime::from_timestamp(i64::try_from(seconds).unwrap_or(0), 0).unwrap_or_default();
        let product = random >> 20 & 0xffff;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"{{"id":{number},"type":"{kind}","user":"u{:07}","session":"{:016x}","country":"{country}","ts":"{}.{millis:03}Z","url":"/p/{product}?ref={}","#,
            random >> 12 & 0xf_ffff,
            mix(random),
            time.format("%Y-%m-%dT%H:%M:%S"),
            pick(40, 1_000),
        );
        match kind {
            "purchase" | "add_to_cart" => {
                let _ =
                    write!(text, r#""amount":{}.{:02},"quantity":{},"#, pick(30, 300), pick(34, 100), 1 + pick(50, 5));
            }
            _ => text.push_str(r#""amount":null,"quantity":0,"#),
        }
        let (width, height) =
            [(1920, 1080), (390, 844), (1440, 900), (412, 915)].get(pick(16, 4)).copied().unwrap_or((1920, 1080));
        let language = ["de", "en", "fr", "ja"].get(pick(18, 4)).copied().unwrap_or("en");
        let _ = write!(
            text,
            r#""tags":["t{}","t{}"],"device":{{"width":{width},"height":{height},"language":"{language}"}}"#,
            pick(22, 50),
            pick(28, 50)
        );
        if self.user_agent {
            let agent = USER_AGENTS.get(pick(44, USER_AGENTS.len())).copied().unwrap_or_default();
            let _ = write!(text, r#","user_agent":"{agent}""#);
        }
        text.push('}');
    }
}

/// A record that cannot be decoded, of several kinds.
fn malformed(number: u64, random: u64, text: &mut String) {
    let _ = match random % 4 {
        0 => write!(text, r#"{{"id":{number},"type":"page_vi"#),
        1 => write!(text, r#"{{"id":"{number}","country":"DE"}}"#),
        2 => write!(text, "GET /health HTTP/1.1"),
        _ => write!(text, r#"{{"id":{number},"id":{number}}}"#),
    };
}

/// A well mixed number (splitmix64).
fn mix(number: u64) -> u64 {
    let mut value = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_json_and_every_so_many_one_is_not_usable() {
        let shop = WebShop { malformed_every: 500, user_agent: true };
        let (mut text, mut bytes, mut usable) = (String::new(), 0, 0);
        for number in 0..1_000 {
            shop.event(number, &mut text);
            bytes += text.len();
            let parsed = serde_json::from_str::<serde_json::Value>(&text);
            if let Ok(event) = parsed {
                assert!(event["id"] == number || event["id"].is_string(), "{text}");
                usable += u64::from(event["type"].is_string());
            }
        }
        assert!((980..1_000).contains(&usable), "{usable}");
        assert!((300..450).contains(&(bytes / 1_000)), "{}", bytes / 1_000);
    }
}
