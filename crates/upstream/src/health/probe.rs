//! One look at one server: connect, ask, judge.

use std::future::poll_fn;

use net::{Address, ConnectOptions, Datagrams, Stream};
use session::answer::{BODY_MAX, Fault, read_body, read_head, receive, send};
use session::tls::Outgoing;
use system::datagram::Batch;
use wire::checks::{Dialogue, Progress, Protocol};
use wire::http1::{Field, ResponseFraming, StatusLine, Version, response_framing, token};

use super::call::Call;
use super::rules::{Expect, Rules, Sight};

/// What is asked of a server.
pub enum Probe {
    /// A request, and what its answer must be.
    Http { request: Box<[u8]>, rules: Rules },
    /// An open connection; and what is sent and expected over it.
    Tcp { send: Box<[u8]>, expect: Option<Expect> },
    /// A packet, and what one of the answers must be. Without an expectation only a refusal is
    /// no good: silence is an answer too.
    Udp { send: Box<[u8]>, expect: Option<Expect> },
    /// A dialogue in a protocol.
    Protocol { protocol: Protocol, user: Option<Box<str>> },
    /// A call of gRPC's health service.
    Grpc(Call),
}

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the connection stands.
    pub connect_ms: u64,
    /// For all that follows.
    pub talk_ms: u64,
}

impl Probe {
    /// Looks at the server at `address`, over `kept` if there is a connection and it still works.
    /// The result is a connection for the next look, when the server leaves it open.
    ///
    /// # Errors
    /// Why the server is not well.
    pub async fn look(
        &self,
        address: &Address,
        patience: Patience,
        kept: Option<Stream>,
        secure: Option<&(Outgoing, Box<str>)>,
    ) -> Result<Option<Stream>, Fault> {
        if let Probe::Udp { send, expect } = self {
            return packets(address, patience, send, expect.as_ref()).await.map(|()| None);
        }
        if let Some(stream) = kept
            && let Ok(again) = self.talk(stream, patience).await
        {
            return Ok(again);
        }
        // A kept connection that fails proves nothing: the server may have closed it.
        let options = ConnectOptions::default();
        let connecting = net::connect(address, &options);
        let stream = match net::timeout(patience.connect_ms, connecting).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return Err(Fault::of("connecting", error.to_string())),
            None => return Err(Fault::of("connecting", "timed out")),
        };
        if let Some((outgoing, host)) = secure {
            let peer = address.to_string();
            let shaking = outgoing.secure_alone(&stream, host, &peer);
            match net::timeout(patience.connect_ms, shaking).await {
                Some(Ok(())) => {}
                Some(Err(insecure)) => {
                    return Err(Fault::of("SSL handshaking", insecure.to_string()));
                }
                None => return Err(Fault::of("SSL handshaking", "timed out")),
            }
        }
        self.talk(stream, patience).await
    }

    async fn talk(&self, stream: Stream, patience: Patience) -> Result<Option<Stream>, Fault> {
        let talk = async {
            match self {
                Probe::Http { request, rules } => ask(&stream, request, rules).await,
                Probe::Tcp { send, expect } | Probe::Udp { send, expect } => {
                    exchange(&stream, send, expect.as_ref()).await.map(|()| false)
                }
                Probe::Protocol { protocol, user } => {
                    converse(&stream, *protocol, user.as_deref()).await.map(|()| false)
                }
                Probe::Grpc(call) => call.make(&stream).await.map(|()| false),
            }
        };
        match net::timeout(patience.talk_ms, talk).await {
            Some(outcome) => Ok(outcome?.then_some(stream)),
            None => Err(Fault::of("waiting for an answer", "timed out")),
        }
    }
}

/// Sends a packet and looks at what comes back, for as long as patience lasts.
async fn packets(
    address: &Address,
    patience: Patience,
    bytes: &[u8],
    expect: Option<&Expect>,
) -> Result<(), Fault> {
    let socket = Datagrams::connect(address, &ConnectOptions::default());
    let socket = socket.map_err(|error| Fault::of("connecting", error.to_string()))?;
    let sent = poll_fn(|cx| socket.poll_send(cx, bytes)).await;
    sent.map_err(|error| Fault::of("sending", session::log::os_text(&error)))?;
    let mut batch = Batch::default();
    let answered = async {
        loop {
            let received = poll_fn(|cx| socket.poll_receive(cx, &mut batch, 1)).await;
            received.map_err(|error| Fault::of("receiving", session::log::os_text(&error)))?;
            let Some(expect) = expect else { return Ok(()) };
            if batch.packets().any(|packet| expect.look(packet.bytes) == Sight::Met) {
                return Ok(());
            }
        }
    };
    match net::timeout(patience.talk_ms, answered).await {
        Some(outcome) => outcome,
        None if expect.is_none() => Ok(()),
        None => Err(Fault::of("waiting for an answer", "timed out")),
    }
}

async fn exchange(stream: &Stream, bytes: &[u8], expect: Option<&Expect>) -> Result<(), Fault> {
    if !bytes.is_empty() {
        send(stream, bytes).await?;
    }
    let Some(expect) = expect else { return Ok(()) };
    let mut input = Vec::new();
    loop {
        let open = receive(stream, &mut input).await?;
        match expect.look(&input) {
            Sight::Met => return Ok(()),
            Sight::NotYet if open && input.len() < BODY_MAX => {}
            _ => return Err(Fault { doing: "checking what it says", reason: None }),
        }
    }
}

async fn converse(stream: &Stream, protocol: Protocol, user: Option<&str>) -> Result<(), Fault> {
    let mut dialogue = Dialogue::new(protocol, user);
    let mut random = [0; 64];
    for part in random.chunks_mut(8) {
        part.copy_from_slice(&session::random::u64().to_ne_bytes());
    }
    let first = dialogue.begin(&random);
    if !first.is_empty() {
        send(stream, &first).await?;
    }
    let mut input = Vec::new();
    loop {
        input.clear();
        receive(stream, &mut input).await?;
        match dialogue.receive(&input) {
            Progress::More => {}
            Progress::Send(bytes) => send(stream, &bytes).await?,
            Progress::Passed(farewell) => {
                // The verdict stands whether or not it hears the farewell.
                let _ = stream.write_all(&farewell).await;
                return Ok(());
            }
            Progress::Failed(reason) => return Err(Fault::of("talking to it", reason)),
        }
    }
}

/// Sends a request and judges the answer; true when the connection can be used again.
async fn ask(stream: &Stream, request: &[u8], rules: &Rules) -> Result<bool, Fault> {
    send(stream, request).await?;
    let mut input = Vec::new();
    let mut fields = Vec::new();
    let (length, line) = read_head(stream, &mut input, &mut fields).await?;
    let head = &input[..length];
    if let Some(doing) = rules.judge_head(head, line.status, &fields) {
        return Err(Fault { doing, reason: Some(format!("status {}", line.status)) });
    }
    let framing = response_framing(line.status, false, false, head, &fields)
        .map_err(|_| Fault::of("checking HTTP header", "invalid framing"))?;
    let keeps = keeps_open(&line, head, &fields);
    let rest = input.split_off(length);
    let (body, whole) = read_body(stream, rest, framing).await?;
    if let Some(doing) = rules.judge_body(&body) {
        return Err(Fault { doing, reason: None });
    }
    Ok(whole && keeps && framing != ResponseFraming::UntilClose)
}

fn keeps_open(line: &StatusLine, head: &[u8], fields: &[Field]) -> bool {
    let told = |word: &str| {
        let mut named = fields.iter().filter(|f| f.known == wire::http1::Known::Connection);
        named.any(|field| token::has_token(field.value.of(head), word))
    };
    line.version == Version::HTTP_11 && !told("close")
}
