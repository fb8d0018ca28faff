//! What happens in a world, by chance or as it was chosen, and what is true in the end.

use proptest::prelude::*;

use super::*;

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..8usize;
    prop_oneof![
        6 => (client(), any::<usize>()).prop_map(|(client, at)| Step::Insert { client, at }),
        3 => (client(), any::<usize>(), 0..9usize)
            .prop_map(|(client, at, length)| Step::Delete { client, at, length }),
        2 => client().prop_map(|client| Step::Append { client }),
        8 => client().prop_map(|client| Step::Send { client }),
        8 => any::<usize>().prop_map(|which| Step::Arrive { which }),
        8 => (client(), 1..6usize).prop_map(|(client, count)| Step::Hear { client, count }),
        1 => client().prop_map(|client| Step::Gap { client }),
        1 => client().prop_map(|client| Step::Doubt { client }),
        2 => client().prop_map(|client| Step::Ask { client }),
        2 => client().prop_map(|client| Step::Answer { client }),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Fold),
    ]
}

fn writing() -> impl Strategy<Value = Step> {
    let client = || 0..8usize;
    prop_oneof![
        6 => (client(), any::<usize>()).prop_map(|(client, at)| Step::Insert { client, at }),
        2 => client().prop_map(|client| Step::Append { client }),
        8 => client().prop_map(|client| Step::Send { client }),
        8 => any::<usize>().prop_map(|which| Step::Arrive { which }),
        8 => (client(), 1..6usize).prop_map(|(client, count)| Step::Hear { client, count }),
        1 => client().prop_map(|client| Step::Gap { client }),
        1 => client().prop_map(|client| Step::Doubt { client }),
        1 => Just(Step::Join),
        2 => client().prop_map(|client| Step::Back { client }),
        3 => client().prop_map(|client| Step::Ask { client }),
        3 => client().prop_map(|client| Step::Answer { client }),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Fold),
        2 => any::<usize>().prop_map(|heard| Step::Crash { heard }),
    ]
}

/// One crash after the other: whoever asks for the document may be told by the next server, or by the one after.
fn crashing() -> impl Strategy<Value = Step> {
    let client = || 0..3usize;
    prop_oneof![
        3 => (client(), any::<usize>()).prop_map(|(client, at)| Step::Insert { client, at }),
        5 => client().prop_map(|client| Step::Send { client }),
        6 => any::<usize>().prop_map(|which| Step::Arrive { which }),
        4 => (client(), 1..4usize).prop_map(|(client, count)| Step::Hear { client, count }),
        1 => client().prop_map(|client| Step::Doubt { client }),
        5 => client().prop_map(|client| Step::Back { client }),
        4 => client().prop_map(|client| Step::Ask { client }),
        4 => client().prop_map(|client| Step::Answer { client }),
        1 => Just(Step::Checkpoint),
        3 => any::<usize>().prop_map(|heard| Step::Crash { heard }),
    ]
}

fn merging() -> impl Strategy<Value = Step> {
    let client = || 0..8usize;
    prop_oneof![
        6 => (client(), 0..4u8).prop_map(|(client, key)| Step::Merge { client, key }),
        8 => client().prop_map(|client| Step::Send { client }),
        8 => any::<usize>().prop_map(|which| Step::Arrive { which }),
        8 => (client(), 1..6usize).prop_map(|(client, count)| Step::Hear { client, count }),
        1 => client().prop_map(|client| Step::Gap { client }),
        2 => client().prop_map(|client| Step::Back { client }),
        2 => client().prop_map(|client| Step::Ask { client }),
        2 => client().prop_map(|client| Step::Answer { client }),
        1 => Just(Step::Checkpoint),
        1 => any::<usize>().prop_map(|heard| Step::Crash { heard }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn writers_with_stale_bases_come_to_one_text(
        clients in 1..8usize, steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(Kind::Text, clients);
        steps.into_iter().for_each(|step| world.step(step));
        world.check();
        prop_assert!(world.failed.is_empty() || world.document.oldest() > Version(0));
    }

    #[test]
    fn a_crash_loses_nothing_that_is_sent_again_and_doubles_nothing(
        clients in 1..6usize, missing in prop_oneof![Just(10usize), 200..2000usize],
        steps in prop::collection::vec(writing(), 0..200),
    ) {
        let limits = Limits { missing, ..Limits::default() };
        let mut world = World::with(Kind::Text, clients, limits);
        steps.into_iter().for_each(|step| world.step(step));
        world.check_letters();
    }

    #[test]
    fn crash_after_crash_loses_nothing_either(
        clients in 1..4usize, steps in prop::collection::vec(crashing(), 0..150),
    ) {
        let mut world = World::new(Kind::Text, clients);
        steps.into_iter().for_each(|step| world.step(step));
        world.check_letters();
    }

    #[test]
    fn writers_of_json_come_to_one_value(
        clients in 1..6usize, steps in prop::collection::vec(merging(), 0..100),
    ) {
        let mut world = World::new(Kind::Json, clients);
        steps.into_iter().for_each(|step| world.step(step));
        world.check();
    }
}

#[test]
fn an_ack_of_a_server_that_is_gone_is_not_taken_for_one_of_the_next() {
    let mut world = World::new(Kind::Text, 2);
    let steps = [
        Step::Insert { client: 0, at: 0 },
        Step::Send { client: 0 },
        Step::Crash { heard: 0 },
        Step::Back { client: 0 },
        Step::Back { client: 1 },
        Step::Hear { client: 0, count: 1 },
        Step::Arrive { which: 0 },
        // The ack is heard by the one who waits to open the document again.
        Step::Crash { heard: 2 },
        Step::Back { client: 0 },
        Step::Back { client: 1 },
        Step::Hear { client: 1, count: 5 },
        Step::Ask { client: 1 },
        Step::Answer { client: 1 },
        Step::Insert { client: 1, at: 0 },
        Step::Send { client: 1 },
        Step::Arrive { which: 0 },
        Step::Ask { client: 0 },
        Step::Answer { client: 0 },
        Step::Hear { client: 0, count: 5 },
    ];
    steps.into_iter().for_each(|step| world.step(step));
    world.check_letters();
}

#[test]
fn a_hundred_writers_come_to_one_text() {
    let mut world = World::new(Kind::Text, 100);
    let mut seed = 7u64;
    for _ in 0..1_000 {
        // Knuth's numbers: any will do.
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (client, at) = ((seed >> 33) as usize % 100, (seed >> 20) as usize);
        world.step(match (seed >> 40) % 4 {
            0 => Step::Delete { client, at, length: 5 },
            _ => Step::Insert { client, at },
        });
        world.step(Step::Send { client });
        world.step(Step::Arrive { which: 0 });
        let listener = (seed >> 50) as usize % 100;
        world.step(Step::Hear { client: listener, count: 300 });
    }
    world.check();
    assert!(world.failed.is_empty());
}

/// The answer has the content alone: an operation is too large for it, or the server folded what it could not store.
#[test]
fn what_is_acked_after_an_answer_without_a_way_is_unsynced_still() {
    let limits = Limits { missing: 10, ..Limits::default() };
    let mut world = World::with(Kind::Text, 2, limits);
    let steps = [
        Step::Insert { client: 0, at: 0 },
        Step::Send { client: 0 },
        Step::Arrive { which: 0 },
        Step::Hear { client: 0, count: 5 },
        Step::Gap { client: 0 },
        Step::Hear { client: 0, count: 1 },
        Step::Insert { client: 1, at: 0 },
        Step::Hear { client: 1, count: 5 },
        Step::Send { client: 1 },
        Step::Arrive { which: 0 },
        Step::Ask { client: 0 },
        Step::Answer { client: 0 },
        Step::Send { client: 0 },
        Step::Arrive { which: 0 },
        Step::Hear { client: 0, count: 5 },
    ];
    steps.into_iter().for_each(|step| world.step(step));
    world.step(Step::Crash { heard: 0 });
    // "<1>" is in no text and in no `failed`, and nobody sends it again.
    world.check_letters();
}

/// The default limits: 17 pastes of 250 KiB within 10 s, nothing stored yet.
#[test]
fn what_is_not_stored_is_not_folded() {
    let mut world = World::new(Kind::Text, 1);
    for n in 0..17 {
        let edit = match n % 8 {
            7 => Edit::delete(0, 7 * 250_000),
            _ => Edit::insert(0, "x".repeat(250_000)),
        };
        let (op_id, author) = (format!("{n}").into(), "a".into());
        let base_version = world.document.version();
        let operation = Operation { op_id, author, base_version, lineage: None, edits: vec![edit] };
        assert!(matches!(world.document.apply(&operation, 1), Outcome::Applied(..)));
    }
    for n in 17..20 {
        let edit = Edit::insert(0, "x".repeat(250_000));
        let (op_id, author) = (format!("{n}").into(), "a".into());
        let base_version = world.document.version();
        let operation = Operation { op_id, author, base_version, lineage: None, edits: vec![edit] };
        assert!(matches!(world.document.apply(&operation, 1), Outcome::Applied(..)));
    }
    let told = world.document.introduce(None, &[], true, Some(Version(0)));
    assert!(told.since.is_some(), "a way from what is stored");
}
