//! `sync`: channels, and who is in them. The manual's chapter [`sync`](crate::manual::sync) says what it
//! does.

mod channels;
mod presence;
mod table;
mod visits;

use std::sync::{Arc, Weak};

use kps_proto::ErrorKind;

pub(crate) use self::presence::Presence;
use self::{channels::Channels, presence::Who, visits::Visits};
use super::{
    Call, CallTarget, Capability, DispatchOptions, Failure, Fields, Operation, Outcome, Value,
    remote,
    router::{Core, Route},
    unknown_operation,
};
use crate::{client::Client, events::ClientState, net::BoxFuture};

/// Longest name of a channel or an event, in bytes.
const MAX_NAME: usize = 256;

/// What a process keeps for `sync`.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) presence: Arc<Presence>,
    channels: Arc<Channels>,
    visits: Arc<Visits>,
}

impl Kept {
    pub(super) fn capability(&self, core: &Arc<Core>) -> Arc<dyn Capability> {
        Arc::new(Sync {
            core: Arc::downgrade(core),
            presence: self.presence.clone(),
            channels: self.channels.clone(),
            visits: self.visits.clone(),
        })
    }

    pub(super) async fn close(&self) {
        self.channels.close().await;
    }
}

struct Sync {
    core: Weak<Core>,
    presence: Arc<Presence>,
    channels: Arc<Channels>,
    visits: Arc<Visits>,
}

const NAMES: [&str; 7] =
    ["broadcast", "subscribe", "unsubscribe", "join", "update", "leave", "presence"];

impl Capability for Sync {
    fn operations(&self) -> Vec<Operation> {
        let channel = ("channel", "string", "the channel's name");
        let meta = ("meta?", "", "what others are told of you, at most 16 KiB");
        vec![
            Operation::new("broadcast", "Sends an event to all who subscribe to a channel").fields(
                &[
                    channel,
                    ("event", "string", "the event's name"),
                    ("data?", "", "anything"),
                    ("echo?", "boolean", "false: this client's own subscriptions do not hear it"),
                    ("confirm?", "boolean", "wait until all clients have it, and count them"),
                ],
            ),
            Operation::new("subscribe", "Calls a function with what happens in a channel").fields(
                &[
                    channel,
                    ("callback", "", "the function"),
                    ("echo?", "boolean", "false: not with what this client broadcasts"),
                ],
            ),
            Operation::new("unsubscribe", "Ends a subscription, or all of a channel").fields(&[
                ("id?", "integer", "the subscription"),
                ("channel?", "string", "the channel"),
            ]),
            Operation::new("join", "Makes you present in a channel, until you leave or are gone")
                .fields(&[channel, ("key?", "string", "the person; the client's id"), meta]),
            Operation::new("update", "Changes your metadata in a channel").fields(&[channel, meta]),
            Operation::new("leave", "Ends your presence in a channel").fields(&[channel]),
            Operation::new("presence", "Lists who is in a channel").fields(&[channel]),
        ]
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Outcome> {
        let Some(core) = self.core.upgrade() else {
            return ready(Err(Failure::new(ErrorKind::Closed, "the client is closed")));
        };
        if let Some(client_id) = call.caller.client_id.clone() {
            // Over the bus: that is what a server is asked.
            let who = Who { namespace: call.caller.namespace.clone(), client_id };
            return ready(match core.is_server() {
                true => self.presence.call(&core, who, call),
                false => Err(unknown_operation(&call.operation, &[])),
            });
        }
        let asking = Asking { core, presence: self.presence.clone(), call_id: call.id.clone() };
        match &*call.operation {
            "broadcast" => channels::broadcast(&asking, call),
            "subscribe" => self.channels.subscribe(&asking, call),
            "unsubscribe" => self.channels.unsubscribe(call),
            "join" | "update" | "leave" => self.visits.clone().call(asking, call),
            "presence" => Box::pin(visits::presence(asking, call)),
            other => ready(Err(unknown_operation(other, &NAMES))),
        }
    }
}

/// A program's call, on its way to the server.
#[derive(Clone)]
struct Asking {
    core: Arc<Core>,
    presence: Arc<Presence>,
    call_id: Arc<str>,
}

impl Asking {
    /// The client, if it has a connection.
    fn client(&self) -> Result<Client, Failure> {
        let client = self.core.client()?;
        match client.state() {
            ClientState::Connected => Ok(client),
            ClientState::Closed => {
                Err(Failure::new(ErrorKind::Closed, "the client is closed; connect a new one"))
            }
            _ => Err(Failure::new(
                ErrorKind::Unavailable,
                "there is no connection to the server at the moment; try again",
            )
            .retryable()),
        }
    }

    /// Asks the server for one of its operations.
    async fn server(
        &self,
        operation: &str,
        payload: Value,
        deadline: std::time::Instant,
    ) -> Outcome {
        let client = self.client()?;
        if self.presence.is_server()
            && let Some(client_id) = client.id()
        {
            // The server's own client: what it asks for is here.
            let call = Call {
                id: self.call_id.clone(),
                operation: operation.into(),
                payload,
                caller: super::Caller::default(),
                cancel: super::Cancel::default(),
                deadline: None,
                attempt: 1,
                progress: None,
            };
            let who = Who { namespace: self.core.namespace(), client_id: client_id.into() };
            return self.presence.call(&self.core, who, call);
        }
        let timeout = deadline.saturating_duration_since(std::time::Instant::now());
        let options =
            DispatchOptions { timeout, target: CallTarget::Server, ..DispatchOptions::default() };
        let action = format!("sync.{operation}");
        let (capability, options) = ("sync", &options);
        let route = Route { id: &self.call_id, action: &action, capability, operation, options };
        remote::call(&self.core, route, payload, 1, deadline).await.0
    }
}

fn ready(outcome: Outcome) -> BoxFuture<'static, Outcome> {
    Box::pin(std::future::ready(outcome))
}

/// The channel a payload names.
fn channel_of(fields: &mut Fields) -> Result<String, Failure> {
    let channel = fields.text("channel")?;
    check_channel(&channel)?;
    Ok(channel)
}

fn check_channel(channel: &str) -> Result<(), Failure> {
    text_of("channel", channel, MAX_NAME)?;
    if channel.split('.').any(|level| level == "*" || level == ">") {
        let sentence =
            format!("channel is {channel:?}; it is one channel: wildcards have no meaning here");
        return Err(Failure::field("channel", sentence));
    }
    Ok(())
}

/// That a name is one, and not too long.
fn text_of(field: &str, text: &str, limit: usize) -> Result<(), Failure> {
    if text.is_empty() {
        return Err(Failure::field(field, format!("{field} is empty")));
    }
    if text.len() > limit {
        return Err(too_large(field, text.len(), limit));
    }
    Ok(())
}

fn too_large(field: &str, length: usize, limit: usize) -> Failure {
    let sentence = format!("{field} has {length} bytes; the limit is {limit}");
    Failure { field: Some(field.to_owned()), ..Failure::new(ErrorKind::TooLarge, sentence) }
}
