//! Which member reads which streams: the same answer everywhere, without asking anybody. Pure.
//!
//! Each stream goes to the member that draws the highest number for it (rendezvous hashing), among those that have room:
//! nobody has more than its share, so two streams and two members are one each, and a member that comes or goes moves
//! few streams of the others.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

/// The streams of each member, in order. Members without a stream are in it too.
pub(super) fn spread<'a>(
    streams: &'a BTreeSet<String>,
    members: &'a BTreeSet<String>,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut shares: BTreeMap<&str, BTreeSet<&str>> =
        members.iter().map(|member| (member.as_str(), BTreeSet::new())).collect();
    if members.is_empty() {
        return shares;
    }
    let most = streams.len().div_ceil(members.len());
    for stream in streams {
        let with_room = shares.iter().filter(|(_, share)| share.len() < most).map(|(member, _)| *member);
        let Some(best) = with_room.max_by_key(|member| draw(stream, member)) else { continue };
        if let Some(share) = shares.get_mut(best) {
            share.insert(stream);
        }
    }
    shares
}

/// The number that a member draws for a stream.
fn draw(stream: &str, member: &str) -> [u8; 32] {
    Sha256::new().chain_update(stream).chain_update([0]).chain_update(member).finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// So many names.
    fn names(prefix: &str, count: usize) -> BTreeSet<String> {
        (0..count).map(|number| format!("{prefix}{number}")).collect()
    }

    #[test]
    fn a_member_that_goes_moves_little_of_what_the_others_have() {
        let (streams, before) = (names("stream", 40), names("member", 4));
        let mut after = before.clone();
        after.remove("member2");
        let (old, new) = (spread(&streams, &before), spread(&streams, &after));
        let moved: usize = new.iter().map(|(member, share)| share.difference(&old[member]).count()).sum();
        // Ten have to move; the limit on shares moves some more.
        assert!((10..=20).contains(&moved), "{moved}");
    }

    proptest! {
        #[test]
        fn every_stream_has_one_member_and_nobody_more_than_a_share(streams in 0_usize..60, members in 1_usize..12) {
            let (all, who) = (names("s", streams), names("m", members));
            let shares = spread(&all, &who);
            prop_assert_eq!(shares.len(), members);
            let mut given: Vec<_> = shares.values().flatten().map(ToString::to_string).collect();
            given.sort();
            prop_assert_eq!(given, all.iter().cloned().collect::<Vec<_>>());
            prop_assert!(shares.values().all(|share| share.len() <= streams.div_ceil(members)));
        }
    }
}
