//! Row groups whose rows are sorted.

use super::*;
use crate::config::SortColumn;

/// Wishes with an order: countries, each with its largest id first.
fn wishes() -> Wishes {
    let mut wishes = Wishes::usual();
    let column = |column: &str, descending| SortColumn { column: column.to_owned(), descending, nulls_first: false };
    wishes.parquet.sort_by = vec![column("country", false), column("id", true)];
    wishes
}

/// Country and id of each row.
fn pairs(rows: &RecordBatch) -> Vec<(String, i64)> {
    let countries = rows.column_by_name("country").unwrap().as_string::<i32>().iter().flatten();
    let ids = rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().values();
    countries.map(str::to_owned).zip(ids.iter().copied()).collect()
}

/// Whether the rows of each row group are sorted, and all of them are `0..count`.
fn check(fixture: &Fixture, paths: &[String], count: i64) -> Vec<usize> {
    let (mut ids, mut groups) = (Vec::new(), Vec::new());
    for path in paths {
        let (rows, metadata) = fixture.read(path);
        let mut from = 0;
        for group in metadata.row_groups() {
            let length = usize::try_from(group.num_rows()).unwrap();
            let found = pairs(&rows.slice(from, length));
            assert!(found.is_sorted_by_key(|(country, id)| (country.clone(), -id)), "{path}: rows from {from} on");
            let said = group.sorting_columns().unwrap();
            assert_eq!(
                said.iter().map(|column| (column.column_idx, column.descending)).collect::<Vec<_>>(),
                [(1, false), (0, true)]
            );
            ids.extend(found.into_iter().map(|(_, id)| id));
            groups.push(length);
            from += length;
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..count).collect::<Vec<_>>());
    groups
}

#[tokio::test]
async fn rows_of_each_row_group_are_sorted_and_the_file_says_so() {
    let mut wishes = wishes();
    wishes.parquet.row_group_rows = 2_500;
    let mut fixture = wishes.open();
    for from in [0, 2_000, 4_000] {
        fixture.batch("orders", "", &rows(from, from + 2_000), from).await;
    }
    // Too few for a file of their own: they waited, and their copies are sorted too.
    fixture.batch("orders", "d=1", &rows(6_000, 6_010), 6_000).await;
    let paths = fixture.publish().await;
    assert_eq!(check(&fixture, &paths, 6_010), [10, 2_500, 2_500, 1_000]);
}

#[tokio::test]
async fn files_of_sorted_rows_have_about_the_size_that_is_wanted() {
    let mut wishes = wishes();
    wishes.run.target_file_size_bytes = 500_000;
    let mut fixture = wishes.open();
    for from in (0..60_000).step_by(2_000) {
        fixture.batch("orders", "", &rows(from, from + 2_000), from).await;
        assert!(fixture.generation.progress.held_bytes > 0);
    }
    let paths = fixture.publish().await;
    check(&fixture, &paths, 60_000);
    let sizes: Vec<u64> =
        paths.iter().map(|path| std::fs::metadata(fixture.folder.path().join(path)).unwrap().len()).collect();
    let (_last, full) = sizes.split_last().unwrap();
    assert!(full.len() > 1 && full.iter().all(|size| (250_000..1_000_000).contains(size)), "{sizes:?}");
}

#[tokio::test]
async fn rows_that_wait_to_be_sorted_are_counted_and_let_go_when_memory_is_short() {
    let mut wishes = wishes();
    wishes.run.memory_bytes = 16 << 20;
    let mut fixture = wishes.open();
    let mut most = 0;
    for from in (0..600_000).step_by(20_000) {
        fixture.batch("orders", "", &rows(from, from + 20_000), from).await;
        most = most.max(fixture.generation.context.budget.used_bytes());
    }
    assert!(most < 16 << 20, "{most} bytes");
    let paths = fixture.publish().await;
    assert!(check(&fixture, &paths, 600_000).len() > 1);
}
