//! More directories than files may be open.

use super::*;

/// Writes one row to each of some directories in one call, and covers as many offsets.
async fn scatter(fixture: &mut Fixture, from: i64, to: i64, directories: i64) {
    fixture.generation.cover(&covered("orders", from, to)).unwrap();
    let all = rows(from, to);
    let part = |row: i64| {
        let at = usize::try_from(row - from).unwrap();
        (Arc::from(format!("key={}", row % directories)), all.slice(at, 1))
    };
    fixture.generation.write("orders", (from..to).map(part).collect()).await.unwrap();
}

#[tokio::test]
async fn no_more_files_are_open_than_allowed_and_each_directory_has_one_file() {
    let mut wishes = Wishes::usual();
    wishes.run.open_files_max = 3;
    let mut fixture = wishes.open();
    for round in 0..3 {
        for directory in 0..5 {
            let from = (round * 5 + directory) * 5000;
            fixture.batch("orders", &format!("d={directory}"), &rows(from, from + 5000), from).await;
            assert!(fixture.generation.open_files.len() <= 3);
        }
    }
    assert_eq!((fixture.generation.open_files.len(), fixture.generation.files.len()), (3, 0));
    let paths = fixture.publish().await;
    assert_eq!(paths.len(), 5);
    assert!(paths.iter().all(|path| fixture.ids(path).len() == 15_000));
}

#[tokio::test]
async fn two_thousand_directories_have_one_file_each_and_every_row() {
    let mut wishes = Wishes::usual();
    wishes.run.open_files_max = 16;
    let mut fixture = wishes.open();
    let budget = fixture.generation.context.budget.clone();
    for batch in 0..20 {
        scatter(&mut fixture, batch * 400, batch * 400 + 400, 2000).await;
        assert_eq!((fixture.generation.open_files.len(), fixture.generation.files.len()), (0, 0));
    }
    let held = budget.used_bytes();
    assert!(held > rows(0, 8000).get_array_memory_size(), "what waits is not counted: {held}");
    let paths = fixture.publish().await;
    assert_eq!((paths.len(), budget.used_bytes()), (2000, 0));
    for path in paths {
        let key: i64 = path.split(['=', '/']).nth(2).unwrap().parse().unwrap();
        assert_eq!(fixture.ids(&path), [key, key + 2000, key + 4000, key + 6000], "{path}");
    }
}

#[tokio::test]
async fn a_directory_gets_an_open_file_once_it_has_many_rows() {
    let mut fixture = Wishes::usual().open();
    for batch in 0..30 {
        scatter(&mut fixture, batch * 400, batch * 400 + 400, 10).await;
        let many = (batch + 1) * 40 >= 1024;
        assert_eq!(fixture.generation.open_files.len(), if many { 10 } else { 0 }, "batch {batch}");
    }
    assert_eq!(fixture.publish().await.len(), 10);
}

#[tokio::test]
async fn rows_that_wait_are_written_once_they_fill_a_file() {
    let mut wishes = Wishes::usual();
    wishes.run.open_files_max = 1;
    wishes.run.target_file_rows = Some(100);
    let mut fixture = wishes.open();
    fixture.batch("orders", "d=0", &rows(0, 2000), 0).await;
    for batch in 0..10 {
        let from = 2000 + batch * 30;
        fixture.batch("orders", "d=1", &rows(from, from + 30), from).await;
    }
    assert!(fixture.generation.open_files.len() <= 1);
    let paths = fixture.publish().await;
    let sizes: Vec<_> = paths.iter().map(|path| fixture.ids(path).len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 2300);
    assert_eq!(sizes.iter().filter(|size| **size == 120).count(), 2, "{sizes:?}");
}

#[tokio::test]
async fn many_directories_end_a_generation() {
    let mut fixture = Wishes::usual().open();
    for batch in 0..9 {
        assert!(!fixture.generation.is_due(), "batch {batch}");
        scatter(&mut fixture, batch * 2000, batch * 2000 + 2000, 1_000_000).await;
    }
    assert!(fixture.generation.is_due());
    fixture.generation.abandon().await;
}
