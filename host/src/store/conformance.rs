//! What every store must do, whatever is behind it: one suite, run over each of them with a root of its own.
//!
//! Over memory and a local folder it runs with the unit tests, over S3, HDFS and WebHDFS with the end-to-end tests.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};

use super::{StagedFile, Staging, Store};

/// Size of the large file: two whole parts and a piece.
const LARGE: usize = 20 << 20;

/// A name with what Hive escapes, and with what it does not.
const HIVE_NAME: &str = "orders/country=D%2FE/at=10%3A30/größe é.parquet";

/// Writers of the race.
const RACERS: usize = 20;

/// Runs the whole suite; the store's root must be empty.
pub async fn conform(store: &Store) -> Result<()> {
    store.check().await.map_err(|error| anyhow::anyhow!(error.full_message())).context("check")?;
    files_become_visible_whole(store).await.context("files become visible whole")?;
    another_file_is_not_replaced(store).await.context("another file is not replaced")?;
    what_is_given_up_leaves_nothing(store).await.context("what is given up leaves nothing")?;
    one_creator_wins(store).await.context("one creator wins")?;
    listing_is_exact(store).await.context("listing is exact")?;
    what_is_missing_is_told(store).await.context("what is missing is told")?;
    let left = names(store, "_fs_data_sink").await?;
    ensure!(left.is_empty(), "left behind in our folder: {left:?}");
    Ok(())
}

/// Scenario: files of 20 MiB, of 3 bytes and of none are staged, and published twice.
/// Guarantees: no `.parquet` before publish; every byte after; repeating is harmless; ranges and escapes are kept.
async fn files_become_visible_whole(store: &Store) -> Result<()> {
    let large: Vec<u8> = (0..LARGE).map(|index| u8::try_from(index % 251).unwrap_or_default()).collect();
    let contents: [(&str, &[u8]); 3] =
        [(HIVE_NAME, &large), ("orders/small.parquet", b"abc"), ("orders/deep/er/empty.parquet", b"")];
    let mut staged = Vec::new();
    for (name, bytes) in contents {
        staged.push(stage(store, name, bytes).await?);
    }
    let visible = names(store, "").await?;
    ensure!(!visible.iter().any(|name| name.ends_with(".parquet")), "visible too early: {visible:?}");
    for file in staged.iter().chain(&staged) {
        store.publish(file).await.map_err(|error| anyhow::anyhow!(error.full_message()))?;
    }
    for (name, bytes) in contents {
        let path = store.full_path(&Path::parse(name)?);
        let objects = &store.0.objects;
        let meta = objects.head(&path).await?;
        ensure!(meta.size == bytes.len() as u64, "{name} has {} bytes", meta.size);
        let age = chrono::Utc::now().signed_duration_since(meta.last_modified).abs();
        ensure!(age < chrono::TimeDelta::minutes(10), "{name} was changed at {}", meta.last_modified);
        ensure!(objects.get(&path).await?.bytes().await? == bytes, "{name} has other bytes");
    }
    let path = store.full_path(&Path::parse(HIVE_NAME)?);
    for (from, to) in [(0, 1), (8 << 20, (8 << 20) + 5), (LARGE - 7, LARGE)] {
        let part = store.0.objects.get_range(&path, from as u64..to as u64).await?;
        ensure!(Some(&*part) == large.get(from..to), "other bytes from {from} to {to}");
    }
    let visible = names(store, "orders").await?;
    let mut wanted: Vec<_> = contents.iter().map(|(name, _)| (*name).to_owned()).collect();
    wanted.sort();
    ensure!(visible == wanted, "other files than published: {visible:?}");
    Ok(())
}

/// Scenario: a file of somebody else lies where one is to be published.
/// Guarantees: it stays. On S3 names are unique, and small files are put in one request that cannot ask.
async fn another_file_is_not_replaced(store: &Store) -> Result<()> {
    let name = "taken/a.parquet";
    let path = store.full_path(&Path::parse(name)?);
    if !matches!(store.0.staging, Staging::Multipart(_)) {
        store.0.objects.put(&path, "of somebody else".into()).await?;
        let staged = stage(store, name, b"abc").await?;
        let Err(error) = store.publish(&staged).await else { anyhow::bail!("published over another file") };
        ensure!(error.full_message().contains(name), "the file is not named: {}", error.full_message());
        store.abort(&staged).await;
        let there = store.0.objects.get(&path).await?.bytes().await?;
        ensure!(there == b"of somebody else"[..], "another file was replaced");
    }
    // A plain put does replace.
    store.0.objects.put(&path, "first".into()).await?;
    store.0.objects.put(&path, "second".into()).await?;
    ensure!(store.0.objects.get(&path).await?.bytes().await? == b"second"[..], "a put did not replace");
    Ok(())
}

/// Scenario: a file is given up while it is written, and one when it is whole.
/// Guarantees: neither can be published or seen, and nothing stays (see the end of the suite).
async fn what_is_given_up_leaves_nothing(store: &Store) -> Result<()> {
    let mut writer = store.stage(Path::parse("orders/c.parquet")?);
    writer.write(Bytes::from(vec![1; 9 << 20])).await?;
    writer.write(Bytes::from(vec![2; 9 << 20])).await?;
    writer.abort().await;
    let staged = stage(store, "orders/d.parquet", &vec![3; 9 << 20]).await?;
    store.abort(&staged).await;
    if !matches!(&store.0.staging, Staging::Multipart(handle) if !handle.gives_up) {
        ensure!(store.publish(&staged).await.is_err(), "a file that was given up was published");
    }
    let visible = names(store, "orders").await?;
    ensure!(!visible.iter().any(|name| name.contains("/c.") || name.contains("/d.")), "visible: {visible:?}");
    Ok(())
}

/// Scenario: 20 writers create the same object at once, each with its own content; then one more tries.
/// Guarantees: one succeeds, the others hear `AlreadyExists`, and the content is the winner's.
async fn one_creator_wins(store: &Store) -> Result<()> {
    let path = store.full_path(&store.own_name("ledger/00000001.json"));
    let create = |number: usize| {
        let (objects, path) = (std::sync::Arc::clone(&store.0.objects), path.clone());
        async move {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            (number, objects.put_opts(&path, number.to_string().into(), options).await)
        }
    };
    let answers: Vec<_> = futures::stream::iter((0..RACERS).map(create)).buffer_unordered(RACERS).collect().await;
    let mut winners = Vec::new();
    for (number, answer) in answers.into_iter().chain([create(RACERS).await]) {
        match answer {
            Ok(_) => winners.push(number),
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error).context("a loser heard something else"),
        }
    }
    ensure!(winners.len() == 1, "{} writers won", winners.len());
    let content = store.0.objects.get(&path).await?.bytes().await?;
    ensure!(winners.iter().all(|number| content == number.to_string()), "the content is not the winner's");
    let there = names(store, "_fs_data_sink").await?;
    ensure!(there.len() == 1, "losers left something: {there:?}");
    store.0.objects.delete(&path).await?;
    Ok(())
}

/// Scenario: folders with similar names, folders in folders, and one with more files than the test's HDFS gives in one answer.
/// Guarantees: a prefix means whole folders; each file is listed once, with its length; no folder is a file.
async fn listing_is_exact(store: &Store) -> Result<()> {
    let mut wanted = BTreeMap::new();
    for number in 0..60usize {
        let folder = if number < 30 { number } else { 0 };
        let name = format!("list/{}/{}/{number}.parquet", folder % 3, folder % 2);
        store.0.objects.put(&store.full_path(&Path::parse(&name)?), vec![0; number].into()).await?;
        wanted.insert(name, number as u64);
    }
    store.0.objects.put(&store.full_path(&Path::parse("list-2/x.parquet")?), "x".into()).await?;
    let listed = lengths(store, "list").await?;
    ensure!(listed == wanted, "listed {listed:?}");
    let one = store.0.objects.list_with_delimiter(Some(&store.full_path(&Path::parse("list")?))).await?;
    ensure!(one.objects.is_empty() && one.common_prefixes.len() == 3, "one level: {one:?}");
    ensure!(lengths(store, "no/such/folder").await?.is_empty(), "a folder that is not there is not empty");
    Ok(())
}

/// Scenario: an object is removed; others were never there.
/// Guarantees: reading says `NotFound`, so that it is not mistaken for a server that is away.
async fn what_is_missing_is_told(store: &Store) -> Result<()> {
    let path = store.full_path(&Path::parse("gone/a.json")?);
    store.0.objects.put(&path, "x".into()).await?;
    store.0.objects.delete(&path).await?;
    for missing in [path, store.full_path(&Path::parse("never/a.json")?)] {
        ensure!(matches!(store.0.objects.head(&missing).await, Err(Error::NotFound { .. })), "head of {missing}");
        ensure!(matches!(store.0.objects.get(&missing).await, Err(Error::NotFound { .. })), "get of {missing}");
    }
    Ok(())
}

/// A whole staged file.
async fn stage(store: &Store, name: &str, bytes: &[u8]) -> Result<StagedFile> {
    let mut writer = store.stage(Path::parse(name)?);
    for chunk in bytes.chunks(1 << 20) {
        writer.write(Bytes::copy_from_slice(chunk)).await?;
    }
    let staged = writer.finish().await.map_err(|error| anyhow::anyhow!(error.full_message()))?;
    ensure!(staged.bytes == bytes.len() as u64 && staged.path.as_ref() == name, "{staged:?}");
    Ok(staged)
}

/// Every file in a folder, below the root, with its length.
async fn lengths(store: &Store, folder: &str) -> Result<BTreeMap<String, u64>> {
    let root = store.0.root.clone();
    let folder = store.full_path(&Path::parse(folder)?);
    let listed: Vec<_> = store.0.objects.list(Some(&folder)).try_collect().await?;
    let mut found = BTreeMap::new();
    for object in listed {
        let name = object.location.as_ref().strip_prefix(root.as_ref()).unwrap_or_default().trim_start_matches('/');
        let before = found.insert(name.to_owned(), object.size);
        ensure!(before.is_none(), "{name} is listed twice");
    }
    Ok(found)
}

/// The names alone, sorted.
async fn names(store: &Store, folder: &str) -> Result<Vec<String>> {
    Ok(lengths(store, folder).await?.into_keys().collect())
}
