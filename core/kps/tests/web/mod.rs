//! HTTP as a socket shows it: requests on one connection, and a reader of server-sent events.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use kps::Server;
use serde_json::Value;

/// Longer than anything that works takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub(crate) struct Web {
    pub(crate) stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Web {
    pub(crate) fn to(server: &Server) -> Web {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Web { stream, reader }
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    /// Posts JSON.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.as_bytes())
    }

    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.ask(method, path, headers, body);
        self.answer()
    }

    fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if method != "GET" {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes()).unwrap();
        // Who has refused the head may not want the rest.
        let _ = self.stream.write_all(body);
    }

    /// The next answer, whole.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let length = answer.header("content-length").map(|length| length.parse::<usize>().unwrap());
        answer.body = vec![0; length.unwrap_or(0)];
        self.reader.read_exact(&mut answer.body).unwrap();
        answer
    }

    fn head(&mut self) -> Answer {
        let mut answer = Answer::default();
        let first = self.line();
        answer.status = first.split(' ').nth(1).expect(&first).parse().unwrap();
        loop {
            let line = self.line();
            if line.is_empty() {
                return answer;
            }
            let (name, value) = line.split_once(':').unwrap();
            answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end_matches(['\r', '\n']).to_owned()
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(its, _)| its == name).map(|(_, value)| &**value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a refusal with this status.
    pub(crate) fn fault(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        let error = &self.json()["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        error["code"].as_str().unwrap().to_owned()
    }
}

/// A stream of events.
pub(crate) struct Events {
    pub(crate) head: Answer,
    web: Web,
    /// Lines of chunks that were read.
    text: Vec<u8>,
    ended: bool,
    last_id: String,
    pub(crate) retry: Option<u64>,
    comments: usize,
}

/// What a reader makes of one.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

impl Events {
    pub(crate) fn open(server: &Server, path: &str, headers: &[(&str, &str)]) -> Events {
        let mut web = Web::to(server);
        web.ask("GET", path, headers, b"");
        let head = web.head();
        if head.status != 200 {
            let mut body = Vec::new();
            let _ = web.reader.read_to_end(&mut body);
            panic!("{head:?} {}", String::from_utf8_lossy(&body));
        }
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        Events {
            head,
            web,
            text: Vec::new(),
            ended: false,
            last_id: String::new(),
            retry: None,
            comments: 0,
        }
    }

    /// The next event, as a browser dispatches it.
    pub(crate) fn next(&mut self) -> Event {
        self.try_next().expect("the stream goes on")
    }

    /// Whether the stream ends without another event.
    pub(crate) fn is_over(&mut self) -> bool {
        self.try_next().is_none()
    }

    /// The id that the stream begins with.
    pub(crate) fn id(&mut self) -> String {
        while self.last_id.is_empty() {
            self.line_into(&mut Event::default(), &mut Vec::new()).expect("there is an id");
        }
        self.last_id.clone()
    }

    pub(crate) fn until_comment(&mut self) {
        let before = self.comments;
        while self.comments == before {
            self.line_into(&mut Event::default(), &mut Vec::new()).expect("the stream goes on");
        }
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.web.stream
    }

    fn try_next(&mut self) -> Option<Event> {
        let (mut event, mut data) = (Event::default(), Vec::new());
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Signs of life come all the time.
            assert!(Instant::now() < deadline, "nothing is told; the last was {}", self.last_id);
            let is_blank = self.line_into(&mut event, &mut data)?;
            if is_blank && !data.is_empty() {
                event.id.clone_from(&self.last_id);
                event.data = data.join("\n");
                return Some(event);
            }
            if is_blank {
                event = Event::default();
            }
        }
    }

    /// Takes a line; true if it is blank, `None` at the end.
    fn line_into(&mut self, event: &mut Event, data: &mut Vec<String>) -> Option<bool> {
        let line = self.line()?;
        if line.is_empty() {
            return Some(true);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "" => self.comments += 1,
            "event" => event.name = value,
            "data" => data.push(value),
            "id" => self.last_id = value,
            "retry" => self.retry = value.parse().ok(),
            other => panic!("a field {other:?}"),
        }
        Some(false)
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap().trim_end_matches('\n').to_owned());
            }
            if self.ended {
                return None;
            }
            let length = usize::from_str_radix(&self.web.line(), 16).unwrap_or(0);
            let mut chunk = vec![0; length];
            self.web.reader.read_exact(&mut chunk).unwrap();
            self.web.line();
            self.text.append(&mut chunk);
            self.ended = length == 0;
        }
    }
}
