//! Messages to be retained, and servers that cannot.

use super::*;
use crate::{options::StartAt, wire::frame::features};

fn retain() -> PublishOptions<'static> {
    PublishOptions { retain: true, target: TARGET, ..PublishOptions::default() }
}

fn able() -> Welcome<'static> {
    Welcome { features: features::RETAINED, ..welcome() }
}

fn to_retain(bytes: &BytesMut) -> Vec<bool> {
    let published = Frames::new(bytes).filter_map(|frame| match frame.unwrap() {
        Frame::Publish(publish) => {
            Some(publish.extensions.is_some_and(|extensions| extensions.retained))
        }
        _ => None,
    });
    published.collect()
}

#[test]
fn it_is_said_with_the_publish() {
    let mut stage = Stage::new();
    stage.connect(able());
    stage.publish("a", &retain()).unwrap();
    stage.publish_plain("a");
    assert_eq!(to_retain(&stage.bytes()), [true, false]);
    let to = Destination::Client("b");
    let error = stage.session.publish(stage.now, to, ContentType::Json, b"1", &retain());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_server_that_cannot_is_not_asked_to() {
    let mut stage = Stage::connected();
    let error = stage.publish("a", &retain()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(stage.publish_plain("a"), 1, "nothing was queued");
}

#[test]
fn what_waited_for_a_server_that_cannot_fails_and_what_surrounds_it_goes() {
    let mut stage = Stage::new();
    stage.publish_plain("a");
    stage.publish("a", &retain()).unwrap();
    stage.publish_plain("a");
    stage.dial();
    stage.hear(&Frame::Welcome(welcome())).unwrap();
    let said = stage.said();
    assert_eq!(said, ["PUB 1 a", "PUB 2 kps.settled settled", "PUB 3 a"]);
    stage.accepted(3);
    let heard = stage.heard();
    assert!(heard.iter().any(|event| event.contains("unsupported")), "{heard:?}");
    assert_eq!(stage.session.ledger().published.failed, 1);
}

#[test]
fn so_does_what_an_able_server_had_not_accepted() {
    let mut stage = Stage::new();
    stage.connect(able());
    stage.publish("a", &retain()).unwrap();
    stage.publish("a", &retain()).unwrap();
    stage.said();
    stage.accepted(1);
    stage.lose();
    stage.connect(welcome());
    assert_eq!(stage.said(), ["PUB 1 kps.settled settled"]);
    stage.accepted(1);
    assert_eq!(stage.session.ledger().published.failed, 1);
}

#[test]
fn a_subscription_that_began_with_the_last_says_so_when_its_session_is_lost() {
    let mut stage = Stage::new();
    stage.connect(able());
    let options = SubscribeOptions { start: StartAt::Last, ..SubscribeOptions::default() };
    stage.subscribe(options);
    stage.lose();
    stage.dial();
    stage.hear(&Frame::Welcome(able())).unwrap();
    let bytes = stage.bytes();
    let asked: Vec<_> = Frames::new(&bytes).map(Result::unwrap).collect();
    let Some(Frame::Subscribe(subscribe)) = asked.first() else { panic!("{asked:?}") };
    assert!(subscribe.again && subscribe.retained && subscribe.start == Start::Last);
}
