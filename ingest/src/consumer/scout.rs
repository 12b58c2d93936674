//! Asks for watermarks on a thread and a client of its own: the question waits for a broker, and the
//! consumer's loop must not.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::native::Context;
use crate::error::Error;

/// How long one question may take; a dead broker's partitions hold up the others that long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Questions and answers waiting at most.
const WAITING: usize = 1024;

/// Whose watermarks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) generation: u64,
}

/// The low and high watermark, or why they can't be told.
pub(crate) type Answer = (Question, Result<(i64, i64), String>);

/// The thread. It ends after its current question once this is dropped.
#[derive(Debug)]
pub(crate) struct Scout {
    questions: SyncSender<Question>,
    answers: Receiver<Answer>,
}

impl Scout {
    pub(crate) fn start(client: BaseConsumer<Context>) -> Result<Self, Error> {
        let (questions, asked) = sync_channel::<Question>(WAITING);
        let (answering, answers) = sync_channel(WAITING);
        let work = move || {
            for question in asked {
                let found = client.fetch_watermarks(&question.topic, question.partition, TIMEOUT);
                let found = found.map_err(|error| error.to_string());
                if answering.send((question, found)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("kafka-watermarks".into()).spawn(work).map_err(Error::Thread)?;
        Ok(Self { questions, answers })
    }

    /// Whether the question was taken; if not, ask again later.
    pub(crate) fn ask(&self, question: Question) -> Result<bool, Error> {
        match self.questions.try_send(question) {
            Ok(()) => Ok(true),
            Err(TrySendError::Full(_)) => Ok(false),
            Err(TrySendError::Disconnected(_)) => Err(Error::Closed),
        }
    }

    /// An answer, if there is one.
    pub(crate) fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}
