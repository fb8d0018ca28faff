//! `kps request`.

use std::time::Duration;

use clap::Args;
use kps_proto::{Error, ErrorKind, Result};

use super::{
    duration,
    inbox::Inbox,
    link::{self, Link},
    payload::{self, Format},
};
use crate::{AckRequest, Bridge, Event, FlushHint, PublishOptions, To};

/// Ask the subscribers of a topic and print the first successful answer.
#[derive(Args)]
pub(super) struct Request {
    /// The topic
    topic: String,
    /// JSON or text
    #[arg(default_value = "null", allow_negative_numbers = true)]
    data: String,
    /// How long to wait
    #[arg(long, value_parser = duration, default_value = "30s", value_name = "TIME")]
    timeout: Duration,
    /// Print the answer with who gave it and how fast, as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    link: Link,
}

impl Request {
    pub(super) fn run(self) -> Result<()> {
        let (bridge, mut inbox) = self.link.connect()?;
        let done = self.ask(&bridge, &mut inbox);
        link::close(&bridge);
        done
    }

    fn ask(&self, bridge: &Bridge, inbox: &mut Inbox) -> Result<()> {
        let asked = self.format.payload(&self.data);
        let options = PublishOptions {
            ack: Some(AckRequest { timeout: self.timeout, request: true, target: inbox.target }),
            target: inbox.target,
            ..PublishOptions::default()
        };
        let number = bridge.publish(
            To::Topic(&self.topic),
            asked.content_type,
            &asked.bytes,
            options,
            FlushHint::Now,
        )?;
        while let Some(event) = inbox.next(None) {
            match event {
                Event::RequestDone { ack, result } if ack == number => {
                    let row = result?;
                    let data = row.data.as_ref();
                    if self.json {
                        println!(
                            "{}",
                            serde_json::json!({
                                "client_id": &*row.client_id,
                                "data": data.map(payload::value),
                                "latency_ms": row.latency.as_secs_f64() * 1000.0,
                            })
                        );
                    } else {
                        println!("{}", data.map(payload::readable).unwrap_or_default());
                    }
                    return Ok(());
                }
                Event::PublishFailed { number: refused, error, .. } if refused == number => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Err(Error::new(ErrorKind::Cancelled, "interrupted before an answer came"))
    }
}
