//! The smallest HTTP client that can ask a page on loopback.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::Context as _;

/// A page on loopback answers at once or not at all.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Asks `host:port` for a path: the status and the body.
pub fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    text(address, path, &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"))
}

/// Sends JSON to a path of `host:port`: the status and the body.
pub fn post(address: &str, path: &str, json: &str) -> anyhow::Result<(u16, String)> {
    let head = format!("POST {path} HTTP/1.0\r\nhost: {address}\r\ncontent-type: application/json\r\n");
    text(address, path, &format!("{head}content-length: {}\r\n\r\n{json}", json.len()))
}

/// Sends a request: the status and the body of the answer.
fn text(address: &str, path: &str, request: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("nobody listens on {address}"))?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("{address}{path} does not answer"))?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("not HTTP: {answer}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}

/// An answer with its bytes.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Where a redirect leads to.
    pub location: Option<String>,
    /// The bytes.
    pub body: Vec<u8>,
}

/// Asks `host:port` for a path by any method without a body. Speaks HTTP 1.0, so that the answer comes in one piece.
pub fn ask(method: &str, address: &str, path: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("nobody listens on {address}"))?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nhost: {address}\r\ncontent-length: 0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("{address} does not answer"))?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("not HTTP")?;
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
    };
    Ok(Answer { status, location: head.lines().find_map(header), body: answer.split_off(end + 4) })
}

/// The sum of all series of a metric on a Prometheus page; `None` where it has none.
#[must_use]
pub fn metric(page: &str, name: &str) -> Option<f64> {
    let series = page
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' ')));
    let values: Vec<f64> = series.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_and_names_are_whole() {
        let page = "# TYPE a counter\na{x=\"1\"} 2\na{x=\"2\"} 3.5\nab 7\n";
        assert_eq!((metric(page, "a"), metric(page, "ab"), metric(page, "b")), (Some(5.5), Some(7.0), None));
    }
}
