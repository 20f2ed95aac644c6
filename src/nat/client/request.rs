//! What a Binding request asks for, and its bytes.

use crate::protocol::stun::{AttributeType, Class, Method, TransactionId, WriteError, Writer};

/// Bit of CHANGE-REQUEST: answer from the other address (RFC 5780 section 7.2).
const CHANGE_IP: u8 = 0x04;
/// Bit of CHANGE-REQUEST: answer from the other port.
const CHANGE_PORT: u8 = 0x02;

/// What a Binding request asks for beyond the mapped address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ask {
    /// Nothing: 20 bytes.
    Mapped,
    /// CHANGE-REQUEST. With neither flag the answer comes from where the request went, which shows that the server and
    /// the path let the attribute pass.
    Change {
        /// Answer from the other address.
        ip: bool,
        /// Answer from the other port.
        port: bool,
    },
    /// RESPONSE-PORT: the answer goes to this port of the mapped address (RFC 5780 section 7.5).
    AnswerTo(u16),
    /// PADDING up to this many bytes of UDP payload (RFC 5780 section 7.6), at least 28.
    Padded(u16),
    /// A Binding indication: traffic without an answer.
    Indication,
}

impl Ask {
    /// Whether the answer comes from elsewhere than where the request went.
    #[must_use]
    pub const fn moves_source(self) -> bool {
        matches!(self, Self::Change { ip, port } if ip || port)
    }

    /// The request under this transaction ID.
    #[must_use]
    pub fn encode(self, transaction: TransactionId) -> Vec<u8> {
        let room = match self {
            Self::Padded(length) => usize::from(length).saturating_add(8),
            _ => 64,
        };
        let mut buffer = vec![0; room];
        let length = self.write(&mut buffer, transaction).unwrap_or(0);
        buffer.truncate(length);
        buffer
    }

    fn write(self, buffer: &mut [u8], transaction: TransactionId) -> Result<usize, WriteError> {
        let class = if self == Self::Indication { Class::Indication } else { Class::Request };
        let mut writer = Writer::new(buffer, class, Method::BINDING, transaction)?;
        match self {
            Self::Mapped | Self::Indication => {}
            Self::Change { ip, port } => {
                let flags = if ip { CHANGE_IP } else { 0 } | if port { CHANGE_PORT } else { 0 };
                writer.attribute(AttributeType::CHANGE_REQUEST, &[0, 0, 0, flags])?;
            }
            Self::AnswerTo(port) => {
                writer.attribute(AttributeType::RESPONSE_PORT, &port.to_be_bytes())?;
            }
            Self::Padded(length) => {
                let padding = usize::from(length).saturating_sub(24) & !3;
                writer.attribute(AttributeType::PADDING, &vec![0; padding])?;
            }
        }
        Ok(writer.finish())
    }
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mapped => f.write_str("Binding request"),
            Self::Change { ip: true, port: true } => f.write_str("Binding request, answer from other address and port"),
            Self::Change { ip: true, port: false } => f.write_str("Binding request, answer from other address"),
            Self::Change { ip: false, port: true } => f.write_str("Binding request, answer from other port"),
            Self::Change { ip: false, port: false } => f.write_str("Binding request, change nothing"),
            Self::AnswerTo(port) => write!(f, "Binding request, answer to port {port}"),
            Self::Padded(length) => write!(f, "Binding request padded to {length} bytes"),
            Self::Indication => f.write_str("Binding indication"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::stun::Packet;

    #[test]
    fn every_request_is_a_sound_message_of_the_length_it_names() {
        let id = TransactionId([7; 12]);
        let asks = [
            (Ask::Mapped, 20),
            (Ask::Change { ip: true, port: false }, 28),
            (Ask::AnswerTo(9), 28),
            (Ask::Padded(1472), 1472),
            (Ask::Indication, 20),
        ];
        for (ask, length) in asks {
            let bytes = ask.encode(id);
            assert_eq!(bytes.len(), length, "{ask}");
            assert_eq!(Packet::scan(&bytes).map(|packet| packet.transaction_id()), Ok(id), "{ask}");
        }
    }

    #[test]
    fn change_flags_are_those_of_the_specification() {
        let bytes = Ask::Change { ip: true, port: true }.encode(TransactionId([0; 12]));
        assert_eq!(bytes[20..], [0x00, 0x03, 0x00, 0x04, 0, 0, 0, 0x06]);
    }
}
