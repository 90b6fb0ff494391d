//! Which files are merged with which. Pure: whoever asks brings the clock.
//!
//! Comes in: the files of a sink as they are listed, and later what is known of each. Goes out: lists of files that become one.
//! Only files of one directory, one period and one schema are merged, in the order of their names; files of other programs
//! are not looked at.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Datelike as _, Days, Months, NaiveTime, TimeDelta, Timelike as _, Utc};

use super::{Candidate, SchemaId};
use crate::{config::MergePeriod, file::name, store::Path};

/// Most files that become one: their names take about 150 bytes each in one record of the ledger, and an interrupted merge
/// is begun anew.
const INPUTS_MAX: usize = 2_048;

/// What is merged.
#[derive(Clone, Copy, Debug)]
pub struct MergeRules {
    /// Files of the same period are merged.
    pub period: MergePeriod,
    /// Fewer are left as they are.
    pub files_min: usize,
    /// A merged file has at most about so many bytes, and a file of so many is left as it is.
    pub target_bytes: u64,
    /// A period is over when so much time has passed since its end: files that began in it come until then.
    pub settle: Duration,
    /// Whether the periods that are not over are merged too.
    pub is_running_too: bool,
}

/// Files that may be merged with each other, where their schemas agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Small files of one directory and one period, by name.
    pub files: Vec<Candidate>,
    /// Whether no more will come.
    pub is_over: bool,
}

impl MergeRules {
    /// Groups of enough files to be merged now.
    #[must_use]
    pub fn due(&self, listed: Vec<(Path, u64)>, now: DateTime<Utc>) -> Vec<Group> {
        let mut groups: BTreeMap<(String, DateTime<Utc>), Vec<Candidate>> = BTreeMap::new();
        for (path, bytes) in listed {
            let Some((directory, file_name)) = path.as_ref().rsplit_once('/') else { continue };
            if directory.starts_with("_fs_data_sink/") || bytes >= self.target_bytes {
                continue;
            }
            let Some(began) = name::began(file_name) else { continue };
            let key = (directory.to_owned(), start_of(self.period, began));
            groups.entry(key).or_default().push(Candidate { path, bytes });
        }
        let due = groups.into_iter().filter_map(|((_, start), mut files)| {
            let is_over = self.is_over(start, now);
            files.sort_by(|one, other| one.path.cmp(&other.path));
            (files.len() >= self.files_min && (is_over || self.is_running_too)).then_some(Group { files, is_over })
        });
        due.collect()
    }

    /// Splits a group into lists that become one file each. A file's number of bytes bounds what it adds to the merged one.
    ///
    /// While the period runs, more files come and are merged with what was merged before. There a list counts only when its
    /// largest file is no more than all others together, so that a row is written anew about as often as the number of files
    /// can be halved, and not with every merge.
    #[must_use]
    pub fn lists(&self, files: &[(Candidate, SchemaId)], is_over: bool) -> Vec<Vec<Candidate>> {
        let mut by_schema: BTreeMap<SchemaId, Vec<Vec<Candidate>>> = BTreeMap::new();
        for (file, schema) in files {
            let lists = by_schema.entry(*schema).or_default();
            let has_room = lists.last().is_some_and(|list| {
                list.len() < INPUTS_MAX
                    && list.iter().map(|file| file.bytes).sum::<u64>() + file.bytes <= self.target_bytes
            });
            match lists.last_mut() {
                Some(list) if has_room => list.push(file.clone()),
                _ => lists.push(vec![file.clone()]),
            }
        }
        let is_worth = |list: &Vec<Candidate>| {
            let all: u64 = list.iter().map(|file| file.bytes).sum();
            let largest = list.iter().map(|file| file.bytes).max().unwrap_or_default();
            list.len() >= self.files_min && (is_over || largest <= all - largest)
        };
        by_schema.into_values().flatten().filter(is_worth).collect()
    }

    /// Whether a period that began at a moment is over.
    fn is_over(&self, start: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let settle = TimeDelta::from_std(self.settle).unwrap_or(TimeDelta::MAX);
        end_of(self.period, start).checked_add_signed(settle).is_some_and(|over| over <= now)
    }

    /// When the period of a moment is over.
    #[must_use]
    pub fn next_over(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let settle = TimeDelta::from_std(self.settle).unwrap_or_default();
        // The period whose files may still come ends first.
        let waiting = now.checked_sub_signed(settle).unwrap_or(now);
        end_of(self.period, start_of(self.period, waiting)).checked_add_signed(settle).unwrap_or(now)
    }
}

/// The beginning of the period of a moment.
fn start_of(period: MergePeriod, moment: DateTime<Utc>) -> DateTime<Utc> {
    let hour = match period {
        MergePeriod::Hour => moment.hour(),
        MergePeriod::Day | MergePeriod::Week | MergePeriod::Month => 0,
    };
    let day = moment.date_naive();
    let first = match period {
        MergePeriod::Hour | MergePeriod::Day => Some(day),
        MergePeriod::Week => day.checked_sub_days(Days::new(u64::from(day.weekday().num_days_from_monday()))),
        MergePeriod::Month => day.with_day(1),
    };
    let time = NaiveTime::from_hms_opt(hour, 0, 0).unwrap_or_default();
    first.unwrap_or(day).and_time(time).and_utc()
}

/// The end of the period that begins at a moment, which is the beginning of the next one.
fn end_of(period: MergePeriod, start: DateTime<Utc>) -> DateTime<Utc> {
    let end = match period {
        MergePeriod::Hour => start.checked_add_signed(TimeDelta::hours(1)),
        MergePeriod::Day => start.checked_add_days(Days::new(1)),
        MergePeriod::Week => start.checked_add_days(Days::new(7)),
        MergePeriod::Month => start.checked_add_months(Months::new(1)),
    };
    end.unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hourly merges of at least two files to at most 100 bytes.
    const RULES: MergeRules = MergeRules {
        period: MergePeriod::Hour,
        files_min: 2,
        target_bytes: 100,
        settle: Duration::from_mins(1),
        is_running_too: false,
    };

    /// A moment of 2026-11-23, a Monday.
    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-23T{text}Z").parse().unwrap()
    }

    /// A file of 10 bytes, by its directory and the time in its name.
    fn file(directory: &str, time: &str) -> (Path, u64) {
        (Path::parse(format!("{directory}/20261123T{time}Z-l00-g000000-f00000-9f86d081.parquet")).unwrap(), 10)
    }

    /// The number of files of each group.
    fn sizes(rules: &MergeRules, listed: Vec<(Path, u64)>, now: &str) -> Vec<usize> {
        rules.due(listed, at(now)).iter().map(|group| group.files.len()).collect()
    }

    #[test]
    fn files_of_one_directory_and_one_period_that_is_over_are_merged() {
        let listed = || {
            vec![
                file("a/x=1", "130000"),
                file("a/x=1", "135959"),
                file("a/x=1", "140000"),
                file("a/x=1", "140100"),
                file("a/x=2", "130000"),
                file("b", "130000"),
                file("b", "133000"),
                file("b", "134000"),
            ]
        };
        assert_eq!(sizes(&RULES, listed(), "14:00:59"), [0; 0]);
        assert_eq!(sizes(&RULES, listed(), "14:01:00"), [2, 3]);
        assert_eq!(sizes(&RULES, listed(), "15:01:00"), [2, 2, 3]);
        assert_eq!(sizes(&MergeRules { is_running_too: true, ..RULES }, listed(), "14:00:00"), [2, 2, 3]);
        assert_eq!(sizes(&MergeRules { files_min: 3, ..RULES }, listed(), "15:01:00"), [3]);
        assert_eq!(sizes(&MergeRules { period: MergePeriod::Day, ..RULES }, listed(), "23:59:59"), [0; 0]);
    }

    #[test]
    fn files_that_are_large_or_not_ours_are_left_alone() {
        let strange = |name: &str| (Path::parse(name).unwrap(), 10);
        let mut listed = vec![file("a", "130000"), file("a", "130001")];
        listed.push((Path::parse("a/20261123T130002Z-l00-g000000-f00001-9f86d081.parquet").unwrap(), 100));
        listed.push(strange("a/data.parquet"));
        listed.push(strange("a/20261123T130002Z-part.parquet"));
        listed.push(strange("a/20261123T130002Z-l00-g000000-f00001-9f86d081.parquet.tmp"));
        listed.push(file("_fs_data_sink/p/dead_letters", "130000"));
        assert_eq!(sizes(&RULES, listed, "15:01:00"), [2]);
    }

    #[test]
    fn periods_begin_at_full_hours_midnights_mondays_and_firsts() {
        let moment = "2026-11-26T14:25:12Z".parse().unwrap();
        let of = |period| {
            let start = start_of(period, moment);
            (start.to_rfc3339(), end_of(period, start).to_rfc3339())
        };
        let both = |from: &str, to: &str| (format!("{from}:00:00+00:00"), format!("{to}:00:00+00:00"));
        assert_eq!(of(MergePeriod::Hour), both("2026-11-26T14", "2026-11-26T15"));
        assert_eq!(of(MergePeriod::Day), both("2026-11-26T00", "2026-11-27T00"));
        assert_eq!(of(MergePeriod::Week), both("2026-11-23T00", "2026-11-30T00"));
        assert_eq!(of(MergePeriod::Month), both("2026-11-01T00", "2026-12-01T00"));
        assert_eq!(RULES.next_over(at("14:00:30")), at("14:01:00"));
        assert_eq!(RULES.next_over(at("14:01:00")), at("15:01:00"));
    }

    /// The bytes of the files of each list.
    fn lists(rules: &MergeRules, bytes: &[(u64, u8)], is_over: bool) -> Vec<Vec<u64>> {
        let files: Vec<_> = bytes
            .iter()
            .map(|(bytes, schema)| (Candidate { path: Path::from("a"), bytes: *bytes }, [*schema; 16]))
            .collect();
        let lists = rules.lists(&files, is_over);
        lists.iter().map(|list| list.iter().map(|file| file.bytes).collect()).collect()
    }

    #[test]
    fn a_list_has_one_schema_and_at_most_the_target() {
        let none: Vec<Vec<u64>> = Vec::new();
        assert_eq!(lists(&RULES, &[(10, 1), (20, 2), (30, 1), (40, 3)], true), [[10, 30]]);
        assert_eq!(lists(&RULES, &[(60, 1), (40, 1), (1, 1), (99, 1), (1, 1)], true), [[60, 40], [1, 99]]);
        assert_eq!(lists(&RULES, &[(60, 1), (60, 1), (60, 1)], true), none);
        assert_eq!(lists(&MergeRules { files_min: 3, ..RULES }, &[(1, 1), (1, 1)], true), none);
        assert_eq!(
            lists(&RULES, &vec![(0, 1); INPUTS_MAX + 2], true).iter().map(Vec::len).collect::<Vec<_>>(),
            [INPUTS_MAX, 2]
        );
    }

    #[test]
    fn while_a_period_runs_what_was_merged_before_waits_for_as_much_again() {
        let none: Vec<Vec<u64>> = Vec::new();
        assert_eq!(lists(&RULES, &[(40, 1), (10, 1), (20, 1)], false), none);
        assert_eq!(lists(&RULES, &[(40, 1), (10, 1), (20, 1)], true), [[40, 10, 20]]);
        assert_eq!(lists(&RULES, &[(40, 1), (10, 1), (30, 1)], false), [[40, 10, 30]]);
    }
}
