//! A command, and who asks for it.

use api::internalpb as pb;
use auth::AuthInfo;
use bytes::Bytes;
use prost::Message;

use super::codec;
use crate::{Command, DecodeError};

/// Who asks for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A client, as the member that was asked has found out; perhaps nobody.
    Client(AuthInfo),
    /// A member by itself: it may do everything.
    Member,
}

impl Default for Asker {
    /// Nobody.
    fn default() -> Self {
        Self::Client(AuthInfo::default())
    }
}

/// What is replicated: a command, and who asks for it. Whether it is granted is decided when it is
/// applied, by the users and roles of then.
///
/// A bare command is nobody's: with authentication on it is refused unless everybody may have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Who.
    pub asker: Asker,
    /// What.
    pub command: Command,
}

impl From<Command> for Request {
    fn from(command: Command) -> Self {
        let asker = Asker::default();
        Self { asker, command }
    }
}

impl Command {
    /// The command, and who asks for it.
    #[must_use]
    pub const fn asked_by(self, asker: Asker) -> Request {
        Request {
            asker,
            command: self,
        }
    }

    /// The command, as a member gives it by itself.
    #[must_use]
    pub const fn by_member(self) -> Request {
        self.asked_by(Asker::Member)
    }
}

impl Request {
    /// The request's bytes in the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        Bytes::from(self.to_message().encode_to_vec())
    }

    /// How many bytes [`Request::encode`] returns, without making them.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.to_message().encoded_len()
    }

    /// The request that [`Request::encode`] wrote. Keys and values are slices of `bytes`, and keep
    /// all of it in memory.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut message =
            pb::Command::decode(bytes.clone()).map_err(|error| codec::bad(error.to_string()))?;
        let asker = asker_from(message.asker.take())?;
        let command = codec::command_from(message)?;
        Ok(Self { asker, command })
    }

    fn to_message(&self) -> pb::Command {
        pb::Command {
            asker: asker_to(&self.asker),
            ..codec::command_to_message(&self.command)
        }
    }
}

fn asker_to(asker: &Asker) -> Option<pb::Asker> {
    match asker {
        Asker::Client(client) => client.is_somebody().then(|| pb::Asker {
            user: client.user.clone(),
            auth_revision: client.revision,
            member: false,
        }),
        Asker::Member => Some(pb::Asker {
            member: true,
            ..pb::Asker::default()
        }),
    }
}

fn asker_from(asker: Option<pb::Asker>) -> Result<Asker, DecodeError> {
    let Some(asker) = asker else {
        return Ok(Asker::default());
    };
    let client = AuthInfo {
        user: asker.user,
        revision: asker.auth_revision,
    };
    match (asker.member, client.is_somebody()) {
        (true, true) => Err(codec::bad("a member that asks as a client")),
        (true, false) => Ok(Asker::Member),
        (false, _) => Ok(Asker::Client(client)),
    }
}
