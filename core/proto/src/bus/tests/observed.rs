//! What the bus tells of its own state.

use super::*;

impl World {
    /// The notices so far, as short texts.
    pub(super) fn told(&mut self) -> Vec<String> {
        let short = |notice| match notice {
            Notice::SubscriptionOpened { client_id, topic } => format!("{client_id} opens {topic}"),
            Notice::SubscriptionClosed { client_id, topic } => {
                format!("{client_id} closes {topic}")
            }
            Notice::Backpressure { client_id, topic, on } => {
                format!("{client_id} {topic} pressure {on}")
            }
            Notice::Dropped { client_id, topic, count, reason } => {
                format!("{client_id} {topic} drops {count} {}", reason.as_str())
            }
            Notice::Published(published) => format!("{} on {}", published.id(), published.topic),
            Notice::Connected { client_id, .. } => format!("{client_id} comes"),
            Notice::Disconnected { client_id, .. } => format!("{client_id} goes"),
            other => format!("{other:?}"),
        };
        self.bus.take_notices().map(short).collect()
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.bus.tick(self.now);
    }
}

fn with_overflow(overflow: Overflow) -> Subscribe<'static> {
    Subscribe { sub: 1, pattern: "t", overflow, capacity: 2, ..subscribe_defaults() }
}

#[test]
fn subscriptions_are_told_once_each_way() {
    let mut world = World::new(small());
    let peer = world.connect("a");
    world.subscribe(peer, 1, "t.*");
    world.subscribe(peer, 2, "u");
    world.handle(peer, Frame::Unsubscribe { sub: 1 });
    world.bus.detach(world.now, peer.port, false);
    let told = ["a comes", "a opens t.*", "a opens u", "a closes t.*", "a closes u", "a goes"];
    assert_eq!(world.told(), told);
}

#[test]
fn a_flood_of_drops_is_one_notice_a_second() {
    let mut world = World::new(small());
    let (slow, fast) = (world.connect("slow"), world.connect("fast"));
    world.subscribe_with(slow, with_overflow(Overflow::DropOldest));
    world.told();
    for number in 1..=100 {
        world.publish(fast, number, "t", b"x");
    }
    assert!(world.told().is_empty());
    world.wait(Duration::from_secs(1));
    assert_eq!(world.told(), ["slow t drops 98 overflow"]);
    world.wait(Duration::from_secs(5));
    assert!(world.told().is_empty());
}

#[test]
fn what_a_client_leaves_behind_is_told_before_its_subscription_ends() {
    let mut world = World::new(small());
    let (slow, fast) = (world.connect("slow"), world.connect("fast"));
    world.subscribe_with(slow, with_overflow(Overflow::DropNewest));
    for number in 1..=3 {
        world.publish(fast, number, "t", b"x");
    }
    world.told();
    world.bus.detach(world.now, slow.port, false);
    world.bus.detach(world.now, fast.port, false);
    let told = ["slow t drops 1 overflow", "slow t drops 2 session_expired", "slow closes t"];
    assert_eq!(world.told()[..3], told);
    // What waits to travel with something else is all that is still to come.
    world.wait(Duration::from_millis(20));
    assert!(world.bus.is_empty());
}

#[test]
fn pressure_is_told_at_once_and_over_when_nobody_waited_for_a_second() {
    let mut world = World::new(small());
    let (slow, fast) = (world.connect("slow"), world.connect("fast"));
    world.subscribe_with(slow, with_overflow(Overflow::Block));
    world.told();
    let mut number = 0;
    for consumed in 1..=50 {
        for _ in 0..3 {
            number += 1;
            world.publish(fast, number, "t", b"x");
        }
        world.pull(slow);
        world.handle(slow, Frame::Credit { sub: 1, consumed: 3 * consumed });
        world.pull(slow);
        world.handle(slow, Frame::Credit { sub: 1, consumed: 3 * consumed });
    }
    assert_eq!(world.told(), ["slow t pressure true"]);
    world.wait(Duration::from_secs(1));
    assert_eq!(world.told(), ["slow t pressure false"]);
}

#[test]
fn messages_are_told_to_those_who_ask() {
    let mut world = World::new(small());
    let peer = world.connect("a");
    world.publish(peer, 1, "t", b"x");
    world.told();
    world.bus.observe_messages(true);
    world.publish(peer, 2, "t", b"x");
    assert_eq!(world.told(), ["origin of a-2 on t"]);
    world.bus.observe_messages(false);
    world.publish(peer, 3, "t", b"x");
    assert!(world.told().is_empty());
}
