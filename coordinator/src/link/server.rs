//! The gRPC end of the link: reads a `Hello`, then pumps the session both ways until either side ends.
//!
//! Bounded both ways: the outgoing channel holds a few messages, and an agent that does not read for a while is cut.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::Stream;
use runtime::clock::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::hub::{Hub, Standing};
use super::message::{FromAgent, ToAgent};
use super::session::{Session, SessionEnd};
use super::wire::{self, AgentLink, AgentLinkServer, WireFrom, WireTo};
use crate::config::Limits;
use crate::who::{Caller, Guard};
use crate::{codes, metrics};

/// Messages under way to one agent.
const OUTGOING_MAX: usize = 32;
/// An agent that does not take a message for this long is cut; it dials again and is told everything anew.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// A stream whose first message does not come within this is cut.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// An agent waits this long before it asks the next coordinator, in milliseconds, while none is known to drive.
const NOBODY_LEADS_MS: u64 = 500;
/// The longest message either way: a report over thousands of tables stays well below.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// The service, to be added to a tonic server.
pub struct LinkService {
    hub: Hub,
    guard: Guard,
    clock: Clock,
    /// One for every agent that may be attached at once.
    places: Arc<Semaphore>,
    full: AtomicBool,
}

impl LinkService {
    /// The service of this hub, ready for a router, for as many agents as a configuration without limits lets in.
    pub fn server(hub: Hub, guard: Guard) -> AgentLinkServer<LinkService> {
        LinkService::server_for(hub, guard, Limits::default().agents_max)
    }

    /// The same for so many agents at once.
    pub fn server_for(hub: Hub, guard: Guard, agents_max: usize) -> AgentLinkServer<LinkService> {
        let clock = hub.options().clock.clone();
        let places = Arc::new(Semaphore::new(agents_max));
        AgentLinkServer::new(LinkService { hub, guard, clock, places, full: AtomicBool::new(false) })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// A place, kept until the stream ends; who finds none is turned away by name.
    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            metrics::refused("full");
            let code = codes::TOO_MANY_AGENTS;
            // Those who are turned away dial on; it is news once.
            if !self.full.swap(true, Ordering::Relaxed) {
                tracing::warn!(code = %code, "no more agents are let in: limits.agents_max is reached");
            }
            return Err(Status::resource_exhausted(format!("{code}: as many agents are attached as may be")));
        };
        self.full.store(false, Ordering::Relaxed);
        Ok(place)
    }

    async fn greet(&self, caller: &Caller, stream: &mut Streaming<WireFrom>) -> Result<Session, Status> {
        let first = self.clock.timeout(HELLO_WITHIN, stream.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("the stream ended before a Hello"))?;
        let hello = wire::hello(first).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.guard.attach(caller, &hello.agent, &hello.cluster)?;
        self.guard.speaks(&hello.agent, &hello.cluster, hello.protocol)?;
        tracing::info!(agent = %hello.agent, cluster = %hello.cluster, version = hello.version, "agent attached");
        Ok(self.hub.attach(hello))
    }
}

#[tonic::async_trait]
impl AgentLink for LinkService {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<WireTo, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<WireFrom>>) -> Result<Response<Self::AttachStream>, Status> {
        let caller = self.guard.agent(&request)?;
        let mut stream = request.into_inner();
        let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
        if let Standing::Follows { leader } = self.hub.standing() {
            // The stream ends after it, because nobody keeps the sender.
            outgoing.try_send(Ok(elsewhere(leader)?)).map_err(|error| Status::internal(error.to_string()))?;
            return Ok(Response::new(Box::pin(ReceiverStream::new(messages))));
        }
        let place = self.place()?;
        let session = self.greet(&caller, &mut stream).await?;
        let (clock, guard) = (self.clock.clone(), self.guard.clone());
        // Ends with the stream: when the agent goes, the session is replaced, or the server drops the response.
        tokio::spawn(async move {
            let (agent, _place) = (session.agent().clone(), place);
            let why = tokio::select! {
                why = serve(session, stream, outgoing, clock) => why,
                // It dials again at once, with the certificate that it has by then.
                why = guard.over(&caller) => why,
            };
            tracing::info!(%agent, why, "agent detached");
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

/// What an agent is told by a coordinator that does not drive.
fn elsewhere(leader: Option<String>) -> Result<WireTo, Status> {
    let after_ms = if leader.is_some() { 20 } else { NOBODY_LEADS_MS };
    wire::to_agent(ToAgent::Goodbye { address: leader.unwrap_or_default(), after_ms })
        .map_err(|error| Status::internal(error.to_string()))
}

/// Pumps one session until it ends; says why it did.
async fn serve(
    mut session: Session,
    stream: Streaming<WireFrom>,
    outgoing: mpsc::Sender<Result<WireTo, Status>>,
    clock: Clock,
) -> String {
    let ear = session.ear();
    let speak = async {
        while let Some(message) = session.next().await {
            let message = match wire::to_agent(message) {
                Ok(message) => message,
                Err(error) => return format!("a message could not be written: {error}"),
            };
            match clock.timeout(STUCK_AFTER, outgoing.send(Ok(message))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return "the stream is closed".to_owned(),
                Err(_) => return "the agent does not read".to_owned(),
            }
        }
        "the session is over".to_owned()
    };
    tokio::select! {
        why = speak => why,
        why = listen(stream, ear) => why,
        () = outgoing.closed() => "the stream is closed".to_owned(),
    }
}

async fn listen(mut stream: Streaming<WireFrom>, ear: impl Fn(FromAgent) -> Result<(), SessionEnd>) -> String {
    loop {
        match stream.message().await {
            Ok(Some(message)) => match wire::from_agent(message) {
                Ok(message) => {
                    if let Err(end) = ear(message) {
                        return end.to_string();
                    }
                }
                Err(error) => tracing::warn!(%error, "a message of an agent was left out"),
            },
            Ok(None) => return "the agent ended the stream".to_owned(),
            Err(status) => return format!("the stream broke: {}", status.message()),
        }
    }
}
