//! What a process knows that no file has, as messages for its successor. A message that is missing,
//! or of a version that is not understood, leaves the successor with what a start would give it.

use std::time::Duration;

use secrecy::zeroize::Zeroizing;

use super::frame::{Frame, FrameKind};
use crate::auth::verify::{KnownFailures, KnownLogins, KnownPassword, RecordFields};
use crate::tls::ticket_keys::{TicketSecret, TicketSecrets};

/// The state of a predecessor, as far as it is understood.
#[derive(Default)]
pub(crate) struct PassedState {
    pub(crate) tickets: Option<TicketSecrets>,
    pub(crate) logins: Option<KnownLogins>,
}

/// The messages of a process.
pub(super) fn to_frames(tickets: &TicketSecrets, logins: &KnownLogins) -> [Frame; 3] {
    let KnownLogins {
        secret,
        passwords,
        failures,
    } = logins;
    [
        Frame::new(FrameKind::TicketKeys, encode_tickets(tickets)),
        Frame::new(FrameKind::Passwords, encode_passwords(secret, passwords)),
        Frame::new(FrameKind::Failures, encode_failures(failures)),
    ]
}

impl PassedState {
    /// Adds what a message says. The failures, which have the secret of the passwords, come after
    /// them.
    pub(super) fn add(&mut self, frame: &Frame) {
        let mut fields = PayloadReader(&frame.payload);
        match frame.kind {
            Some(FrameKind::TicketKeys) => self.tickets = decode_tickets(&mut fields),
            Some(FrameKind::Passwords) => self.logins = decode_passwords(&mut fields),
            Some(FrameKind::Failures) => {
                if let (Some(logins), Some(failures)) =
                    (&mut self.logins, decode_failures(&mut fields))
                {
                    logins.failures = failures;
                }
            }
            _ => {}
        }
    }
}

fn encode_tickets(tickets: &TicketSecrets) -> Vec<u8> {
    let TicketSecrets {
        current,
        previous,
        left,
    } = tickets;
    // As large as it becomes: a smaller one would leave copies of the keys behind.
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(&millis(*left).to_be_bytes());
    for TicketSecret { id, secret } in std::iter::once(current).chain(previous) {
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(&**secret);
    }
    bytes
}

fn decode_tickets(fields: &mut PayloadReader<'_>) -> Option<TicketSecrets> {
    Some(TicketSecrets {
        left: fields.duration()?,
        current: fields.ticket_key()?,
        previous: fields.ticket_key(),
    })
}

fn encode_passwords(secret: &[u8; 32], passwords: &[KnownPassword]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(secret.len() + passwords.len() * 40);
    bytes.extend_from_slice(secret);
    for KnownPassword { tag, left } in passwords {
        bytes.extend_from_slice(tag);
        bytes.extend_from_slice(&millis(*left).to_be_bytes());
    }
    bytes
}

fn decode_passwords(fields: &mut PayloadReader<'_>) -> Option<KnownLogins> {
    let secret = Zeroizing::new(fields.take()?);
    let password = || {
        Some(KnownPassword {
            tag: fields.take()?,
            left: fields.duration()?,
        })
    };
    Some(KnownLogins {
        secret,
        passwords: std::iter::from_fn(password).collect(),
        failures: KnownFailures::default(),
    })
}

fn encode_failures(failures: &KnownFailures) -> Vec<u8> {
    let KnownFailures { clock, tables } = failures;
    let records: usize = tables.iter().map(Vec::len).sum();
    let mut bytes = Vec::with_capacity(8 + tables.len() * 8 + records * size_of::<RecordFields>());
    bytes.extend_from_slice(&millis(*clock).to_be_bytes());
    for table in tables {
        bytes.extend_from_slice(&(table.len() as u64).to_be_bytes());
        for field in table.iter().flatten() {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
    }
    bytes
}

fn decode_failures(fields: &mut PayloadReader<'_>) -> Option<KnownFailures> {
    let mut failures = KnownFailures {
        clock: fields.duration()?,
        ..KnownFailures::default()
    };
    for table in &mut failures.tables {
        for _ in 0..fields.number()? {
            table.push(fields.record()?);
        }
    }
    Some(failures)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The fields of a payload that are not read yet.
struct PayloadReader<'p>(&'p [u8]);

impl PayloadReader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn duration(&mut self) -> Option<Duration> {
        self.number().map(Duration::from_millis)
    }

    fn record(&mut self) -> Option<RecordFields> {
        let mut record = RecordFields::default();
        for field in &mut record {
            *field = self.number()?;
        }
        Some(record)
    }

    fn ticket_key(&mut self) -> Option<TicketSecret> {
        Some(TicketSecret {
            id: self.take()?,
            secret: Zeroizing::new(self.take()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins() -> KnownLogins {
        let passwords = [(1, 60), (2, 3600)].map(|(byte, seconds)| KnownPassword {
            tag: [byte; 32],
            left: Duration::from_secs(seconds),
        });
        let record = |first: u64| [first, 2, 3, 4, 5, 6, 7];
        KnownLogins {
            secret: Zeroizing::new([7; 32]),
            passwords: passwords.into(),
            failures: KnownFailures {
                clock: Duration::from_secs(5),
                tables: [vec![record(1), record(8)], vec![], vec![record(9)], vec![]],
            },
        }
    }

    fn tickets(previous: bool) -> TicketSecrets {
        let key = |byte: u8| TicketSecret {
            id: [byte; 16],
            secret: Zeroizing::new([byte + 1; 32]),
        };
        TicketSecrets {
            current: key(1),
            previous: previous.then(|| key(3)),
            left: Duration::from_secs(7),
        }
    }

    #[test]
    fn a_successor_reads_what_its_predecessor_writes() {
        for previous in [false, true] {
            let (tickets, logins) = (tickets(previous), logins());
            let mut state = PassedState::default();
            for frame in to_frames(&tickets, &logins) {
                state.add(&frame);
            }
            let read = state.tickets.expect("read");
            assert_eq!(read.left, tickets.left);
            assert_eq!(read.current.id, tickets.current.id);
            assert_eq!(read.current.secret, tickets.current.secret);
            let ids = |keys: &TicketSecrets| keys.previous.as_ref().map(|key| key.id);
            assert_eq!(ids(&read), ids(&tickets));
            let read = state.logins.expect("read");
            assert_eq!(read.secret, logins.secret);
            assert_eq!(read.passwords, logins.passwords);
            assert_eq!(read.failures.clock, logins.failures.clock);
            assert_eq!(read.failures.tables, logins.failures.tables);
        }
    }

    #[test]
    fn a_newer_or_shorter_message_is_read_as_far_as_it_is_understood() {
        let frames = to_frames(&tickets(true), &logins());
        for frame in frames {
            for bytes in 0..frame.payload.len() {
                let kind = frame.kind.expect("known");
                let shortened = Frame::new(kind, frame.payload[..bytes].to_vec());
                // It does not fail; what it lacks is as after a start.
                PassedState::default().add(&shortened);
            }
        }
        let [mut keys, ..] = to_frames(&tickets(true), &logins());
        keys.payload.extend([9; 100]);
        let mut state = PassedState::default();
        state.add(&keys);
        assert!(state.tickets.is_some() && state.logins.is_none());
    }
}
