//! What the server is told of who calls its documents.

use super::*;
use crate::topic::Pattern;

const EDIT: &str = "kps.server.document.edit";

fn patterns(text: &str) -> Option<Vec<Pattern>> {
    Some(vec![Pattern::parse(text).unwrap()])
}

fn restricted() -> Principal {
    Principal {
        publish: patterns("kps.server.>"),
        subscribe: patterns("kps.document.d"),
        ..Principal::default()
    }
}

impl World {
    fn connect_principal(&mut self, id: &str, principal: Principal) -> Peer {
        self.seed += 1;
        let attach = Attach {
            principal,
            kind: PortKind::Native,
            client_id: id,
            origin: &format!("origin of {id}"),
            session: &[],
            received: &[],
            entropy: [self.seed; 24],
        };
        Peer { port: self.bus.attach(self.now, attach).unwrap().port }
    }

    /// What the calls that reached the server say of their callers.
    fn grants(&mut self, server: Peer) -> Vec<(String, Grants)> {
        let said = |output: Output| match output {
            Output::Deliver { published, .. } => {
                let headers = published.extras.as_ref().map(|extras| &*extras.headers);
                let grants = Grants::from_headers(headers.unwrap_or_default());
                Some((published.topic.to_string(), grants))
            }
            _ => None,
        };
        self.pull(server).into_iter().filter_map(said).collect()
    }
}

#[test]
fn a_call_says_what_its_caller_might_whoever_has_its_id_by_then() {
    let mut world = World::new(small());
    let server = Principal { is_server: true, ..Principal::default() };
    let server = world.connect_principal("server", server);
    world.subscribe(server, 1, "kps.server.>");
    let eve = world.connect_principal("same", restricted());
    world.publish(eve, 1, EDIT, b"1");
    world.bus.detach(world.now, eve.port, false);
    let all = world.connect_principal("same", Principal::default());
    world.publish(all, 1, EDIT, b"1");
    let wanted = [Grants::of(&restricted()), Grants::default()];
    assert_eq!(world.grants(server), wanted.map(|grants| (EDIT.to_owned(), grants)));
    for peer in [all, server] {
        world.bus.detach(world.now, peer.port, false);
    }
    assert_eq!(world.bus.memory(), 0);
    assert!(world.bus.ledger().is_balanced());
}

#[test]
fn no_other_message_says_it() {
    let mut world = World::new(small());
    let server = Principal { is_server: true, ..Principal::default() };
    let server = world.connect_principal("server", server);
    world.subscribe(server, 1, "kps.server.>");
    let eve = world.connect_principal("eve", restricted());
    for (number, topic) in (1..).zip(["kps.server.storage.get", "kps.server.documents.edit"]) {
        world.publish(eve, number, topic, b"1");
    }
    let said = world.grants(server);
    assert_eq!(said.len(), 2);
    assert!(said.iter().all(|(_, grants)| *grants == Grants::default()), "{said:?}");
}
