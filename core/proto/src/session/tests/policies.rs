//! Publishes that ask for more than every server gives.

use super::*;
use crate::wire::frame::{HistoryFrame, features};

fn able() -> Welcome<'static> {
    Welcome { features: features::POLICIES, ..welcome() }
}

fn keeping() -> Welcome<'static> {
    let history = HistoryFrame { on_disk: true, patterns: vec![">"] };
    Welcome { features: features::POLICIES | features::HISTORY, history, ..welcome() }
}

fn stage(welcome: Welcome<'_>) -> Stage {
    let mut stage = Stage::new();
    stage.connect(welcome);
    stage
}

fn to(names: &[&str]) -> Extras {
    Extras { to: Some(names.iter().map(|name| (*name).to_owned()).collect()), ..Extras::default() }
}

fn private() -> Extras {
    Extras { private: true, ..Extras::default() }
}

fn offline(offline: Offline) -> Extras {
    Extras { offline, ..Extras::default() }
}

impl Stage {
    fn publish_as(&mut self, topic: &str, extras: &Extras) -> Result<u64, ErrorKind> {
        let options = PublishOptions { extras: Some(extras), ..PublishOptions::default() };
        self.publish(topic, &options).map_err(|error| error.kind())
    }

    fn wanting(&mut self, extras: &Extras, level: ReceiptLevel) -> Result<u64, ErrorKind> {
        let (extras, receipt) = (Some(extras), Some(level));
        let options = PublishOptions { extras, receipt, target: TARGET, ..Default::default() };
        self.publish("a", &options).map_err(|error| error.kind())
    }

    /// Ticks; what is told then.
    fn ticked(&mut self) -> Vec<String> {
        self.session.tick(self.now, &mut self.events).unwrap();
        self.heard()
    }

    fn counts(&self) -> (u64, u64, u64, u64) {
        let PublishCounts { total, accepted, failed, abandoned, pending, .. } =
            self.session.ledger().published;
        assert_eq!(total, accepted + failed + abandoned + pending);
        (total, accepted, failed, pending)
    }
}

#[test]
fn an_older_server_is_not_sent_what_it_would_give_to_everybody() {
    let mut stage = stage(welcome());
    for extras in [to(&["x"]), private(), offline(Offline::Drop), offline(Offline::Latest)] {
        assert_eq!(stage.publish_as("a", &extras), Err(ErrorKind::Unsupported));
    }
    assert!(stage.said().is_empty());
}

#[test]
fn what_waited_for_a_server_that_turns_out_older_fails_and_gives_its_number_alone() {
    let mut stage = Stage::new();
    stage.publish_plain("a");
    stage.publish_as("a", &to(&["x"])).unwrap();
    stage.publish_as("b", &Extras { id: Some("mine".into()), ..private() }).unwrap();
    stage.publish_plain("a");
    stage.dial();
    stage.hear(&Frame::Welcome(welcome())).unwrap();
    let heard = stage.heard();
    assert_eq!(heard[..2], ["0: failed 2 unsupported", "0: failed 3 unsupported"], "{heard:?}");
    let said = stage.said();
    let publishes: Vec<_> = said.iter().filter(|line| line.starts_with("PUB")).collect();
    assert_eq!(
        publishes,
        ["PUB 1 a", "PUB 2 kps.settled settled", "PUB 3 kps.settled settled", "PUB 4 a"]
    );
    assert_eq!(stage.counts(), (4, 0, 2, 2));
    stage.accepted(4);
    assert_eq!(stage.heard(), ["0: outbox flushed 2"]);
    assert_eq!(stage.counts(), (4, 2, 2, 0));
}

#[test]
fn a_lost_session_that_goes_on_at_an_older_server_does_not_leak() {
    let mut stage = stage(keeping());
    stage.publish_as("a", &to(&["x"])).unwrap();
    stage.said();
    stage.accepted(1);
    stage.lose();
    stage.connect(Welcome { epoch: 2, ..welcome() });
    assert!(stage.said().iter().all(|line| !line.starts_with("PUB") || line.ends_with("settled")));
    assert_eq!(stage.counts(), (1, 1, 0, 0));
}

#[test]
fn what_does_not_wait_is_refused_by_a_publisher_that_is_away() {
    let mut stage = Stage::new();
    let drop = offline(Offline::Drop);
    assert_eq!(stage.publish_as("a", &drop), Err(ErrorKind::NotConnected));
    stage.connect(able());
    assert_eq!(stage.publish_as("a", &drop), Ok(1));
    stage.lose();
    assert_eq!(stage.publish_as("a", &drop), Err(ErrorKind::NotConnected));
    assert_eq!(stage.publish_plain("a"), 2, "nothing was queued");
}

#[test]
fn the_latest_replaces_the_one_before_while_the_publisher_is_away() {
    let mut stage = stage(able());
    let latest = offline(Offline::Latest);
    stage.publish_as("a", &latest).unwrap();
    stage.said();
    stage.lose();
    stage.heard();
    // The first may have arrived.
    assert_eq!(stage.publish_as("a", &latest), Ok(2));
    assert_eq!(stage.wanting(&latest, ReceiptLevel::Accepted), Ok(3));
    assert_eq!(stage.publish_as("b", &latest), Ok(4));
    stage.publish_plain("a");
    assert_eq!(stage.publish_as("a", &latest), Ok(6));
    assert_eq!(stage.session.deadline(), Some(stage.now));
    assert_eq!(stage.ticked(), ["0: failed 2 cancelled", "7: failed 3 cancelled"]);
    assert_eq!(stage.counts(), (6, 0, 2, 4));
    stage.connect(Welcome { features: features::POLICIES, ..resumed(0) });
    let said = stage.said();
    let publishes: Vec<_> = said.iter().filter(|line| line.starts_with("PUB")).collect();
    let wanted = [
        "PUB 1 a",
        "PUB 2 kps.settled settled",
        "PUB 3 kps.settled settled",
        "PUB 4 b",
        "PUB 5 #0",
        "PUB 6 #0",
    ];
    assert_eq!(publishes, wanted);
    stage.accepted(6);
    assert_eq!(stage.counts(), (6, 4, 2, 0));
    // Connected, nothing is replaced.
    stage.publish_as("a", &latest).unwrap();
    stage.publish_as("a", &latest).unwrap();
    assert!(!stage.session.has_dropped());
}

#[test]
fn what_was_replaced_costs_little_however_often() {
    let outbox = OutboxBounds { hard_bytes: 1 << 20, ..OutboxBounds::default() };
    let mut stage = Stage::with(SessionConfig { outbox, ..SessionConfig::default() });
    let latest = offline(Offline::Latest);
    let options = PublishOptions { extras: Some(&latest), ..PublishOptions::default() };
    let payload = [7; 1000];
    stage.publish_plain("first");
    for _ in 0..10_000 {
        let to = Destination::Topic("position");
        stage.session.publish(stage.now, to, ContentType::Bytes, &payload, &options).unwrap();
    }
    assert_eq!(stage.session.room(), Room::Free);
    assert_eq!(stage.counts(), (10_001, 0, 9_999, 2));
    let mut events = Events::new();
    let left = stage.session.close(stage.now, &mut events).abandoned;
    assert_eq!(left.len(), 2);
    assert_eq!(stage.counts(), (10_001, 0, 9_999, 0));
}

#[test]
fn a_private_message_is_not_stored_and_no_record_names_it() {
    let mut stage = stage(keeping());
    let secret = Extras { id: Some("secret".into()), ..private() };
    assert_eq!(stage.wanting(&secret, ReceiptLevel::Stored), Err(ErrorKind::ReceiptUnavailable));
    let on_disk = stage.wanting(&secret, ReceiptLevel::QueuedOnDisk);
    assert_eq!(on_disk, Err(ErrorKind::ReceiptUnavailable));
    let number = stage.publish_as("a", &secret).unwrap();
    stage.said();
    let watched = stage.session.watch(number, ReceiptLevel::Stored, TARGET).unwrap_err();
    assert_eq!(watched.kind(), ErrorKind::ReceiptUnavailable);
    let error = ErrorFrame {
        kind: ErrorKind::Unauthorized,
        reference: Reference::Publish(number),
        fatal: false,
        message: "no",
    };
    stage.hear(&Frame::Error(error)).unwrap();
    stage.accepted(number);
    assert_eq!(stage.session.released(), number, "nobody waits for it to be stored");
    let failed = stage.events.iter().find_map(|(_, event)| match event {
        Event::PublishFailed { id, .. } => Some(id.as_str()),
        _ => None,
    });
    assert_eq!(failed, Some("secret"), "its publisher knows it by that");
    assert!(stage.session.timeline().all(|moment| !moment.detail.contains("secret")));
    let to = "kps.secret";
    let error = stage.publish(to, &PublishOptions { extras: Some(&secret), ..Default::default() });
    assert!(!error.unwrap_err().message().contains(to));
}

#[test]
fn a_wrong_audience_is_refused_at_once() {
    let mut stage = stage(able());
    let (long, many) = ("x".repeat(257), ["x"; 65]);
    for names in [&[][..], &[""], &["principal:"], &[&long], &many] {
        assert_eq!(stage.publish_as("a", &to(names)), Err(ErrorKind::InvalidArgument));
    }
    let named = to(&["x"]);
    let options = PublishOptions { extras: Some(&named), ..PublishOptions::default() };
    let to = Destination::Client("x");
    let error =
        stage.session.publish(stage.now, to, ContentType::Json, b"1", &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(stage.publish_as("a", &named), Ok(1));
}
