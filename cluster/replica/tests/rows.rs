//! Scripts of a rolling upgrade: what may be written is what every member reads (DESIGN 5).
#![allow(clippy::unwrap_used)]

mod toy;

use mailbox::rows::RowFormat;
use replica::{Output, Rule, Serving};
use toy::{A, B, World};
use vocab::{AccountId, NodeId};

fn writes(world: &World, id: NodeId) -> RowFormat {
    world.replica(id).stamp(AccountId(16)).rows
}

fn upgrade(world: &mut World, id: NodeId) {
    world.kill(id);
    world.reads_rows.remove(&id);
    world.boot(id);
    world.run(500);
}

fn old_pair() -> World {
    let mut world = World::pair();
    for id in [A, B] {
        world.kill(id);
        world.reads_rows.insert(id, 1);
    }
    for id in [A, B] {
        world.nodes.get_mut(&id).unwrap().disk.meta.clear();
    }
    world.register = None;
    world.boot(A);
    world.boot(B);
    world.run(1_000);
    world
}

#[test]
fn rows_go_over_to_the_newer_format_when_the_last_member_reads_it() {
    for keeps in [true, false] {
        let mut world = World::pair();
        assert_eq!(writes(&world, A), RowFormat::HIGHEST, "both read it");
        world = old_pair();
        world.without = (!keeps).then_some(Rule::LowerRows);
        assert_eq!((writes(&world, A), writes(&world, B)), (RowFormat::LOWEST, RowFormat::LOWEST));
        upgrade(&mut world, A);
        assert_eq!(writes(&world, A) == RowFormat::LOWEST, keeps, "one member still reads only the first");
        upgrade(&mut world, B);
        assert_eq!((writes(&world, A), writes(&world, B)), (RowFormat::HIGHEST, RowFormat::HIGHEST));
        // What was agreed outlives a restart without the other.
        world.kill(A);
        world.kill(B);
        world.boot(A);
        assert_eq!(writes(&world, A), RowFormat::HIGHEST);
    }
}

#[test]
fn a_node_that_cannot_read_what_was_written_is_not_taken_in() {
    let mut world = World::pair();
    world.submit(A, &[16]);
    world.kill(B);
    world.guard_word(B);
    world.drain();
    world.reads_rows.insert(B, 1);
    world.boot(B);
    world.run(3_000);
    let alerts = |w: &World| w.nodes[&A].orders.iter().any(|o| matches!(o, Output::Alert(t) if t.contains("format")));
    assert!(alerts(&world), "somebody is told");
    let status = world.replica(A).status(world.now);
    assert_eq!((status.rows, status.unreadable), (RowFormat::HIGHEST.number(), vec![(B, 1)]));
    assert_eq!(world.replica(A).serving(world.now), Serving::Home);
    assert!(matches!(world.replica(B).serving(world.now), Serving::Not(_)));
    let token = world.submit(A, &[16]);
    assert!(world.is_committed(A, token) && !world.tokens(B, 16).contains(&token));
    upgrade(&mut world, B);
    world.run(2_000);
    assert_eq!(world.replica(B).serving(world.now), Serving::Backup);
    assert_eq!(world.replica(A).status(world.now).unreadable, []);
    world.assert_equal();
}
