//! The servers themselves.

use std::time::Duration;

use fs_data_sink_tests::services::{
    kafka::{Kafka, NewRecord},
    proxy::{Mode, Proxy},
    s3::S3,
};
use fs_data_sink_tests::wait::{self, Look};

/// Scenario: a broker is made, filled, killed, started again, frozen, thawed, and stopped.
/// Guarantees: the other tests stand on a broker that does what it says: records stay, ports stay, offsets count.
#[test]
fn a_broker_keeps_its_data_and_ports() -> anyhow::Result<()> {
    let kafka = Kafka::start()?;
    kafka.create_topic("t", 4)?;
    let records = (0..1_000_i32).map(|number| NewRecord {
        partition: number % 4,
        value: Some(number.to_string().into_bytes()),
        headers: vec![("n".to_owned(), vec![1, 2])],
        ..NewRecord::default()
    });
    assert_eq!(kafka.produce("t", records)?, 1_000);
    let ends = kafka.end_offsets("t")?;
    assert_eq!(ends.values().sum::<i64>(), 1_000);
    let bootstrap = kafka.bootstrap().to_owned();
    kafka.kill()?;
    kafka.start_again()?;
    kafka.freeze()?;
    std::thread::sleep(Duration::from_millis(300));
    kafka.thaw()?;
    kafka.stop()?;
    kafka.start_again()?;
    assert_eq!((kafka.bootstrap(), kafka.end_offsets("t")?), (bootstrap.as_str(), ends));
    assert!(kafka.group_offsets("nobody", "t")?.is_empty());
    Ok(())
}

/// Scenario: an object goes to a real S3 server.
/// Guarantees: listing and reading give back what was put, so that what a test finds missing is missing.
#[test]
fn an_object_comes_back() -> anyhow::Result<()> {
    let s3 = S3::start()?;
    s3.put("a/b.txt", b"hello".to_vec())?;
    assert_eq!((s3.list("a")?, s3.get("a/b.txt")?), (vec!["a/b.txt".to_owned()], b"hello".to_vec()));
    let proxy = Proxy::start(&s3.access().endpoint)?;
    let through = S3::at(s3.access().through(&proxy.endpoint()))?;
    assert_eq!(through.get("a/b.txt")?, b"hello");
    proxy.set(Mode::Unavailable);
    // A connection that was kept is cut first; the next one is answered.
    wait::until("a client of S3 to see the fault", Duration::from_secs(10), || {
        let said = through.get("a/b.txt").map_or_else(|error| format!("{error:?}"), |_| "an object".to_owned());
        Ok(Look::when(said.contains("503"), said))
    })
}
