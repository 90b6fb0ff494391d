//! Everything else that a plugin may try.

use std::{
    fs,
    hint::black_box,
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs, UdpSocket},
    time::Duration,
};

use serde_json::Value;

use crate::{
    answer::{list, number, output, payload, text},
    bindings::{
        exports::fs_data_sink::plugin::transform::{Batch, BatchInfo, Error, Output, Payload},
        fs_data_sink::plugin::{
            metrics,
            types::{Rejection, Selection},
        },
        wasi::{
            config::store,
            logging::logging::{Level, log},
        },
    },
    keep_all,
};

/// Crimes in `open`.
pub(crate) fn in_open(config: &Value) -> Result<(), Error> {
    match text(config, "crime") {
        "loop-in-open" => spin(),
        "trap-in-open" => trap(),
        "invalid-config" => Err(Error::InvalidConfig("`keep` must not be empty".to_owned())),
        "unsupported-schema" => Err(Error::UnsupportedSchema("no column `user_agent`".to_owned())),
        _ => Ok(()),
    }
}

/// Crimes in `flush`.
pub(crate) fn in_flush(config: &Value) -> Result<Payload, Error> {
    match text(config, "crime") {
        "loop-in-flush" => spin(),
        "trap-in-flush" => trap(),
        "answer-in-flush" => Ok(payload(config)),
        _ => Ok(Payload::Unchanged),
    }
}

/// Crimes in `close`.
pub(crate) fn in_close(config: &Value) {
    match text(config, "crime") {
        "loop-in-close" => spin(),
        "trap-in-close" => trap(),
        _ => {}
    }
}

/// Crimes in `process`.
pub(crate) fn in_process(config: &Value, input: &Batch, info: &BatchInfo) -> Result<Output, Error> {
    match text(config, "crime") {
        "answer" => return Ok(output(config)),
        "loop-in-process" => spin(),
        "sleep-in-process" => std::thread::sleep(Duration::from_hours(1)),
        "fill-memory-for-ever" => fill_for_ever(),
        "allocate-for-ever" => allocate_for_ever(),
        "trap" => trap_as(text(config, "how")),
        "trap-once" if info.attempt == 1 => trap(),
        "trap-on-batch" if info.sequence == u64::from(number(config, "batch")) => trap(),
        "trap-up-to" if is_before(config, info) => trap(),
        "trap-on-rows" if has_one_of(input, config)? => trap(),
        "loop-on-rows" if has_one_of(input, config)? => spin(),
        "fail-on-rows" if has_one_of(input, config)? => {
            return Err(Error::Failed("a row that it cannot take".to_owned()));
        }
        // What it leaves alone it may still refuse by its own words.
        "trap-on-rows" | "reject-rows" => return reject(input, &integers_of(config, "unwanted")),
        "reject-every-row" => return reject(input, &integers(input, 0)?),
        "answer-from-batch" if info.sequence >= u64::from(number(config, "batch")) => return Ok(output(config)),
        "retryable" if info.attempt <= number(config, "times") => {
            return Err(Error::Retryable(("the table is not there yet".to_owned(), Some(1))));
        }
        "failed" => return Err(Error::Failed("this batch can never be processed".to_owned())),
        "other" => return Err(Error::Other(("too-cold".to_owned(), "below zero".to_owned()))),
        "long-error" => return Err(Error::Failed("long \u{1b}[31m".repeat(number(config, "times") as usize))),
        "read-for-ever" => loop {
            black_box(input.read(None).is_ok());
        },
        "read-column-twice" => drop(black_box(input.read(Some(&[0, 0])))),
        "keep-even" => return keep_even(input, number(config, "column")),
        "log-for-ever" => (0..number(config, "times")).for_each(|_| log(Level::Info, "crime", &"x".repeat(1000))),
        "huge-log-line" => log(Level::Info, "crime", &"x".repeat(number(config, "bytes") as usize)),
        "many-metrics" => many_metrics(number(config, "times")),
        "print-for-ever" => print(number(config, "times")),
        "panic-with-words" => panic_with(text(config, "words")),
        "look-around" => return Err(Error::Failed(look_around())),
        _ => {}
    }
    Ok(keep_all())
}

/// Whether a batch is one of those that the config names, and a try of it comes before that one.
fn is_before(config: &Value, info: &BatchInfo) -> bool {
    let batches = u64::from(number(config, "from"))..=u64::from(number(config, "batch"));
    batches.contains(&info.sequence) && info.attempt < number(config, "attempt")
}

/// Whether the batch has a row whose first column, an integer, is one of `values`.
fn has_one_of(input: &Batch, config: &Value) -> Result<bool, Error> {
    let values = integers_of(config, "values");
    Ok(integers(input, 0)?.iter().any(|value| values.contains(value)))
}

/// Refuses the rows whose first column is one of these, each for a reason of its own, and keeps the others.
fn reject(input: &Batch, unwanted: &[i64]) -> Result<Output, Error> {
    let rows = (0_u32..).zip(integers(input, 0)?);
    let rejected = rows.filter(|(_, value)| unwanted.contains(value)).map(|(row, value)| Rejection {
        code: "unwanted".to_owned(),
        message: format!("{value} is not wanted"),
        rows: vec![row],
    });
    Ok(Output { rejected: rejected.collect(), ..keep_all() })
}

/// A list of integers in the config.
fn integers_of(config: &Value, key: &str) -> Vec<i64> {
    list(config, key).iter().filter_map(Value::as_i64).collect()
}

/// A column of 64-bit integers.
fn integers(input: &Batch, position: u32) -> Result<Vec<i64>, Error> {
    let column = input.read_column(position).map_err(|error| Error::Failed(format!("{error:?}")))?;
    Ok(column.data.as_chunks::<8>().0.iter().map(|value| i64::from_le_bytes(*value)).collect())
}

/// Never returns.
fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Bulk operations, which check the epoch only between instructions.
fn fill_for_ever() -> ! {
    let mut memory = vec![0_u8; 32 << 20];
    let mut value = 0_u8;
    loop {
        memory.fill(value);
        value = black_box(&memory).first().copied().unwrap_or(0).wrapping_add(1);
    }
}

/// Keeps all memory that it gets.
fn allocate_for_ever() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![1_u8; 1 << 20]);
        black_box(&kept);
    }
}

/// `unreachable`.
fn trap() -> ! {
    std::process::abort()
}

/// One of the ways to trap.
fn trap_as(how: &str) {
    match how {
        "out-of-bounds" => drop(black_box(far_read(black_box(usize::MAX - 64)))),
        "stack-overflow" => drop(black_box(recurse(black_box(0)))),
        "exit" => std::process::exit(7),
        _ => trap(),
    }
}

/// Reads at any address.
fn far_read(address: usize) -> u8 {
    #[expect(unsafe_code, reason = "the crime")]
    // SAFETY: none; this is the crime. In WebAssembly it traps.
    let byte = unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() };
    byte
}

/// Deeper and deeper.
#[expect(unconditional_recursion, reason = "the crime")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame.iter().sum::<u64>()
}

/// A panic whose words go to standard error; without WASI there is none, and they go to the log.
#[expect(clippy::panic, reason = "the crime")]
fn panic_with(words: &str) {
    panic!("{words}")
}

/// A healthy filter that reads one column of 64-bit integers as raw buffers.
fn keep_even(input: &Batch, position: u32) -> Result<Output, Error> {
    let values = integers(input, position)?;
    let mut bitmap = vec![0_u8; values.len().div_ceil(8)];
    for (row, value) in values.into_iter().enumerate() {
        if let (0, Some(byte)) = (value % 2, bitmap.get_mut(row / 8)) {
            *byte |= 1 << (row % 8);
        }
    }
    Ok(Output { keep: Selection::Bitmap(bitmap), payload: Payload::Unchanged, rejected: Vec::new() })
}

/// Names without end.
fn many_metrics(times: u32) {
    for number in 0..times {
        metrics::count(&format!("name{number}"), 1);
        metrics::gauge(&format!("bad name {number}\n"), 1.0);
    }
}

/// Both streams, in lines and without an end of line.
fn print(times: u32) {
    let (mut out, mut error) = (std::io::stdout(), std::io::stderr());
    for _ in 0..times {
        // A host that refuses is as good as one that takes it.
        let _ = out.write_all(&[b'x'; 4096]);
        let _ = error.write_all(b"a line on standard error\n");
    }
}

/// What can be seen of the host.
fn look_around() -> String {
    let mut input = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut input);
    let seen = |seen: bool| if seen { "open" } else { "denied" };
    let secrets = store::get_all().map_or(0, |pairs| pairs.len());
    format!(
        "environment={} arguments={} input={} secrets={secrets} read={} list={} write={} tcp={} udp={} dns={}",
        // Without WASI there is no environment, and asking for one traps.
        if cfg!(target_os = "unknown") { 0 } else { std::env::vars().count() },
        std::env::args().count(),
        input.len(),
        seen(fs::read("/etc/passwd").is_ok()),
        seen(fs::read_dir("/").is_ok() || fs::read_dir(".").is_ok()),
        seen(fs::write("/tmp/hostile", "x").is_ok() || fs::write("hostile", "x").is_ok()),
        seen(TcpStream::connect("127.0.0.1:22").is_ok()),
        seen(UdpSocket::bind("127.0.0.1:0").is_ok()),
        seen("localhost:80".to_socket_addrs().is_ok()),
    )
}
